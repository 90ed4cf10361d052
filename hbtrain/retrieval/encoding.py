"""Encoding into a store: workers encode blocks of texts, and their vectors are written into the shards' files.

A block's vectors depend on its texts alone, so the store does not depend on the number of workers, on their restarts or
on when an encoding was interrupted.

Shapes: N texts, R texts of a block, D dimensions.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from hbtrain.errors import MAKE_ROOM, ModelError, RetrievalError, StorageError, is_full
from hbtrain.modeling.devices import Device, evaluation_precision
from hbtrain.modeling.encoder import Encoder, Origin, Side
from hbtrain.retrieval.manifest import texts_digest
from hbtrain.retrieval.scores import Floats, check_finite
from hbtrain.retrieval.store import StoreWriter
from hbtrain.retrieval.workers import Factory, LocalWorkers, Workers
from hbtrain.storage.files import whole_stream

if TYPE_CHECKING:
    from hbtrain.config.encoder import Precision

Progress = Callable[[int, int], None]  # called with the texts done so far and all of them

logger = logging.getLogger(__name__)


@runtime_checkable
class StoredEncoder(Protocol):
    """An encoder whose vectors can be stored, such as `hbtrain.modeling.encoder.Encoder`."""

    prefixes: dict[Side, str]
    origin: Origin | None

    @property
    def dimension(self) -> int: ...

    def digest(self) -> str:
        """A hex digest that differs from that of any other model."""

    def encode(
        self,
        texts: Sequence[str],
        side: Side,
        batch_size: int | None = ...,
        progress: Callable[[int], None] | None = None,
        batch_tokens: int | None = None,
    ) -> Floats:
        """Vectors [N, D], unit vectors where the encoder's similarity is the cosine."""


@dataclass(frozen=True)
class Batching:
    """How a worker cuts its block into batches."""

    batch_size: int | None = 1024  # the most texts of a batch; None is `BATCH_TEXTS` of the device
    # the most tokens of a batch, padding included; None is `BATCH_TOKENS` of the device
    batch_tokens: int | None = None


class BlockEncoder:
    """The object of a worker that encodes blocks of texts."""

    def __init__(self, encoder: StoredEncoder, batching: Batching) -> None:
        self._encoder = encoder
        self._batching = batching

    def encode(self, texts: list[str], side: Side) -> Floats:
        """Unit vectors [R, D] of a block.

        Raises:
            RetrievalError: a batch does not fit into the GPU's memory.
        """
        import torch

        batching = self._batching
        try:
            return self._encoder.encode(texts, side, batch_size=batching.batch_size, batch_tokens=batching.batch_tokens)
        except torch.cuda.OutOfMemoryError as error:
            raise RetrievalError(
                f"batches of {batching.batch_tokens or 'the default number of'} tokens do not fit into the GPU's "
                "memory; lower the tokens of a batch"
            ) from error


class DevicesEncoder:
    """An encoder on several devices of this process, one copy on each, which encode at the same time.

    They get the windows of texts that `Encoder.encode` cuts, so that the vectors are those of one device.
    """

    def __init__(self, encoder: Encoder, devices: Sequence[Device]) -> None:
        """Copy the encoder, which is on the first of the devices, to the others."""
        self.encoders = [encoder, *(encoder.on(device) for device in devices[1:])]
        self.prefixes, self.origin, self.dimension = encoder.prefixes, encoder.origin, encoder.dimension
        self.similarity, self.precision, self.notes = encoder.similarity, encoder.precision, encoder.notes
        self._workers = LocalWorkers([partial(_held, own) for own in self.encoders], devices)

    def digest(self) -> str:
        return self.encoders[0].digest()

    def encode(
        self,
        texts: Sequence[str],
        side: Side,
        batch_size: int | None = None,
        progress: Callable[[int], None] | None = None,
        batch_tokens: int | None = None,
    ) -> Floats:
        """Vectors [N, D], as `Encoder.encode` gives them; `progress` is called after every window of texts."""
        told = None if progress is None else lambda done, total: progress(done)
        how = batch_size, None, batch_tokens
        vectors_ND = _spread(self._workers, texts, side, self.dimension, told, how)
        self.encoders[0].tell_if_collapsed(texts, side, vectors_ND)
        return vectors_ND


def load_on(
    devices: Sequence[Device], name: str, wanted: Precision | None, trust_remote_code: bool = False
) -> Encoder | DevicesEncoder:
    """A model on each of the devices, in the precision of evaluations; for the arguments see `Encoder.load`."""
    precision = evaluation_precision(wanted, devices[0])
    encoder = Encoder.load(name, device=devices[0], trust_remote_code=trust_remote_code, precision=precision)
    return encoder if len(devices) == 1 else DevicesEncoder(encoder, devices)


def block_encoders(encoder: StoredEncoder, digest: str, batching: Batching, actors: int) -> list[Factory]:
    """Factories of the workers' `BlockEncoder`s: one with `encoder` on each of its devices, or one for each actor,
    which loads the model.

    Raises:
        ModelError: actors are wanted of an encoder that was not loaded from anywhere.
    """
    if not actors:
        encoders = encoder.encoders if isinstance(encoder, DevicesEncoder) else [encoder]
        return [partial(_held, BlockEncoder(own, batching)) for own in encoders]
    if encoder.origin is None:
        raise ModelError("actors load the model themselves, and this one was not loaded from a folder; save it first")
    return [partial(_load, encoder.origin, digest, encoder.prefixes, batching)] * actors


def _held(made: Any, device: Device) -> Any:
    """What was made on its device before."""
    return made


def _load(origin: Origin, digest: str, prefixes: dict[Side, str], batching: Batching, device: Device) -> BlockEncoder:
    encoder = Encoder.load(
        origin.name_or_path,
        device=device,
        trust_remote_code=origin.trust_remote_code,
        prompts=prefixes,
        precision=origin.precision,
    )
    if encoder.digest() != digest:
        raise ModelError(
            f"model '{origin.name_or_path}': an actor loaded other weights from there than this process did; the model "
            "must be the same on all nodes, and must not change while it is used"
        )
    return BlockEncoder(encoder, batching)


def fill(writer: StoreWriter, texts: Sequence[str], workers: Workers, progress: Progress | None = None) -> None:
    """Encode what the store lacks.

    Args:
        writer: of a store for these texts.
        texts: all of the store, read block by block.
        workers: whose objects are `BlockEncoder`s.
        progress: called with the rows that the store has, earlier ones included.

    Raises:
        ModelError: the model gives too few vectors, or unusable ones.
        RetrievalError: a worker is lost for good.
        StorageError: the disk is full.
    """
    manifest = writer.manifest
    blocks = [block for shard in writer.missing for block in manifest.blocks(shard)]
    done = manifest.rows - sum(len(block) for block in blocks)
    if done:
        logger.info("%d of %d embeddings are in the store", done, manifest.rows)

    def tasks() -> Iterator[tuple[Any, ...]]:
        for block in blocks:
            yield [texts[row] for row in block], manifest.side

    for number, vectors_RD in workers.map_unordered("encode", tasks()):
        block = blocks[number]
        if len(vectors_RD) != len(block):
            raise ModelError(f"the model gave {len(vectors_RD)} embeddings for {len(block)} texts, not one each")
        writer.write(block.start, vectors_RD)
        done += len(block)
        if progress is not None:
            progress(done, manifest.rows)


def cached_embeddings(
    encoder: StoredEncoder,
    digest: str,
    texts: Sequence[str],
    side: Side,
    cache: Path,
    batching: Batching,
    started: Callable[[], Workers] | None = None,
    progress: Progress | None = None,
) -> Floats:
    """Vectors [N, D] of texts that fit into memory, such as queries; from the cache if they have been encoded before.

    Args:
        encoder: encodes them if the cache does not have them and there are no workers.
        digest: `encoder.digest()`.
        texts: cached together, as one file.
        side: which of the prefixes.
        cache: hbtrain's cache folder.
        batching: how they are batched.
        started: gives the workers that encode, whose objects are `BlockEncoder`s. They get the windows of texts that
            `Encoder.encode` cuts, so that the vectors are those of one process, to the last bit.
        progress: called with the texts done.

    Raises:
        ModelError: a vector holds NaN or infinity.
        StorageError: the cache cannot be written.
    """
    key = repr((digest, side, encoder.prefixes[side], texts_digest(texts), batching))
    path = cache / "embeddings" / f"{side}-{sha256(key.encode()).hexdigest()[:32]}.npy"
    cached = _read(path, (len(texts), encoder.dimension))
    if cached is not None:
        return cached
    if started is None:
        vectors_ND = BlockEncoder(encoder, batching).encode(list(texts), side)
    else:
        vectors_ND = _spread(started(), texts, side, encoder.dimension, progress)
        if isinstance(encoder, Encoder):
            encoder.tell_if_collapsed(texts, side, vectors_ND)
    check_finite(side, vectors_ND)
    np.save(content := io.BytesIO(), vectors_ND, allow_pickle=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_stream(path) as file:
            file.write(content.getbuffer())
    except OSError as error:
        remedy = MAKE_ROOM if is_full(error) else "set HBTRAIN_CACHE to another folder"
        raise StorageError(f"cannot write the cache {path.parent}: {error.strerror}; {remedy}") from error
    return vectors_ND


def _spread(
    workers: Workers,
    texts: Sequence[str],
    side: Side,
    dimension: int,
    progress: Progress | None,
    how: tuple[Any, ...] = (),
) -> Floats:
    """Vectors [N, D] of texts whose windows the workers encode; `how` are further arguments of their `encode`."""
    from hbtrain.modeling.features import windows

    vectors_ND, parts, done = np.empty((len(texts), dimension), np.float32), list(windows(texts)), 0
    tasks = (([texts[place] for place in places], side, *how) for places in parts)
    for number, vectors in workers.map_unordered("encode", tasks):
        if vectors.shape != (len(parts[number]), dimension):
            raise ModelError(
                f"the model gave embeddings of shape {vectors.shape} for {len(parts[number])} {side} texts"
            )
        vectors_ND[parts[number]] = vectors
        done += len(vectors)
        if progress is not None:
            progress(done, len(texts))
    return vectors_ND


def _read(path: Path, shape: tuple[int, int]) -> Floats | None:
    try:
        vectors: Floats = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return vectors if vectors.shape == shape and vectors.dtype == np.float32 else None
