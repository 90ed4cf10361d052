"""The section `loss` of a configuration: weights of terms, and what does not fit together."""

import pytest

from hbtrain.config import from_tree, load_config, override, to_tree, training_values
from hbtrain.config.keys import LATER_KEYS
from hbtrain.config.load import absolute_paths, parse_flags
from hbtrain.config.loss import TERMS, LossConfig
from hbtrain.errors import ConfigError

TEACHER = {"loss.teacher": "some/model"}


def test_the_contrastive_term_has_weight_one_unless_another_is_given():
    assert LossConfig().weights(0) == {"contrastive": 1.0}
    flags = parse_flags(["--loss.terms.bridge", "0.2"])
    assert load_config("quickstart", flags).loss.weights(7) == {"contrastive": 1.0, "bridge": 0.2}
    both = override(load_config("quickstart", flags), {"loss.terms.contrastive": 0.4})
    assert both.loss.weights(7) == {"contrastive": 0.4, "bridge": 0.2}
    assert override(both, {"loss.terms.contrastive": 0}).loss.active_terms == ("bridge",)


def test_weights_by_step_survive_a_round_trip_and_are_joined_by_straight_lines():
    points = {"teacher_kl": {100: 0.5, 0: "1e0"}, "contrastive": {50: 0, 100: 1}}
    config = load_config("quickstart", {**TEACHER, "loss.terms": points})
    assert from_tree(to_tree(config)) == config
    assert config.loss.weights(0) == {"contrastive": 0.0, "teacher_kl": 1.0}
    assert config.loss.weights(75) == pytest.approx({"contrastive": 0.5, "teacher_kl": 0.625})
    assert config.loss.weights(10_000) == {"contrastive": 1.0, "teacher_kl": 0.5}
    assert tuple(config.loss.weights(3)) == ("contrastive", "teacher_kl"), "in the order of all terms"


def test_what_a_run_was_before_there_were_terms_it_is_still():
    values = training_values(load_config("quickstart"))
    assert not [key for key in values if key.startswith("loss.") and key.startswith(LATER_KEYS)]
    changed = training_values(load_config("quickstart", {"loss.terms.reversed": 0.5, "loss.hardness": 3.0}))
    assert changed == values | {"loss.terms.reversed": 0.5, "loss.hardness": 3.0}


def test_a_plain_loss_keeps_what_batches_are_scored_with():
    loss = LossConfig(
        temperature=0.02,
        symmetric=True,
        hard_negatives=3,
        matryoshka_dimensions=(8,),
        block_rows=7,
        guide="scores",
        positives="translations",
        translations=2,
        hardness=5.0,
        terms=dict.fromkeys(TERMS[5:], 0.1),
    )
    assert loss.needs_translated_queries
    kept = LossConfig(temperature=0.02, symmetric=True, hard_negatives=3, matryoshka_dimensions=(8,), block_rows=7)
    assert loss.plain == kept
    assert not loss.plain.needs_translated_queries
    assert kept.beside_plain == {}
    assert loss.beside_plain == {
        "guide": "scores",
        "positives": "translations",
        "translations": 2,
        "hardness": 5.0,
        "terms": {"jensen_shannon": 0.1, "reversed": 0.1, "bridge": 0.1},
    }


def test_folders_of_guide_and_teacher_become_absolute_and_scores_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("scores", "nested"):
        (tmp_path / name).mkdir()
    more = {"loss.terms.teacher_kl": 1.0, "loss.hard_negatives": 1}
    config = absolute_paths(load_config("quickstart", {"loss.guide": "scores", "loss.teacher": "nested", **more}))
    assert (config.loss.guide, config.loss.teacher) == ("scores", str(tmp_path / "nested"))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"loss.terms": {"kl": 1.0}}, ["'kl'", "no term of the loss", "teacher_kl"]),
        ({"loss.terms": 2.0}, ["loss.terms = 2.0", "{term: weight}"]),
        ({"loss.terms.bridge": -1}, ["weight of bridge is -1", "0 or more"]),
        ({"loss.terms.bridge": "much"}, ["weight of bridge is 'much'"]),
        ({"loss.terms.bridge": True}, ["weight of bridge is True"]),
        ({"loss.terms.bridge": {}}, ["bridge has no point"]),
        ({"loss.terms.bridge": {"soon": 1.0}}, ["'soon' of bridge is no step"]),
        ({"loss.terms.bridge": {5: 1.0, "05": 2.0}}, ["step 5 of bridge stands there twice"]),
        ({"loss.terms.bridge": {3: float("inf")}}, ["weight of bridge at step 3 is inf"]),
        ({"loss.terms.contrastive": 0}, ["one at least must be above 0"]),
        ({"loss.terms.bridge": {0: 0, 900_000: 1}}, ["loss.terms", "step 900000", "training.steps"]),
        ({"loss.terms.teacher_kl": 1.0}, ["teacher_kl", "loss.teacher"]),
        (TEACHER, ["loss.teacher some/model", "no term learns from it"]),
        ({"loss.teacher_scale": 2.0}, ["teacher_scale", "need a model"]),
        (
            {"loss.teacher": "scores", "loss.terms.teacher_mse": 1.0, "loss.hard_negatives": 1},
            ["teacher_mse", "vectors"],
        ),
        ({"loss.teacher": "scores", "loss.terms.teacher_kl": 1.0}, ["loss.teacher scores", "loss.hard_negatives"]),
        (
            {
                "loss.teacher": "scores",
                "loss.terms.teacher_kl": 1,
                "loss.hard_negatives": 1,
                "loss.teacher_language": "en",
            },
            ["loss.teacher_language"],
        ),
        ({**TEACHER, "loss.terms.teacher_kl": 1, "loss.teacher_temperature": 0}, ["loss.teacher_temperature = 0"]),
        ({"loss.guide_margin": 0.1}, ["loss.guide_margin", "need loss.guide"]),
        ({"loss.guide": "m", "loss.guide_margin": 2.5}, ["loss.guide_margin 2.5", "between -2 and 2"]),
        (
            {"loss.guide": "m", "loss.guide_margin": -1.5, "loss.guide_relative": True},
            ["loss.guide_margin -1.5", "between -1 and 1"],
        ),
        ({"loss.guide": "scores"}, ["loss.guide scores", "loss.hard_negatives"]),
        (
            {"loss.guide": "scores", "loss.hard_negatives": 1, "loss.guide_language": "en"},
            ["loss.guide_language"],
        ),
        ({"loss.hardness": -1.0}, ["loss.hardness = -1.0", "greater than or equal to 0"]),
        ({"loss.hardness": 2.0, "loss.hardness_of": "hard_negatives"}, ["loss.hardness_of", "loss.hard_negatives"]),
        ({"loss.terms": {"contrastive": 0, "bridge": 1}, "loss.guide": "m"}, ["loss.guide m", "weight 0"]),
        (
            {"loss.terms": {"contrastive": 0, "teacher_mse": 1}, **TEACHER, "loss.learn_temperature": True},
            ["loss.learn_temperature", "no term"],
        ),
        ({"loss.positives": "all"}, ["loss.positives = 'all'", "'translations'"]),
        ({"loss.translations": -1}, ["loss.translations = -1"]),
    ],
)
def test_what_does_not_fit_is_answered_in_one_line(overrides, words):
    with pytest.raises(ConfigError) as error:
        load_config("quickstart", overrides)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_scores_may_have_any_margin():
    assert load_config("quickstart", {"loss.guide": "scores", "loss.guide_margin": 7.5, "loss.hard_negatives": 1})
