"""Fetching the files of a data set, and the folder in which readers find them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbtrain.errors import DataError
from hbtrain.hub.data_set import DataSet, Purpose, Repository
from hbtrain.hub.files import Listing, listing
from hbtrain.storage import cache_root
from hbtrain.storage.files import whole, whole_stream


@dataclass(frozen=True)
class Fetched:
    """A data set on this machine, complete and checked."""

    folder: Path  # with links to its files, laid out as in the repository; readers open it like a clone
    files: tuple[str, ...]  # their paths in it
    revisions: Mapping[str, str]  # {repository: commit}; {address: ''} for files that come from elsewhere
    digests: Mapping[str, str]  # {path: `sha256:...` or another}
    digest: str  # one for all: SHA-256 of the lines of paths and digests

    def about(self) -> dict[str, Any]:
        """What results keep of where their data come from."""
        return {"revisions": dict(self.revisions), "digest": self.digest}


def fetch(
    data_set: DataSet,
    languages: Sequence[str] | None = None,
    *,
    purpose: Purpose | None = None,
    options: Mapping[str, str] | None = None,
    cache: str | None = None,
    notify: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fetched:
    """Fetch what is not on this machine yet, and check it.

    Args:
        data_set: see `listing`, also for `languages`, `purpose`, `options` and `cache`.
        notify: called with a line of text before something is fetched, and while another process fetches it.
        progress: called with bytes done and bytes in all, while files are fetched.

    Raises:
        DataError: see `listing`; or a file cannot be fetched, or is not what its digest says.
        StorageError: a cache cannot be written.
    """
    files = listing(data_set, languages, purpose=purpose, options=options, cache=cache)
    for file in files.missing:
        if isinstance(file.source, Repository):
            from huggingface_hub import hf_hub_download

            hf_hub_download(file.source.repository, file.path, repo_type="dataset", revision=file.source.revision)
        else:
            from huggingface_hub import get_session

            file.local.parent.mkdir(parents=True, exist_ok=True)
            response = get_session().get(file.url)
            response.raise_for_status()
            with whole_stream(file.local) as stream:
                stream.write(response.content)
    return _arranged(files, cache)


def where(
    data_set: DataSet,
    languages: Sequence[str] | None = None,
    *,
    purpose: Purpose | None = None,
    options: Mapping[str, str] | None = None,
    cache: str | None = None,
) -> Path:
    """The folder of a data set that was fetched. Raises DataError if it was not."""
    files = listing(data_set, languages, purpose=purpose, options=options, cache=cache)
    if files.missing:
        raise DataError(f"data set {data_set.name} is not here; run: hbtrain data fetch {data_set.name}")
    return _arranged(files, cache).folder


def _arranged(files: Listing, cache: str | None) -> Fetched:
    """The folder with links to the files, which is made if need be."""
    digests = {file.path: file.digest or "" for file in files.files}
    lines = "".join(f"{path} {digest}\n" for path, digest in sorted(digests.items()))
    digest = hashlib.sha256(lines.encode()).hexdigest()
    folder = cache_root(cache) / "hub" / "folders" / f"{files.data_set.name}-{digest[:12]}" / files.data_set.name
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole(folder) as made:
            for file in files.files:
                link = made / file.path
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.local)
    revisions = {
        (file.source.repository if isinstance(file.source, Repository) else file.url): (
            file.source.revision if isinstance(file.source, Repository) else ""
        )
        for file in files.files
    }
    return Fetched(folder, tuple(digests), revisions, digests, digest)
