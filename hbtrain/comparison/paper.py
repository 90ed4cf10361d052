"""The figures of the paper (arXiv 2408.10536), to stand beside those of runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from hbtrain.comparison.systems import TITLES

CANDIDATES = {"xquad-r": "sentence", "mlqa-r": "sentence"}
"""What the paper ranks."""


@dataclass(frozen=True)
class PaperRow:
    """One model of the paper."""

    backbone: str
    sampling: str
    scores: dict[str, float]
    """{`<benchmark>/<setting>/<metric>`: score}."""

    @property
    def label(self) -> str:
        """As in the rows of tables."""
        return f"paper: {self.backbone}, {TITLES[self.sampling]}"


@cache
def paper_rows() -> tuple[PaperRow, ...]:
    """The models of the paper, in the order of tables."""
    text = (resources.files("hbtrain") / "comparison" / "paper_tables.json").read_text(encoding="utf-8")
    return tuple(PaperRow(**row) for row in json.loads(text)["rows"])
