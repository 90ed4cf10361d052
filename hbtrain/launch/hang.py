"""Which worker hangs: decided from what all of them last said, so that a stopped process need not help.

All ranks pass the same marks in the same order (they train in step), so the number of marks passed says who is behind.
When one rank hangs the others wait for it in a collective, one or more marks ahead: they are its victims, and the rank
that is behind is to be named.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

FINISHED = 2**62
"""Marks of a rank that has come to its end."""

LOADING = ("start", "loading", "restore")
LOADING_S = 600.0
"""Models and checkpoints take longer than a step: before the first one the timeout is at least this."""

SILENT_S = 5.0
"""Heartbeats come every second; a rank that has sent none for this long counts as silent."""


@dataclass(frozen=True)
class Position:
    """Where a rank stands.

    Attributes:
        group: the worker group it belongs to; a restart makes a new one.
        world_size: ranks of that group.
        rank: its rank.
        node: address of its machine.
        pid: its process there.
        step: the step it is in.
        phase: what it does in that step, e.g. `loss`.
        marks: phases begun since the group started; `FINISHED` at the end.
        beats: heartbeats sent; they go on while the main thread waits, and stop with the process.
    """

    group: str
    world_size: int
    rank: int
    node: str = ""
    pid: int = 0
    step: int = 0
    phase: str = "start"
    marks: int = 0
    beats: int = 0


@dataclass(frozen=True)
class Hang:
    """Ranks that keep the others waiting.

    Attributes:
        behind: where they stand; several where none is further than the others.
        missing: ranks of the group that never said anything.
        waited_s: seconds without progress.
        silent: whether the ranks in `behind` send no heartbeats either.
    """

    behind: tuple[Position, ...]
    missing: tuple[int, ...]
    waited_s: float
    silent: bool

    def words(self, since: str) -> str:
        """In one line: who hangs, since when (a time of day), in which step and phase."""
        if self.missing:
            ranks = ", ".join(map(str, self.missing))
            return f"rank {ranks} hangs since {since}: it has not begun in {self.waited_s:.0f} s"
        at = self.behind[0]
        who = ", ".join(f"{at.rank} on node {at.node} (pid {at.pid})" for at in self.behind)
        place = f"in phase {at.phase} of step {at.step}"
        if self.silent:
            process = f"last heard of {place}; the process is stopped or cut off"
        elif len(self.behind) > 1:
            process = f"{place}, where they wait for each other"
        else:
            process = f"{place}; the process is alive"
        return f"rank {who} hangs since {since}: no progress for {self.waited_s:.0f} s, {process}"


@dataclass
class HangDetector:
    """Watches positions over time; pure, its clock is given.

    Attributes:
        timeout_s: time without progress after which a rank counts as hanging; while it loads, at least `LOADING_S`.
    """

    timeout_s: float
    _group: str = ""
    _ignored: set[str] = field(default_factory=set)
    _began_s: float = 0.0
    _marks: dict[int, tuple[int, float]] = field(default_factory=dict)
    _beats: dict[int, tuple[int, float]] = field(default_factory=dict)

    def ignore(self, group: str) -> None:
        """Say no more about `group`: it is gone, or about to be."""
        self._ignored.add(group)

    def observe(self, positions: Collection[Position], now_s: float) -> Hang | None:
        """Take note of the last known positions of one group at `now_s`; a Hang once the timeout has passed."""
        group = next((at.group for at in positions), "")
        if not positions or group in self._ignored:
            return None
        if group != self._group:
            self._group, self._began_s, self._marks, self._beats = group, now_s, {}, {}
        for at in positions:
            _note(self._marks, at.rank, at.marks, now_s)
            _note(self._beats, at.rank, at.beats, now_s)
        world_size = max(at.world_size for at in positions)
        missing = tuple(sorted(set(range(world_size)) - {at.rank for at in positions}))
        fewest = min(at.marks for at in positions)
        behind = [at for at in positions if at.marks == fewest]
        since_s = self._began_s if missing else max(self._marks[at.rank][1] for at in behind)
        loading = missing or all(at.phase in LOADING for at in behind)
        timeout_s = max(self.timeout_s, LOADING_S) if loading else self.timeout_s
        if fewest == FINISHED or now_s - since_s < timeout_s:
            return None
        silent = [at for at in behind if now_s - self._beats[at.rank][1] >= SILENT_S]
        behind = sorted(silent or behind, key=lambda at: at.rank)
        return Hang(tuple(behind), missing, now_s - since_s, bool(silent))


def _note(known: dict[int, tuple[int, float]], rank: int, value: int, now_s: float) -> None:
    """Keep `value` and when it was first seen."""
    if rank not in known or known[rank][0] != value:
        known[rank] = (value, now_s)
