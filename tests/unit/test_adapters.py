from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from hbtrain.errors import ModelError
from hbtrain.modeling import EmbeddingModule, Encoder
from hbtrain.modeling.adapters import add_lora, has_lora, merged
from tests.unit.tiny_models import TEXTS, encoder_config, save_decoder, save_labse

LORA = {"rank": 2, "alpha": 4}


def test_only_adapters_train_and_they_change_nothing_at_first(tmp_path: Path) -> None:
    path = save_labse(tmp_path)
    encoder = Encoder.build(encoder_config(str(path), lora=LORA), lambda: [], 0)
    without = Encoder.build(encoder_config(str(path)), lambda: [], 0)
    assert has_lora(encoder.model)
    assert not has_lora(without.model)
    trained = [name for name, p in encoder.model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    np.testing.assert_array_equal(encoder.encode(TEXTS, "query"), without.encode(TEXTS, "query"))


@pytest.mark.parametrize("save_backbone", [save_labse, save_decoder])
def test_what_is_saved_is_a_plain_model_with_the_same_embeddings(tmp_path: Path, save_backbone: object) -> None:
    path = save_backbone(tmp_path / "backbone")  # type: ignore[operator]
    config = encoder_config(str(path), lora=LORA, gradient_checkpointing=True)
    encoder = Encoder.build(config, lambda: [], 0)
    untrained = encoder.encode(TEXTS, "query")
    module = EmbeddingModule(encoder.model).train()
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        (q_BD, p_BD), _ = module([encoder.tokenize(TEXTS, "query"), encoder.tokenize(TEXTS, "passage")])
        loss = torch.nn.functional.cross_entropy(q_BD @ p_BD.T / 0.05, torch.arange(len(TEXTS)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trained = encoder.encode(TEXTS, "query")
    assert np.abs(trained - untrained).max() > 1e-2
    encoder.save(tmp_path / "saved")
    assert not list((tmp_path / "saved").rglob("adapter*"))
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS, prompt_name="query")
    np.testing.assert_allclose(trained, theirs, atol=1e-5)
    # The encoder itself goes on training its adapters.
    assert has_lora(encoder.model)
    np.testing.assert_array_equal(encoder.encode(TEXTS, "query"), trained)


def test_a_seed_decides_the_adapters_and_global_randomness_is_left_alone(tmp_path: Path) -> None:
    config = encoder_config(str(save_labse(tmp_path)), lora=LORA)
    before = torch.get_rng_state()
    states = [Encoder.build(config, lambda: [], seed).model.state_dict() for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    lora_A = next(name for name in states[0] if "lora_A" in name)
    assert torch.equal(states[0][lora_A], states[1][lora_A])
    assert not torch.equal(states[0][lora_A], states[2][lora_A])


def test_a_model_without_adapters_is_merged_into_itself() -> None:
    model = Encoder.build(encoder_config("static"), lambda: TEXTS, 0).model
    assert merged(model) is model


def test_backbones_that_cannot_have_adapters(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="StaticEmbedding"):
        Encoder.build(encoder_config("static", lora=LORA), lambda: TEXTS, 0)
    config = encoder_config(str(save_labse(tmp_path)), lora={**LORA, "target_modules": ("no_such_layer",)})
    with pytest.raises(ModelError, match="no_such_layer"):
        Encoder.build(config, lambda: [], 0)


def test_chosen_layers_alone_are_adapted() -> None:
    encoder = Encoder.build(encoder_config("transformer"), lambda: TEXTS, 0)
    config = encoder_config("transformer", lora={**LORA, "target_modules": ["q_lin"]}).lora
    assert config is not None
    add_lora(encoder.model, config, 0)
    trained = [name for name, p in encoder.model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 2  # two layers, A and B
    assert all("q_lin" in name for name in trained)
