"""Runs that are cut off and go on, on as many gloo ranks as before or on another number, end where the whole run does.

Three trainings of all variants on 1, 2 and 3 ranks, one process a rank for all of them, are looked at by many tests.
"""

import shutil

import numpy as np
import pytest

from hbtrain.batching import BatchPlan
from hbtrain.config import from_tree, to_tree
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.encoder import Encoder
from hbtrain.training.checkpoint_files import checkpoints_in
from hbtrain.training.loop import Trainer
from tests.distributed.ranks import run_ranks
from tests.distributed.test_engine_ranks import SMALL, run, worker

__all__ = ["run"]  # a fixture

STAGES = (0, 1, 2, 3)
DROPOUT = {"encoder.transformer": {**SMALL["encoder.transformer"], "dropout": 0.1}}
OFFLOAD = {"offload_optimizer": {"device": "cpu"}}
VARIANTS = {
    **{f"fp32-{stage}": (stage, {}) for stage in STAGES},
    **{f"bf16-{stage}": (stage, {"encoder.precision": "bf16"}) for stage in (0, 1, 3)},
    **{f"lora-{stage}": (stage, {"encoder.lora": {"rank": 2, "alpha": 4}}) for stage in (1, 3)},
    **{f"temperature-{stage}": (stage, {"loss.learn_temperature": True}) for stage in (1, 3)},
    **{f"offload-{stage}": (stage, {}) for stage in (2, 3)},
    "dropout-1": (1, DROPOUT),
    "muon-0": (0, {"training.optimizer": "muon"}),
}
# A learning rate of fine-tuning. The schedule falls, and weight decay is large on one group of parameters and nothing
# on the other: a schedule, a group or a step counter that is not restored moves the weights by some 1e-5.
LEARNING_RATE = 2e-5
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def trees(run):
    """{variant: configuration} of six steps with a checkpoint after the third, and the folder of their models."""
    made = {}
    for name, (stage, overrides) in VARIANTS.items():
        config, folder = run(
            **{
                "training.checkpoint_every": 3,
                "training.learning_rate": LEARNING_RATE,
                "training.weight_decay": 1.0,
                "training.deepspeed": {"zero_optimization": {"stage": stage, **(OFFLOAD if "offload" in name else {})}},
                **overrides,
            }
        )
        made[name] = to_tree(config)
    # Dropout is a property of the model that training starts from.
    dropout = from_tree(made["dropout-1"])
    Encoder.build(dropout.encoder, ParallelCorpus.from_config(dropout).every_text, 0).save(folder / "dropout/initial")
    return made, folder


def home(name, folder):
    """The folder with a variant's initial model."""
    return folder / "dropout" if "dropout" in name else folder


def train_all(jobs, folder):
    """{name: (notes, final weights, fingerprint of the plan that was left)} of {name: (configuration, storage)}."""
    results = {}
    for name, (tree, storage) in jobs.items():
        events = []
        trainer = Trainer(from_tree(tree), worker(home(name, folder), events, storage))
        trainer.run()
        weights = {key: value.float().numpy() for key, value in trainer.engine.trained_weights().items()}
        notes = [event.note for event in events if event.note]
        started = next((int(note.split("step ")[1].split()[0]) for note in notes if note.startswith("goes on")), 0)
        results[name] = notes, weights, trainer.plan.fingerprint(started, 6)
    return results


def train_on(world_size, jobs, folder):
    """`train_all` on ranks; what rank 0 returns."""
    return run_ranks(train_all, world_size, jobs, folder)[0]


def cut_off(storage, to):
    """A copy of a run's storage as a kill before the last checkpoint would have left it."""
    shutil.copytree(storage, to)
    for name in checkpoints_in(to):
        if not name.startswith("step-00000003"):
            shutil.rmtree(to / name)
    return str(to)


@pytest.fixture(scope="module")
def on_two(trees, tmp_path_factory):
    """The uninterrupted runs on two ranks, and their storages."""
    made, folder = trees
    storage = tmp_path_factory.mktemp("two [old]")  # where glob, with which DeepSpeed looks, would find nothing
    return train_on(2, {name: (tree, str(storage / name)) for name, tree in made.items()}, folder), storage


@pytest.fixture(scope="module")
def one_after_two(trees, on_two, tmp_path_factory):
    """All variants on one rank from the checkpoints of two; and, of fp32, runs on one rank from the start."""
    made, folder = trees
    storage = tmp_path_factory.mktemp("one [old]")
    jobs = {name: (tree, cut_off(on_two[1] / name, storage / name)) for name, tree in made.items()}
    jobs |= {f"new-{stage}": (made[f"fp32-{stage}"], str(storage / f"new-{stage}")) for stage in STAGES}
    return train_on(1, jobs, folder), storage


@pytest.fixture(scope="module")
def three_after_two(trees, on_two, tmp_path_factory):
    made, folder = trees
    storage = tmp_path_factory.mktemp("three")
    jobs = {f"fp32-{s}": (made[f"fp32-{s}"], cut_off(on_two[1] / f"fp32-{s}", storage / str(s))) for s in STAGES}
    return train_on(3, jobs, folder)


@pytest.fixture(scope="module")
def two_after_one_and_two(trees, on_two, one_after_two, tmp_path_factory):
    made, folder = trees
    storage = tmp_path_factory.mktemp("two-again")
    jobs = {}
    for s in STAGES:
        tree = made[f"fp32-{s}"]
        jobs[f"one-{s}"] = tree, cut_off(one_after_two[1] / f"new-{s}", storage / f"one-{s}")
        jobs[f"two-{s}"] = tree, cut_off(on_two[1] / f"fp32-{s}", storage / f"two-{s}")
    for name in ("dropout-1", "muon-0", "bf16-0"):
        jobs[f"two-{name}"] = made[name], cut_off(on_two[1] / name, storage / f"two-{name}")
    return train_on(2, jobs, folder)


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max(abs(a[name] - b[name]).max() for name in a)


def distance(a, b):
    return float(np.sqrt(sum(((a[name] - b[name]) ** 2).sum(dtype=np.float64) for name in a)))


def initial_weights(tree, folder):
    from hbtrain.training.export import load_for_training, trainable

    config = from_tree(tree)
    module = trainable(load_for_training(config, folder / "initial"), config)
    return {name: value.float().numpy() for name, value in module.state_dict().items()}


def check(resumed, whole, workers, tolerance=TOLERANCE):
    notes, weights, remaining = resumed
    assert notes[0] == f"goes on from the checkpoint of step 3 on {workers} worker{'s'[: workers > 1]}"
    assert notes[-1] == "checkpoint of step 6 kept"
    assert largest_difference(weights, whole[1]) < tolerance
    return remaining


@pytest.mark.parametrize("stage", STAGES)
def test_the_same_number_of_ranks(two_after_one_and_two, on_two, stage):
    check(two_after_one_and_two[f"two-{stage}"], on_two[0][f"fp32-{stage}"], 2)


@pytest.mark.parametrize("name", ["dropout-1", "muon-0", "bf16-0"])
def test_the_same_number_of_ranks_bit_for_bit(two_after_one_and_two, on_two, name):
    check(two_after_one_and_two[f"two-{name}"], on_two[0][name], 2, tolerance=1e-30)


@pytest.mark.parametrize("stage", STAGES)
def test_one_rank_after_two(one_after_two, on_two, stage):
    check(one_after_two[0][f"fp32-{stage}"], on_two[0][f"fp32-{stage}"], 1)


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_after_one(two_after_one_and_two, one_after_two, on_two, stage):
    resumed = two_after_one_and_two[f"one-{stage}"]
    check(resumed, one_after_two[0][f"new-{stage}"], 2)
    assert largest_difference(resumed[1], on_two[0][f"fp32-{stage}"][1]) < TOLERANCE


@pytest.mark.parametrize("stage", STAGES)
def test_three_ranks_after_two(three_after_two, on_two, stage):
    check(three_after_two[f"fp32-{stage}"], on_two[0][f"fp32-{stage}"], 3)


def test_the_weights_have_moved_much_further_than_the_tolerance(trees, on_two):
    made, folder = trees
    for stage in STAGES:
        first = initial_weights(made[f"fp32-{stage}"], folder)
        assert largest_difference(on_two[0][f"fp32-{stage}"][1], first) > 30 * TOLERANCE


@pytest.mark.parametrize("stage", [1, 3])
def test_adapters_with_a_frozen_backbone(one_after_two, on_two, stage):
    check(one_after_two[0][f"lora-{stage}"], on_two[0][f"lora-{stage}"], 1)


@pytest.mark.parametrize("name", ["temperature-1", "temperature-3", "offload-2", "offload-3", "muon-0"])
def test_a_learned_temperature_offloaded_state_and_muon(one_after_two, on_two, name):
    check(one_after_two[0][name], on_two[0][name], 1)


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_bf16(one_after_two, on_two, stage):
    """Sums in another order fall on the next number of 8 bits now and then: a relative step of 2^-7 at most."""
    _, weights, _ = one_after_two[0][f"bf16-{stage}"]
    _, whole, _ = on_two[0][f"bf16-{stage}"]
    for name, weight in weights.items():
        assert np.all(abs(weight - whole[name]) <= 2**-7 * abs(whole[name]) + TOLERANCE), name


def test_dropout_on_another_number_of_ranks(trees, one_after_two, on_two):
    """Masks are drawn by rank, so the way is another one; it stays near: both ways are of nearly one length, and the
    ends are nearer to each other than a quarter of it."""
    made, folder = trees
    first = initial_weights(made["dropout-1"], home("dropout-1", folder))
    whole, resumed = on_two[0]["dropout-1"][1], one_after_two[0]["dropout-1"][1]
    gone = distance(whole, first)
    assert 0 < distance(whole, resumed) < 0.25 * gone
    assert distance(resumed, first) == pytest.approx(gone, rel=0.1)


def test_the_remaining_plan_is_the_same(trees, one_after_two, three_after_two):
    made, _ = trees
    want = BatchPlan.from_config(from_tree(made["fp32-0"])).fingerprint(3, 6)
    assert {one_after_two[0][name][2] for name in made} == {want}
    assert {result[2] for result in three_after_two.values()} == {want}
