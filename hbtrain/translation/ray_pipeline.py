"""Blocks through Ray Data: translated and measured by a pool of actors that hold the model."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hbtrain.cluster.capacity import Demand
from hbtrain.cluster.connection import GIVEN_DEVICES
from hbtrain.cluster.session import ray_session
from hbtrain.errors import ConfigError, HbtrainError, ModelError, StorageError, TranslationError
from hbtrain.translation.blocks import Block, Result, dump, load
from hbtrain.translation.languages import LANGUAGES, Identifier
from hbtrain.translation.model import TranslationModel
from hbtrain.translation.scores import score
from hbtrain.translation.texts import Texts
from hbtrain.translation.translator import Generation, Output, Translator

RETRIES = 3
"""Times that a block is given again whose actor died; one that dies more often dies of its block."""

ERRORS: dict[str, type[HbtrainError]] = {kind.__name__: kind for kind in (ModelError, StorageError)}
"""What an actor finds wrong that the user can mend."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Pool:
    """The actors.

    Attributes:
        actors: how many; 0 is one for each GPU of the cluster, or one if it has none.
        cpus_per_actor: CPUs of each.
        use_gpu: a GPU for each; by default if the cluster has any.
        address: of the cluster; by default $RAY_ADDRESS, or one on this machine.
        wait_s: seconds to wait for nodes where the cluster has too few for so many actors.
    """

    actors: int = 0
    cpus_per_actor: float = 1.0
    use_gpu: bool | None = None
    address: str | None = None
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        if self.actors < 0:
            raise ConfigError(f"--actors {self.actors}: must be 0 (one for each GPU) or more")
        if self.cpus_per_actor <= 0:
            raise ConfigError(f"--cpus-per-actor {self.cpus_per_actor:g}: must be more than 0")
        if self.wait_s < 0:
            raise ConfigError(f"--wait-s {self.wait_s:g}: must be 0 or more")

    @property
    def demand(self) -> Demand:
        """What the cluster is to have before anything is counted: all actors, or one where their number follows."""
        count = self.actors or 1
        return Demand(f"--actors {count}", count, self.cpus_per_actor, float(bool(self.use_gpu)), self.wait_s)


@dataclass(frozen=True)
class Work:
    """What is to be done with each block.

    Attributes:
        model: that translates.
        source: ISO 639-1 code of the language of the texts.
        targets: those that blocks are to be translated into.
        generation: how translations are sought.
        identify: whether the language of translations is identified.
    """

    model: TranslationModel
    source: str
    targets: tuple[str, ...]
    generation: Generation
    identify: bool


def translated(work: Work, pool: Pool, texts: Texts, todo: Sequence[Block]) -> Iterator[tuple[Block, list[Result]]]:
    """The results of blocks, as they are done, in no order.

    Args:
        work: what is to be done with each.
        pool: the actors that do it.
        texts: that the blocks are of; in a folder that every node sees.
        todo: the blocks.

    Raises:
        ConfigError: the cluster has too little for the actors, or does not answer.
        TranslationError: translating stopped.
    """
    # Ray's core calls it an error that actors of Ray Data have arguments.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with ray_session(pool.address, "--address", pool.demand):
        actors, gpus = _actors(pool)
        failure: HbtrainError | None = None
        with _errors_in_words():
            for row in _rows(work, pool.cpus_per_actor, texts, todo, actors, gpus):
                if row["error"]:
                    failure = failure or ERRORS[row["error"]](row["results"])
                    continue  # what others have finished is kept, and no actor is killed at its work
                block = Block(row["language"], row["number"], row["start"], row["stop"])
                yield block, load(row["results"])
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
    items = [{"language": b.language, "number": b.number, "start": b.start, "stop": b.stop} for b in todo]
    actors = min(actors, len(items))
    with warnings.catch_warnings():
        # Of max_task_retries, for which there is no other way yet; by default a block that kills is tried for ever.
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
    """An actor: it loads the model at its first block, so that an error on the way is that block's.

    It measures what it has translated, too: a second operation would need CPUs beside those that actors hold.
    """

    def __init__(self, work: Work, texts: Texts) -> None:
        self._work = work
        self._texts = texts
        self._translator: Translator | None = None
        self._identifier: Identifier | None = None
        self._failure: Row | None = None

    def __call__(self, row: Row) -> Row:
        """A block with its results, as JSON lines: Arrow keeps any text, and no column of it is empty at times.

        What the user can mend comes back as a value, an error's name and words: Ray Data would print its traceback. An
        actor that has found something wrong gives all other blocks back at once.
        """
        if self._failure is None:
            try:
                return row | {"error": "", "results": self._results(row)}
            except tuple(ERRORS.values()) as error:
                self._failure = {"error": type(error).__name__, "results": str(error)}
        return row | self._failure

    def _results(self, row: Row) -> str:
        texts = self._read(Block(row["language"], row["number"], row["start"], row["stop"]))
        translator = self._loaded()
        outputs = translator.translate(texts, row["language"])
        results = [self._result(text, output, row["language"]) for text, output in zip(texts, outputs, strict=True)]
        return dump(results)

    def _loaded(self) -> Translator:
        work = self._work
        if self._translator is None:
            self._translator = Translator(work.model, work.source, work.targets, work.generation)
            self._identifier = Identifier() if work.identify else None
        return self._translator

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
    """How many actors, and the GPUs of each; ConfigError if the cluster has too little for them."""
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
    """What Ray Data says when something goes wrong in a task becomes one line."""
    import ray

    try:
        yield
    except (ray.exceptions.RayError, ray.data.exceptions.SystemException) as error:
        reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
        raise TranslationError(
            f"translating stopped: {reason}; where memory is short, lower --batch-tokens or --actors (the first under "
            "another --output); the same command goes on from the blocks that are finished"
        ) from error
