"""Alpha as a step function of training: what a member of a population has trained with, and what it goes on with.

A schedule is [(step, alpha), ...], the first at step 0: from each step on alpha has that value. The configuration takes
points joined by straight lines, so a change at step s is two points, at s - 1 and at s; at whole steps they are the
step function exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

Schedule = tuple[tuple[int, float], ...]


def read_schedule(changes: Sequence[Sequence[float]]) -> Schedule:
    """A schedule from lists, as JSON has it."""
    return tuple((int(step), float(alpha)) for step, alpha in changes)


def extended(schedule: Schedule, step: int, alpha: float) -> Schedule:
    """`schedule` up to `step`, and `alpha` from there on; the same where that is no change.

    Raises:
        ValueError: `step` is not behind the last change.
    """
    if step <= schedule[-1][0]:
        raise ValueError(f"step {step} is not behind the last change, {schedule[-1][0]}")
    return schedule if schedule[-1][1] == alpha else (*schedule, (step, alpha))


def to_alpha(schedule: Schedule) -> float | dict[int, float]:
    """The schedule as a value of `batching.alpha`: a number where it never changes, else points {step: alpha}."""
    if len(schedule) == 1:
        return schedule[0][1]
    points: dict[int, float] = {}
    before = schedule[0][1]
    for step, alpha in schedule:
        if step > 0:
            points[step - 1] = before
        points[step] = before = alpha
    return points


def label_of(schedule: Schedule) -> str:
    """In a few characters: `alpha=0.3`, or `alpha=0.3, 0.36 from 100`."""
    first, *changes = schedule
    return ", ".join([f"alpha={first[1]:g}", *(f"{alpha:g} from {step}" for step, alpha in changes)])
