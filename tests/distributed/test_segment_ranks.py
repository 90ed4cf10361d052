"""Runs made of segments, on two gloo ranks, end with the weights of the run that never stopped."""

import shutil
from dataclasses import replace

import pytest

from hbtrain.config import from_tree, override, to_tree
from hbtrain.training.checkpoint_files import checkpoints_in, is_complete, step_of
from hbtrain.training.loop import Trainer
from tests.distributed.ranks import run_ranks
from tests.distributed.test_engine_ranks import run, worker

__all__ = ["run"]  # a fixture

STEPS = 6
TOLERANCE = 1e-6


def train_in_segments(tree, folder, storage, ends, protected_step=None):
    """(weights after the last of `ends`, [events of each segment], {step: its figures, and its checkpoint was whole}).

    The last is what there was when the events before a checkpoint were to be flushed.
    """
    told, flushed = [], {}
    for until in ends:
        events = []

        def flush_events(events=events):
            step = max((event.step for event in events), default=0)
            flushed[step] = ([event.metrics for event in events if event.step == step], bool(at_step(storage, step)))

        trainer = Trainer(
            from_tree(tree),
            replace(worker(folder, events, storage), protected_step=protected_step, flush_events=flush_events),
        )
        trainer.run(until)
        told.append([(event.step, event.note) for event in events])
    return {name: weight.float().numpy() for name, weight in trainer.engine.trained_weights().items()}, told, flushed


def train_all(jobs):
    return {name: train_in_segments(*job) for name, job in jobs.items()}


def difference(a, b):
    assert a.keys() == b.keys()
    return max(abs(a[name] - b[name]).max() for name in a)


def at_step(storage, step):
    return [name for name in checkpoints_in(storage) if step_of(name) == step and is_complete(storage / name)]


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """Whole runs and runs in segments; a run that takes over another's checkpoint, and one with its schedule."""
    storage = tmp_path_factory.mktemp("segments")
    config, folder = run(
        **{
            "training.steps": STEPS,
            "training.learning_rate": 0.01,
            "training.keep_checkpoints": 1,
            "training.deepspeed": {"zero_optimization": {"stage": 1}},
        }
    )
    validated = override(
        config,
        {"data.validation": "demo-heldout", "training.validate_every": 4, "training.patience": 1},
    )
    # Its first two steps are monolingual, whatever is drawn; the others cross-lingual.
    donor = override(config, {"batching.alpha": 1.0})
    taker = override(config, {"batching.alpha": {0: 1.0, 1: 1.0, 2: 0.0}})
    first = run_ranks(
        train_all,
        2,
        {
            "whole": (to_tree(config), folder, storage / "whole", [None]),
            "parts": (to_tree(config), folder, storage / "parts", [2, 5, 5, None]),
            "validated": (to_tree(validated), folder, storage / "validated", [None]),
            "validated-parts": (to_tree(validated), folder, storage / "validated-parts", [3, 5, None]),
            "donor": (to_tree(donor), folder, storage / "donor", [2]),
            "donor-on": (to_tree(donor), folder, storage / "donor", [4, STEPS], 2),
            "scratch": (to_tree(taker), folder, storage / "scratch", [None]),
        },
    )[0]
    for name in at_step(storage / "donor", 2):
        shutil.copytree(storage / "donor" / name, storage / "taker" / name)
    second = run_ranks(train_all, 2, {"taker": (to_tree(taker), folder, storage / "taker", [4, None])})[0]
    return {**first, **second}, storage


def test_segments_end_where_the_whole_run_does(made):
    runs, _ = made
    weights, told, _ = runs["parts"]
    assert difference(weights, runs["whole"][0]) < TOLERANCE
    assert (2, "checkpoint of step 2 kept") in told[0]
    assert (2, "goes on from the checkpoint of step 2 on 2 workers") in told[1]
    assert told[2] == [(5, "goes on from the checkpoint of step 5 on 2 workers")], "nothing is left to do"
    assert difference(weights, runs["scratch"][0]) > 100 * TOLERANCE, "other batches lead elsewhere"


def test_figures_are_flushed_before_their_checkpoint_is_whole(made):
    runs, _ = made
    flushed = runs["parts"][2]
    assert list(flushed) == [2, 5]
    for (figures,), was_whole in flushed.values():
        assert "train/loss" in figures
        assert not was_whole


def test_validation_and_patience_do_not_notice_the_stops(made):
    runs, _ = made
    assert difference(runs["validated-parts"][0], runs["validated"][0]) < TOLERANCE


def test_the_step_that_another_run_may_go_on_from_is_kept(made):
    _, storage = made
    assert at_step(storage / "donor", 2), "protected_step"
    assert at_step(storage / "donor", 4), "the newest one"
    assert not at_step(storage / "parts", 2), "keep_checkpoints = 1"


def test_a_run_that_takes_over_a_checkpoint_ends_where_its_schedule_from_scratch_does(made):
    runs, _ = made
    weights, told, _ = runs["taker"]
    assert told[0][0] == (2, "goes on from the checkpoint of step 2 on 2 workers")
    assert difference(weights, runs["scratch"][0]) < TOLERANCE
    assert difference(weights, runs["donor-on"][0]) > 100 * TOLERANCE
