"""`prepare`: a raw source becomes a corpus on disk; interrupted at any point, the same call goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbtrain.corpus.prepare.database import Database
from hbtrain.corpus.prepare.stages import Preparation
from hbtrain.corpus.prepare.staging import clear_leftovers, staging_of, unwritable
from hbtrain.corpus.prepared import FORMAT, MANIFEST, read_prepared, write_manifest
from hbtrain.corpus.readers.items import Reader
from hbtrain.errors import StorageError
from hbtrain.formats.locations import file_state

STAGES = 2
"""Version of what stages leave for each other; what another version has staged is begun anew."""
Progress = Callable[[str, int], None]
"""Called with what is being done and how much of it is."""


@dataclass(frozen=True)
class Prepared:
    """A corpus that is whole.

    Attributes:
        folder: where it is.
        manifest: what it holds.
        fresh: whether this call has written it; else it was there.
    """

    folder: Path
    manifest: dict[str, Any]
    fresh: bool


def prepare(reader: Reader, output: Path, skip_bad_rows: bool = False, progress: Progress | None = None) -> Prepared:
    """Make the corpus of `reader` in the folder `output`; where it is already, nothing is done.

    Args:
        reader: the raw source.
        output: a folder that is not there, is empty, or holds this very corpus.
        skip_bad_rows: list them in `drops.jsonl` instead of raising at the first.
        progress: told of what is done.

    Raises:
        DataError: a bad row or a broken file, with its place; a source without rows.
        StorageError: the folder holds something else, is being written by another process, or cannot be written.
    """
    output = output.expanduser()
    if not output.name:
        output = output.absolute()  # `.` cannot be replaced by that name
    request = {
        "reader": reader.kind,
        "options": reader.options,
        "skip_bad_rows": skip_bad_rows,
        "inputs": [{"path": path, **file_state(path)} for path in reader.inputs],
    }
    if there := _there(output, request):
        clear_leftovers(output)
        return Prepared(output, there, fresh=False)
    staged = request | {"format": FORMAT, "stages": STAGES}
    with staging_of(output, staged) as staging, Database(staging.folder) as database:
        preparation = Preparation(reader, staging, database, skip_bad_rows, progress or (lambda what, done: None))
        content = request | preparation.run()

        def work(folder: Path) -> dict[str, Any]:
            preparation.collect(folder)
            write_manifest(folder, content)
            return {}

        staging.stage("corpus", work)
        manifest = read_prepared(staging.path("corpus"))
        staging.finish(staging.path("corpus"), output)
    return Prepared(output, manifest, fresh=True)


def _there(output: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of the corpus that is there already; None if nothing is."""
    try:
        if not output.exists() or (output.is_dir() and not any(output.iterdir())):
            return None
    except OSError as error:
        raise unwritable(output, error) from error
    if not (output / MANIFEST).is_file():
        raise StorageError(f"{output} is there and holds no prepared corpus; give another --output")
    manifest = read_prepared(output)
    if {key: manifest.get(key) for key in request} != request:
        raise StorageError(f"{output} holds a corpus of other inputs or options; give another --output, or delete it")
    return manifest
