"""Numbers of things in sentences."""

from __future__ import annotations


def counted(count: float, noun: str) -> str:
    """`1 worker`, `3 workers`, `1,000 steps`: a count with its noun, which is plural but for exactly one."""
    return f"{count:,} {noun if count == 1 else noun + 's'}"
