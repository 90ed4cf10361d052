"""The output files of a translation, and the folder beside them that holds unfinished work, locked by one process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from hbtrain.errors import MAKE_ROOM, StorageError, is_full
from hbtrain.storage import write_text
from hbtrain.storage.files import gzip_by_name, locked, put_in_place
from hbtrain.translation.blocks import FOLDER

REQUEST = "request.json"
PLACING = "placing"  # name of a file that exists from the moment when output files begin to be moved to their paths


class Outputs:
    """The paths of a translation's files, which follow from that of its rows.

    Attributes:
        rows: parallel JSON lines, `<name>.jsonl` or `<name>.jsonl.gz`.
        rejects: translations that the gates rejected, `<name>.rejects.jsonl` or `<name>.rejects.jsonl.gz`.
        manifest: `<name>.manifest.json`, written last.
        work: the folder of unfinished work, with the rows and the rejects until they are whole.
    """

    def __init__(self, rows: Path) -> None:
        name, ending = _split(rows)
        self.rows = rows
        self.rejects = rows.with_name(f"{name}.rejects{ending}")
        self.manifest = rows.with_name(f"{name}.manifest.json")
        self.work = rows.with_name(f"{rows.name}.translating")

    def existing(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The manifest if this very translation is finished; None if none of its files exists.

        Raises:
            StorageError: files of another translation, or others, are there.
        """
        if not self.manifest.exists():
            self._check_free()
            return None
        manifest = self._manifest()
        if (changed := differing(manifest, request)) is not None:
            raise StorageError(
                f"{self.rows} is a translation with {changed}; give another --output, or delete it and {self.manifest}"
            )
        for path in (self.rows, self.rejects):
            if not path.exists():
                raise StorageError(f"{self.manifest} is there and {path} is not; delete the manifest")
        return manifest

    @contextmanager
    def unfinished(self, path: Path) -> Iterator[BinaryIO]:
        """A stream to the file in `work` that `place` will move to `path`; compressed if the name ends in .gz."""
        with self._unfinished(path).open("wb") as plain, gzip_by_name(plain, path) as stream:
            yield stream

    def place(self) -> None:
        """Move the rows and the rejects from `work` to their paths, unless other files have appeared there."""
        self._check_free()
        (self.work / PLACING).touch()
        for path in (self.rejects, self.rows):
            put_in_place(self._unfinished(path), path)

    def _unfinished(self, path: Path) -> Path:
        return self.work / path.name

    def _check_free(self) -> None:
        """Raise StorageError if an output file exists, unless it was moved there before an interruption."""
        if (self.work / PLACING).exists():
            return
        for path in (self.rows, self.rejects, self.manifest):
            if path.exists():
                raise StorageError(f"{path} is there, and not from hbtrain translate; give another --output")

    def _manifest(self) -> dict[str, Any]:
        try:
            manifest = json.loads(self.manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StorageError(f"{self.manifest} cannot be read; delete it, or give another --output") from error
        if not isinstance(manifest, dict) or "translated" not in manifest:
            raise StorageError(f"{self.manifest} is there, and not from hbtrain translate; give another --output")
        return manifest


@contextmanager
def workspace(outputs: Outputs, request: dict[str, Any]) -> Iterator[Path]:
    """The folder of unfinished work, locked while the block runs; it is not deleted at its end.

    `request` has everything that decides what is in the blocks.

    Raises:
        StorageError: another process makes this translation, the folder holds an unfinished other one, or it cannot be
            written.
    """
    folder = outputs.work
    try:
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        with locked(folder):
            state = folder / REQUEST
            if state.exists():
                before = json.loads(state.read_text(encoding="utf-8"))
                if (changed := differing(before, request)) is not None:
                    raise StorageError(
                        f"{folder} holds an unfinished translation with {changed}; give the command as it was, "
                        "another --output, or delete that folder"
                    )
            else:
                write_text(state, json.dumps(request, indent=1, ensure_ascii=False))
            yield folder
    except OSError as error:
        remedy = MAKE_ROOM if is_full(error) else "mend that, and the same command goes on"
        raise StorageError(f"cannot write {outputs.rows}: {error.strerror or error}; {remedy}") from error


def finish(outputs: Outputs, manifest: dict[str, Any]) -> None:
    """Write the manifest, and delete the folder of unfinished work."""
    write_text(outputs.manifest, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    shutil.rmtree(outputs.work, ignore_errors=True)


def differing(before: dict[str, Any], request: dict[str, Any]) -> str | None:
    """The first difference between two requests, in words for messages; None if they are equal."""
    for name, value in request.items():
        if before.get(name) != value:
            return f"{name} = {_short(before.get(name))}, not {_short(value)}"
    return None


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 90 else f"{text[:87]}..."


def _split(rows: Path) -> tuple[str, str]:
    for ending in (".jsonl.gz", ".jsonl"):
        if rows.name.endswith(ending) and rows.name != ending:
            return rows.name.removesuffix(ending), ending
    raise StorageError(f"--output {rows}: must end in .jsonl or .jsonl.gz")
