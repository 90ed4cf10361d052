"""Any Hugging Face dataset by column mapping: saved to disk, a folder of data files, or a name on the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.files import Place
from hbtrain.corpus.readers.mapping import Columns, MappedReader, Record
from hbtrain.errors import DataError

BATCH_ROWS = 1024


class HuggingFaceReader(MappedReader):
    """Rows of one split of a dataset, which `datasets` keeps memory-mapped."""

    kind = "huggingface"

    def __init__(
        self, name: str, columns: Columns, split: str = "train", config: str | None = None, revision: str | None = None
    ) -> None:
        """Opens the dataset; one on the hub is downloaded to the cache of `datasets`.

        Args:
            name: a folder, or a name on the hub.
            columns: what is read.
            split: of the dataset.
            config: of the dataset, where it has several.
            revision: of a dataset on the hub: a branch, a tag or a commit.

        Raises:
            DataError: there is no such dataset, split or column.
        """
        self.columns = columns
        self.inputs = []
        self._name = name
        self._data = _load(name, split, config, revision)
        for column in columns.names():
            if column not in self._data.column_names:
                raise DataError(f"dataset {name} has no column {column!r}; it has {', '.join(self._data.column_names)}")
        self.options: dict[str, Any] = {
            "dataset": name,
            "split": split,
            "config": config,
            "revision": revision,
            "fingerprint": self._data._fingerprint,
            "columns": columns.to_json(),
        }

    def records(self, drops: Drops) -> Iterator[tuple[Record, Place]]:
        """The rows of the split."""
        selected = self._data.select_columns(self.columns.names()).with_format(None)
        for start in range(0, len(selected), BATCH_ROWS):
            columns = selected[start : start + BATCH_ROWS]
            for offset, values in enumerate(zip(*columns.values(), strict=True)):
                yield dict(zip(columns, values, strict=True)), Place(self._name, start + offset, "row")


def _load(name: str, split: str, config: str | None, revision: str | None) -> Any:
    import datasets

    folder = Path(name).expanduser()
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            found = datasets.load_from_disk(str(folder))
            if isinstance(found, datasets.DatasetDict):
                if split not in found:
                    raise DataError(f"dataset {name} has no split {split!r}; it has {', '.join(found)}")
                return found[split]
            return found
        return datasets.load_dataset(str(folder) if folder.exists() else name, config, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
        told = error.__cause__ if isinstance(error, datasets.exceptions.DatasetBuildError) else None
        reason = str(told or error).strip().splitlines() or [type(told or error).__name__]
        raise DataError(f"dataset {name}: cannot load split {split!r}: {reason[0]}") from error
