"""Colours of samplings, the same in every picture; told apart with any colour vision (Okabe, Ito 2008)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

from hbtrain.reporting.metric_names import CROSS, ENGLISH, HYBRID, MIXTURE, MONO, MULTI

INK, PALE, GRID, EDGE = "#222222", "#5f5f5f", "#e6e6e6", "#bbbbbb"
NOTHING = "#888888"
"""Colour of the dash that stands for a missing value."""

SAMPLING = {
    MONO: "#0072B2",
    HYBRID: "#009E73",
    MIXTURE: "#332288",
    CROSS: "#D55E00",
    MULTI: "#AA4499",
    ENGLISH: "#8C6D00",
}
SWITCHED = "#56B4E9"  # of code-switched batches, which no sampling consists of by name
OTHERS = ("#444444", "#7A7A7A", "#5B4A8A", "#A0705A", "#2F6F6F")
"""Colours of systems whose training is not known, in turn."""

LIGHTEST = 0.55  # how far the lightest of several systems of one sampling is mixed with white, from 0 to 1


def colours_of(samplings: Mapping[str, str | None]) -> dict[str, str]:
    """{label: colour} of systems by {label: sampling}, None where the training is not known.

    Several systems of one sampling go from dark to light, in their order.
    """
    colours = {}
    others = cycle(OTHERS)
    for label, sampling in samplings.items():
        if sampling is None:
            colours[label] = next(others)
            continue
        family = [other for other, same in samplings.items() if same == sampling]
        step = family.index(label) / max(1, len(family) - 1)
        colours[label] = _lighter(SAMPLING[sampling], LIGHTEST * step)
    return colours


def _lighter(colour: str, share: float) -> str:
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(c + (255 - c) * share):02x}" for c in channels)
