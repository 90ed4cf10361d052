"""The folder in which readers find the files of a data set: links to what the caches hold."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hbtrain.errors import DataError, StorageError
from hbtrain.hub.data_set import Repository
from hbtrain.hub.files import File, Listing
from hbtrain.hub.problems import writing
from hbtrain.storage.files import LOCK, NO_LOCKS, lock_file, make_folder, remove_leftovers, whole, whole_stream


@dataclass(frozen=True)
class Fetched:
    """A data set on this machine, complete and checked."""

    listing: Listing  # what was asked for
    folder: Path  # with links to its files, laid out as in the repository; readers open it like a clone
    files: tuple[str, ...]  # their paths in it
    digests: Mapping[str, str]  # {path of a file: `sha256:...`, `git:...` or `md5:...`}
    digest: str  # one for all: SHA-256 of lines of paths and digests, and of what was taken out of archives

    @property
    def revisions(self) -> dict[str, str]:
        """{repository: commit}."""
        sources = (file.source for file in self.listing.files)
        return {source.repository: source.revision for source in sources if isinstance(source, Repository)}

    @property
    def addresses(self) -> dict[str, str]:
        """{address: digest} of files that come from elsewhere."""
        files = (file for file in self.listing.files if not isinstance(file.source, Repository))
        return {file.url: self.digests[file.path] for file in files}

    def about(self) -> dict[str, Any]:
        """What results keep of where their data come from."""
        return {
            "data_set": self.listing.data_set.name,
            "languages": list(self.listing.languages),
            "options": dict(self.listing.options),
            "sources": self.revisions | self.addresses,
            "licence": self.listing.data_set.licence.name,
            "digest": self.digest,
        }


@contextmanager
def locked(file: Path, wait: Callable[[], None]) -> Iterator[None]:
    """While the block runs, no other process is in one of the same file, but where the file system has no locks.

    Args:
        file: whose lock is held; it is made if need be.
        wait: called while another process holds it, again and again; it should take a moment.

    Raises:
        OSError: the file cannot be written.
    """
    make_folder(file.parent)
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock_file(file, "it is held"))
            except StorageError:
                wait()
                continue
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
            break
        yield


def arranged(listing: Listing, digests: Mapping[str, str], root: Path) -> Fetched:
    """The folder with links to the files of a data set, which is made if need be.

    Args:
        listing: the files, all of which are there.
        digests: {path of a file: its digest}.
        root: folder of what hbtrain keeps of data sets.

    Raises:
        DataError: an archive cannot be unpacked, or lacks files.
        StorageError: the folder cannot be written.
    """
    lines = [f"{path} {digest}\n" for path, digest in digests.items()]
    lines += [f"{to} {name}\n" for file in listing.files for name, to in file.members.items()]
    digest = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    name = listing.data_set.name
    # Benchmarks are named after their folder.
    folder = root / "folders" / f"{name}-{digest[:16]}" / name
    with writing(root, "HBTRAIN_CACHE"):
        links: dict[str, Path] = {}
        for file in listing.files:
            links |= _unpacked(file, digests[file.path], root) if file.members else {file.path: file.local}
        if not _holds(folder, links):
            make_folder(folder.parent)
            with locked(folder.parent / LOCK, _pause):
                remove_leftovers(folder.parent)
                with whole(folder, replaces_folder=True) as made:
                    for path, target in links.items():
                        (made / path).parent.mkdir(parents=True, exist_ok=True)
                        (made / path).symlink_to(target.absolute())
    return Fetched(listing, folder, tuple(sorted(links)), digests, digest)


def _pause() -> None:
    time.sleep(0.1)


def _holds(folder: Path, links: Mapping[str, Path]) -> bool:
    """Whether a folder has these links, and they lead to files."""
    return folder.is_dir() and all(
        (folder / path).is_symlink() and (folder / path).readlink() == target.absolute() and target.exists()
        for path, target in links.items()
    )


def _unpacked(archive: File, digest: str, root: Path) -> dict[str, Path]:
    """{path in the data set's folder: file} of what is wanted of an archive, which is unpacked if need be.

    Raises:
        DataError: it is no archive, or has no such file.
        OSError: it cannot be unpacked.
    """
    folder = root / "unpacked" / hashlib.sha256(digest.encode()).hexdigest()[:24]
    found = {name: folder / name for name in archive.members}
    if not all(path.is_file() for path in found.values()):
        with locked(folder.with_name(f"{folder.name}.lock"), _pause):
            _unpack(archive, {name: path for name, path in found.items() if not path.is_file()})
    return {archive.members[name]: path for name, path in found.items()}


def _unpack(archive: File, missing: Mapping[str, Path]) -> None:
    """Take files, {path in the archive: where it belongs}, out of an archive; `./` before a path does not count."""
    left = dict(missing)

    def take(name: str, content: IO[bytes] | None) -> None:
        path = left.pop(name.removeprefix("./"))
        if content is not None:
            make_folder(path.parent)
            with content, whole_stream(path) as stream:
                shutil.copyfileobj(content, stream)

    try:
        if zipfile.is_zipfile(archive.local):
            with zipfile.ZipFile(archive.local) as zipped:
                for name in zipped.namelist():
                    if name.removeprefix("./") in left:
                        take(name, zipped.open(name))
        else:
            with tarfile.open(archive.local) as tape:
                for member in tape:
                    if member.isfile() and member.name.removeprefix("./") in left:
                        take(member.name, tape.extractfile(member))
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        raise DataError(f"{archive.local} cannot be unpacked: {error}; delete it, and fetch it again") from error
    if left:
        raise DataError(f"{archive.url} holds no {next(iter(left))}")
