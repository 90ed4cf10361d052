"""From a feed to a rank's device: ranks agree how to cut their texts, and work is copied one step ahead.

The next step's work is brought to the device while this step computes there. The host waits for no device: ranks agree
from host to host, and copies come from pinned memory, on a stream of their own for which only the device waits.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import nullcontext
from datetime import timedelta
from typing import Self

import torch
import torch.distributed as dist

from hbtrain.training.chunks import Cut
from hbtrain.training.feed import Feed, Work
from hbtrain.training.stopwatch import COMMUNICATION, Stopwatch

MOST_SIDES = 5  # queries, passages, hard negatives, translated passages, translated queries


class Delivery:
    """Brings the work of a feed to the device of a rank."""

    def __init__(
        self, feed: Feed, device: torch.device, hosts: dist.ProcessGroup | None, stopwatch: Stopwatch | None = None
    ) -> None:
        """A delivery to `device`.

        Args:
            feed: of this rank.
            device: where its work goes.
            hosts: the ranks, in a group whose collectives are computed on CPUs (see `group_of_hosts`).
            stopwatch: measures the time in which ranks wait for each other.
        """
        self._feed = feed
        self._device = device
        self._hosts = hosts
        self._stopwatch = stopwatch or Stopwatch(torch.device("cpu"))
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def work(self, step: int) -> Work:
        """The work of a step, prepared now and brought to the device; collective where ranks must agree."""
        return self.now(self._feed.work(step))

    def steps(self, start: int, stop: int) -> Ahead:
        """The work of steps [start, stop) on the device, prepared and sent ahead."""
        return Ahead(self, self._feed.steps(start, stop))

    def now(self, work: Work) -> Work:
        """The work of the feed, brought to the device; collective where ranks must agree."""
        return self.arrived(self.sent(work))

    def sent(self, work: Work) -> Work:
        """The work on its way to the device, not to be computed with before it has `arrived`; collective where ranks
        must agree."""
        if self._feed.agrees:
            work = self._feed.agreed(work, self._agree(work.cut))
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            return work.to(self._device)

    def failed(self) -> None:
        """This rank has no work for a step, because of an error that it raises later; collective where ranks must
        agree, so that the others, and this rank before its error, can end the step before."""
        if self._feed.agrees:
            self._agree(None)

    def arrived(self, work: Work) -> Work:
        """The work, with which the device computes from now on; it waits for the copies, the host does not."""
        if self._stream is not None:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_stream(self._stream)
            for x in work.tensors():
                x.record_stream(computing)  # or their memory would be used for the next copy as soon as they are freed
        return work

    def _agree(self, own: Cut | None) -> Cut:
        """As many chunks, and batches of each side, as the rank has that needs the most; collective."""
        numbers = [0, *[0] * MOST_SIDES] if own is None else [own.chunks, *own.batches]
        most = torch.tensor(numbers + [0] * (1 + MOST_SIDES - len(numbers)))
        with self._stopwatch.phase(COMMUNICATION):
            dist.all_reduce(most, dist.ReduceOp.MAX, self._hosts)
        chunks, *batches = most.tolist()
        return Cut(chunks, tuple(count for count in batches if count))


class Ahead(Iterator[Work]):
    """The work of several steps on the device, each on its way while the one before it is computed.

    Every method is collective where ranks must agree. An error of the feed is raised at its step.
    """

    def __init__(self, delivery: Delivery, works: Generator[Work]) -> None:
        self._delivery = delivery
        self._works = works
        self._next: Work | Exception | None = None

    def fetch(self) -> None:
        """Have the next work on its way, if there is one; to be called when the work before it has been launched."""
        if self._next is not None:
            return
        try:
            work = next(self._works, None)
        except Exception as error:
            self._next = error
            self._delivery.failed()
        else:
            self._next = None if work is None else self._delivery.sent(work)

    def __next__(self) -> Work:
        self.fetch()
        item, self._next = self._next, None
        if item is None:
            raise StopIteration
        if isinstance(item, Exception):
            raise item
        return self._delivery.arrived(item)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """End the feed's thread, if it prepares more."""
        self._works.close()


def group_of_hosts(feed: Feed, device: torch.device, timeout_s: float) -> dist.ProcessGroup | None:
    """A group of all ranks whose collectives are computed on CPUs, for ranks that compute on `device`; collective.

    None, which is the default group, where that computes on CPUs itself, or where the ranks need not agree. A
    collective that takes longer than `timeout_s` is an error.
    """
    if device.type == "cpu" or not feed.agrees:
        return None
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
    return group
