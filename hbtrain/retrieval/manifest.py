"""What an embedding store holds: its manifest, and the digest of texts that stands in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from hbtrain.errors import ConfigError, StorageError
from hbtrain.modeling.encoder import Side

StoreType = Literal["float32", "float16"]

FORMAT = 1
MANIFEST = "manifest.json"
ROWS_PER_SHARD = 32_768
"""Rows of a file: 100 MB at 768 dimensions in fp32, which is also the most that a killed encoding loses."""
BLOCK_ROWS = 2048  # texts that are batched together, and that a worker encodes at one time


@dataclass(frozen=True)
class Manifest:
    """Everything that the content of a store depends on.

    Raises:
        ConfigError: numbers that no store can have.
    """

    model: str  # digest of the model
    side: Side
    prompt: str
    texts: str  # digest of the texts, in their order
    rows: int
    dimension: int
    dtype: StoreType = "float32"
    rows_per_shard: int = ROWS_PER_SHARD
    block_rows: int = BLOCK_ROWS
    """A block does not reach beyond its shard; the last bits of a vector depend on the block's texts."""

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ConfigError("an embedding store needs at least one text, and there is none")
        if self.dtype not in ("float32", "float16"):
            raise ConfigError(f"embeddings of type {self.dtype!r}: must be float32 or float16")
        if self.rows_per_shard < 1 or self.block_rows < 1:
            raise ConfigError(
                f"shards of {self.rows_per_shard} rows in blocks of {self.block_rows}: both must be positive"
            )

    @property
    def shards(self) -> list[range]:
        """[first row, last row + 1) of every shard."""
        return cut(range(self.rows), self.rows_per_shard)

    def blocks(self, shard: int) -> list[range]:
        """[first row, last row + 1) of every block of a shard."""
        return cut(self.shards[shard], self.block_rows)

    def name(self) -> str:
        """A name for the store's folder: equal manifests have equal names, others differ."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:24]

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of the store in `folder`.

        Raises:
            StorageError: there is none, or it is damaged or of another version.
        """
        try:
            content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise StorageError(f"{folder} is no embedding store: it has no {MANIFEST}") from error
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{folder / MANIFEST} cannot be read; delete the folder of this store and encode again"
            ) from error
        names = {field.name for field in fields(cls)}
        try:
            if content.pop("format") == FORMAT and set(content) == names:
                return cls(**content)
        except (AttributeError, ConfigError, KeyError, TypeError):
            pass
        raise StorageError(
            f"{folder / MANIFEST} is none of this version; delete the folder of this store and encode again"
        )

    def check_same(self, expected: Manifest, folder: Path) -> None:
        """Raise StorageError if this, read from `folder`, is not what is expected there."""
        for field, sentence in _DIFFERENCES.items():
            here, there = getattr(self, field), getattr(expected, field)
            if here != there:
                if field in ("model", "texts"):
                    here, there = here[:12], there[:12]
                raise StorageError(
                    f"the embedding store {folder} {sentence.format(here, there)}; "
                    "give another folder, or delete that one to encode anew"
                )


_DIFFERENCES = {
    "dimension": "has embeddings of dimension {}, not {}",
    "model": "was made by another model (digest {}, not {})",
    "side": "is of {} embeddings, not {} embeddings",
    "prompt": "was made with the prompt {!r}, not {!r}",
    "rows": "has {:,} texts, not {:,}",
    "texts": "was made from other texts (digest {}, not {})",
    "dtype": "has embeddings of type {}, not {}",
    "rows_per_shard": "has shards of {:,} rows, not {:,}",
    "block_rows": "was made in blocks of {:,} texts, not {:,}",
}
"""What to say where a field is another than expected: what the store has, then what was expected."""


def texts_digest(texts: Sequence[str]) -> str:
    """Hex digest of texts in their order; reads each once."""
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


def cut(rows: range, size: int) -> list[range]:
    """`rows` in ranges of `size`; the last one may be shorter."""
    return [range(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]
