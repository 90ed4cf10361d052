"""Translates blocks with Ray Data, on a pool of actors that hold the model and also measure the translations."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from hbtrain.cluster.capacity import Demand
from hbtrain.cluster.connection import GIVEN_DEVICES
from hbtrain.cluster.session import ray_session
from hbtrain.errors import ConfigError, HbtrainError, ModelError, StorageError, TranslationError
from hbtrain.translation.blocks import Block, Result, dump
from hbtrain.translation.languages import LANGUAGES, Identifier
from hbtrain.translation.model import TranslationModel
from hbtrain.translation.scores import score
from hbtrain.translation.texts import Texts
from hbtrain.translation.translator import Generation, Output, Translator

RETRIES = 3  # how often a block is tried again whose actor died; where actors die more often, the block is the cause

ERRORS: dict[str, type[HbtrainError]] = {kind.__name__: kind for kind in (ModelError, StorageError)}
"""{name: class} of the errors of actors that the user can mend."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Pool:
    """The actors."""

    actors: int = 0  # how many; 0: one for each GPU of the cluster, or one if it has none
    cpus_per_actor: float = 1.0
    use_gpu: bool | None = None  # whether each actor has a GPU; None: if the cluster has any
    address: str | None = None  # of the cluster; None: $RAY_ADDRESS, or a cluster that is started on this machine
    wait_s: float = 0.0  # seconds to wait for more nodes while the cluster is too small for the actors

    def __post_init__(self) -> None:
        if self.actors < 0:
            raise ConfigError(f"--actors {self.actors}: must be 0 (one for each GPU) or more")
        if not 0 < self.cpus_per_actor < math.inf:
            raise ConfigError(f"--cpus-per-actor {self.cpus_per_actor:g}: must be more than 0")
        if not 0 <= self.wait_s <= math.inf:  # refuses nan
            raise ConfigError(f"--wait-s {self.wait_s:g}: must be 0 or more")

    @property
    def demand(self) -> Demand:
        """What the cluster must have: room for all actors, or for one if their number depends on the cluster."""
        count = self.actors or 1
        return Demand(f"--actors {count}", count, self.cpus_per_actor, float(bool(self.use_gpu)), self.wait_s)


@dataclass(frozen=True)
class Work:
    """How blocks are translated and measured."""

    model: TranslationModel
    source: str  # ISO 639-1 code of the language of the texts
    targets: tuple[str, ...]  # ISO 639-1 codes of the languages translated into
    generation: Generation
    identify: bool  # whether the language of translations is identified


def translated(work: Work, pool: Pool, texts: Texts, todo: Sequence[Block]) -> Iterator[tuple[Block, str]]:
    """Translate blocks of texts, which are in a folder that every node sees.

    Yields each block with the content of its file (see `blocks.dump`) when it is done, in any order.

    Raises:
        ConfigError: the cluster is too small for the actors, or does not answer.
        TranslationError: translating stopped.
    """
    # Ray's core logs an error because the actors of Ray Data have arguments.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with ray_session(pool.address, "--address", pool.demand):
        actors, gpus = _actors(pool)
        failure: HbtrainError | None = None
        with _errors_in_words():
            for row in _rows(work, pool.cpus_per_actor, texts, todo, actors, gpus):
                if row["error"]:
                    failure = failure or ERRORS[row["error"]](row["results"])
                    continue  # take the results of other blocks, too, and let no actor be killed while it works
                yield Block(**row["block"]), row["results"]
        if failure is not None:
            raise failure


def _rows(work: Work, cpus: float, texts: Texts, todo: Sequence[Block], actors: int, gpus: float) -> Iterator[Row]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.util.annotations import RayDeprecationWarning

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True
    items = [{"block": asdict(block)} for block in todo]
    actors = min(actors, len(items))
    with warnings.catch_warnings():
        # Ray deprecates max_task_retries here without another way; without it, a deadly block is tried for ever.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        translations = ray.data.from_items(items, override_num_blocks=len(items)).map(
            _Translate,
            fn_constructor_args=(work, texts),
            compute=ActorPoolStrategy(size=actors),
            num_cpus=cpus,
            num_gpus=gpus,
            runtime_env=GIVEN_DEVICES,
            max_task_retries=RETRIES,
        )
    yield from translations.iter_rows()


class _Translate:
    """An actor. It loads the model at its first block, so that an error of loading is returned as that of the block.

    It also measures the translations: a second operation of Ray Data would need CPUs besides those of the actors.
    """

    def __init__(self, work: Work, texts: Texts) -> None:
        self._work = work
        self._texts = texts
        self._translator: Translator | None = None
        self._identifier: Identifier | None = None
        self._failure: Row | None = None

    def __call__(self, row: Row) -> Row:
        """Add to a row with a `block` its `results` as JSON lines, because columns of Arrow must have one type.

        An error that the user can mend is returned as its name in `error` and its message in `results`, since Ray Data
        would print the traceback of a raised one. After an error, an actor returns it for all other blocks, too.
        """
        if self._failure is None:
            try:
                return row | {"error": "", "results": self._results(Block(**row["block"]))}
            except tuple(ERRORS.values()) as error:
                self._failure = {"error": type(error).__name__, "results": str(error)}
        return row | self._failure

    def _results(self, block: Block) -> str:
        texts, work = self._read(block), self._work
        if self._translator is None:
            self._translator = Translator(work.model, work.source, work.targets, work.generation)
            self._identifier = Identifier() if work.identify else None
        outputs = self._translator.translate(texts, block.language)
        return dump([self._result(*one, block.language) for one in zip(texts, outputs, strict=True)])

    def _result(self, text: str, output: Output | None, target: str) -> Result:
        if output is None:
            return Result(None, None)
        languages = LANGUAGES[self._work.source], LANGUAGES[target]
        return Result(output.text, score(text, output.text, *languages, self._identifier), output.finished)

    def _read(self, block: Block) -> list[str]:
        try:
            return block.texts(self._texts)
        except OSError as error:
            raise StorageError(
                f"a node of the cluster cannot read {self._texts.folder}: {error.strerror}; "
                "--output must be in a folder that every node sees"
            ) from error


def _actors(pool: Pool) -> tuple[int, float]:
    """(number of actors, GPUs of each). Raises ConfigError if the cluster is too small for them."""
    import ray

    have = ray.cluster_resources()
    gpus = int(have.get("GPU", 0))
    use_gpu = gpus > 0 if pool.use_gpu is None else pool.use_gpu
    actors = pool.actors or (gpus if use_gpu else 1)
    if (use_gpu and actors > gpus) or actors == 0:
        raise ConfigError(
            f"--actors {actors or 1} with a GPU each, and the cluster has {gpus}; take fewer, or leave out --use-gpu"
        )
    if actors * pool.cpus_per_actor > have.get("CPU", 0):
        raise ConfigError(
            f"{actors} actors with {pool.cpus_per_actor:g} CPU each need {actors * pool.cpus_per_actor:g}, and the "
            f"cluster has {have.get('CPU', 0):g}; lower --actors or --cpus-per-actor, or join nodes to the cluster"
        )
    return actors, 1.0 if use_gpu else 0.0


@contextmanager
def _errors_in_words() -> Iterator[None]:
    """Turn errors of Ray Data into a TranslationError of one line."""
    import ray

    try:
        yield
    except (ray.exceptions.RayError, ray.data.exceptions.SystemException) as error:
        cause = getattr(error, "cause", None) or error
        lines = str(cause).strip().splitlines()
        # The message of a task's error is a traceback, whose last line is the reason; others begin with it.
        reason = lines[-1] if isinstance(cause, ray.exceptions.RayTaskError) else lines[0]
        raise TranslationError(
            f"translating stopped: {reason}; where memory is short, lower --batch-tokens or --actors (the first under "
            "another --output); the same command goes on from the blocks that are finished"
        ) from error
