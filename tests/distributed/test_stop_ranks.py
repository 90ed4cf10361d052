"""Training that is asked to stop stops on all ranks after the same step, with a checkpoint, and goes on from there."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hbtrain.config import from_tree, to_tree
from hbtrain.training import stopping
from hbtrain.training.checkpoint_files import checkpoints_in, is_complete
from hbtrain.training.loop import Trainer
from tests.distributed.ranks import run_ranks
from tests.distributed.test_engine_ranks import run, worker

__all__ = ["run"]  # a fixture


def stopped_and_resumed(tree, folder, storage):
    """(whether each of three trainings came to its end, notes, checkpoints, weights of the first and the last).

    The first training is whole. The second one is asked to stop, of which only rank 1 hears, in its third step; the
    third one goes on.
    """
    stopping.VOTE_EVERY_S = stopping.ALIGNED_WITHIN_S = 0.0  # at every step, and at once
    ended, notes, weights = [], [], []
    for storage_of, asked in ((f"{storage}/whole", False), (f"{storage}/cut", True), (f"{storage}/cut", False)):
        events = []
        given = worker(folder, events, storage_of)
        rank, steps = given.group.rank, []

        def is_requested(rank=rank, steps=steps, asked=asked):
            steps.append(1)
            return asked and rank == 1 and len(steps) == 3

        trainer = Trainer(from_tree(tree), replace(given, is_stop_requested=is_requested))
        ended.append(trainer.run())
        notes.append([(event.step, event.note) for event in events])
        weights.append({key: value.float().numpy() for key, value in trainer.engine.trained_weights().items()})
        found = [Path(storage_of) / name for name in checkpoints_in(Path(storage_of))]
    kept = [path.name[:13] for path in found if is_complete(path)]
    return ended, notes, kept, [weights[0], weights[2]]


def test_one_rank_that_hears_of_it_stops_all_with_a_checkpoint(run, tmp_path):
    config, folder = run(**{"training.checkpoint_every": None, "training.log_every": 2})
    first, second = run_ranks(stopped_and_resumed, 2, to_tree(config), folder, str(tmp_path))
    ended, notes, kept, (whole, resumed) = first
    assert ended == second[0] == [True, False, True]
    steps = [step for step, note in notes[1] if not note]
    assert steps == [2, 3], "the figures of the last step are told before the checkpoint"
    assert (3, "goes on from the checkpoint of step 3 on 2 workers") in notes[2]
    assert "step-00000003" in kept
    for key, value in whole.items():
        np.testing.assert_array_equal(value, resumed[key], key)
