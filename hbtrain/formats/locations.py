"""Where input files are: on this machine, or at a URL that pyarrow or fsspec can read.

URLs begin with `s3://`, `gs://`, `hf://`, `https://` or `file://`. What follows the `?` of a URL are options of the
connection, which are no part of a file's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from hbtrain.errors import ConfigError, DataError
from hbtrain.storage import RemotePath, expand_home, place

ARROW_SCHEMES = ("s3", "gs", "gcs")  # read by pyarrow itself; fsspec would need a package for each
GCS_LIMIT = "retry_limit_seconds"  # option of a `gs://` URL: how long pyarrow tries again
GIVE_UP_S = 30
CHANGED = ("ETag", "etag", "blob_id", "mtime", "LastModified", "Last-Modified", "last_modified", "created")
"""Names under which servers give what changes with a file's content, the most reliable first."""
DEPTH = 6  # levels of a folder in which files are looked for: archives are often unpacked into folders of folders

FileState = dict[str, int | str | None]
"""{`bytes`: size, `changed`: nanoseconds of the last change here, an ETag or a time of a remote file}; it differs when
the file's content does. A value is None where the server does not tell it."""


def is_remote(path: str | Path) -> bool:
    """Whether a path is a URL."""
    return "://" in str(path)


def named(path: str) -> str:
    """A path without the options of its URL, to look at the name."""
    return path.partition("?")[0] if is_remote(path) else path


def below(folder: str, name: str) -> str:
    """The path of the file `name` in a folder; the options of a URL stay at its end."""
    name = quote(name) if folder.startswith("file://") else name
    return f"{named(folder).rstrip('/')}/{name}{folder.removeprefix(named(folder))}"


def expanded(path: str) -> str:
    """A path with its `~` resolved; a URL as it is."""
    return path if is_remote(path) else str(expand_home(path))


def list_files(folder: str, levels: int = DEPTH) -> list[str]:
    """The files in a folder, and in those below it down to `levels`, sorted; each path begins with `folder`.

    Raises:
        DataError: it is not a folder, or cannot be read.
    """
    try:
        if is_remote(folder):
            return sorted(below(folder, name) for name in remote_files(folder, levels))
        root = Path(folder)
        if not root.is_dir():
            raise DataError(f"{folder} is not a folder")
        deep = (path for level in range(levels) for path in root.glob("*/" * level + "*"))
        return sorted(str(path) for path in deep if path.is_file())
    except OSError as error:
        raise DataError(f"cannot read {folder}: {reason(error)}") from error


def file_state(path: str) -> FileState:
    """The state of a file, by which a change of its content is seen.

    Raises:
        DataError: it is not there.
    """
    try:
        if path.startswith("s3://"):
            at = RemotePath.parse(path)
            return {"bytes": at.size(), "changed": at.version()}
        if is_remote(path):
            filesystem, inside = remote(path)
            with errors_in_words(path):
                return _state(filesystem.info(inside))
        stat = Path(path).stat()
        return {"bytes": stat.st_size, "changed": stat.st_mtime_ns}
    except OSError as error:
        raise DataError(f"cannot read {path}: {reason(error)}") from error


def remote(url: str) -> tuple[Any, str]:
    """A file system with fsspec's methods, and the path of `url` in it.

    Raises:
        ConfigError: no installed package reads that kind of URL.
        StorageError: an S3 URI holds keys, or an unknown option.
    """
    scheme = url.partition("://")[0]
    if scheme == "s3":
        url = RemotePath.parse(url).uri
    elif scheme == "file":
        url = str(place(url))
    try:
        if scheme in ARROW_SCHEMES:
            from fsspec.implementations.arrow import ArrowFSWrapper
            from pyarrow.fs import FileSystem

            filesystem, inside = FileSystem.from_uri(_patient(url))
            return ArrowFSWrapper(filesystem), inside
        from fsspec.core import url_to_fs

        return cast(tuple[Any, str], url_to_fs(url))
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{url}: {scheme}:// cannot be read here: {error}") from error


def remote_files(folder: str, levels: int = DEPTH) -> dict[str, FileState]:
    """{path in the folder: state} of the files in a remote folder, and in those below it down to `levels`.

    Raises:
        OSError: the server refuses, or does not answer.
        DataError: the library behind the URL fails in another way.
    """
    filesystem, inside = remote(folder)
    inside = inside.rstrip("/")
    with errors_in_words(folder):
        if named(folder).partition("://")[0] in ARROW_SCHEMES:
            from pyarrow.fs import FileSelector, FileType

            # In one request: listed level by level, Google's storage leaves out folders that are only part of a name.
            listed = filesystem.fs.get_file_info(FileSelector(inside, recursive=True))
            found = {x.path: {"size": x.size, "mtime": x.mtime} for x in listed if x.type == FileType.File}
        else:
            found = filesystem.find(inside, maxdepth=levels, detail=True)
    names = {str(path)[len(inside) + 1 :]: _state(info) for path, info in found.items()}
    return {name: state for name, state in names.items() if name.count("/") < levels}


def _state(info: Mapping[str, Any]) -> FileState:
    changed = next((str(info[key]) for key in CHANGED if info.get(key)), None)
    return {"bytes": info.get("size"), "changed": changed}


def _patient(url: str) -> str:
    """The URL with a limit of `GIVE_UP_S` seconds for Google's storage, which else tries again for fifteen minutes."""
    if url.startswith("s3://") or GCS_LIMIT in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}{GCS_LIMIT}={GIVE_UP_S}"


@contextmanager
def errors_in_words(path: str | Path) -> Iterator[None]:
    """Let OSError pass, and turn whatever else the library behind a URL raises into a DataError of one line."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise DataError(f"cannot read {path}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """An exception's message in one line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
