"""The module that is trained: bags of several batches are embedded at once, padded batches each for itself."""

import pytest
import torch

from hbtrain.modeling import Encoder
from hbtrain.modeling.embedding import EmbeddingModule, embed
from hbtrain.training.verify import compare
from tests.unit.tiny_models import TEXTS, encoder_config, save_bert


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


def gradient_in(module, batches):
    """{parameter: gradient} of a sum in which every text counts a little for the same."""
    for vectors in (module(batch)[0][0] for batch in batches):
        (vectors[:, :8] * 0.01).sum().backward()
    found = {name: p.grad.float().flatten() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return found


@pytest.mark.parametrize("kind", ["static", "bert"])
def test_in_bf16_on_a_cpu_the_tokens_that_share_a_row_all_count(tmp_path, kind):
    """Summed in bf16, the gradient of BERT's token types is a fraction of what it is; and with chunks another one."""
    backbone = str(save_bert(tmp_path / "bert")) if kind == "bert" else "static"
    encoder = Encoder.build(encoder_config(backbone), lambda: TEXTS, 0)
    texts = ["hello world hello world"] * 1000
    module = EmbeddingModule(encoder.model).eval().bfloat16()
    whole = [[encoder.tokenize(texts, "query")]]
    chunks = [[encoder.tokenize(texts[start : start + 100], "query")] for start in range(0, 1000, 100)]
    in_bf16, in_chunks = gradient_in(module, whole), gradient_in(module, chunks)
    exact = gradient_in(module.float(), whole)
    assert exact.keys() == in_bf16.keys()
    tables = [name for name in exact if "embedding" in name.lower() and "norm" not in name.lower()]
    assert len(tables) == {"static": 1, "bert": 3}[kind]
    for name in tables:
        assert in_bf16[name].norm() / exact[name].norm() == pytest.approx(1, abs=0.03), name
    assert compare(in_chunks, in_bf16, "bf16").holds, "as `hbtrain verify` compares them"
    doubled = {name: 2 * gradient for name, gradient in in_chunks.items()}
    assert not compare(doubled, in_bf16, "bf16").holds
