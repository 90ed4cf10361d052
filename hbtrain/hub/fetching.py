"""Fetching the files of a data set: each once, checked, and going on where it was cut off."""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

from hbtrain.errors import MAKE_ROOM, DataError, StorageError
from hbtrain.hub.data_set import DataSet, Purpose, Repository
from hbtrain.hub.digests import Checked, digest_of
from hbtrain.hub.files import PARALLEL, File, Listing, command, listing
from hbtrain.hub.folders import Fetched, arranged, locked
from hbtrain.hub.problems import in_words, writing
from hbtrain.hub.repositories import is_there
from hbtrain.hub.web import Web
from hbtrain.reporting.text import byte_size, counted
from hbtrain.storage import cache_root
from hbtrain.storage.files import put_in_place

PART = ".incomplete"  # end of the name of a file that is not whole yet; huggingface_hub called them so, too
WAIT_S = 0.5  # between two looks whether another process has finished a file


def fetch(
    data_set: DataSet,
    languages: Sequence[str] | None = None,
    *,
    purpose: Purpose | None = None,
    options: Mapping[str, str] | None = None,
    cache: str | None = None,
    notify: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Fetched:
    """Fetch what is not on this machine yet, and check all files that were not checked before.

    Args:
        data_set: see `listing`, also for `languages`, `purpose`, `options` and `cache`.
        notify: called with a line of text before something is fetched, and while another process fetches it.
        progress: called with bytes done and bytes in all while files are fetched, in any thread.

    Raises:
        DataError: see `listing`; or a file cannot be fetched, or is not what its digest says.
        StorageError: a cache cannot be written, or has too little room.
    """
    files = listing(data_set, languages, purpose=purpose, options=options, cache=cache, notify=notify)
    return fetch_listed(files, cache=cache, notify=notify, progress=progress)


def fetch_listed(
    files: Listing,
    *,
    cache: str | None = None,
    notify: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Fetched:
    """As `fetch`, for files that were listed before."""
    root = cache_root(cache) / "hub"
    checked = Checked(root)
    due = {file.blob: file for file in files.files if not _is_settled(file, checked)}
    if files.missing:
        _check_online(files)
        unknown = f", and {counted(files.unknown, 'file')} of unknown size" if files.unknown else ""
        count = counted(len(files.missing), "file")
        notify(f"fetching {files.data_set.name}: {count}, {byte_size(files.missing_size)}{unknown}")
        _check_room(files.missing)
    task = _Task(checked, files.elsewhere, notify, progress, sum(file.size or 0 for file in due.values()))
    try:
        task.run(list(due.values()))
    finally:
        checked.add(task.digests.items())
    for file in files.files:
        with writing(file.local.parent, _variable(file)):
            _link(file)
    digests = {file.path: checked.digest(file.local.resolve(), file.digest) or "" for file in files.files}
    return arranged(files, digests, root)


def where(
    data_set: DataSet,
    languages: Sequence[str] | None = None,
    *,
    purpose: Purpose | None = None,
    options: Mapping[str, str] | None = None,
    cache: str | None = None,
) -> Path:
    """The folder of a data set that was fetched; no server is asked.

    Args:
        data_set: see `listing`, also for `purpose`, `options` and `cache`.
        languages: None: those that are there as a whole.

    Raises:
        DataError: it is not there, or not whole.
    """
    chosen = languages or languages_here(data_set, purpose=purpose, options=options, cache=cache)
    for_purpose = data_set.purpose(purpose)
    fetching = command(data_set, for_purpose, languages, options or {})
    if not chosen:
        raise DataError(f"data set {data_set.name} is not on this machine; run: {fetching}")
    files = listing(data_set, chosen, purpose=purpose, options=options, cache=cache, ask=False)
    if files.missing:
        raise DataError(
            f"data set {data_set.name} is not whole on this machine: {files.missing[0].path} is missing; "
            f"run: {fetching}"
        )
    return fetch_listed(files, cache=cache).folder


def languages_here(
    data_set: DataSet,
    *,
    purpose: Purpose | None = None,
    options: Mapping[str, str] | None = None,
    cache: str | None = None,
) -> tuple[str, ...]:
    """The languages whose files are all on this machine; no server is asked."""

    def is_here(language: str) -> bool:
        with suppress(DataError):
            return not listing(data_set, [language], purpose=purpose, options=options, cache=cache, ask=False).missing
        return False

    return tuple(language for language in data_set.languages if is_here(language))


class _Task:
    """Fetches files in parallel; the first error ends all."""

    def __init__(
        self,
        checked: Checked,
        elsewhere: str,
        notify: Callable[[str], None],
        progress: Callable[[int, int], None],
        total: int,
    ) -> None:
        self.digests: dict[Path, str] = {}  # of the files that were read through
        self._checked = checked
        self._elsewhere = elsewhere
        self._notify = notify
        self._progress = progress
        self._total = total
        self._done = 0
        self._counting = threading.Lock()
        self._web = Web(notify)
        self._told = False  # whether it was said that another process is waited for

    def run(self, files: Sequence[File]) -> None:
        """See that the content of all files is there, and right. Raises what `fetch` does."""
        with ThreadPoolExecutor(PARALLEL) as pool:
            started = [pool.submit(self._settle, file) for file in files]
            try:
                for future in as_completed(started):
                    future.result()
            except BaseException:
                self._web.end()
                for future in started:
                    future.cancel()
                raise

    def _settle(self, file: File) -> None:
        """See that the content of a file is there, and right."""
        with writing(file.blob.parent, _variable(file)), in_words(file.source, file.url, self._elsewhere):
            if self._is_right(file):
                return
            with locked(file.lock, lambda: self._wait_for(file)):
                if not self._is_right(file):
                    self._get(file)
                _link(file)

    def _is_right(self, file: File) -> bool:
        """Whether the content of a file is there, and what its digest says."""
        if (content := file.content) is None:
            return False
        try:
            digest = digest_of(content, file.digest)
        except OSError as error:
            remedy = f"see to its rights, or set {_variable(file)} to another folder"
            raise StorageError(f"{content} cannot be read: {error.strerror}; {remedy}") from error
        if file.digest not in (None, digest):
            self._notify(f"{content} is damaged, and is fetched again")
            return False
        self.digests[content.resolve()] = digest
        self._tell(file.size or 0)
        return True

    def _get(self, file: File, anew: bool = False) -> None:
        """Fetch the content of a file, from where an earlier process was cut off, or `anew`."""
        part = file.blob.with_name(file.blob.name + PART)
        part.parent.mkdir(parents=True, exist_ok=True)
        as_one = self._web.download(file.url, part, file.size, file.headers, self._tell)
        digest = digest_of(part, file.digest)
        if file.digest in (None, digest):
            put_in_place(part, file.blob)
            self.digests[file.blob.resolve()] = digest
            return
        self._tell(-part.stat().st_size)
        part.unlink()
        if as_one or anew:
            raise DataError(
                f"{file.url} came with the digest {digest} where {file.digest} is expected, and was not kept; "
                "try again, and if it stays so, it has changed, or a proxy or mirror (HF_ENDPOINT) alters it"
            )
        self._get(file, anew=True)  # its pieces were not of one file

    def _wait_for(self, file: File) -> None:
        if not self._told:
            self._told = True
            self._notify(f"another process fetches {file.path}: waiting for it")
        self._web.wait(WAIT_S)

    def _tell(self, count: int) -> None:
        with self._counting:
            self._done += count
            self._progress(self._done, self._total)


def _is_settled(file: File, checked: Checked) -> bool:
    """Whether a file is there, and was found to be right before."""
    digest = None if file.content is None else checked.digest(file.content.resolve(), file.digest)
    return digest is not None and file.digest in (None, digest)


def _link(file: File) -> None:
    """Let the hub's cache have the file under its name. Raises OSError."""
    if file.local.exists() and (file.local == file.blob or file.local.resolve() == file.blob.resolve()):
        return
    if not file.blob.exists():  # a cache without links, in which the file itself is there
        return
    file.local.parent.mkdir(parents=True, exist_ok=True)
    link = file.local.with_name(f".{file.local.name}.{os.getpid()}.link")
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(file.blob, file.local.parent))
    link.replace(file.local)


def _check_online(files: Listing) -> None:
    """Raise DataError where nothing may be fetched, before it is said that something is."""
    from huggingface_hub import is_offline_mode
    from huggingface_hub.errors import OfflineModeIsEnabled

    first = files.missing[0]
    with in_words(first.source, first.url, files.elsewhere):
        if is_offline_mode():
            raise OfflineModeIsEnabled(first.url)


def _check_room(files: Sequence[File]) -> None:
    """Raise StorageError if a disk has less room than the files need."""
    needed: Counter[int] = Counter()
    folders: dict[int, File] = {}
    for file in files:
        folder = next(path for path in file.blob.parents if is_there(path))
        part = file.blob.with_name(file.blob.name + PART)
        begun = part.stat().st_size if is_there(part) else 0
        needed[device := folder.stat().st_dev] += max((file.size or 0) - begun, 0)
        folders.setdefault(device, file)
    for device, file in folders.items():
        folder = next(path for path in file.blob.parents if is_there(path))
        free = shutil.disk_usage(folder).free
        if free < needed[device]:
            raise StorageError(
                f"{file.blob.parent} has room for {byte_size(free)}, and {byte_size(needed[device])} are to be "
                f"fetched; {MAKE_ROOM}, or set {_variable(file)} to a folder on another disk"
            )


def _variable(file: File) -> str:
    """The variable of the environment that says where the content of a file is kept."""
    return "HF_HOME" if isinstance(file.source, Repository) else "HBTRAIN_CACHE"
