"""Encoding in batches of like length, and the digest that tells models apart."""

import numpy as np
import pytest
import torch

from hbtrain.modeling import Encoder
from hbtrain.modeling.features import ahead, windows, within_budget
from tests.unit.tiny_models import TEXTS, encoder_config, save_bert, save_labse


def test_windows_hold_all_texts_once_longest_first(monkeypatch):
    monkeypatch.setattr("hbtrain.modeling.features.WINDOW_TEXTS", 4)
    monkeypatch.setattr("hbtrain.modeling.features.WINDOW_CHARACTERS", 60)
    texts = ["x" * length for length in (3, 100, 0, 20, 5, 5, 25, 1, 2, 2)]
    found = list(windows(texts))
    assert found == [[1], [6, 3], [4, 5, 0, 8], [9, 7, 2]]
    assert list(windows([])) == []
    assert list(windows(["", ""])) == [[0, 1]]


@pytest.mark.parametrize(
    ("size", "budget", "expected"),
    [
        (10, 12, [[1], [3], [0, 5], [2, 4]]),
        (10, 1, [[1], [3], [0], [5], [2], [4]]),
        (2, 1000, [[1, 3], [0, 5], [2, 4]]),
        (10, 1000, [[1, 3, 0, 5, 2, 4]]),
    ],
)
def test_batches_keep_to_both_limits(size, budget, expected):
    tokens = torch.tensor([5, 40, 0, 9, 0, 5])
    assert [batch.tolist() for batch in within_budget(tokens, size, budget)] == expected


def test_results_come_with_their_items_and_errors_in_their_place():
    assert list(ahead(lambda x: x * x, [3, 1, 2])) == [(3, 9), (1, 1), (2, 4)]
    assert list(ahead(str, [])) == []
    results = ahead(lambda x: 1 / x, [1, 0, 2])
    assert next(results) == (1, 1.0)
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("backbone", ["static", "transformer"])
@pytest.mark.parametrize("limits", [{"batch_size": 2}, {"batch_tokens": 1}, {"batch_tokens": 40}])
def test_vectors_do_not_depend_on_the_limits_beyond_rounding(backbone, limits, monkeypatch):
    encoder = Encoder.build(encoder_config(backbone), lambda: TEXTS, 0)
    together = encoder.encode(TEXTS * 3, "passage")
    monkeypatch.setattr("hbtrain.modeling.features.WINDOW_TEXTS", 5)
    done = []
    cut = encoder.encode(TEXTS * 3, "passage", progress=done.append, **limits)
    np.testing.assert_allclose(cut, together, atol=1e-6)
    assert done[-1] == len(TEXTS) * 3
    assert len(done) > 5
    np.testing.assert_array_equal(cut, encoder.encode(TEXTS * 3, "passage", **limits))


def test_a_digest_tells_models_apart_and_does_not_depend_on_the_folder_or_on_use(tmp_path):
    first = Encoder.build(encoder_config("transformer"), lambda: TEXTS, 0)
    first.save(tmp_path / "a")
    first.save(tmp_path / "b")
    a, b = (Encoder.load(str(tmp_path / name), device="cpu") for name in "ab")
    before = a.digest()
    a.encode(TEXTS, "query")
    a.tokenize(TEXTS, "passage")
    assert before == a.digest() == b.digest()
    assert (a.origin.name_or_path, a.origin.trust_remote_code) == (str(tmp_path / "a"), False)
    digests = {before}
    other = Encoder.build(encoder_config("transformer"), lambda: TEXTS, 1)
    with torch.no_grad():
        next(iter(b.model.parameters())).view(-1)[5] += 1e-6
    halved = Encoder.load(str(tmp_path / "a"), device="cpu")
    halved.model.bfloat16()
    shorter = Encoder.load(str(tmp_path / "a"), device="cpu")
    shorter.model.max_seq_length = 9
    static = Encoder.build(encoder_config("static"), lambda: TEXTS, 0)
    for encoder in (other, b, halved, shorter, static):
        digests.add(encoder.digest())
    assert len(digests) == 6


def test_models_of_all_makers_have_digests(tmp_path):
    plain = Encoder.load(str(save_bert(tmp_path / "bert")), device="cpu")
    labse = Encoder.load(str(save_labse(tmp_path / "labse")), device="cpu")
    assert plain.digest() != labse.digest()
    assert plain.digest() == Encoder.load(str(tmp_path / "bert"), device="cpu").digest()
    assert Encoder.build(encoder_config("static"), lambda: TEXTS, 0).origin is None
