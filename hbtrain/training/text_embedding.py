"""Embedding texts by a model that is not trained: what the machines' stores lack, on all ranks together.

Each rank embeds a share of the batches of a block, and all get all vectors; those that one machine has and another
lacks are handed on. A vector depends on the block's missing texts, not on how many ranks there are.

Shapes: n different texts of a block, W ranks, M of them that write (one for each machine), E dimensions.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from hbtrain.config import Config
from hbtrain.corpus.negatives import digest_number
from hbtrain.errors import ModelError, StorageError
from hbtrain.modeling.devices import evaluation_precision
from hbtrain.modeling.encoder import Encoder, Side
from hbtrain.modeling.gather import Group
from hbtrain.storage import cache_root
from hbtrain.storage.files import lock_file
from hbtrain.training.export import torch_linear
from hbtrain.training.text_vectors import Floats, TextVectors, digests_of
from hbtrain.training.worker import PhaseCallback

PHASE = "references"
TELL_EVERY_S = 30.0
SIDES: tuple[Side, ...] = get_args(Side)
DIGEST_NUMBERS = 4  # int64 numbers of a SHA-256
TINY = 1e-12  # the least length that a vector is divided by: one of no known word is zero


class TextEmbedding:
    """The stores of a model's vectors, and the model where they lack some; every method is collective.

    Vectors are made unit vectors, whatever similarity the model was made for. `stores` are this machine's,
    `dimension` is E, and `embedded` counts the texts that the ranks have embedded.
    """

    def __init__(
        self,
        model: str,
        config: Config,
        group: Group,
        device: torch.device,
        on_phase: PhaseCallback,
        tell: Callable[[str], None],
    ) -> None:
        """Open the stores on this machine, below the cache.

        Args:
            model: its name or folder. With the backbone of `config` it reads the prefixes of the run, else its own.
            config: of the run.
            group: the ranks.
            device: where this rank embeds texts.
            on_phase: called as often on each rank while it works.
            tell: called with sentences for people.

        Raises:
            ModelError: the model cannot be loaded.
            StorageError: the cache cannot be written.
        """
        self._model, self._config, self._group, self._device = model, config, group, device
        self._on_phase, self._tell = on_phase, tell
        on_phase("loading")
        self._encoder = self._load() if group.rank == 0 else None
        folders, dimension = self._folders()
        self._folder = folders["query"]
        self.stores: Mapping[Side, TextVectors] = {side: TextVectors(folders[side], dimension) for side in SIDES}
        self.dimension = dimension
        self._writers = self._first_of_machines()
        self.embedded = 0

    def fill(self, blocks: Iterable[tuple[Side, Sequence[str]]], total: int) -> None:
        """Have the stores of all machines hold the vectors of all texts; the model is freed then.

        Args:
            blocks: the texts with their sides, the same on all ranks.
            total: how many texts these are.

        Raises:
            ModelError: the model cannot be loaded, or gives NaN or infinity.
            StorageError: a store cannot be written.
        """
        began_s = told_s = time.monotonic()
        done = 0
        with self._alone():
            self._refresh()
            for side, texts in blocks:
                self._on_phase(PHASE)
                self._fill(side, texts)
                done += len(texts)
                if self.embedded and time.monotonic() - told_s >= TELL_EVERY_S:
                    told_s = time.monotonic()
                    self._tell(f"{self._model}: {done:,} of {total:,} texts are done")
            self._sum(torch.zeros(1))  # until all machines have written
        self._refresh()
        if self.embedded:
            seconds = time.monotonic() - began_s
            self._tell(f"{self._model} has embedded {self.embedded:,} texts in {seconds:.0f} s, of {total:,}")
        self._encoder = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # training's memory is of other sizes

    def _refresh(self) -> None:
        for store in self.stores.values():
            store.refresh()

    def _fill(self, side: Side, texts: Sequence[str]) -> None:
        store, rank = self.stores[side], self._group.rank
        digests, first = np.unique(digests_of(texts), return_index=True)
        own = torch.from_numpy(store.has(digests).astype(np.uint8)).to(self._device)
        has_mn = self._group.all_gather(own).cpu().numpy()[self._writers].astype(bool)
        wanted = np.flatnonzero(~has_mn.all(axis=0))  # those that some machine lacks
        if not len(wanted):
            return
        has_mn = has_mn[:, wanted]
        holders = np.where(has_mn.any(axis=0), np.array(self._writers)[has_mn.argmax(axis=0)], -1)
        vectors = np.zeros((len(wanted), self.dimension), np.float32)
        vectors[holders == rank] = store.take(digests[wanted[holders == rank]])
        missing = np.flatnonzero(holders < 0)
        if len(missing):
            vectors[missing] = self._share([texts[i] for i in first[wanted[missing]].tolist()], side)
        vectors = self._sum(torch.from_numpy(vectors)).numpy()
        vectors[missing] = self._checked(vectors[missing], side)
        if rank in self._writers:
            store.add(digests[wanted], vectors)

    def _share(self, texts: list[str], side: Side) -> Floats:
        """This rank's share of the texts' vectors [n, E]; the others are zero."""
        if not self.embedded:
            self._tell(
                f"{self._model} embeds the texts of this run, each once; {self._folder.parent} keeps the vectors"
            )
            self._on_phase("loading")
        self.embedded += len(texts)
        self._encoder = self._encoder or self._load()
        share = self._group.rank, self._group.world_size
        with torch_linear():
            return self._encoder.encode(texts, side, progress=lambda done: self._on_phase(PHASE), share=share)

    def _checked(self, vectors: Floats, side: Side) -> Floats:
        broken = int((~np.isfinite(vectors).all(axis=1)).sum())
        if broken:
            raise ModelError(
                f"model '{self._model}': the vectors of {broken} of {len(vectors)} {side} texts hold NaN or infinity; "
                "use another model, or fp32 as evaluation.precision"
            )
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), TINY))

    def _load(self) -> Encoder:
        encoder = self._config.encoder
        prompts: dict[Side, str] = {"query": encoder.query_prefix, "passage": encoder.passage_prefix}
        with torch.random.fork_rng(devices=[]):
            return Encoder.load(
                self._model,
                device=str(self._device),
                trust_remote_code=encoder.trust_remote_code == self._model,
                prompts=prompts if self._model == encoder.backbone else None,
                precision=evaluation_precision(self._config.evaluation.precision, str(self._device)),
            )

    def _folders(self) -> tuple[dict[Side, Path], int]:
        """The stores' folders, by what decides a vector beside its text, and the dimension of vectors."""
        numbers = np.zeros(len(SIDES) * DIGEST_NUMBERS + 1, np.int64)
        if self._encoder is not None:
            digest = self._encoder.digest()
            keys = [sha256(repr((digest, side, self._encoder.prefixes[side])).encode()).digest() for side in SIDES]
            numbers[:-1] = np.frombuffer(b"".join(keys), np.int64)
            numbers[-1] = self._encoder.dimension
        known = self._sum(torch.from_numpy(numbers)).numpy()
        root = cache_root(self._config.data.cache) / "references"
        names = [key.tobytes().hex()[:32] for key in np.split(known[:-1], len(SIDES))]
        return {side: root / f"{side}-{name}" for side, name in zip(SIDES, names, strict=True)}, int(known[-1])

    def _first_of_machines(self) -> list[int]:
        """The first rank of each machine, by its name and the place of its cache."""
        there = self._folder.stat()
        own = digest_number(f"{os.uname().nodename} {there.st_dev} {there.st_ino}")
        machines = self._group.all_gather(torch.tensor([own], device=self._device)).flatten().tolist()
        return [machines.index(machine) for machine in dict.fromkeys(machines)]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other run on rank 0's machine embeds by this model meanwhile: it waits, and then finds the vectors."""
        with ExitStack() as stack:
            while True:
                ready = 1
                try:
                    if self._group.rank == 0:
                        stack.enter_context(lock_file(self._folder / "filling", "another run is embedding"))
                except StorageError:
                    ready = 0
                    time.sleep(0.5)
                except OSError as error:
                    raise StorageError(f"cannot write the cache {self._folder}: {error.strerror or error}") from error
                self._on_phase(PHASE)
                if int(self._sum(torch.tensor([ready]))) == self._group.world_size:
                    break
            yield

    def _sum(self, x: Tensor) -> Tensor:
        """The sum over ranks, on the CPU."""
        return self._group.all_reduce_sum(x.to(self._device)).cpu()
