"""Makes a corpus on disk of a raw source; after an interruption, the same call goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from hbtrain.storage import expand_home

STAGES = 3
"""Version of the files that stages leave for each other; a preparation begun by another version is begun anew."""
Progress = Callable[[str, int], None]  # called with what is being done, and how many rows or texts of it are done


@dataclass(frozen=True)
class Prepared:
    """A finished corpus."""

    folder: Path  # where it is
    manifest: dict[str, Any]  # content of its `manifest.json`
    fresh: bool  # whether this call has made it; False if it was there before


def prepare(
    reader: Reader,
    output: Path,
    skip_bad_rows: bool = False,
    progress: Progress | None = None,
    about: Mapping[str, Any] | None = None,
    limit: int | None = None,
) -> Prepared:
    """Make the corpus of a raw source in the folder `output`; if it is there already, nothing is done.

    Args:
        reader: of the raw source.
        output: a folder that does not exist, is empty, or holds this very corpus.
        skip_bad_rows: list bad rows in `drops.jsonl` instead of raising at the first.
        progress: called now and then.
        about: where the raw source comes from, which the manifest of a new corpus keeps as `data_set`.
        limit: only the first so many rows of the source, bad ones included; its texts are all kept. None: all rows.

    Raises:
        DataError: a bad row or a broken file, with its place; a source without rows.
        StorageError: the folder holds something else, is being written by another process, or cannot be written.
    """
    output = expand_home(output)
    if not output.name:
        output = output.absolute()  # `.` cannot be replaced by that name
    request = {
        "reader": reader.kind,
        "options": reader.options,
        "skip_bad_rows": skip_bad_rows,
        "inputs": [{"path": path, **file_state(path)} for path in reader.inputs],
    } | ({} if limit is None else {"limit": limit})
    if there := _there(output, request):
        clear_leftovers(output)
        return Prepared(output, there, fresh=False)
    staged = request | {"format": FORMAT, "stages": STAGES}
    with staging_of(output, staged) as staging, Database(staging.folder) as database:
        preparation = Preparation(
            reader, staging, database, skip_bad_rows, progress or (lambda what, done: None), limit=limit
        )
        content = request | preparation.run() | ({} if about is None else {"data_set": dict(about)})

        def work(folder: Path) -> dict[str, Any]:
            preparation.collect(folder)
            write_manifest(folder, content)
            return {}

        staging.stage("corpus", work)
        manifest = read_prepared(staging.path("corpus"))
        staging.finish(staging.path("corpus"), output)
    return Prepared(output, manifest, fresh=True)


def _there(output: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of the corpus that is there already; None if the folder is empty or missing."""
    try:
        if not output.exists() or (output.is_dir() and not any(output.iterdir())):
            return None
    except OSError as error:
        raise unwritable(output, error) from error
    if not (output / MANIFEST).is_file():
        raise StorageError(f"{output} is there and holds no prepared corpus; give another --output")
    manifest = read_prepared(output)
    if {key: manifest[key] for key in (*request, "limit") if key in manifest} != request:
        raise StorageError(f"{output} holds a corpus of other inputs or options; give another --output, or delete it")
    return manifest
