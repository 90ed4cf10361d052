"""The module that is trained: bags of several batches are embedded at once, padded batches each for itself."""

import pytest
import torch

from hbtrain.modeling import Encoder
from hbtrain.modeling.embedding import EmbeddingModule, embed
from tests.unit.tiny_models import TEXTS, encoder_config


@pytest.mark.parametrize(("backbone", "calls"), [("static", 1), ("transformer", 3)])
def test_batches_give_the_vectors_and_the_gradient_that_each_gives_alone(backbone, calls):
    encoder = Encoder.build(encoder_config(backbone), lambda: TEXTS, 0)
    module = EmbeddingModule(encoder.model).eval()
    batches = [
        encoder.tokenize(TEXTS[:3], "query"), encoder.tokenize(TEXTS[2:3], "passage"), encoder.tokenize(TEXTS, "query"),
    ]  # fmt: skip
    counted = []
    hook = encoder.model.register_forward_hook(lambda *_: counted.append(1))
    together, scale = module(batches)
    hook.remove()
    assert len(counted) == calls
    assert scale is None

    def gradient(vectors):
        torch.manual_seed(1)
        sum((x * torch.randn_like(x)).sum() for x in vectors).backward()
        found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
        module.zero_grad()
        return found

    alone = [embed(encoder.model, batch) for batch in batches]
    for found, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(found, expected)
    found, expected = gradient(together), gradient(alone)
    assert found.keys() == expected.keys() != set()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])
