"""Counts and sizes in sentences, and lines for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

GIB = 2**30


def counted(count: float, noun: str) -> str:
    """A count with its noun: `1 worker`, `3 workers`, `1,000 steps`."""
    return f"{count:,} {noun if count == 1 else noun + 's'}"


def listed(names: Sequence[str], most: int) -> str:
    """The first names of a list: `a, b, c`, or `a, b, c, ...` where it has more than `most`."""
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])


def byte_size(count: float) -> str:
    """Bytes with their unit: `3 MiB`, `1.2 GiB`."""
    return f"{count / GIB:.3g} GiB" if count >= GIB else f"{count / 2**20:.3g} MiB"


def lasting(seconds: float) -> str:
    """A duration in one or two units: `4 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if minutes == 0:
        return f"{int(seconds)} s"
    if hours == 0:
        return f"{minutes} min"
    if hours < 24:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def say(text: str) -> None:
    """Print a text as it is (see `TextConsole`), without wrapping it."""
    from hbtrain.reporting.console import TextConsole

    TextConsole().print(text, soft_wrap=True)
