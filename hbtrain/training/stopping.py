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
ALIGNED_WITHIN_S = 10.0
"""How long training goes on after the vote to stop at a step whose figures are told anyway; whoever asked may wait for
half a minute only. So the figures are mostly those of a run that was never stopped."""


class StopVote:
    """The ranks' common decision on whether to stop."""

    def __init__(
        self,
        group: Group,
        device: torch.device,
        is_requested: Callable[[], bool] | None,
        every: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A vote among ranks.

        Args:
            group: the ranks.
            device: where their votes are gathered.
            is_requested: tells whether this rank has heard that training is to stop; None: nobody ever asks.
            every: preferably training stops after a multiple of so many steps.
            clock: seconds.
        """
        self._group = group
        self._device = device
        self._is_requested = is_requested
        self._every = every
        self._clock = clock
        self._voted_at: float | None = None
        self._voted_after = 0
        self._next = 0
        self._stop_after: int | None = None

    def is_stop(self, done: int) -> bool:
        """Whether to stop now that `done` steps are done; to be called after each step.

        Collective at some steps, the same ones on all ranks: the steps until the next vote follow from the time that
        the slowest rank took for those since the last vote, which all ranks know.
        """
        if self._is_requested is None:
            return False
        if self._stop_after is None and done >= self._next:
            self._vote(done, self._is_requested())
        return done == self._stop_after

    def _vote(self, done: int, own: bool) -> None:
        now = self._clock()
        elapsed_s = 0.0 if self._voted_at is None else now - self._voted_at
        mine = torch.tensor([float(own), elapsed_s], dtype=torch.float64, device=self._device)
        votes = self._group.all_gather(mine).cpu()
        slowest_s = float(votes[:, 1].max())
        step_s = (
            slowest_s / (done - self._voted_after) if slowest_s > 0 else None
        )  # the first vote has nothing to go by
        if votes[:, 0].any():
            left = -done % self._every
            is_near = step_s is not None and left * step_s <= ALIGNED_WITHIN_S
            self._stop_after = done + left if is_near else done
        self._voted_at, self._voted_after = now, done
        interval = 1 if step_s is None else max(1, min(MOST_STEPS, int(VOTE_EVERY_S / step_s)))
        self._next = done + interval
