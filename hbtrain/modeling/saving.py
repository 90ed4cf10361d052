"""Writing a model folder so that nobody ever sees half of one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hbtrain.errors import MAKE_ROOM, StorageError, is_full


def replace_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Make `path` a folder with what `write(temporary folder)` writes, in place of a model that was there.

    Raises:
        StorageError: `path` cannot be written, or holds something that is no model.
    """
    if path.exists() and not _may_be_replaced(path):
        raise StorageError(f"{path} exists and holds no model; choose another folder, or empty that one")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise StorageError(f"cannot write a model to {path}: {error.strerror}") from error
    try:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        write(new)
        if path.exists():
            path.rename(old)
        new.rename(path)
    except Exception as error:
        if not (isinstance(error, OSError) or is_full(error)):  # safetensors and tokenizers have errors of their own
            raise
        if (temporary / "old").exists() and not path.exists():
            (temporary / "old").rename(path)
        reason = getattr(error, "strerror", None) or str(error)
        raise StorageError(
            f"cannot write a model to {path}: {reason}" + (f"; {MAKE_ROOM}" if is_full(error) else "")
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _may_be_replaced(path: Path) -> bool:
    if not path.is_dir():
        return False
    return (path / "modules.json").is_file() or (path / "config.json").is_file() or not any(path.iterdir())
