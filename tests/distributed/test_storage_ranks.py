"""Ranks whose checkpoints and model are in S3-compatible storage end where those with a folder do."""

from dataclasses import replace
from pathlib import Path

import pytest

from hbtrain.config import from_tree, to_tree
from hbtrain.storage import place
from hbtrain.training.loop import Trainer
from tests import s3
from tests.distributed.ranks import run_ranks
from tests.distributed.test_engine_ranks import run, worker
from tests.distributed.test_resume_ranks import TOLERANCE, check, largest_difference

__all__ = ["run"]  # a fixture

STAGES = (0, 1, 3)


def train_all(jobs, folder):
    """{name: (notes, final weights, None)} of {name: (configuration, storage)}."""
    results = {}
    for name, (tree, storage) in jobs.items():
        events = []
        home = place(storage)
        own = replace(worker(folder, events), checkpoints=home / "ray", final_model=home / "model")
        trainer = Trainer(from_tree(tree), own)
        trainer.run()
        weights = {key: value.float().numpy() for key, value in trainer.engine.trained_weights().items()}
        results[name] = [event.note for event in events if event.note], weights, None
    return results


@pytest.fixture(scope="module")
def trees(run):
    """{stage: configuration} of six steps with a checkpoint after the third, and the folder of the first model."""
    made = {}
    for stage in STAGES:
        config, folder = run(
            **{
                "training.checkpoint_every": 3,
                "training.learning_rate": 2e-5,
                "training.deepspeed": {"zero_optimization": {"stage": stage}},
            }
        )
        made[stage] = to_tree(config)
    return made, str(folder)


@pytest.fixture(scope="module")
def store(s3_endpoint):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment(s3_endpoint).items():
            patch.setenv(name, value)
        yield s3.Bucket(s3_endpoint)


@pytest.fixture(scope="module")
def whole(trees, store, tmp_path_factory):
    """Runs that are not cut off, with a folder and with a bucket."""
    made, folder = trees
    here = tmp_path_factory.mktemp("storage")
    jobs = {f"folder-{stage}": (tree, str(here / str(stage))) for stage, tree in made.items()}
    jobs |= {f"bucket-{stage}": (tree, f"{store.uri}/whole-{stage}") for stage, tree in made.items()}
    for stage in STAGES:  # as the run's folder would be
        (here / str(stage)).mkdir()
    return run_ranks(train_all, 2, jobs, folder)[0], here


def copied(store, of, to, leave_out=()):
    """A copy of a run's checkpoints in the bucket, without those of some steps."""
    for key in store.keys(f"{of}/ray/"):
        if not any(f"/step-{step:08d}" in key for step in leave_out):
            store.put(key.replace(of, to, 1), store.get(key))
    return f"{store.uri}/{to}"


def damaged(store, of, to):
    """A copy in which the newest checkpoint has a file with a bit turned, of an unchanged size."""
    uri = copied(store, of, to)
    key = next(k for k in store.keys(f"{to}/ray/step-00000006") if k.endswith(".pt") and "rank_1" in k)
    content = bytearray(store.get(key))
    content[len(content) // 2] ^= 1
    store.put(key, bytes(content))
    return uri


@pytest.fixture(scope="module")
def resumed(trees, whole, store):
    """Runs that go on from step 3 in the bucket, on two ranks and on one."""
    made, folder = trees
    jobs = {f"two-{s}": (made[s], copied(store, f"whole-{s}", f"two-{s}", [6])) for s in STAGES}
    jobs["damaged"] = made[1], damaged(store, "whole-1", "damaged")
    results = run_ranks(train_all, 2, jobs, folder)[0]
    jobs = {f"one-{s}": (made[s], copied(store, f"whole-{s}", f"one-{s}", [6])) for s in STAGES}
    return results | run_ranks(train_all, 1, jobs, folder)[0]


@pytest.mark.parametrize("stage", STAGES)
def test_a_bucket_is_as_good_as_a_folder(whole, store, stage):
    results, here = whole
    assert largest_difference(results[f"bucket-{stage}"][1], results[f"folder-{stage}"][1]) == 0
    names = {path.relative_to(here / str(stage)).as_posix() for path in (here / str(stage)).rglob("*.safetensors")}
    assert names == {k.split("/", 1)[1] for k in store.keys(f"whole-{stage}/") if k.endswith(".safetensors")}
    for name in names:
        assert (here / str(stage) / name).read_bytes() == store.get(f"whole-{stage}/{name}")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("name", "workers"), [("two", 2), ("one", 1)])
def test_a_run_goes_on_from_the_bucket(whole, resumed, store, stage, name, workers):
    check(resumed[f"{name}-{stage}"], whole[0][f"folder-{stage}"], workers)
    assert not [key for key in store.keys() if "universal-" in key], "what was converted is deleted"  # noqa: SIM118


def test_a_damaged_object_is_noticed(whole, resumed):
    notes, weights, _ = resumed["damaged"]
    assert notes[0].startswith("checkpoint of step 6 is damaged (")
    assert "holds other bytes than were written): goes on from the checkpoint of step 3 on 2 workers" in notes[0]
    assert largest_difference(weights, whole[0]["folder-1"][1]) < TOLERANCE


def test_nothing_is_left_on_this_machine(resumed, store):
    import hashlib
    import tempfile

    for name in resumed:
        mark = hashlib.blake2b(f"{store.uri}/{name}/ray".encode(), digest_size=6).hexdigest()
        assert list(Path(tempfile.gettempdir()).glob(f"hbtrain-{mark}-*")) == []
