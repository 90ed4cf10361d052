"""A checkpoint as files that a rank can load: where it is, or fetched from remote storage as far as the rank needs it.

Restored on as many ranks as saved it, a rank needs its own part and, for the weights and the schedule, that of rank 0.
On another number rank 0 needs all parts, which it converts for everyone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hbtrain.storage import Place, RemotePath
from hbtrain.training.checkpoint_files import Manifest, copy_with_digest, damage


@contextmanager
def at_hand(checkpoint: Place, rank: int, world_size: int, zero_stage: int, prefix: str) -> Iterator[tuple[Path, str]]:
    """The checkpoint's folder on this machine while the body runs, and what is wrong with it, in words.

    Args:
        checkpoint: where it is kept.
        rank: this reader.
        world_size: readers; together they look at all that they will load.
        zero_stage: under which it was saved.
        prefix: of the name of the folder that it is fetched into.
    """
    if isinstance(checkpoint, Path):
        yield checkpoint, damage(checkpoint, rank, world_size)
        return
    with tempfile.TemporaryDirectory(prefix=prefix) as temporary:
        yield Path(temporary), _fetch(checkpoint, Path(temporary), rank, world_size, zero_stage)


def _fetch(checkpoint: RemotePath, to: Path, rank: int, world_size: int, zero_stage: int) -> str:
    """What is wrong with the parts that this rank needs, or empty: then they are in `to`, and rank 0's manifest is."""
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
    """The ranks whose parts this rank needs."""
    if zero_stage == 0:
        return [0]
    if world_size == saved_by:
        return sorted({0, rank})
    return range(saved_by) if rank == 0 else []


def _fetch_file(checkpoint: RemotePath, to: Path, name: str, size: int, digest: str) -> str:
    """Fetch a file; what is wrong with it, in words."""
    target = to / name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (checkpoint / name).open() as read, target.open("wb") as write:
            found_size, found_digest = copy_with_digest(read, write)
    except FileNotFoundError:
        return f"{name} is missing"
    if found_size != size:
        return f"{name} has {found_size} bytes of {size}"
    return "" if found_digest == digest else f"{name} holds other bytes than were written"
