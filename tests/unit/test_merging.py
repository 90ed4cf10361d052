"""Merging models: the formulas, the command, and what cannot be merged."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from hbtrain.errors import ConfigError
from hbtrain.modeling.card import ModelCard, trained_languages
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.merging import linear, merge_weights, merged_weights
from tests.unit.tiny_models import TEXTS, encoder_config, save_labse


class One(torch.nn.Module):
    """A model of one tensor and a whole number."""

    def __init__(self, *numbers, dtype=torch.float32):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(numbers, dtype=dtype))
        self.register_buffer("position", torch.tensor([3]))


def merged(method, tensors, weights, base=None):
    models = [One(*numbers) for numbers in tensors]
    return merged_weights(method, models, weights, None if base is None else One(*base))["weight"]


@pytest.mark.parametrize(
    ("method", "one", "other", "expected"),
    [
        ("slerp", (1, 0), (0, 1), (0.7071, 0.7071)),
        ("slerp", (2, 0), (0, 1), (1.4142, 0.7071)),
        ("linear", (2, 0), (0, 1), (1, 0.5)),
        ("slerp", (1, 0), (1, 0.001), (1, 0.0005)),  # nearly parallel
        ("slerp", (0, 0), (0, 1), (0, 0.5)),
    ],
)
def test_merges_of_two_by_hand(method, one, other, expected):
    assert merged(method, [list(map(float, one)), list(map(float, other))], (0.5, 0.5)).tolist() == pytest.approx(
        list(expected), abs=1e-4
    )


def test_one_weight_of_1_beside_weights_of_0_is_that_model_bit_for_bit():
    numbers = [(0.1, 1e-7), (3.3, -1e4), (0.7, 2.0)]
    for method, base in (("linear", None), ("task-arithmetic", (1e5, 1e-9))):
        for number in range(3):
            weights = [float(place == number) for place in range(3)]
            assert torch.equal(merged(method, numbers, weights, base), torch.tensor(numbers[number])), method


def test_task_arithmetic_adds_what_was_learned():
    found = merged("task-arithmetic", [(1.0, 2.0), (3.0, 1.0)], (0.5, 2.0), base=(1.0, 1.0))
    assert found.tolist() == [5.0, 1.5]
    assert merged("task-arithmetic", [(0.3, 2.0)], (1.0,), base=(1.0, 7.0)).tolist() == pytest.approx([0.3, 2.0])


numbers = st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3)


@given(st.lists(numbers, min_size=2, max_size=4), st.data())
def test_laws_of_linear_merges(tensors, data):
    tensors = [torch.tensor(x) for x in tensors]
    one = data.draw(st.integers(0, len(tensors) - 1))
    alone = [float(i == one) for i in range(len(tensors))]
    assert torch.equal(linear(tensors, alone), tensors[one])
    assert torch.equal(linear([tensors[0]] * 3, (0.2, 0.3, 0.5)), tensors[0])
    shares = data.draw(st.lists(st.floats(0.01, 1), min_size=len(tensors), max_size=len(tensors)))
    weights = [share / sum(shares) for share in shares]
    plain = np.average(np.array([x.double().numpy() for x in tensors]), axis=0, weights=weights)
    assert linear(tensors, weights).numpy() == pytest.approx(plain, abs=1e-3)
    order = data.draw(st.permutations(range(len(tensors))))
    other = linear([tensors[i] for i in order], [weights[i] for i in order])
    assert other.numpy() == pytest.approx(linear(tensors, weights).numpy(), abs=1e-3)


@given(numbers, numbers, st.floats(0.05, 0.95))
def test_slerp_is_on_the_arc(one, other, share):
    a, b = np.array(one, np.float64), np.array(other, np.float64)
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    assume(lengths > 1e-3 and abs(a @ b / lengths) < 0.999)
    found = merged("slerp", [one, other], (1 - share, share)).double().numpy()
    angle = math.acos(a @ b / lengths)
    wanted = (math.sin((1 - share) * angle) * a + math.sin(share * angle) * b) / math.sin(angle)
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-4 * (1 + np.abs(wanted).max()))


def test_whole_numbers_and_the_type_are_those_of_the_first():
    models = [One(1.0, 2.0, dtype=torch.bfloat16), One(2.0, 4.0)]
    found = merged_weights("linear", models, (0.5, 0.5), None)
    assert found["position"].tolist() == [3]
    assert found["weight"].dtype == torch.bfloat16
    assert found["weight"].tolist() == [1.5, 3.0]


@pytest.mark.parametrize(
    ("method", "models", "weights", "base", "message"),
    [
        ("linear", 2, [0.5, 0.6], False, r"--weights 0.5 0.6: must be from 0 to 1 and add up to 1, not to 1.1"),
        ("linear", 2, [1.5, -0.5], False, "must be from 0 to 1"),
        ("linear", 3, [0.5, 0.5], False, "2 weights for 3 models"),
        ("linear", 1, None, False, "needs two models or more, not 1"),
        ("linear", 2, [math.nan, 1], False, "finite"),
        ("slerp", 3, None, False, "merges two models, not 3"),
        ("linear", 2, None, True, "--method linear has no --base"),
        ("task-arithmetic", 2, None, False, "--method task-arithmetic needs --base"),
    ],
)
def test_what_a_method_does_not_take_is_refused(method, models, weights, base, message):
    with pytest.raises(ConfigError, match=message):
        merge_weights(method, models, weights, base)


@pytest.fixture
def pair(tmp_path):
    """A folder with two models of one start: `one`, and that of the run `run`."""
    Encoder.load(str(save_labse(tmp_path / "labse"))).save(tmp_path / "one", ModelCard(languages=("de", "fr")))
    other = Encoder.load(str(tmp_path / "one"))
    torch.manual_seed(1)
    for parameter in other.model.parameters():
        parameter.data += torch.randn_like(parameter) / 10
    other.save(tmp_path / "run" / "model", ModelCard(languages=("fr", "sw")))
    return tmp_path


def state(folder):
    return Encoder.load(str(folder)).model.state_dict()


def test_the_command_merges_runs_and_folders(hbtrain, pair):
    code, out, err = hbtrain("merge", pair / "one", pair / "run", "--weights", "0.25", "0.75", "--output", "merged")
    assert code == 0, err
    assert f"0.25 × {pair / 'one'} + 0.75 × {pair / 'run'} (linear)" in out
    first, second, found = state(pair / "one"), state(pair / "run" / "model"), state("merged")
    assert found.keys() == first.keys()
    changed = [name for name in found if not torch.equal(first[name], second[name])]
    assert len(changed) > 20
    for name in changed:
        assert torch.allclose(found[name], 0.25 * first[name] + 0.75 * second[name], atol=1e-6)
    assert trained_languages(Path("merged")) == ("de", "fr", "sw")
    assert "(linear)" in Path("merged/README.md").read_text()


def test_a_weight_of_one_gives_that_model_bit_for_bit(hbtrain, pair):
    task = ("--method", "task-arithmetic", "--base", pair / "one", "--weights", "1")
    for arguments in ((pair / "one", pair / "run", "--weights", "0", "1"), (pair / "run", *task)):
        code, _, err = hbtrain("merge", *arguments, "--output", "merged")
        assert code == 0, err
        wanted, found = state(pair / "run" / "model"), state("merged")
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_models_that_are_not_alike_are_refused(hbtrain, pair):
    other = Encoder.load(str(pair / "one"))
    other.prefixes["query"] = other.model.prompts["query"] = "ask: "
    other.save(pair / "asks")
    Encoder.build(encoder_config("static"), lambda: TEXTS, 0).save(pair / "static")
    shallow = Encoder.load(str(pair / "one"))
    shallow.model[0].model.encoder.layer = shallow.model[0].model.encoder.layer[:1]
    shallow.model[0].model.config.num_hidden_layers = 1
    shallow.save(pair / "shallow")
    for name, reason in (("asks", "their prompts are"), ("static", "their modules are"), ("shallow", "has shape")):
        code, _, err = hbtrain("merge", pair / "one", pair / name, "--output", "merged")
        assert code == 2
        assert f"error: models '{pair / 'one'}' and '{pair / name}' cannot be merged: " in err
        assert reason in err
        assert not Path("merged").exists()


def test_the_output_is_none_of_the_models(hbtrain, pair):
    code, _, err = hbtrain("merge", pair / "one", pair / "run", "--output", pair / "run" / "model")
    assert code == 2
    assert "is one of the models that are merged" in err
