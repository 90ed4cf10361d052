"""`batching.mixture` wherever it is met: recipes and flags, folders, sources, cards, labels, sweeps."""

import pytest
import yaml

from hbtrain.batching import BatchPlan
from hbtrain.comparison.compare import compare
from hbtrain.comparison.estimates import Method
from hbtrain.config import Config, load_config, override, to_yaml
from hbtrain.config.batching import BatchingConfig, ratio
from hbtrain.config.load import parse_flags
from hbtrain.corpus import ParallelCorpus, SourceIndex
from hbtrain.errors import ConfigError, DataError
from hbtrain.reporting.colours import SAMPLING
from hbtrain.reporting.metric_names import TITLES
from hbtrain.runs.run_folder import RunFolder
from hbtrain.sweeps.marks import is_single_kind
from hbtrain.sweeps.space import trials_of
from hbtrain.sweeps.space_file import load_space
from hbtrain.training.export import model_card
from hbtrain.training.validation import validation_plan
from tests.unit.comparison_samples import write_run

QUICK = Method(flips=99, resamples=50)
THREE = {"mono": 2, "cross": 2, "multi": 1}
CHANGING = {0: {"mono": 1}, 50: THREE}


@pytest.mark.parametrize(
    ("flags", "points"),
    [
        (["--batching.mixture", "{mono: 2, cross: 2, multi: 1}"], {0: {"mono": 0.4, "cross": 0.4, "multi": 0.2}}),
        (["--batching.mixture.multi", "3", "--batching.mixture.mono", "1"], {0: {"mono": 0.25, "multi": 0.75}}),
        (["--batching.mixture", "{30: {multi: 1}, 0: {cross: 5}}"], {0: {"cross": 1}, 30: {"multi": 1}}),
        (["--batching.mixture.7.cross", "0.1"], {7: {"cross": 1}}),
        (["--batching.mixture", "{mono: 5e-1, cross: 15e-1}"], {0: {"mono": 0.25, "cross": 0.75}}),
    ],
)
def test_flags_give_weights_or_points(flags, points):
    config = load_config("quickstart", parse_flags(flags))
    assert config.batching.kind_points == points
    assert list(config.batching.kind_points) == sorted(points)


@pytest.mark.parametrize("mixture", [THREE, CHANGING])
def test_a_mixture_is_read_back(tmp_path, mixture):
    config = load_config("quickstart", {"batching.mixture": mixture})
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "again.yaml") == config
    assert override(config, {"batching.mixture": None}) == load_config("quickstart")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batching.mixture": {"mono": -1, "cross": 2}}, "the weight of mono is -1; it must be a number, 0 or more"),
        ({"batching.mixture": {"mono": float("nan")}}, "the weight of mono is nan"),
        ({"batching.mixture": {"cross": float("inf")}}, "the weight of cross is inf"),
        ({"batching.mixture": {"cross": 10**400}}, "the weight of cross is 1000"),
        ({"batching.mixture": {"multi": "half"}}, "the weight of multi is 'half'"),
        ({"batching.mixture": {"multi": True}}, "the weight of multi is True"),
        ({"batching.mixture": {"mono": 0, "cross": 0.0}}, "the weights add up to 0; one at least must be above 0"),
        ({"batching.mixture": {"mono": 1e308, "cross": 1e308}}, "the weights add up to inf"),
        ({"batching.mixture": {"bilingual": 1}}, "'bilingual' is no kind of batch; they are mono, cross, multi"),
        ({"batching.mixture": {"mono": 1, 10: {"mono": 1}}}, "weights of kinds beside points"),
        ({"batching.mixture": {-5: {"mono": 1}}}, "-5 is no step"),
        ({"batching.mixture": {"mono": {"cross": 1}}}, "'mono' is no step"),
        ({"batching.mixture": {5: {"mono": 1}, "5": {"cross": 1}}}, "step 5 stands there twice"),
        ({"batching.mixture": {0: {"mono": 1}, 9: {}}}, "the weights at step 9 add up to 0"),
        ({"batching.mixture": {0: {"mono": 1}, 9: {"mono": -2}}}, "the weight of mono at step 9 is -2"),
        ({"batching.mixture": {}}, "give weights {kind: weight}, or points"),
        ({"batching.mixture": 0.5}, "batching.mixture = 0.5: give weights {kind: weight}"),
        ({"batching.mixture": THREE, "batching.alpha": 0.3}, "batching: mixture and alpha = 0.3 both decide"),
        ({"batching.mixture": THREE, "batching.mode": "english"}, "batching: mixture and mode = english both decide"),
        ({"batching.mixture": {0: THREE, 31: THREE}, "training.steps": 30}, "weights at step 31, and training.steps"),
    ],
)
def test_bad_mixtures_are_refused_in_one_line(changes, words):
    with pytest.raises(ConfigError) as error:
        load_config("quickstart", changes)
    assert words in str(error.value)
    assert "batching.mixture" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_mixture_starts_nothing(hbtrain):
    code, _, err = hbtrain("train", "quickstart", "--batching.mixture", "{mono: 0}")
    assert code == 2
    assert err.startswith("error: batching.mixture: the weights add up to 0")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("sources", "languages", "mixture", "words"),
    [
        (None, ["de"], {"mono": 1, "cross": 1}, "batching.mixture makes cross-lingual batches, .* or leave cross out"),
        (
            None,
            ["de"],
            {0: {"mono": 1}, 9: {"multi": 1}},
            "batching.mixture makes multilingual batches, which need two",
        ),
        ([("d", ("de",)), ("e", ("en",))], None, THREE, "no source can fill a cross batch"),
    ],
)
def test_kinds_that_the_data_cannot_fill_are_refused(sources, languages, mixture, words):
    indices = [SourceIndex.complete(name, 40, known) for name, known in sources or [("all", ("de", "en"))]]
    with pytest.raises((ConfigError, DataError), match=words):
        BatchPlan(indices, BatchingConfig(global_batch_size=8, mixture=mixture), languages)


def test_only_a_mixture_changes_the_folder_of_a_run(tmp_path):
    plain = Config(name="mine", storage=str(tmp_path))
    assert RunFolder.current(plain).name == "mine-c1de9016", "as it was before there were mixtures"
    names = {
        RunFolder.current(override(plain, {"batching.mixture": mixture})).name for mixture in (None, THREE, CHANGING)
    }
    assert len(names) == 3


def test_one_language_of_validation_is_monolingual(cache):
    config = load_config("quickstart", {"batching.mixture": THREE, "data.languages": ["de", "en"]})
    heldout = ParallelCorpus.from_config(override(config, {"data.sources": ["demo-heldout"]}))
    both = validation_plan(config, heldout)
    assert {both.batch(step).kind for step in range(40)} == set(THREE)
    one = validation_plan(override(config, {"batching.language_weights": {"de": 0}}), heldout)
    assert {one.batch(step).kind for step in range(10)} == {"mono"}


@pytest.mark.parametrize(
    ("mixture", "told"),
    [
        (THREE, "0.4 mono : 0.4 cross : 0.2 multi"),
        (CHANGING, "1 mono at step 0, 0.4 mono : 0.4 cross : 0.2 multi at step 50; linear in between"),
    ],
)
def test_the_model_card_tells_the_mixture(cache, mixture, told):
    config = load_config("quickstart", {"batching.mixture": mixture})
    card = model_card(config, ParallelCorpus.from_config(config), ("de",), 60)
    readme = card.render(query_prefix="", passage_prefix="", dimension=8, max_tokens=None)
    assert f"| mixture (probability of each kind of batch) | {told} |" in readme
    assert "| batches | mixture |" in readme
    assert "alpha" not in readme


def test_a_comparison_names_mixtures(tmp_path):
    mixtures = {
        "mixture (0.4 mono : 0.4 cross : 0.2 multi)": THREE,
        "mixture (1 mono → 0.4 mono : 0.4 cross : 0.2 multi)": CHANGING,
        "hybrid (α = 0.75)": {"mono": 3, "cross": 1, "multi": 0},
        "hybrid (1 mono → 1 cross)": {0: {"mono": 1}, 20: {"cross": 1}},
        "X-Y only (α = 0)": {"cross": 7},
        "multilingual": {"multi": 1},
    }
    runs = [write_run(tmp_path / f"r{i}", 0.5, 0, **{"batching.mixture": m}) for i, m in enumerate(mixtures.values())]
    runs += [write_run(tmp_path / f"seed{seed}", 0.5, seed, **{"batching.mixture": THREE}) for seed in (1, 2)]
    found = {system.label: system for system in compare(runs, method=QUICK).systems}
    assert found.keys() == mixtures.keys()
    first = found["mixture (0.4 mono : 0.4 cross : 0.2 multi)"]
    assert (first.sampling, first.alpha, len(first.runs)) == ("mixture", None, 3)
    assert SAMPLING.keys() == TITLES.keys()


def test_a_grid_of_mixtures_has_readable_names(tmp_path):
    given = [THREE, {"multi": 1}, {"mono": 1, "cross": 2}, {0: {"mono": 1}, 9: {"cross": 1}}]
    (tmp_path / "mixtures.yaml").write_text(
        yaml.safe_dump({"recipe": "quickstart", "space": {"batching.mixture": {"grid": given}}})
    )
    trials = trials_of(load_space(str(tmp_path / "mixtures.yaml")))
    assert [trial.label for trial in trials] == [
        "mixture=0.4 mono : 0.4 cross : 0.2 multi",
        "mixture=1 multi",
        "mixture=0.3333 mono : 0.6667 cross",
        "mixture=1 mono at 0 → 1 cross at 9",
    ]
    assert [is_single_kind(trial.config) for trial in trials] == [False, True, False, False]


def test_a_ratio_leaves_out_what_is_never_drawn():
    assert ratio({"cross": 0.25, "multi": 0.75}) == "0.25 cross : 0.75 multi"
