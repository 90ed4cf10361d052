"""Adapters on two gloo ranks, through DeepSpeed, against one plain process."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from hbtrain.modeling.encoder import Encoder
from hbtrain.training.verify import compare, plain_gradient
from tests.distributed.backbones import LORA, assert_same_training, configure, on_two_ranks, plainly_trained, weights
from tests.unit.tiny_models import TEXTS, save_labse


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_adapters_train_and_are_merged(tmp_path, stage):
    config = configure(tmp_path, save_labse(tmp_path / "labse"), stage, **{"encoder.lora": LORA})
    plain = plain_gradient(config, tmp_path / "initial", 0, torch.device("cpu"))
    assert plain
    assert all("lora_" in name for name in plain)
    for got, losses in on_two_ranks(config, tmp_path):
        assert set(got) >= set(plain)  # DeepSpeed gives what nothing depends on (BERT's pooler) a gradient of zero
        agreement = compare({n: torch.from_numpy(g) for n, g in got.items()}, plain, "fp32")
        assert agreement.holds, agreement
        assert np.isfinite(losses).all()
    assert not list((tmp_path / "model").rglob("adapter*"))
    before, after = weights(tmp_path / "initial"), weights(tmp_path / "model")
    assert sorted(before) == sorted(after)
    assert_same_training(after, plainly_trained(config, tmp_path))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # Adapters sit on every linear layer of the transformer: what they are merged into changes, by their rank and no
    # more, and nothing else does (biases, normalisation, embeddings, the dense layer on top).
    assert changed == {n for n in before if n.startswith("0.") and n.endswith("weight") and _is_linear(n)}
    for name in changed:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= LORA["rank"]
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(TEXTS, prompt_name="query")
    ours = Encoder.load(str(tmp_path / "model"), device="cpu").encode(TEXTS, "query")
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def _is_linear(name):
    return any(f".{kind}." in name for kind in ("dense", "query", "key", "value")) and "pooler" not in name
