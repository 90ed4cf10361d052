"""Digests of files, and a record of which files have been found to be right, so that each is read through once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hbtrain.storage.files import append_line, file_digest

RECORD = "checked.jsonl"


def digest_of(path: Path, like: str | None) -> str:
    """`algorithm:hex digits` of a file, by the algorithm of the digest `like`, or by SHA-256. Raises OSError."""
    algorithm = (like or "sha256").partition(":")[0]
    if algorithm != "git":
        return f"{algorithm}:{file_digest(path, algorithm)}"
    header = b"blob %d\0" % path.stat().st_size  # which git hashes with the content
    return f"git:{file_digest(path, lambda: hashlib.sha1(header))}"


class Checked:
    """Which files were read through, and what their digests were."""

    def __init__(self, folder: Path) -> None:
        """The record is kept in `folder`, which need not be there."""
        self._file = folder / RECORD
        self._known: dict[str, tuple[int, int, str]] = {}
        with suppress(OSError):
            for line in self._file.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, KeyError, TypeError):  # a line that was cut off
                    entry = json.loads(line)
                    self._known[entry["file"]] = (entry["bytes"], entry["changed"], entry["digest"])

    def digest(self, path: Path, like: str | None) -> str | None:
        """The digest of a file that has not changed since; None: it is not known, or of another algorithm."""
        size, changed, digest = self._known.get(str(path), (0, 0, ""))
        with suppress(OSError):
            state = path.stat()
            algorithm = (like or digest).partition(":")[0]
            if (state.st_size, state.st_mtime_ns) == (size, changed) and digest.startswith(f"{algorithm}:"):
                return digest
        return None

    def add(self, files: Iterable[tuple[Path, str]]) -> None:
        """Record the digests of files. Where that is not possible, they will be read again."""
        lines = []
        for path, digest in files:
            with suppress(FileNotFoundError):  # somebody has just cleared the cache
                state = path.stat()
                self._known[str(path)] = (state.st_size, state.st_mtime_ns, digest)
                entry = {"file": str(path), "bytes": state.st_size, "changed": state.st_mtime_ns, "digest": digest}
                lines.append(json.dumps(entry))
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            if lines:
                append_line(self._file, "\n".join(lines))
