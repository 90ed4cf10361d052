"""Dataset repositories of the hub: what they hold, and where huggingface_hub's cache keeps it.

The cache has a folder for each repository, in which `blobs/DIGEST` hold the content of files, `snapshots/COMMIT/PATH`
are links to these, and `trees/COMMIT.json` says what the commit holds. All is as huggingface_hub writes it, so that
each finds what the other has fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from hbtrain.errors import DataError
from hbtrain.hub.data_set import NEWEST, Repository
from hbtrain.hub.web import Web
from hbtrain.storage.files import write_text

TREE_VERSION = 1  # of the form of `trees/COMMIT.json`; huggingface_hub ignores other ones, and so is done here


COMMIT = re.compile("[0-9a-f]{40}")


class Entry(NamedTuple):
    """A file that a repository holds."""

    size: int  # bytes
    digest: str  # `sha256:...` for a file in git-lfs, `git:...` (SHA-1 of the blob) for another

    @property
    def blob(self) -> str:
        """Name of the file in the cache that holds its content."""
        return self.digest.partition(":")[2]


def is_there(path: Path) -> bool:
    """Whether a path leads to something; False also where that cannot be seen."""
    with suppress(OSError):
        return path.exists()
    return False


def hub_cache() -> Path:
    """The folder of huggingface_hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def repository_folder(source: Repository) -> Path:
    """The folder of a repository in huggingface_hub's cache."""
    return hub_cache() / _folder_name(source)


def lock_path(source: Repository, blob: str) -> Path:
    """The file that whoever writes a blob holds the lock of."""
    return hub_cache() / ".locks" / _folder_name(source) / f"{blob}.lock"


def file_url(source: Repository, path: str) -> str:
    """The address of a file."""
    return f"{endpoint()}/datasets/{source.repository}/resolve/{source.revision}/{quote(path)}"


def endpoint() -> str:
    """The hub's address: `$HF_ENDPOINT`, or https://huggingface.co."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def headers() -> dict[str, str]:
    """Headers of requests: who asks, and the user's token if there is one. Raises DataError if it cannot be read."""
    from huggingface_hub.errors import OIDCError
    from huggingface_hub.utils import build_hf_headers

    import hbtrain

    try:
        return dict(build_hf_headers(library_name="hbtrain", library_version=hbtrain.__version__))
    except (OSError, OIDCError) as error:
        raise DataError(f"the token for the hub cannot be read: {error}; see to HF_HOME, or set HF_TOKEN") from error


def at_commit(source: Repository, web: Web | None, anew: bool = False) -> Repository | None:
    """The repository at a commit; `main` is what it was when this cache first asked, and stays that.

    Args:
        source: of the catalogue.
        web: for the question which commit is the newest; None: it is not asked.
        anew: what was known does not count.

    Returns:
        None if the commit is not known and is not asked for.

    Raises:
        httpx2.HTTPError: the hub cannot be reached, or refuses.
    """
    if source.revision != NEWEST:
        return source
    path = repository_folder(source) / "refs" / NEWEST  # as huggingface_hub keeps it
    commit = None
    with suppress(OSError, UnicodeDecodeError):
        commit = path.read_text(encoding="utf-8").strip()
    if anew or commit is None or not COMMIT.fullmatch(commit):
        commit = None
    if commit is None and web is not None:
        url = f"{endpoint()}/api/datasets/{source.repository}/revision/{NEWEST}"
        with closing(web.ask(url, headers())) as response:
            response.read()
            with _of_a_hub(url):
                commit = str(response.json()["sha"])
        with suppress(OSError):  # it can be asked for again
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, commit)
    return None if commit is None else source.model_copy(update={"revision": commit})


def kept_tree(source: Repository) -> dict[str, Entry] | None:
    """{path: entry} of what a repository holds at its commit, as the cache has it; None: it has not.

    Raises:
        DataError: a path leads out of the repository.
    """
    try:
        kept = json.loads(_tree_path(source).read_text(encoding="utf-8"))
        return _entries(kept["files"]) if kept["format_version"] == TREE_VERSION else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def ask_tree(source: Repository, web: Web) -> dict[str, Entry]:
    """What the hub says that a repository holds at its commit; the answer, which cannot change, is kept.

    Raises:
        httpx2.HTTPError: the hub cannot be reached, or refuses.
        DataError: a path leads out of the repository.
    """
    files: dict[str, dict[str, Any]] = {}
    url = f"{endpoint()}/api/datasets/{source.repository}/tree/{source.revision}"
    query: str | None = "recursive=True"
    while query:
        with closing(web.ask(f"{url}?{query}", headers())) as response:
            response.read()
            with _of_a_hub(url):
                entries = response.json()
                if not isinstance(entries, list):
                    raise TypeError("no list")
                files |= dict(_kept(entry) for entry in entries if entry["type"] == "file")
            # The page after it, of the same server: a mirror may give the address at the hub.
            query = urlsplit(response.links.get("next", {}).get("url", "")).query
    path = _tree_path(source)
    with suppress(OSError):  # it can be asked for again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"format_version": TREE_VERSION, "files": files}, indent=1))
    return _entries(files)


def _kept(entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Path of a file, and what is kept of what the hub tells of it."""
    lfs = entry.get("lfs")
    of_lfs = {"lfs_sha256": str(lfs["oid"]), "lfs_size": int(lfs["size"])} if lfs else {}
    return str(entry["path"]), {"size": int(entry["size"]), "blob_id": str(entry["oid"])} | of_lfs


@contextmanager
def _of_a_hub(url: str) -> Iterator[None]:
    """Turn the errors of reading an answer that a hub would not give into a DataError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{url} does not answer as a hub does; see to HF_ENDPOINT, and to proxies") from error


def _entries(files: Mapping[str, Mapping[str, Any]]) -> dict[str, Entry]:
    return {
        _inside(path): Entry(about["size"], f"git:{about['blob_id']}")
        if about.get("lfs_sha256") is None
        else Entry(about["lfs_size"], f"sha256:{about['lfs_sha256']}")
        for path, about in files.items()
    }


def _tree_path(source: Repository) -> Path:
    return repository_folder(source) / "trees" / f"{source.revision}.json"


def _folder_name(source: Repository) -> str:
    return f"datasets--{source.repository.replace('/', '--')}"


def _inside(path: str) -> str:
    """The path of a file, if it is one inside a folder. Raises DataError."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise DataError(f"a repository lists the file {path!r}, which would lie outside of its folder")
    return path
