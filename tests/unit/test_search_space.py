"""Spaces that are searched: what they may hold, what is said of what they may not, and what flags change."""

import pytest
import yaml

from hbtrain.batching import BatchPlan
from hbtrain.config import EvaluationConfig
from hbtrain.errors import ConfigError
from hbtrain.evaluation.benchmarks import load_benchmarks
from hbtrain.sweeps.ranges import Choices, Numbers
from hbtrain.sweeps.search_methods import Asha, Pareto, Pbt, check_objectives
from hbtrain.sweeps.space import base_config, probes_of, trial_of, trials_of
from hbtrain.sweeps.space_file import load_space, with_flags

ASHA = {"method": "asha"}
UNIFORM = {"batching.alpha": {"uniform": [0, 1]}}


@pytest.fixture
def write(tmp_path):
    """A function that writes a space and returns its path."""

    def to_file(space, **rest):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({"recipe": "quickstart", "space": space, **rest}))
        return str(path)

    return to_file


def test_a_search_draws_from_ranges(write):
    space = load_space(
        write(
            {
                "batching.alpha": {"uniform": [0, 1]},
                "training.learning_rate": {"loguniform": [1e-4, 1]},
                "batching.global_batch_size": {"choice": [32, 64]},
                "model": {"settings": {"bag": {"encoder.backbone": "static"}, "tiny": {"loss.symmetric": True}}},
            },
            search=ASHA,
        )
    )
    assert space.draws == {
        "batching.alpha": Numbers(0, 1),
        "training.learning_rate": Numbers(1e-4, 1, log=True),
        "batching.global_batch_size": Choices((32, 64)),
        "model": Choices(("bag", "tiny")),
    }
    assert space.search == Asha(method="asha")
    values = {"batching.alpha": 0.25, "training.learning_rate": 0.1, "batching.global_batch_size": 32, "model": "tiny"}
    trial = trial_of(space, probes_of(space)[0].config, values)
    assert trial.label == "alpha=0.25 learning_rate=0.1 global_batch_size=32 model=tiny"
    assert (trial.config.batching.alpha, trial.config.loss.symmetric) == (0.25, True)


@pytest.mark.parametrize("name", ["alpha-asha", "alpha-pareto", "alpha-pbt", "backbones"])
def test_spaces_that_ship_are_read_back_from_their_yaml(name, tmp_path):
    space = with_flags(load_space(name), {"training.learning_rate": 0.1} if name != "backbones" else {"seed": [4, 5]})
    path = tmp_path / f"{name}.yaml"
    path.write_text(space.to_yaml())
    assert load_space(str(path)) == space


def test_named_settings_are_picked_by_name():
    space = with_flags(load_space("backbones"), {"backbone": ["static", "transformer"], "seed": 1})
    trials = trials_of(space)
    assert [trial.label for trial in trials[:2]] == [
        "backbone=static alpha=0 seed=1",
        "backbone=static alpha=0.5 seed=1",
    ]
    assert len(trials) == 6
    assert {trial.config.encoder.backbone for trial in trials} == {"static", "transformer"}
    assert {trial.config.training.learning_rate for trial in trials} == {0.2, 0.001}
    assert trials[0].values == {"backbone": "static", "batching.alpha": 0, "seed": 1}
    (only,) = trials_of(with_flags(space, {"backbone": "transformer", "batching.alpha": 0.5}))
    assert only.config.encoder.backbone == "transformer"
    with pytest.raises(ConfigError, match="--backbone bert: the space backbones has static, transformer, xlm-r, "):
        with_flags(load_space("backbones"), {"backbone": ["static", "bert"]})
    with pytest.raises(ConfigError, match="training.learning_rate is both fixed .* and varied"):
        with_flags(load_space("backbones"), {"training.learning_rate": 0.1})


def test_the_hubs_backbones_have_the_values_of_their_recipes():
    from hbtrain.config import load_config

    trials = {trial.values["backbone"]: trial.config for trial in trials_of(load_space("backbones"))}
    for name, recipe in (("xlm-r", "xlmr-hybrid"), ("labse", "labse-hybrid")):
        wanted = load_config(recipe)
        assert trials[name].encoder.backbone == wanted.encoder.backbone
        assert trials[name].encoder.precision == wanted.encoder.precision
        assert trials[name].training.learning_rate == wanted.training.learning_rate
        assert trials[name].loss.temperature == wanted.loss.temperature


def test_every_combination_of_a_shipped_grid_is_a_training_of_its_own():
    for space, trials in (("backbones", 8 * 3 * 3), ("ratio-batch", 3 * 5 * 3), ("ratio-size", 3 * 5 * 3)):
        found = trials_of(load_space(space))
        assert len({trial.label for trial in found}) == len(found) == trials
        assert {trial.config.tracking.experiment for trial in found} == {space}
        assert {trial.config.batching.mode for trial in found} == {"hybrid"}


def test_objectives_differ_in_the_loss_alone():
    found = trials_of(load_space("objectives"))
    assert len({trial.label for trial in found}) == len(found) == 18
    plain, *others = (trial.config for trial in found[:6])
    assert plain.loss == plain.loss.plain
    for config in others:
        assert config.loss.plain == plain.loss != config.loss
        assert config.model_copy(update={"loss": plain.loss}) == plain


def test_kinds_are_all_tried_with_one_seed_before_the_next():
    found = trials_of(load_space("kinds"))
    assert [trial.config.seed for trial in found] == [0] * 7 + [1] * 7 + [2] * 7
    kinds = [trial.config.batching.kinds for trial in found[:7]]
    assert {("mono",), ("cross",), ("multi",), ("mono", "cross"), ("mono", "cross", "multi")} == set(kinds)
    assert kinds.count(("mono", "cross")) == 3
    assert len({trial.label for trial in found}) == 21


def test_flags_narrow_a_range_and_change_the_search():
    space = with_flags(
        load_space("alpha-asha"), {"search.trials": 4, "search.rungs": [5, 9], "batching.alpha": [0.2, 0.4]}
    )
    assert space.search == Asha(method="asha", trials=4, rungs=(5, 9))
    assert space.draws == {"batching.alpha": Choices((0.2, 0.4))}
    narrower = with_flags(space, {"batching.alpha": {"uniform": [0.3, 0.5]}})
    assert narrower.draws == {"batching.alpha": Numbers(0.3, 0.5)}
    assert with_flags(load_space("alpha-pbt"), {"search.population": 8}).search.population == 8
    with pytest.raises(ConfigError, match="--search.trials: the space alpha-grid tries everything"):
        with_flags(load_space("alpha-grid"), {"search.trials": 4})


def test_rungs_are_shares_of_the_steps_or_steps():
    assert Asha(method="asha").stops(400) == (44, 133, 400)
    assert Asha(method="asha", rungs=1).stops(400) == (400,)
    assert Asha(method="asha", rungs=(10, 20)).stops(40) == (10, 20, 40)
    assert Asha(method="asha", rungs=(10, 40)).stops(40) == (10, 40)
    assert Pareto(method="pareto").stops(40) == (40,)
    assert Pbt(method="pbt", intervals=4).stops(10) == (2, 5, 8, 10)
    for search, steps in (
        (Asha(method="asha", rungs=5), 20),
        (Asha(method="asha", rungs=(10, 50)), 40),
        (Asha(method="asha", rungs=(20, 10)), 40),
        (Pbt(method="pbt", intervals=11), 10),
    ):
        with pytest.raises(ConfigError, match=r"search.(rungs|intervals) = .*training.steps = \d+"):
            search.stops(steps)


@pytest.mark.parametrize(
    ("space", "search", "message"),
    [
        ({"batching.alpha": {"uniform": [1, 0]}}, ASHA, r"batching.alpha = \[1, 0\] .*: the range is empty; low must"),
        ({"batching.alpha": {"uniform": [0.5, 0.5]}}, ASHA, "the range is empty"),
        ({"batching.alpha": {"uniform": [0.5]}}, ASHA, "uniform takes two numbers"),
        ({"batching.alpha": {"uniform": [False, True]}}, ASHA, "uniform takes two numbers"),
        ({"training.learning_rate": {"loguniform": [0, 1]}}, ASHA, "loguniform needs numbers above 0"),
        ({"batching.alpha": {"choice": []}}, ASHA, "the range is empty"),
        ({"batching.alpha": {"choice": [0.1, 0.1]}}, ASHA, "lists 0.1 twice"),
        ({"batching.alpha": {"grid": [0, 1]}}, ASHA, "a search draws values, it tries no grid; write choice"),
        ({"batching.alpha": {"normal": [0, 1]}}, ASHA, "is written `batching.alpha: {uniform: "),
        ({"batching.alhpa": {"uniform": [0, 1]}}, ASHA, "unknown key 'batching.alhpa' .*did you mean batching.alpha"),
        ({"training.steps": {"choice": [5, 6]}}, ASHA, "training.steps is the budget of every trial"),
        ({}, ASHA, "holds no key; name what varies"),
        (UNIFORM, {"method": "grid"}, "search.method = 'grid' .*: must be asha, pareto or pbt"),
        (UNIFORM, {}, "search.method = None .*: must be asha, pareto or pbt"),
        (UNIFORM, 3, "`search` of space .* must hold keys"),
        (UNIFORM, {**ASHA, "population": 3}, "unknown key search.population .*: asha has .*trials"),
        (UNIFORM, {**ASHA, "trials": 0}, "search.trials = 0 .*greater than 0"),
        (UNIFORM, {**ASHA, "reduction": 1}, "search.reduction = 1 .*greater than 1"),
        (UNIFORM, {**ASHA, "objective": "multi/mpa"}, "search.objective = 'multi/mpa' .*<setting>/<metric>"),
        (UNIFORM, {**ASHA, "objective": "mono/rank_distance"}, "search.objective = 'mono/rank_distance'"),
        (UNIFORM, {"method": "pareto", "objectives": ["multi/map"]}, "search.objectives = .*at least 2"),
        (UNIFORM, {"method": "pareto", "objectives": ["multi/map"] * 2}, "search.objectives = .*listed twice"),
        (UNIFORM, {"method": "pbt", "population": 1}, "search.population = 1"),
        ({"loss.temperature": {"uniform": [0.1, 1]}}, {"method": "pbt"}, "loss.temperature cannot change .*pbt"),
        ({"batching.alpha": {"choice": [0.1]}}, {"method": "pbt"}, "pbt needs two numbers or more"),
        ({"batching.alpha": {"loguniform": [0.1, 1]}}, {"method": "pbt"}, "pbt takes uniform or choice"),
        ({"seed": {"settings": {"a": {"loss.symmetric": True}}}}, ASHA, "seed is a key of the configuration"),
        ({"m": {"settings": {"a": {}}}}, ASHA, "m: 'a' .*a setting is a name with"),
        ({"m": {"settings": {"a": {"nix.y": 1}}}}, ASHA, "unknown key 'nix.y'"),
        ({"m": {"settings": {"a": {"batching.alpha": 0}}}, **UNIFORM}, ASHA, "batching.alpha is varied twice"),
    ],
)
def test_bad_searches_are_one_line(write, space, search, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_space(write(space, search=search))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"batching.alpha": {"uniform": [0, 2]}}, "trial alpha=2: batching.alpha = 2.0: .*less than or equal to 1"),
        ({"batching.alpha": {"uniform": [-1, 1]}}, "trial alpha=-1: batching.alpha"),
        ({"training.warmup_steps": {"uniform": [0, 10]}}, "training.warmup_steps = 3.8.*: .*integer"),
        ({"encoder.precision": {"choice": ["fp32", "fp8"]}}, "trial precision=fp8: encoder.precision"),
    ],
)
def test_what_the_configuration_does_not_allow_is_found_before_anything_starts(write, space, message):
    with pytest.raises(ConfigError, match=message):
        probes_of(load_space(write(space, search=ASHA)))


def test_objectives_are_those_that_the_benchmark_gives(write_source, rows):
    (demo,) = load_benchmarks(["demo"])
    exact, cut = (EvaluationConfig(index=index) for index in (None, "Flat"))
    check_objectives(["mono/map", "multi/rank_distance"], demo, exact)
    check_objectives(["mono/ndcg@10", "multi/recall@100"], demo, cut)
    for objective in ("mono/map", "multi/rank_distance", "cross/mrr"):
        with pytest.raises(ConfigError, match=f"the objective {objective} is not known where an index ranks"):
            check_objectives([objective], demo, cut)
    one = write_source(rows(4, languages=("de",)), "one.jsonl")
    (single,) = load_benchmarks([f"parallel={one}"])
    with pytest.raises(ConfigError, match="the objective cross/map is not given by the benchmark one"):
        check_objectives(["mono/map", "cross/map"], single, exact)


def test_drawn_numbers_have_few_digits_and_stay_inside():
    assert Numbers(0, 1).rounded(0.123456789) == 0.1235
    assert Numbers(0.12354, 1).rounded(0.123541) == 0.12354
    assert Numbers(1e-6, 1e-3, log=True).rounded(1.23456e-5) == 1.235e-5


def test_trials_share_their_data_order(cache):
    """Of every stream (kind, source, language) all trials see the same batches in the same order, and where two trials
    have a batch of the same kind in a step, it is of the same language."""
    space = with_flags(load_space("alpha-asha"), {"batching.global_batch_size": 16})
    base = base_config(space)
    dealt = {}
    for alpha in (0.2, 0.7):
        plan = BatchPlan.from_config(trial_of(space, base, {"batching.alpha": alpha}).config)
        batches = [plan.batch(step) for step in range(60)]
        streams = {}
        for batch in batches:
            key = batch.kind, batch.source, batch.query_languages[0] if batch.kind == "mono" else ""
            streams.setdefault(key, []).append(batch.rows.tolist())
        dealt[alpha] = streams, [(batch.kind, batch.query_languages[0]) for batch in batches]
    (few, kinds), (many, other_kinds) = dealt.values()
    shared = few.keys() & many.keys()
    assert len(shared) > 3
    for key in shared:
        count = min(len(few[key]), len(many[key]))
        assert few[key][:count] == many[key][:count]
    same = [a == b for a, b in zip(kinds, other_kinds, strict=True) if a[0] == b[0] == "mono"]
    assert same
    assert all(same)
