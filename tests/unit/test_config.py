import subprocess
import sys

import pytest
import yaml

from hbtrain.config import (
    Config,
    absolute_paths,
    all_keys,
    from_tree,
    load_config,
    override,
    recipe_names,
    recipe_summary,
    to_flat,
    to_tree,
    to_yaml,
)
from hbtrain.config.load import parse_flags
from hbtrain.errors import ConfigError


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_parses_and_survives_a_round_trip(name):
    config = load_config(name)
    assert config.name == name.replace("/", "-")
    assert recipe_summary(name)
    assert from_tree(yaml.safe_load(to_yaml(config))) == config


def test_resolved_config_can_be_loaded_again(tmp_path):
    config = load_config("quickstart", {"batching.alpha": {0: 1.0, 100: 0.25}, "encoder.lora.rank": 4})
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "config.yaml") == config


def test_overrides_reach_every_depth():
    config = load_config("quickstart", {"batching.alpha": 0.3, "training.deepspeed.zero_optimization.stage": 3})
    assert config.batching.alpha == 0.3
    assert config.training.deepspeed == {"zero_optimization": {"stage": 3}}
    assert override(config, {"seed": 9}).seed == 9
    assert to_flat(config)["training.deepspeed.zero_optimization.stage"] == 3


def test_keys_of_the_schema_are_the_keys_of_the_tree():
    defaults = set(to_flat(Config()))
    missing = {key for key in all_keys() if key not in defaults and not key.startswith("encoder.lora")}
    assert missing == set()


def test_config_is_frozen():
    with pytest.raises(Exception, match="frozen"):
        Config().seed = 3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"batching.alfa": 0.5}, ["'batching.alfa'", "did you mean batching.alpha"]),
        ({"alpha": 0.5}, ["'alpha'", "batching.alpha"]),
        ({"batching.alpha": 1.5}, ["batching.alpha = 1.5", "less than or equal to 1"]),
        ({"batching.alpha": -0.1}, ["batching.alpha = -0.1", "greater than or equal to 0"]),
        ({"batching.alpha": {0: 0.5, 10: 7}}, ["batching.alpha = 7", "less than or equal to 1"]),
        ({"batching.alpha": {}}, ["batching.alpha", "at least one point"]),
        ({"batching.mode": "bilingual"}, ["batching.mode = 'bilingual'", "'hybrid'"]),
        ({"training.steps": 0}, ["training.steps = 0", "greater than 0"]),
        ({"training.steps": "many"}, ["training.steps = 'many'"]),
        ({"training.steps": True}, ["training.steps = True: must be a number"]),
        ({"training.learning_rate": True}, ["training.learning_rate = True: must be a number"]),
        ({"training.max_failures": True}, ["training.max_failures = True: must be a number"]),
        ({"batching.alpha": True}, ["batching.alpha = True: must be a number"]),
        ({"batching.language_weights": {"de": True}}, ["batching.language_weights", "must be a number"]),
        ({"encoder.dropout": False}, ["encoder.dropout = False: must be a number"]),
        ({"loss.guide_margin": True}, ["loss.guide_margin = True: must be a number"]),
        ({"data.languages": ["de", "de"]}, ["data.languages", "listed twice"]),
        ({"training.patience": 2}, ["training.patience needs training.validate_every"]),
        ({"training.validate_every": 5, "data.validation": None}, ["data.validation"]),
        ({"training.warmup_steps": 400}, ["training.warmup_steps 400"]),
        ({"encoder.transformer.heads": 3}, ["hidden_size 128", "heads 3"]),
        ({"loss.temperature": float("nan")}, ["loss.temperature"]),
        ({"name": "../up"}, ["name = '../up'"]),
    ],
)
def test_bad_values_are_answered_in_one_line(overrides, words):
    with pytest.raises(ConfigError) as error:
        load_config("quickstart", overrides)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("batching:\n  alpha: [", ["not YAML"]),
        ("- a\n- b\n", ["must hold keys and values"]),
        ("batching:\n  alhpa: 0.5\n", ["'batching.alhpa'", "did you mean batching.alpha"]),
        ("batching: 3\n", ["batching"]),
    ],
)
def test_bad_recipe_files_are_answered_in_one_line(tmp_path, text, words):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "r.yaml")
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean quickstart"):
        load_config("quikstart")
    with pytest.raises(ConfigError, match="cannot read recipe"):
        load_config("nowhere.yaml")


def test_a_recipe_says_only_what_differs_from_the_one_that_it_extends(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "base.yaml").write_text(
        "extends: xlmr-hybrid\nbatching:\n  alpha: {0: 1.0, 9: 0.5}\nseed: 3\n"
    )
    (tmp_path / "mine" / "small.yaml").write_text("extends: base.yaml\nbatching:\n  global_batch_size: 8\n")
    shipped, found = load_config("xlmr-hybrid"), load_config(tmp_path / "mine" / "small.yaml")
    wanted = {"name": "small", "seed": 3, "batching.alpha": {0: 1.0, 9: 0.5}, "batching.global_batch_size": 8}
    assert found == override(shipped, wanted)
    # a value that is a mapping is not mixed with one that is a number
    (tmp_path / "constant.yaml").write_text("extends: mine/base.yaml\nbatching:\n  alpha: 0.25\n")
    assert load_config(tmp_path / "constant.yaml").batching.alpha == 0.25
    assert load_config(tmp_path / "constant.yaml", {"seed": 5}).seed == 5
    # nor are points of two schedules, or kinds of two mixtures
    (tmp_path / "other.yaml").write_text("extends: mine/base.yaml\nbatching:\n  alpha: {0: 0.0, 20: 1.0}\n")
    assert load_config(tmp_path / "other.yaml").batching.alpha == {0: 0.0, 20: 1.0}
    (tmp_path / "two.yaml").write_text("extends: xlmr-hybrid\nbatching:\n  mixture: {mono: 0.5, cross: 0.5}\n")
    (tmp_path / "three.yaml").write_text("extends: two.yaml\nbatching:\n  mixture: {mono: 1, multi: 1}\n")
    assert load_config(tmp_path / "three.yaml").batching.mixture == {"mono": 1.0, "multi": 1.0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("extends: r.yaml\n", ["r.yaml extends itself"]),
        ("extends: other.yaml\n", ["other.yaml extends itself: ", "r.yaml > "]),
        ("extends: ../{folder}/r.yaml\n", ["r.yaml extends itself"]),
        ("extends: xlmr-hybrd\n", ["unknown recipe 'xlmr-hybrd'", "did you mean xlmr-hybrid"]),
        ("extends: xlmr-hybrid\nbatching:\n  alfa: 1\n", ["batching.alfa", "r.yaml"]),
        ("extends: xlmr-hybrid\nbatching: 3\n", ["batching"]),
        ("extends: [xlmr-hybrid]\n", ["unknown recipe"]),
    ],
)
def test_recipes_that_cannot_be_extended(tmp_path, text, words):
    (tmp_path / "r.yaml").write_text(text.replace("{folder}", tmp_path.name))
    (tmp_path / "other.yaml").write_text("extends: r.yaml\n")
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "r.yaml")
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_the_papers_recipes_differ_in_their_batches_and_backbones_only():
    """X-X, X-Y and hybrid see the same sources, benchmarks and steps."""
    for backbone in ("xlmr", "labse"):
        hybrid = load_config(f"paper/{backbone}-hybrid")
        for kind, alpha in (("x-x", 1.0), ("x-y", 0.0)):
            name = f"paper-{backbone}-{kind}"
            assert load_config(f"paper/{backbone}-{kind}") == override(hybrid, {"name": name, "batching.alpha": alpha})
        wanted = {"data": hybrid.data, "evaluation": hybrid.evaluation, "name": hybrid.name}
        assert hybrid == load_config(f"{backbone}-hybrid").model_copy(update=wanted)
        assert set(hybrid.data.languages) == {"ar", "de", "en", "es", "hi", "ru", "th", "tr", "zh"}


def test_flags():
    arguments = ["--batching.alpha", "0.3", "--data.sources", "a", "b", "--data.languages=no", "--resources.use_gpu"]
    assert parse_flags(arguments) == {
        "batching.alpha": 0.3,
        "data.sources": ["a", "b"],
        "data.languages": "no",
        "resources.use_gpu": True,
    }
    assert parse_flags(["--batching.alpha", "{0: 1.0, 50: 0.5}"]) == {"batching.alpha": {0: 1.0, 50: 0.5}}
    assert parse_flags(["--training.learning_rate", "3e-5", "--seed", "-1", "--name", "null-model"]) == {
        "training.learning_rate": 3e-5,
        "seed": -1,
        "name": "null-model",
    }
    with pytest.raises(ConfigError, match="unexpected argument 'demo'"):
        parse_flags(["demo"])
    with pytest.raises(ConfigError, match="YAML"):
        parse_flags(["--batching.alpha", "{0: "])


def test_a_flag_whose_key_takes_texts_leaves_them_as_they_are_written():
    flags = ["--name", "1.50", "--tracking.run_name", "1e3", "--data.sources", "true", "007", "--seed", "12"]
    assert parse_flags(flags) == {
        "name": "1.50", "tracking.run_name": "1e3", "data.sources": ["true", "007"], "seed": 12,
    }  # fmt: skip
    assert parse_flags(["--tracking.run_name", "null"]) == {"tracking.run_name": None}
    assert load_config("quickstart", parse_flags(["--storage=9", "--tracking.experiment", "7"])).storage == "9"


def test_a_flag_that_is_given_twice_is_refused_where_both_may_be_meant():
    assert parse_flags(["--seed", "5", "--name", "x", "--seed=7"]) == {"seed": 7, "name": "x"}
    assert parse_flags(["--resources.workers", "1", "--resources.workers", "2", "4"]) == {"resources.workers": [2, 4]}
    with pytest.raises(ConfigError, match=r"^--data.sources is given twice; .*--data.sources VALUE VALUE$"):
        parse_flags(["--data.sources", "a", "--seed", "1", "--data.sources", "b"])


def recipe(folder, text):
    (folder / "mine.yaml").write_text(text)
    return str(folder / "mine.yaml")


def test_yaml_values_stay_texts_where_texts_are_expected(tmp_path):
    text = """
name: 2024.10
data: {languages: [no, on, y, de], sources: [2024-01-01, 0x1F, 1:30, "5"]}
batching: {mode: hybrid, alpha: {0: 1, 50: 0.25}, language_weights: {no: 2, 12: 1}}
encoder: {lora: {rank: 4}, backbone: 007}
evaluation: {before: no, in_domain: ~}
tracking: {run_name: off}
"""
    config = load_config(recipe(tmp_path, text))
    assert (config.name, config.tracking.run_name, config.encoder.backbone) == ("2024.10", "off", "007")
    assert config.data.languages == ("no", "on", "y", "de")
    assert config.data.sources == ("2024-01-01", "0x1F", "1:30", "5")
    assert config.batching.language_weights == {"no": 2, "12": 1}
    assert config.batching.alpha == {0: 1, 50: 0.25}
    assert (config.evaluation.before, config.evaluation.in_domain) == (False, None)
    assert load_config(recipe(tmp_path, to_yaml(config))) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\nname: a\nseed: 2\n", ("mine.yaml", "seed", "1 and 3")),
        ("data:\n  languages: [en]\n  cache: a\n  languages: [de]\n", ("languages", "2 and 4")),
        ("batching: {language_weights: {no: 1, 'no': 2}}\n", ("key no twice", "1 and 1")),
        ("x: &x {seed: 1}\ny: {<<: *x, a: 1,\n a: 2}\n", ("key a", "2 and 3")),
        (f"seed: {'9' * 5000}\n", ("mine.yaml", "not YAML")),
        ("seed: 2024-13-45\n", ("mine.yaml", "not YAML")),
        ("a: &a [*a]\n", ("unknown key", "'a'")),
    ],
)
def test_yaml_that_cannot_be_taken_at_its_word_is_refused(tmp_path, text, words):
    with pytest.raises(ConfigError) as error:
        load_config(recipe(tmp_path, text))
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_paths_become_absolute_only_where_they_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text("{}")
    config = absolute_paths(load_config("quickstart", {"data.sources": ["a.jsonl", "demo", "missing.jsonl"]}))
    assert config.data.sources == (str(tmp_path / "a.jsonl"), "demo", "missing.jsonl")
    assert config.storage == str(tmp_path / "runs")
    assert config.encoder.backbone == "static"


def test_config_package_imports_neither_torch_nor_ray():
    code = "import sys, hbtrain.config, hbtrain.batching; print([m for m in ('torch', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tree_round_trip():
    config = Config()
    assert from_tree(to_tree(config)) == config
