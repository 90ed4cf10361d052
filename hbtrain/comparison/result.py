"""What a comparison has found: systems, what they were compared on, and an estimate of every score."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from hbtrain.comparison.curves import Curves
from hbtrain.comparison.estimates import Estimate, Method, Score
from hbtrain.comparison.published import Choice
from hbtrain.comparison.systems import System
from hbtrain.comparison.tasks import Task
from hbtrain.reporting.colours import colours_of
from hbtrain.reporting.metric_names import ALL


@dataclass(frozen=True, eq=False)
class Comparison:
    """The result of `compare`; `save_comparison` writes it into a folder."""

    systems: tuple[System, ...]
    baseline: str  # label of the system with which the others are compared
    tasks: tuple[Task, ...]
    estimates: tuple[Estimate, ...]
    method: Method
    notes: tuple[str, ...] = ()  # what readers must know, such as runs that were left out or unknown training languages
    published: Choice = None  # which published figures tables show too
    curves: Curves = field(default_factory=Curves)  # how scores came about during training

    @cached_property
    def _by_score(self) -> dict[tuple[str, Score], Estimate]:
        return {(e.system, e.score): e for e in self.estimates}

    @cached_property
    def colours(self) -> dict[str, str]:
        """{label: colour} of the systems, in their order."""
        return colours_of({system.label: system.sampling for system in self.systems})

    def get(self, system: str, benchmark: str, setting: str, metric: str, part: str = ALL) -> Estimate | None:
        """An estimate, or None if the benchmark has no such score."""
        return self._by_score.get((system, Score(benchmark, setting, metric, part)))
