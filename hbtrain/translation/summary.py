"""How many translations were kept, and how many each gate rejected, by language."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Counts:
    """Of one language."""

    texts: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, object]:
        """For the manifest."""
        return {"texts": self.texts, "kept": self.kept, "rejected": dict(sorted(self.rejected.items()))}
