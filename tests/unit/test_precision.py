"""The precision in which evaluations embed texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from hbtrain.modeling.devices import compute_in, evaluation_precision
from hbtrain.modeling.encoder import Encoder
from tests.unit.tiny_models import TEXTS, encoder_config, save_bert, save_labse


def test_bf16_rounds_the_transformer_and_pools_in_float32(tmp_path: Path) -> None:
    folder = str(save_labse(tmp_path / "labse"))
    exact, rounded = Encoder.load(folder), Encoder.load(folder, precision="bf16")
    assert (exact.precision, rounded.precision) == ("float32", "bfloat16, float32")  # its dense layer stays
    assert exact.digest() != rounded.digest()  # embeddings of one are never taken for those of the other
    assert rounded.origin is not None
    assert rounded.origin.precision == "bf16"  # actors load it so, too
    vectors = [encoder.encode(TEXTS, "query") for encoder in (exact, rounded)]
    assert not np.array_equal(*vectors)
    np.testing.assert_allclose(*vectors, atol=0.02)


def test_means_of_tokens_are_taken_in_float32(tmp_path: Path) -> None:
    model = SentenceTransformer(str(save_bert(tmp_path / "bert")), device="cpu")
    compute_in(model, "bf16")
    features = model.preprocess(["two words"])
    with torch.no_grad():
        found = model(dict(features))
    tokens_TD = model[0].auto_model(**features).last_hidden_state[0]
    assert tokens_TD.dtype == torch.bfloat16
    assert found["sentence_embedding"].dtype == torch.float32
    torch.testing.assert_close(found["sentence_embedding"][0], tokens_TD.float().mean(0), rtol=1e-6, atol=1e-7)


def test_a_model_in_half_precision_is_widened(tmp_path: Path) -> None:
    folder = tmp_path / "half"
    SentenceTransformer(str(save_bert(tmp_path / "bert")), device="cpu").half().save(str(folder))
    as_saved, widened = Encoder.load(str(folder)), Encoder.load(str(folder), precision="fp32")
    assert (as_saved.precision, widened.precision) == ("float16", "float32")


def test_a_static_model_has_nothing_to_round(tmp_path: Path) -> None:
    Encoder.build(encoder_config("static"), lambda: TEXTS, 0).save(tmp_path / "static")
    exact, same = (Encoder.load(str(tmp_path / "static"), precision=precision) for precision in (None, "bf16"))
    assert same.precision == "float32"
    assert np.array_equal(exact.encode(TEXTS, "query"), same.encode(TEXTS, "query"))


@pytest.mark.parametrize(
    ("wanted", "device", "has_bf16", "used"),
    [
        (None, "cpu", True, None),
        (None, "cuda", True, "bf16"),
        (None, "cuda:1", False, None),
        ("fp32", "cuda", True, "fp32"),
        ("bf16", "cpu", False, "bf16"),
    ],
)
def test_gpus_that_have_bf16_use_it_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, wanted: object, device: str, has_bf16: bool, used: object
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert evaluation_precision(wanted, device) == used  # type: ignore[arg-type]


def test_results_say_in_which_precision_they_were_computed(hbtrain: Callable[..., object], tmp_path: Path) -> None:
    folder = str(save_labse(tmp_path / "labse"))
    found = {}
    for name, flags in (("exact", []), ("rounded", ["--precision", "bf16"])):
        hbtrain("evaluate", folder, "--benchmark", "demo", "--output", str(tmp_path / name), *flags)
        found[name] = [json.loads((tmp_path / name / file).read_text()) for file in ("about.json", "metrics.json")]
    (exact, scores), (rounded, rounded_scores) = found.values()
    assert exact["precision"] == "float32"
    assert rounded["precision"] == "bfloat16, float32"
    assert scores != rounded_scores
    assert scores["demo/multi/map"] == pytest.approx(rounded_scores["demo/multi/map"], abs=0.05)
