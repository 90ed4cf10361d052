import pytest
import yaml

from hbtrain.config import load_config
from hbtrain.errors import ConfigError
from hbtrain.sweeps.space import base_config, probes_of, trials_of
from hbtrain.sweeps.space_file import load_space, space_names, with_flags


@pytest.fixture
def write(tmp_path):
    """A function that writes a space and returns its path."""

    def to_file(space, recipe="quickstart", **rest):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({"recipe": recipe, "space": space, **rest}))
        return str(path)

    return to_file


@pytest.mark.parametrize("name", space_names())
def test_every_space_that_ships_is_valid(name):
    space = load_space(name)
    trials = probes_of(space) if space.search else trials_of(space)
    if space.search is not None:
        space.search.stops(base_config(space).training.steps)
    assert len({trial.label for trial in trials}) == len(trials) >= (3 if space.search else 10)
    for trial in trials:
        assert trial.config.evaluation.benchmarks
        assert trial.config.tracking.experiment == name


def test_alpha_grid_is_eleven_ratios_and_three_seeds_one_seed_after_the_other():
    trials = trials_of(load_space("alpha-grid"))
    expected = [(n / 10, seed) for seed in range(3) for n in range(11)]
    assert [(trial.config.batching.alpha, trial.config.seed) for trial in trials] == expected
    assert trials[3].label == "alpha=0.3 seed=0"
    assert {trial.config.batching.mode for trial in trials} == {"hybrid"}


def test_trials_differ_in_the_varied_keys_only():
    trials = trials_of(load_space("samplings"))
    for trial in trials:
        same = load_config("quickstart", {**load_space("samplings").overrides, **trial.values})
        assert trial.config == same


def test_flags_replace_a_range_or_fix_a_key():
    space = with_flags(
        load_space("alpha-grid"),
        {"batching.alpha": [0, 1], "seed": 7, "training.steps": 20, "recipe": "static-parallel"},
    )
    assert [trial.label for trial in trials_of(space)] == ["alpha=0 seed=7", "alpha=1 seed=7"]
    assert {trial.config.training.steps for trial in trials_of(space)} == {20}
    assert base_config(space).name == "static-parallel"


def test_yaml_of_a_space_is_taken_at_its_word(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("""
recipe: quickstart
overrides: {tracking.experiment: 2024, training.steps: 20}
space:
  data.languages: {grid: [[no, de], [en, off]]}
  batching.alpha: {grid: [{0: 1, 10: 0}, 0.5]}
""")
    space = load_space(str(path))
    assert space.overrides == {"tracking.experiment": "2024", "training.steps": 20}
    assert space.draws["data.languages"].probes == (["no", "de"], ["en", "off"])
    assert space.draws["batching.alpha"].probes == ({0: 1, 10: 0}, 0.5)
    path.write_text("recipe: quickstart\nspace:\n  seed: {grid: [1]}\n  seed: {grid: [2]}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml has the key seed twice in one mapping, in lines 3 and 4"):
        load_space(str(path))


def test_a_schedule_is_one_value():
    space = with_flags(load_space("alpha-grid"), {"batching.alpha": {0: 1.0, 100: 0.0}, "seed": 0})
    (trial,) = trials_of(space)
    assert trial.config.batching.alpha == {0: 1.0, 100: 0.0}
    assert trial.label == 'alpha={"0": 1.0, "100": 0.0} seed=0'


def test_a_space_is_read_back_from_its_yaml(tmp_path):
    space = with_flags(load_space("alpha-grid"), {"training.steps": 20})
    path = tmp_path / "alpha-grid.yaml"
    path.write_text(space.to_yaml())
    assert load_space(str(path)) == space


def test_a_recipe_beside_the_space_is_found(write, tmp_path):
    (tmp_path / "own.yaml").write_text("training: {steps: 11}")
    (trial,) = trials_of(load_space(write({"seed": {"grid": [0]}}, recipe="own.yaml")))
    assert trial.config.training.steps == 11


def test_labels_tell_apart_keys_that_end_alike(write):
    space = {"encoder.static.trim": {"grid": [True]}, "encoder.transformer.trim": {"grid": [False]}}
    (trial,) = trials_of(load_space(write(space)))
    assert trial.label == "encoder.static.trim=true encoder.transformer.trim=false"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"batching.alhpa": {"grid": [1]}}, "unknown key 'batching.alhpa' in space .*: did you mean batching.alpha"),
        ({"batching.alpha": {"grid": []}}, "batching.alpha = \\[\\] .*: the range is empty"),
        ({"batching.alpha": {"grid": [0, 0.0]}}, "batching.alpha .* lists 0.0 twice"),
        ({"batching.alpha": {"uniform": [0, 1]}}, "batching.alpha = .* is written `batching.alpha: {grid: "),
        ({"batching.alpha": [0, 1]}, "batching.alpha = .* is written"),
        ({"training.steps": {"grid": [5]}}, "training.steps is both fixed .* and varied"),
        ({"evaluation.batch_size": {"grid": [1, 2]}}, "evaluation.batch_size does not change what is trained"),
        ([1], "`space` of space .* must hold dotted keys"),
        (None, "`space` of space .* must hold dotted keys"),
    ],
)
def test_bad_spaces_are_one_line(write, space, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_space(write(space, overrides={"training.steps": 20}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batching.alpha": {"grid": [0.5, 2]}}, "trial alpha=2: batching.alpha = 2: .* less than or equal to 1"),
        ({"training.warmup_steps": {"grid": [1, 400]}}, "trial warmup_steps=400: .*must be below training.steps"),
        ({"seed": {"grid": [1, "1"]}}, "trials seed=1 and seed=1 are the same run"),
    ],
)
def test_bad_values_are_found_before_anything_starts(write, values, message):
    with pytest.raises(ConfigError, match=message):
        trials_of(load_space(write(values)))


def test_unknown_names(write, tmp_path):
    with pytest.raises(ConfigError, match="unknown space 'alpha-gird': did you mean alpha-grid?"):
        load_space("alpha-gird")
    with pytest.raises(ConfigError, match="cannot read space .*nix.yaml: No such file"):
        load_space(str(tmp_path / "nix.yaml"))
    with pytest.raises(ConfigError, match="unknown part 'extra' in space"):
        load_space(write({"seed": {"grid": [0]}}, extra=1))
    with pytest.raises(ConfigError, match="recipe = 3 in space"):
        load_space(write({"seed": {"grid": [0]}}, recipe=3))
    with pytest.raises(ConfigError, match="unknown recipe 'nix'"):
        base_config(load_space(write({"seed": {"grid": [0]}}, recipe="nix")))
    with pytest.raises(ConfigError, match="unknown key 'training.stesp' in flags"):
        with_flags(load_space("alpha-grid"), {"training.stesp": 3})
