"""Files as Windows and other tools write them, with a byte-order mark in front; and numbers that no float can hold."""

import codecs
import json

import pytest

from hbtrain.cli.main import main
from hbtrain.comparison.runs import RunFinder
from hbtrain.config import load_config
from hbtrain.errors import ConfigError, DataError, HbtrainError, shown
from hbtrain.modeling.vocabulary import SPECIAL_TOKENS, load_vocabulary
from hbtrain.training.deepspeed_config import zero_stage
from tests.unit.comparison_samples import rows_of, write_results


def mark(path):
    """Put a byte-order mark in front of a file."""
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())


def test_results_and_runs_are_read_with_a_mark(tmp_path):
    folder = write_results(tmp_path / "results", rows_of(0.1, questions=3))
    (plain,) = RunFinder(None, tmp_path).find(str(folder))
    for name in ("metrics.json", "about.json"):
        mark(folder / name)
    (found,) = RunFinder(None, tmp_path).find(str(folder))
    assert (found.metrics, found.about) == (plain.metrics, plain.about)


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", "1" + 400 * "0", "7" * 5000, '"0.5"', "true", "[]"])
def test_a_score_that_is_no_finite_number_is_named(tmp_path, value):
    folder = write_results(tmp_path / "results", rows_of(0.1, questions=3))
    metrics = json.loads((folder / "metrics.json").read_text())
    key = next(iter(metrics))
    metrics[key] = "ODD"
    (folder / "metrics.json").write_text(json.dumps(metrics).replace('"ODD"', value))
    with pytest.raises(DataError, match=r"metrics\.json ") as error:
        RunFinder(None, tmp_path).find(str(folder))
    assert f"{key} is " in str(error.value) or "4300 digits" in str(error.value)
    assert len(str(error.value)) < 600


def test_a_recipe_settings_of_deepspeed_and_a_vocabulary_are_read_with_a_mark(tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 7\n")
    (tmp_path / "deepspeed.json").write_text('{"zero_optimization": {"stage": 2}}')
    (tmp_path / "vocabulary.txt").write_text("\n".join([*SPECIAL_TOKENS, "a"]))
    for path in tmp_path.iterdir():
        mark(path)
    config = load_config(tmp_path / "mine.yaml", {"training.deepspeed": str(tmp_path / "deepspeed.json")})
    assert config.seed == 7
    assert zero_stage(config) == 2
    assert load_vocabulary(tmp_path / "vocabulary.txt") == [*SPECIAL_TOKENS, "a"]
    (tmp_path / "deepspeed.json").write_text(f'{{"stage": {"7" * 5000}}}')
    with pytest.raises(ConfigError, match="deepspeed.json is not JSON"):
        zero_stage(config)


def test_an_argument_that_is_not_utf8_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["hbtrain", "search", "model", "qui\udce9n?"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(r"error: argument 'qui\udce9n?' is not UTF-8 text")


def test_values_in_messages_are_short_and_can_be_printed():
    assert shown("a") == "'a'"
    assert shown("x" * 5000) == f"'{'x' * 79}... (5,002 characters)"
    assert len(shown(10**6000)) < 100
    message = str(HbtrainError("the name \udcff and half \ud800"))
    assert message == r"the name \udcff and half \ud800"
    assert message.encode()
