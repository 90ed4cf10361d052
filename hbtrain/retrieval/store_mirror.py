"""An embedding store in remote storage as well: what one machine has encoded, no other one encodes again.

A shard is pushed as soon as it is finished here, its digest last; so an encoding that was cut off goes on elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hbtrain.errors import StorageError
from hbtrain.retrieval.manifest import MANIFEST, Manifest
from hbtrain.retrieval.store import data_name, mark_name
from hbtrain.storage import RemoteError, RemotePath, put, write_text

BLOCK_BYTES = 16 * 2**20


class Mirror:
    """The two places of one store."""

    def __init__(self, here: Path, there: RemotePath, manifest: Manifest) -> None:
        """Args: `here`, the store's folder on this machine; `there`, its folder in remote storage.

        Raises:
            StorageError: the storage does not answer.
        """
        self._here, self._there, self._manifest = here, there, manifest
        try:
            names = set(there.children())
        except RemoteError as error:
            raise _unusable(there, error) from error
        shards = range(len(manifest.shards))
        self._pushed = {shard for shard in shards if {data_name(shard), mark_name(shard)} <= names}

    def fetch(self) -> None:
        """Bring the finished shards that are lacking here; a damaged one is left, and so is encoded again.

        Raises:
            StorageError: the storage does not answer, or this machine's disk cannot be written.
        """
        wanted = [shard for shard in sorted(self._pushed) if not (self._here / mark_name(shard)).is_file()]
        if not wanted:
            return
        try:
            self._here.mkdir(parents=True, exist_ok=True)
            if not (self._here / MANIFEST).exists():
                write_text(self._here / MANIFEST, self._manifest.to_json())
            for shard in wanted:
                self._fetch(shard)
        except OSError as error:
            raise _unusable(self._there, error) from error

    def push(self) -> None:
        """Take the finished shards that are lacking there.

        Raises:
            StorageError: the storage does not answer, or refuses.
        """
        for shard in range(len(self._manifest.shards)):
            if shard in self._pushed or not (self._here / mark_name(shard)).is_file():
                continue
            try:
                if not self._pushed:
                    (self._there / MANIFEST).write_text(self._manifest.to_json())
                for name in (data_name(shard), mark_name(shard)):
                    put(self._here / name, self._there / name)
            except OSError as error:
                raise _unusable(self._there, error) from error
            self._pushed.add(shard)

    def _fetch(self, shard: int) -> None:
        mark = (self._there / mark_name(shard)).read_text()
        part = self._here / f"{data_name(shard)}.part"
        digest = hashlib.sha256()
        with (self._there / data_name(shard)).open() as read, part.open("wb") as write:
            while block := read.read(BLOCK_BYTES):
                digest.update(block)
                write.write(block)
        try:
            whole = json.loads(mark)["sha256"] == digest.hexdigest()
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            part.unlink()
            self._pushed.discard(shard)
            return
        part.replace(self._here / data_name(shard))
        write_text(self._here / mark_name(shard), mark)


def _unusable(there: RemotePath, error: OSError) -> StorageError:
    return StorageError(f"embeddings in {there} cannot be kept or fetched: {error.strerror} ({error.filename})")
