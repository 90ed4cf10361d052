"""A decoder as large ones are trained: ZeRO-3, adapters, gradient checkpointing, bf16; on two gloo ranks."""

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from hbtrain.modeling.encoder import Encoder
from hbtrain.training.verify import compare, plain_gradient
from tests.distributed.backbones import LORA, configure, on_two_ranks, weights
from tests.unit.tiny_models import TEXTS, save_decoder


def test_a_decoder_trains_with_everything_on(tmp_path):
    config = configure(
        tmp_path,
        save_decoder(tmp_path / "decoder"),
        3,
        **{
            "encoder.lora": LORA,
            "encoder.gradient_checkpointing": True,
            "encoder.precision": "bf16",
            "training.steps": 8,
            "training.log_every": 1,
        },
    )
    plain = plain_gradient(config, tmp_path / "initial", 0, torch.device("cpu"))
    assert plain
    for got, losses in on_two_ranks(config, tmp_path):
        assert set(got) == set(plain)
        agreement = compare({n: torch.from_numpy(g) for n, g in got.items()}, plain, "bf16")
        assert agreement.holds, agreement
        assert not losses or min(losses[-3:]) < losses[0]
    before, after = weights(tmp_path / "initial"), weights(tmp_path / "model")
    assert before.keys() == after.keys()
    for name, weight in before.items():
        adapted = "proj" in name and "weight" in name
        assert torch.equal(after[name], weight) is not adapted, f"{name}: the backbone is not rounded to bf16"
    model = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert model.dtype == torch.float32
    assert model[1].pooling_mode == "lasttoken"
    ours = Encoder.load(str(tmp_path / "model"), device="cpu").encode(TEXTS, "query")
    np.testing.assert_allclose(ours, model.encode(TEXTS, prompt_name="query"), atol=1e-5)
    untrained = SentenceTransformer(str(tmp_path / "initial"), device="cpu").encode(TEXTS, prompt_name="query")
    assert np.abs(ours - untrained).max() > 1e-2
