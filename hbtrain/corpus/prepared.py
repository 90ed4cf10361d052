"""The manifest of a prepared corpus: what is in it, where it came from, and the checksum of every file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hbtrain.errors import DataError, StorageError
from hbtrain.storage import inside, write_text
from hbtrain.storage.files import file_digest

MANIFEST = "manifest.json"
FORMAT = 1  # version of the folder's layout


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)} for path in sorted(folder.iterdir())
    }
    text = json.dumps({"prepared": FORMAT} | content | {"files": files}, indent=1, ensure_ascii=False)
    write_text(folder / MANIFEST, text + "\n")


def read_prepared(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared corpus. That every file has its size is checked, checksums are not.

    Raises:
        DataError: the folder is no prepared corpus, not finished, of another version, or lacks a file.
    """
    path = folder / MANIFEST
    if not path.is_file():
        whole = folder.absolute()  # `.` has no name
        if (whole.parent / f"{whole.name}.preparing").is_dir():
            raise DataError(f"source {folder} is not finished: run its `hbtrain prepare` again, it goes on")
        raise DataError(f"source {folder} is a folder without {MANIFEST}, so no corpus of `hbtrain prepare`")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        files = dict(manifest["files"])
        paths = {name: inside(folder, name) for name in files}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"source {folder}: {MANIFEST} is damaged; prepare the corpus again") from error
    if manifest.get("prepared") != FORMAT:
        recorded = manifest.get("prepared")
        raise DataError(f"source {folder} is of format {recorded}, this version reads {FORMAT}; prepare it again")
    for name, recorded in files.items():
        there = path.stat().st_size if (path := paths[name]).is_file() else None
        if there != recorded["bytes"]:
            raise DataError(
                f"source {folder}: {name} has {there if there is not None else 'no'} bytes, the manifest says "
                f"{recorded['bytes']}; copy the corpus again, or prepare it again"
            )
    return manifest


def check_files(folder: Path) -> int:
    """Check the checksum of every file of a prepared corpus; returns how many there are.

    Raises:
        DataError: a checksum differs; or see `read_prepared`.
        StorageError: a file cannot be read.
    """
    files = read_prepared(folder)["files"]
    for name, recorded in files.items():
        try:
            found = file_digest(folder / name)
        except OSError as error:
            raise StorageError(f"cannot read {folder / name}: {error.strerror}") from error
        if found != recorded["sha256"]:
            raise DataError(f"source {folder}: {name} is not what was written; copy or prepare the corpus again")
    return len(files)
