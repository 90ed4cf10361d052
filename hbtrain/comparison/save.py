"""A comparison on disk: Markdown, CSV, JSON, pictures and the report."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hbtrain.comparison.compare import Comparison
from hbtrain.comparison.html import report
from hbtrain.comparison.pictures import pictures_of
from hbtrain.comparison.render import as_csv, as_json, markdown
from hbtrain.errors import StorageError


def save_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write `comparison.md`, `.csv`, `.json`, `report.html` and PNGs into `folder`, made if it is not there.

    Files are written beside the folder first, so that none is half there. Returns their paths.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".comparison-") as temporary:
            made = Path(temporary)
            pictures = pictures_of(comparison)
            for picture in pictures:
                picture.draw(made / picture.file)
            for name, text in (
                ("comparison.md", markdown(comparison)),
                ("comparison.csv", as_csv(comparison)),
                ("comparison.json", as_json(comparison)),
                ("report.html", report(comparison, [(p.title, made / p.file) for p in pictures])),
            ):
                (made / name).write_text(text, encoding="utf-8")
            return [Path(shutil.move(path, folder / path.name)) for path in sorted(made.iterdir())]
    except OSError as error:
        raise StorageError(
            f"cannot write the comparison to {folder}: {error.strerror or error}; choose a folder that can be written"
        ) from error


def keep_comparison(comparison: Comparison, run: str, tracking_uri: str | None = None) -> None:
    """Store the same files with an MLflow run, as artifacts under `comparison`.

    Raises:
        TrackingError: an unknown id, or a server that does not take them.
    """
    from hbtrain.tracked_runs import TrackedRuns

    server = TrackedRuns(tracking_uri)
    found = server.find(run)
    with tempfile.TemporaryDirectory(prefix="hbtrain-compare-") as temporary:
        save_comparison(comparison, Path(temporary))
        server.keep(found, Path(temporary), "comparison")
