"""Ending training before its last step because someone outside asked for it, at the same step on all ranks.

Each rank hears of the request at its own moment (see `Worker.is_stop_requested`). A rank that stopped by itself would
leave the others waiting in a collective for ever, so the ranks vote: about once a second, at steps that all of them
know, they tell each other whether they were asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from hbtrain.modeling.gather import Group

VOTE_EVERY_S = 1.0
MOST_STEPS = 100  # between two votes, however fast the steps before were: those to come may be slow


class StopVote:
    """The ranks' common decision on whether to stop."""

    def __init__(
        self,
        group: Group,
        device: torch.device,
        is_requested: Callable[[], bool] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A vote among the ranks of `group`; `is_requested` tells what this rank has heard, None: nobody ever asks."""
        self._group = group
        self._device = device
        self._is_requested = is_requested
        self._clock = clock
        self._voted_at: float | None = None
        self._interval = self._steps = 1

    def is_stop(self) -> bool:
        """Whether to stop after this step; to be called after each. Collective at steps that are the same on all ranks.

        The first call begins to measure time. The steps until the next vote follow from the time that all ranks took
        since the last one, so that all ranks count the same.
        """
        if self._is_requested is None:
            return False
        self._steps -= 1
        if self._steps > 0:
            return False
        now = self._clock()
        elapsed_s = 0.0 if self._voted_at is None else now - self._voted_at
        own = torch.tensor([float(self._is_requested()), elapsed_s], dtype=torch.float64, device=self._device)
        votes = self._group.all_gather(own).cpu()
        self._voted_at = now
        slowest_s = float(votes[:, 1].max()) / self._interval
        if slowest_s > 0:
            self._interval = max(1, min(MOST_STEPS, int(VOTE_EVERY_S / slowest_s)))
        self._steps = self._interval
        return bool(votes[:, 0].any())
