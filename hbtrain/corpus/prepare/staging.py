"""The folder `<corpus>.preparing`, in which a corpus is made: its lock, finished stages, and the move at the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hbtrain.errors import StorageError
from hbtrain.storage import write_text
from hbtrain.storage.files import locked, put_in_place


class Staging:
    """The stages of one preparation. One that was interrupted is done again from its beginning, a finished one never.

    Attributes:
        folder: beside the corpus's own, named `<corpus>.preparing`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def begun(cls, folder: Path) -> Staging:
        """Make the folder of a new preparation."""
        (folder / "done").mkdir(parents=True)
        return cls(folder)

    def stage(self, name: str, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """The result of `work(new folder of the stage)`; if the stage is finished, the result that it had then."""
        marker = self.folder / "done" / f"{name}.json"
        if marker.exists():
            done: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
            return done
        own = self.path(name)
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        result = work(own)
        write_text(marker, json.dumps(result))
        return result

    def path(self, name: str) -> Path:
        return self.folder / name

    def finish(self, corpus: Path, output: Path) -> None:
        """Move the finished corpus to `output`, and delete the rest."""
        if output.exists():
            output.rmdir()  # empty, as was checked in the beginning
        put_in_place(corpus, output)
        shutil.rmtree(self.folder, ignore_errors=True)  # on NFS the lock, which is open, keeps the folder from going


@contextmanager
def staging_of(output: Path, request: dict[str, Any]) -> Iterator[Staging]:
    """The stages of the corpus `output`, locked for this process; begun anew if they were of another request.

    Raises:
        StorageError: another process makes this corpus, or the folder cannot be written.
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
            write_text(state, text)
            yield Staging(folder)
    except OSError as error:
        raise unwritable(output, error) from error


def clear_leftovers(output: Path) -> None:
    """Delete the stages of a finished corpus, which are left if the process was killed just after the move."""
    folder = staging_folder(output)
    if folder.is_dir():
        with suppress(OSError, StorageError), locked(folder):
            shutil.rmtree(folder)


def staging_folder(output: Path) -> Path:
    whole = output.absolute()  # `.` has no name
    return whole.parent / f"{whole.name}.preparing"


def unwritable(output: Path, error: OSError) -> StorageError:
    """The error for a corpus that cannot be written."""
    return StorageError(
        f"cannot write the corpus {output}: {error.strerror or error}; what was finished is kept beside it in "
        f"{output.name}.preparing: make room there, or mend what is wrong, and the same command goes on"
    )


def _goes_on(before: dict[str, Any], request: dict[str, Any]) -> bool:
    """Whether finished stages can be used for a request: the same one, or one that now skips bad rows."""
    return before == request or (not before["skip_bad_rows"] and {**before, "skip_bad_rows": True} == request)
