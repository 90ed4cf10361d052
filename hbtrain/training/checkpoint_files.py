"""Files of checkpoints in storage: a folder for each checkpoint, with a part and a manifest of every rank.

A part is complete when its manifest exists and every file has the size and digest that the manifest states. The
manifest is written last, so a checkpoint that was cut off while it was written is recognised as incomplete.

To restore on as many ranks as saved it, a rank reads its own part and, for the weights and the schedule, that of rank
0. On another number of ranks, rank 0 reads all parts and converts them. Only the parts that a rank reads are fetched
from remote storage.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from stat import S_ISDIR

from hbtrain.storage import Place, RemoteError, RemotePath, folders_in, inside, remove_tree, write_text
from hbtrain.storage.files import copy_with_digest, file_digest, make_folder, whole_stream

PARALLEL_READS = 16  # manifests that are read at the same time
PREFIX = "step-"
CONVERTED = "universal-"  # prefix of temporary folders that hold a checkpoint converted for another number of ranks
BLAKE2B = partial(hashlib.blake2b, digest_size=16)


@dataclass(frozen=True)
class Manifest:
    """The content of a rank's part of a checkpoint."""

    step: int  # steps done
    rank: int  # the rank whose part it is
    world_size: int  # ranks that saved the checkpoint
    # the best figure so far (see `hbtrain.training.best`); None before the first one
    best: float | None = None
    waited: int = 0  # figures since then
    files: dict[str, tuple[int, str]] = field(default_factory=dict)  # {path within the folder: (bytes, BLAKE2b digest)}
    best_step: int | None = None  # the step of the best figure; None also in checkpoints of earlier versions

    @staticmethod
    def name(rank: int) -> str:
        return f"manifest-{rank:05d}.json"

    @classmethod
    def read(cls, folder: Place, rank: int) -> Manifest:
        """Read a rank's manifest in the checkpoint `folder`.

        Raises:
            ValueError: it is missing, or cannot be read.
            RemoteError: remote storage does not answer.
        """
        try:
            values = json.loads((folder / cls.name(rank)).read_text(encoding="utf-8"))
            values["files"] = {name: (int(size), str(digest)) for name, (size, digest) in values["files"].items()}
            for name in values["files"]:
                inside(folder, name)
            return cls(**values)
        except FileNotFoundError:
            raise ValueError(f"the part of rank {rank} was not finished") from None
        except RemoteError:  # nothing is known of the checkpoint, so it is not damaged
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{cls.name(rank)} cannot be read: {error}") from error


def folder_name(step: int, token: str) -> str:
    """Name of a checkpoint's folder; `token` is unique to an attempt of a run, so that attempts share no files."""
    return f"{PREFIX}{step:08d}-{token}"


def step_of(name: str) -> int:
    """The step in the name of a checkpoint's folder."""
    return int(name.removeprefix(PREFIX).split("-")[0])


def checkpoints_in(storage: Place) -> list[str]:
    """Names of the checkpoints in a folder, complete or not, the last step first."""
    return sorted(folders_in(storage, f"{PREFIX}????????-*"), reverse=True)


def store(part: Path, to: Place, manifest: Manifest) -> None:
    """Copy a rank's part into its checkpoint's folder, every file atomically, and write its manifest last.

    Raises:
        OSError: the storage is full or cannot be written.
    """
    files: dict[str, tuple[int, str]] = {}
    for source in sorted(path for path in part.rglob("*") if path.is_file()):
        name = source.relative_to(part).as_posix()
        target = to / name
        if isinstance(target, Path):
            make_folder(target.parent)
        files[name] = _copy(source, target)
    text = json.dumps(asdict(manifest) | {"files": files}, indent=1)
    if isinstance(to, Path):
        make_folder(to)
    write_text(to / Manifest.name(manifest.rank), text)


def is_complete(folder: Place) -> bool:
    """Whether every rank has stored its part, as far as manifests and file sizes tell.

    A look at a checkpoint that is not complete costs rank 0's manifest and a listing, whatever the number of ranks. The
    other manifests are read when all are there, several at a time, and once by a process.

    Raises:
        RemoteError: remote storage does not answer.
    """
    try:
        world_size = Manifest.read(folder, 0).world_size
        found = _sizes_in(folder)
        manifests = tuple(found.get(Manifest.name(rank), 0) for rank in range(world_size))
        wanted = _sizes_of_parts(folder, manifests) if all(manifests) else None
    except ValueError:
        return False
    return wanted is not None and all(found.get(name) == size for name, size in wanted.items())


def _sizes_in(folder: Place) -> dict[str, int]:
    """{path below the folder: bytes} of the files that are there."""
    if isinstance(folder, RemotePath):
        return {name: size for name, (size, _) in folder.files().items()}
    files = [(path, path.stat()) for path in folder.rglob("*")]
    return {
        path.relative_to(folder).as_posix(): status.st_size for path, status in files if not S_ISDIR(status.st_mode)
    }


@lru_cache(maxsize=64)
def _sizes_of_parts(folder: Place, manifests: tuple[int, ...]) -> dict[str, int]:
    """{path below the folder: bytes} of the files of all parts, whose manifests have so many bytes.

    The same manifests are read once, as no attempt writes files of another. Raises ValueError: one cannot be read.
    """
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        parts = list(pool.map(partial(Manifest.read, folder), range(len(manifests))))
    return {name: size for part in parts for name, (size, _) in part.files.items()}


def damage(folder: Path, rank: int, world_size: int) -> str:
    """Check a share of a checkpoint's files; returns what is wrong with them, or an empty text.

    Args:
        folder: the checkpoint.
        rank: this reader.
        world_size: number of readers that share the work; it may differ from that of the ranks that saved.
    """
    try:
        first = Manifest.read(folder, 0)
        for saved in range(rank, first.world_size, world_size):
            manifest = Manifest.read(folder, saved)
            if (manifest.step, manifest.world_size) != (first.step, first.world_size):
                return f"the parts of ranks 0 and {saved} are not of one checkpoint"
            for name, (size, digest) in manifest.files.items():
                if wrong := _wrong_size(folder, name, size) or _wrong_content(folder, name, digest):
                    return wrong
    except ValueError as error:
        return str(error)
    return ""


def prune(storage: Place, keep: int, token: str, refused: Iterable[str], protected_step: int | None = None) -> None:
    """Delete all but the `keep` newest complete checkpoints, and the newest one of `protected_step`.

    Incomplete checkpoints are deleted as well, unless this attempt is writing them; so are remains of conversions.

    Args:
        storage: the folder of checkpoints.
        keep: how many stay.
        token: of the current attempt (see `folder_name`).
        refused: names of checkpoints that look complete and are damaged.
        protected_step: a step from whose checkpoint another run may go on.
    """
    refused = set(refused)
    names = checkpoints_in(storage)
    complete = [name for name in names if name not in refused and is_complete(storage / name)]
    stay = {*complete[:keep], *(name for name in names if name.endswith(token) and name not in complete)}
    stay.update([name for name in complete if step_of(name) == protected_step][:1])
    for name in [*(name for name in names if name not in stay), *folders_in(storage, f"{CONVERTED}*")]:
        remove_tree(storage / name)


def _copy(source: Path, target: Place) -> tuple[int, str]:
    """Copy a file atomically; returns its size in bytes and its digest."""
    opened = target.open("wb") if isinstance(target, RemotePath) else whole_stream(target)
    with source.open("rb") as read, opened as write:
        return copy_with_digest(read, write, BLAKE2B)


def _wrong_size(folder: Path, name: str, size: int) -> str:
    try:
        found = (folder / name).stat().st_size
    except OSError:
        return f"{name} is missing"
    return "" if found == size else f"{name} has {found} bytes of {size}"


def _wrong_content(folder: Path, name: str, expected: str) -> str:
    try:
        found = file_digest(folder / name, BLAKE2B)
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return "" if found == expected else f"{name} holds other bytes than were written"


@contextmanager
def local_checkpoint(
    checkpoint: Place, rank: int, world_size: int, zero_stage: int, prefix: str
) -> Iterator[tuple[Path, str]]:
    """Yield the checkpoint's folder on this machine, and what is wrong with it (an empty text if nothing is).

    A checkpoint in remote storage is fetched into a temporary folder, as far as this rank needs it.

    Args:
        checkpoint: its folder in storage.
        rank: this reader.
        world_size: number of readers; together they check all files that they will load.
        zero_stage: the ZeRO stage under which it was saved.
        prefix: prefix of the temporary folder's name.
    """
    if isinstance(checkpoint, Path):
        yield checkpoint, damage(checkpoint, rank, world_size)
        return
    with tempfile.TemporaryDirectory(prefix=prefix) as temporary:
        yield Path(temporary), _fetch(checkpoint, Path(temporary), rank, world_size, zero_stage)


def _fetch(checkpoint: RemotePath, to: Path, rank: int, world_size: int, zero_stage: int) -> str:
    """Fetch the parts that this rank needs, and rank 0's manifest; returns what is wrong, or an empty text."""
    try:
        first = Manifest.read(checkpoint, 0)
        for saved in _needed(rank, world_size, first.world_size, zero_stage):
            manifest = Manifest.read(checkpoint, saved)
            if (manifest.step, manifest.world_size) != (first.step, first.world_size):
                return f"the parts of ranks 0 and {saved} are not of one checkpoint"
            for name, (size, digest) in manifest.files.items():
                if wrong := _fetch_file(checkpoint, to, name, size, digest):
                    return wrong
        (to / Manifest.name(0)).write_bytes((checkpoint / Manifest.name(0)).read_bytes())
    except ValueError as error:
        return str(error)
    return ""


def _needed(rank: int, world_size: int, saved_by: int, zero_stage: int) -> Sequence[int]:
    """The ranks whose parts this rank reads; `saved_by` ranks saved the checkpoint."""
    if zero_stage == 0:
        return [0]
    if world_size == saved_by:
        return sorted({0, rank})
    return range(saved_by) if rank == 0 else []


def _fetch_file(checkpoint: RemotePath, to: Path, name: str, size: int, digest: str) -> str:
    """Fetch a file; returns what is wrong with it, or an empty text."""
    target = to / name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (checkpoint / name).open() as read, target.open("wb") as write:
            found_size, found_digest = copy_with_digest(read, write, BLAKE2B)
    except FileNotFoundError:
        return f"{name} is missing"
    if found_size != size:
        return f"{name} has {found_size} bytes of {size}"
    return "" if found_digest == digest else f"{name} holds other bytes than were written"
