"""Two ranks before storage in which checkpoints are damaged: they agree on the newest whole one, and say so."""

import hashlib
import os
import pickle
import shutil
import tempfile
from pathlib import Path

import pytest
import torch

from hbtrain.config import from_tree, to_tree
from hbtrain.errors import TrainingError
from hbtrain.training.checkpoint_files import Manifest, checkpoints_in, store
from hbtrain.training.loop import Trainer
from tests.distributed.ranks import run_ranks
from tests.distributed.test_engine_ranks import run, worker

__all__ = ["run"]  # a fixture


def start_all(storages, tree, folder):
    """{name: notes, or the error} of a training that finds each of these storages."""
    results = {}
    for name, storage in storages.items():
        events = []
        try:
            Trainer(from_tree(tree), worker(folder, events, storage)).run()
            results[name] = [event.note for event in events if event.note]
        except TrainingError as error:
            results[name] = str(error)
    return results


@pytest.fixture(scope="module")
def notes(run, tmp_path_factory):
    """What is told on rank 0 of trainings that find storages harmed in several ways."""
    storage = tmp_path_factory.mktemp("storage")
    config, folder = run(**{"training.checkpoint_every": 2, "training.deepspeed": {"zero_optimization": {"stage": 1}}})
    tree = to_tree(config)
    run_ranks(start_all, 2, {"whole": str(storage / "whole")}, tree, str(folder))
    names = checkpoints_in(storage / "whole")
    assert [name[:13] for name in names] == ["step-00000006", "step-00000004"], "two are kept of three"
    for harm in (truncate, lose_a_file, lose_a_part, harm_all, poison):
        shutil.copytree(storage / "whole", storage / harm.__name__)
        harm(*(storage / harm.__name__ / name for name in names))
    copies = {harm.__name__: str(storage / harm.__name__) for harm in (truncate, lose_a_file, lose_a_part, harm_all)}
    left = leave_a_part_behind(storage / "truncate")
    told = run_ranks(start_all, 2, copies, tree, str(folder))[0]
    poisoned = {"poison": str(storage / "poison")}
    told |= run_ranks(start_all, 1, poisoned, tree, str(folder))[0]
    told["poison, same ranks"] = run_ranks(start_all, 2, poisoned, tree, str(folder))[0]["poison"]
    told["left behind"] = left.exists()
    return told, storage


def leave_a_part_behind(storage):
    """A part on the local disk, as a killed worker of the run with this storage leaves it."""
    left = (
        Path(tempfile.gettempdir()) / f"hbtrain-{hashlib.blake2b(str(storage).encode(), digest_size=6).hexdigest()}-x"
    )
    left.mkdir()
    return left


def slice_of(rank, checkpoint):
    (file,) = (checkpoint / "state").glob(f"*zero_pp_rank_{rank}_*optim_states.pt")
    return file


def truncate(newest, _):
    file = slice_of(1, newest)
    os.truncate(file, file.stat().st_size // 2)


def lose_a_file(newest, _):
    slice_of(0, newest).unlink()


def lose_a_part(newest, _):
    """As a kill leaves it while rank 1 is still writing."""
    slice_of(1, newest).unlink()
    (newest / "manifest-00001.json").unlink()


def harm_all(newest, before):
    truncate(newest, None)
    lose_a_part(before, None)


class Harmful:
    """Unpickled, it would leave a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def poison(newest, _):
    """Somebody who can write into the storage, manifest included, puts code into it."""
    part = newest.parent.parent / "part"
    torch.save({"optimizer_state_dict": Harmful(str(newest.parent.parent / "mark"))}, part)
    for rank in (0, 1):
        shutil.copy(part, slice_of(rank, newest))
        manifest = Manifest.read(newest, rank)
        local = newest.parent.parent / "local"
        local.mkdir()
        for name in manifest.files:
            (local / name).parent.mkdir(exist_ok=True)
            shutil.copy(newest / name, local / name)
        store(local, newest, manifest)
        shutil.rmtree(local)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(part, weights_only=True)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("truncate", r"state/\S*rank_1\S* has \d+ bytes of \d+"),
        ("lose_a_file", r"state/\S*rank_0\S* is missing"),
        ("lose_a_part", "the part of rank 1 was not finished"),
    ],
)
def test_a_damaged_one_is_passed_over(notes, harm, reason):
    told, storage = notes
    import re

    assert re.fullmatch(
        rf"checkpoint of step 6 is damaged \({reason}\): goes on from the checkpoint of step 4 on 2 workers",
        told[harm][0],
    ), told[harm][0]
    assert told[harm][-1] == "checkpoint of step 6 kept"
    steps = [name[:13] for name in checkpoints_in(storage / harm)]
    assert steps == ["step-00000006", "step-00000004"], "the damaged one is gone, the new one is there"


def test_parts_of_killed_workers_are_removed_from_the_local_disk(notes):
    assert notes[0]["left behind"] is False


def test_none_is_whole(notes):
    told, _ = notes
    assert told["harm_all"][0].endswith("no checkpoint is whole: begins again at step 0")
    assert told["harm_all"][0].startswith("checkpoint of step 6 is damaged (")
    assert "; checkpoint of step 4 is damaged (" in told["harm_all"][0]
    assert told["harm_all"][-1] == "checkpoint of step 6 kept"


def test_code_in_a_checkpoint_is_not_run(notes):
    told, storage = notes
    assert not (storage / "mark").exists()
    for text in (told["poison"], told["poison, same ranks"]):
        assert "mkdir" in text
        assert "not one that hbtrain saved, and is not loaded" in text
    assert "cannot be divided among 1" in told["poison"]
