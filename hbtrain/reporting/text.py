"""Counts in sentences."""

from __future__ import annotations


def counted(count: float, noun: str) -> str:
    """A count with its noun: `1 worker`, `3 workers`, `1,000 steps`."""
    return f"{count:,} {noun if count == 1 else noun + 's'}"
