"""Sweeps and searches over mixtures of kinds of batches: how spaces write them, what is refused, what is drawn."""

import json

import pytest
import yaml

from hbtrain.config import override
from hbtrain.config.batching import mixture_points
from hbtrain.errors import ConfigError
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.segments import measured_by
from hbtrain.sweeps import searches
from hbtrain.sweeps.drivers import member_config
from hbtrain.sweeps.ranges import Choices, Simplex
from hbtrain.sweeps.search_methods import Asha, Pbt
from hbtrain.sweeps.search_records import Ledger
from hbtrain.sweeps.space import base_config, probes_of, trial_of, trials_of
from hbtrain.sweeps.space_file import load_space, with_flags
from hbtrain.sweeps.sweep import _listed
from tests.unit.test_population import SCORES, play
from tests.unit.test_search_parts import proposals, result

THREE = ["mono", "cross", "multi"]
ASHA, PBT = {"method": "asha", "trials": 4}, {"method": "pbt"}
SIMPLEX = Simplex(("mono", "cross", "multi"))


@pytest.fixture
def load(tmp_path):
    """A function that writes a space over mixtures and loads it."""

    def load(entry, key="batching.mixture", **rest):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({"recipe": "quickstart", "space": {key: entry}, **rest}))
        return load_space(str(path))

    return load


def test_the_space_that_ships_is_the_triangle_in_quarters():
    trials = trials_of(load_space("mixture"))
    assert len(trials) == 15 * 3
    found = [tuple(4 * trial.config.batching.mixture[kind] for kind in THREE) for trial in trials[:15]]
    assert sorted(found) == [(a, b, 4 - a - b) for a in range(5) for b in range(5 - a)]
    assert [trial.label for trial in trials[3:6]] == [
        "mixture=0.5 mono : 0.5 cross seed=0",
        "mixture=0.5 mono : 0.25 cross : 0.25 multi seed=0",
        "mixture=0.5 mono : 0.5 multi seed=0",
    ]
    assert {tuple(trial.config.batching.mixture) for trial in trials} == {tuple(THREE)}, "MLflow has all three weights"


def test_flags_give_other_mixtures():
    space = load_space("mixture")
    finer = with_flags(space, {"batching.mixture": {"simplex": ["multi", "mono"], "step": 0.333}, "seed": 1})
    assert [trial.label for trial in trials_of(finer)] == [
        "mixture=1 mono seed=1",
        "mixture=0.6667 mono : 0.3333 multi seed=1",
        "mixture=0.3333 mono : 0.6667 multi seed=1",
        "mixture=1 multi seed=1",
    ]
    (one,) = trials_of(with_flags(space, {"batching.mixture": {"mono": 2, "multi": 1}, "seed": 1}))
    assert one.config.batching.mixture == {"mono": 2, "multi": 1}


@pytest.mark.parametrize("search", [ASHA, PBT])
def test_a_search_over_mixtures_is_read_back_from_its_yaml(load, tmp_path, search):
    space = load({"simplex": ["multi", "cross", "mono"]}, search=search)
    assert space.draws == {"batching.mixture": SIMPLEX}
    (tmp_path / "mine.yaml").write_text(space.to_yaml())
    assert load_space(str(tmp_path / "mine.yaml")) == space
    assert [trial.label for trial in probes_of(space)] == [
        "mixture=0.334 mono : 0.333 cross : 0.333 multi", "mixture=1 mono", "mixture=1 cross", "mixture=1 multi",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "rest", "message"),
    [
        ({"simplex": THREE}, {}, "step must be 1 over a whole number, such as 0.25 or 0.2, and 0.05 or more"),
        ({"simplex": THREE, "step": 0.3}, {}, "step must be 1 over a whole number"),
        ({"simplex": THREE, "step": 0.01}, {}, "step must be .* and 0.05 or more"),
        ({"simplex": THREE, "step": 2}, {}, "step must be"),
        ({"simplex": THREE, "step": True}, {}, "step must be"),
        ({"simplex": THREE, "step": "0.25"}, {}, "step must be"),
        ({"simplex": THREE, "steps": 4}, {}, r"write {simplex: \[kinds of batches\], step: 0.25}"),
        ({"simplex": ["mono"], "step": 0.5}, {}, "takes a list of two kinds or more, of mono, cross, multi, switched"),
        ({"simplex": ["mono", "mono"], "step": 0.5}, {}, "takes a list of two kinds or more"),
        ({"simplex": ["mono", "bilingual"], "step": 0.5}, {}, "takes a list of two kinds or more"),
        ({"simplex": {"mono": 1}, "step": 0.5}, {}, "takes a list of two kinds or more"),
        ({"simplex": THREE, "step": 0.5}, {"search": ASHA}, r"a search draws any weights; write {simplex: \[kinds of"),
        ({"uniform": [0, 1]}, {"search": PBT}, "pbt needs two mixtures {kind: weight} or more"),
        ({"choice": [{"mono": 1}]}, {"search": PBT}, "pbt needs two mixtures {kind: weight} or more"),
        ({"choice": [{"mono": 1}, {0: {"mono": 1}}]}, {"search": PBT}, "pbt needs two mixtures {kind: weight} or more"),
        ({"normal": [0, 1]}, {}, r"or `batching.mixture: {simplex: \[kinds of batches\], ...}`"),
        (
            {"grid": [{"mono": 1}]},
            {"overrides": {"batching.mixture.multi": 1}},
            "batching.mixture.multi is both fixed under `overrides` and varied",
        ),
    ],
)
def test_bad_entries_are_one_line(load, entry, rest, message):
    with pytest.raises(ConfigError, match=message) as error:
        load(entry, **rest)
    assert str(error.value).startswith("batching.mixture")
    assert "\n" not in str(error.value)


def test_only_mixtures_are_of_a_simplex(load):
    with pytest.raises(ConfigError, match=r"batching.alpha = .*: a simplex is of mixtures .* only batching.mixture"):
        load({"simplex": THREE, "step": 0.5}, key="batching.alpha")


@pytest.mark.parametrize("mixture", ["{mono: 0}", "{mono: -1, cross: 2}", "{bilingual: 1}", "0.5"])
def test_a_sweep_over_a_wrong_mixture_starts_nothing(hbtrain, mixture, tmp_path):
    code, _, err = hbtrain("sweep", "mixture", "--batching.mixture", mixture, "--storage", tmp_path / "runs")
    assert code == 2
    assert err.startswith("error: trial mixture=")
    assert "batching.mixture" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_tag_sets_mixtures_apart_and_leaves_numbers_as_they_were():
    assert _listed([0, 0.5], "batching.alpha") == "0 0.5"
    mixtures = [{"mono": 1, "cross": 0}, {"mono": 1, "cross": 3}]
    assert _listed(mixtures, "batching.mixture") == "1 mono, 0.25 mono : 0.75 cross"


def test_the_sampler_proposes_mixtures_and_knows_them_again(load, tmp_path):
    space = load({"simplex": THREE}, search=ASHA)
    assert space.search == Asha(**ASHA)
    base = override(base_config(space), {"storage": str(tmp_path)})
    ledger = Ledger(tmp_path / "points.jsonl")
    _, first = proposals(space, base, ledger, 3)
    mixtures = [one["values"]["batching.mixture"] for one in first]
    assert all(SIMPLEX.recalled(mixture) == mixture for mixture in mixtures)
    assert first[0]["keys"] == {"batching.mixture": mixtures[0]}
    assert first[0]["label"] == trial_of(space, base, first[0]["values"]).label
    suggestions, again = proposals(space, base, ledger, 5)
    assert [one["values"] for one in again[:3]] == [one["values"] for one in first]
    assert len({str(one["values"]) for one in again}) == 5
    suggestions.on_trial_complete("t0", {"step": base.training.steps, "multi/map": 0.5, "training_iteration": 1})
    (told, *_) = suggestions._ot_study.trials
    assert SIMPLEX.mixture(list(told.params.values())) == mixtures[0], "it learns from the mixture's own numbers"


@pytest.mark.parametrize("draw", [SIMPLEX, Choices(({"mono": 1}, {"cross": 1}, {"multi": 1}, {"mono": 1, "multi": 1}))])
def test_a_population_takes_over_mixtures(draw):
    search = Pbt(method="pbt", population=4)
    before, after = play(search, [], draw), play(search, SCORES[:1], draw)
    assert len({str(schedule) for schedule in before}) == 4
    assert after[1:] == before[1:]
    start, (step, mixture) = after[0]
    assert (start, step) == (before[1][0], 3)
    assert mixture != start[1]
    assert draw.recalled(mixture) == mixture
    assert play(search, SCORES, draw) == play(search, SCORES, draw)


def test_members_of_mixtures_have_their_schedules(load, tmp_path):
    space = load({"simplex": THREE}, search=PBT, overrides={"training.steps": 12})
    base = override(base_config(space), {"storage": str(tmp_path)})
    one, other = SIMPLEX.rounded([1, 1, 2]), SIMPLEX.rounded([3, 1, 0])
    folder = RunFolder.open(member_config(base, ((0, one), (3, other))))
    folder.results.mkdir()
    (folder.results / "metrics.json").write_text('{"demo/multi/map": 0.5}')
    folder.update(finished=True, measured=measured_by(base))
    outcome = searches._members(base, [result(json.loads(json.dumps({"schedule": [[0, one], [3, other]]})))])
    ((schedule, member),) = outcome.members
    assert schedule == ((0, one), (3, other))
    assert member.trial.label == "mixture=0.25 mono : 0.25 cross : 0.5 multi, 0.75 mono : 0.25 cross from 3"
    points = member.trial.config.batching.kind_points
    assert points == mixture_points({0: one, 2: one, 3: other})
