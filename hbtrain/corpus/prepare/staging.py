"""The folder in which a corpus is made: whose it is, what of it is done, and when it becomes the corpus."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hbtrain.corpus.cache import write_whole
from hbtrain.errors import StorageError
from hbtrain.storage.atomic import locked


class Staging:
    """Stages of one preparation, each done as a whole or again; a finished one is never repeated.

    Attributes:
        folder: beside the corpus's own, named `<corpus>.preparing`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def begun(cls, folder: Path) -> Staging:
        """A new one, in a folder that is made."""
        (folder / "done").mkdir(parents=True)
        return cls(folder)

    def stage(self, name: str, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """What `work(new folder)` says of its result; done in an earlier attempt, the same from there."""
        marker = self.folder / "done" / f"{name}.json"
        if marker.exists():
            done: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
            return done
        own = self.path(name)
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        result = work(own)
        write_whole(marker, json.dumps(result))
        return result

    def path(self, name: str) -> Path:
        """The folder of a stage."""
        return self.folder / name

    def finish(self, corpus: Path, output: Path) -> None:
        """Let the finished corpus take its place, and clear away the rest."""
        if output.exists():
            output.rmdir()  # empty, as was checked in the beginning
        corpus.rename(output)
        shutil.rmtree(self.folder, ignore_errors=True)  # on NFS the lock, which is open, keeps the folder from going


@contextmanager
def staging_of(output: Path, request: dict[str, Any]) -> Iterator[Staging]:
    """The staging of a corpus, for this process alone; begun anew where another request was staged.

    Raises:
        StorageError: another process is at it, or the folder cannot be written.
    """
    folder = staging_folder(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            state = folder / "request.json"
            text = json.dumps(request, indent=2, sort_keys=True)
            if not state.exists() or not _goes_on(json.loads(state.read_text(encoding="utf-8")), request):
                for path in folder.iterdir():
                    if path.is_dir():
                        shutil.rmtree(path)
                    elif path.name != "lock":
                        path.unlink()
                (folder / "done").mkdir()
            write_whole(state, text)
            yield Staging(folder)
    except OSError as error:
        raise unwritable(output, error) from error


def clear_leftovers(output: Path) -> None:
    """Remove the staging of a corpus that has taken its place just before its process was killed."""
    folder = staging_folder(output)
    if folder.is_dir():
        with suppress(OSError, StorageError), locked(folder):
            shutil.rmtree(folder)


def staging_folder(output: Path) -> Path:
    """Where a corpus is made."""
    whole = output.absolute()  # `.` has no name
    return whole.parent / f"{whole.name}.preparing"


def unwritable(output: Path, error: OSError) -> StorageError:
    """What to say where a corpus cannot be written."""
    return StorageError(
        f"cannot write the corpus {output}: {error.strerror or error}; what was finished is kept beside it in "
        f"{output.name}.preparing: make room there, or mend what is wrong, and the same command goes on"
    )


def _goes_on(before: dict[str, Any], request: dict[str, Any]) -> bool:
    """Whether what was staged serves; what was finished without a bad row does when they are to be skipped, too."""
    return before == request or (not before["skip_bad_rows"] and {**before, "skip_bad_rows": True} == request)
