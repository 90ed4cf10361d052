"""The exponential moving average of the weights along a run (arXiv 2411.18704 says what it is good for).

After step t the average is the sum over the steps s = 1 to t of decay^(t - s) x the weights after step s, divided by
the sum of these factors: with that correction of the bias the weights before training have no share in it. It is kept
in float32 where the optimizer keeps the weights that it steps: on every rank, or under ZeRO each rank's part of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hbtrain.errors import TrainingError
from hbtrain.training.engine import Engine

FILES = "average-*.pt"
"""The files of a checkpoint that hold the average: a rank's {parameter: (start of its part, part)} each."""


class MovingAverage:
    """The average of the weights that an engine trains."""

    def __init__(self, engine: Engine, decay: float) -> None:
        self._engine, self._decay = engine, decay
        self._parts = engine.parts()
        self._weights = [part.weights for part in self._parts]
        self._averages = [weights.clone(memory_format=torch.contiguous_format) for weights in self._weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step`, which counts from 1 and is one more at every call."""
        # The average moves by the newest factor, 1, over the sum of all: 1 + decay + ... + decay^(step - 1).
        share = (1 - self._decay) / (1 - self._decay**step)
        torch._foreach_lerp_(self._averages, self._weights, share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While the body runs, the engine and its module have the average in place of the weights; collective.

        After an error they still do: the run is lost then, and no other rank would come to give them back.
        """
        self._exchange()
        yield
        self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for weights, average in zip(self._weights, self._averages, strict=True):
            kept = weights.clone()
            weights.copy_(average)
            average.copy_(kept)
        self._engine.take_over()

    def save(self, folder: Path, rank: int) -> None:
        """Write this rank's part of the average into its part of a checkpoint; in stage 0 rank 0 writes the whole."""
        if self._engine.zero_stage > 0 or rank == 0:
            held = zip(self._parts, self._averages, strict=True)
            torch.save({part.name: (part.start, average) for part, average in held}, folder / _name(rank))

    def load(self, folder: Path, rank: int, divided_anew: bool) -> None:
        """Read the average of a checkpoint, as it was saved, to the last bit.

        Args:
            folder: the checkpoint.
            rank: this rank.
            divided_anew: whether another number of ranks saved it, so that this rank's part lies in several files.

        Raises:
            TrainingError: the checkpoint does not have this rank's part.
        """
        files = [folder / _name(0 if self._engine.zero_stage == 0 else rank)]
        if divided_anew:
            files = sorted(folder.glob(FILES))
        missing = sum(average.numel() for average in self._averages)
        for file in filter(Path.exists, files):
            saved = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
            for part, average in zip(self._parts, self._averages, strict=True):
                start, numbers = saved.get(part.name, (0, average.new_empty(0)))
                first, end = max(start, part.start), min(start + numbers.numel(), part.start + average.numel())
                if first < end:
                    found = numbers.flatten()[first - start : end - start]
                    average.view(-1)[first - part.start : end - part.start].copy_(found)
                    missing -= end - first
        if missing:
            raise TrainingError(
                f"the checkpoint {folder} does not have the average of all weights; begin a new run by another --name"
            )


def _name(rank: int) -> str:
    return FILES.replace("*", f"{rank:05d}")
