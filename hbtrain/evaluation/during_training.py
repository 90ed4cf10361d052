"""Evaluation during training: which benchmarks, which scores they give, and scores from the ranks that train.

Each rank encodes its share of the batches; the vectors are added up over ranks, and rank 0 ranks the candidates. Scores
are those that an evaluation of the exported model gives, on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from hbtrain.config import Config
from hbtrain.config.schema import EvaluationConfig
from hbtrain.errors import ConfigError, did_you_mean
from hbtrain.evaluation.benchmark import Benchmark
from hbtrain.evaluation.benchmarks import load_benchmark, parse_benchmarks
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.judged import Judging
from hbtrain.evaluation.metrics import metrics
from hbtrain.evaluation.rankers import ExactRanker
from hbtrain.evaluation.scoring import (
    OF_TRANSLATED_ANSWERS,
    OF_TRANSLATED_QUESTIONS,
    POOL_METRICS,
)
from hbtrain.modeling.encoder import Encoder, Side
from hbtrain.modeling.gather import Group
from hbtrain.reporting.metric_names import LANGUAGE_AWARE, RANK_DISTANCE
from hbtrain.retrieval.scores import check_finite

SMALL = 200_000_000
"""The most scores (queries x candidates, added up over collections) of a benchmark that is evaluated during training
where `evaluation.during` names none. XQuAD-R in eleven languages has 170 million."""


@dataclass(frozen=True)
class Selection:
    """The benchmarks that are evaluated during training."""

    names: tuple[str, ...] = ()  # in the order of `evaluation.benchmarks`
    lines: tuple[str, ...] = ()  # what is evaluated how often, and what is left out, for people


def select(config: Config, benchmarks: Sequence[Benchmark]) -> Selection:
    """Choose the benchmarks that `config` has evaluated during training, and check what it says of them.

    Raises:
        ConfigError: `evaluation.during` names a benchmark that there is not, no benchmark is small, or nothing that is
            evaluated gives the score that `evaluation.keep_best` names.
    """
    options = config.evaluation
    if options.every is None:
        return Selection()
    if not benchmarks:
        raise ConfigError(
            f"evaluation.every = {options.every}, but evaluation.benchmarks is empty; name one, such as demo"
        )
    sizes = {benchmark.name: _size(benchmark) for benchmark in benchmarks}
    names = _names(options, sizes)
    if options.keep_best is not None:
        _check_keep_best(options.keep_best, benchmarks, names)
    texts = sum(
        len(c.question_ids) + len(c.candidate_ids) for b in benchmarks if b.name in names for c in b.collections()
    )
    lines = [f"evaluates {', '.join(names)} every {options.every} steps of training: at most {texts:,} texts each time"]
    lines += [
        f"leaves {name} out during training: {size:,} scores of queries and candidates, and more than {SMALL:,} are "
        f"evaluated only where evaluation.during names the benchmark"
        for name, size in sizes.items()
        if name not in names and options.during is None
    ]
    return Selection(names, tuple(lines))


def _size(benchmark: Benchmark) -> int:
    return sum(len(c.question_ids) * len(c.candidate_ids) for c in benchmark.collections())


def _names(options: EvaluationConfig, sizes: Mapping[str, int]) -> tuple[str, ...]:
    if options.during is None:
        names = tuple(name for name, size in sizes.items() if size <= SMALL)
        if not names:
            found = ", ".join(f"{name} has {size:,}" for name, size in sizes.items())
            raise ConfigError(
                f"evaluation.every = {options.every}: no benchmark has at most {SMALL:,} scores of queries and "
                f"candidates ({found}); name those to evaluate during training in evaluation.during"
            )
        return names
    for name in options.during:
        if name not in sizes:
            raise ConfigError(
                f"evaluation.during = {name!r} is none of evaluation.benchmarks, by name: {did_you_mean(name, sizes)}"
                f"there are {', '.join(sizes)}"
            )
    return tuple(name for name in sizes if name in options.during)


def _check_keep_best(wanted: str, benchmarks: Sequence[Benchmark], names: Sequence[str]) -> None:
    given = {benchmark.name: score_names(benchmark) for benchmark in benchmarks}
    if any(wanted in given[name] for name in names):
        return
    for name, scores in given.items():
        if wanted in scores:
            raise ConfigError(
                f"evaluation.keep_best = {wanted!r}: {name} is not evaluated during training, only {', '.join(names)}; "
                "add it to evaluation.during"
            )
    computed = [score for name in names for score in given[name]]
    raise ConfigError(
        f"evaluation.keep_best = {wanted!r} is not computed: {did_you_mean(wanted, computed)}computed are "
        f"{', '.join(computed)}"
    )


def score_names(benchmark: Benchmark) -> list[str]:
    """Names of the macro scores of queries, `<benchmark>/<setting>/<metric>`, that exact ranks give."""
    found: set[str] = set()
    missing = {RANK_DISTANCE, *OF_TRANSLATED_ANSWERS, *OF_TRANSLATED_QUESTIONS, LANGUAGE_AWARE}
    for collection in benchmark.collections():
        query = np.repeat(np.arange(len(collection.relevant)), [len(places) for places in collection.relevant])
        places = np.concatenate([np.zeros(0, np.int64), *collection.relevant])
        same = collection.query_codes[query] == collection.candidate_codes[places]
        found |= {setting for setting, there in (("mono", same.any()), ("cross", not same.all())) if there}
        if len(np.unique(query)) < len(query):
            missing.discard(RANK_DISTANCE)
        if same.any() and collection.pool_language is None:
            missing.discard(LANGUAGE_AWARE)
        if len(np.intersect1d(query[same], query[~same])):
            missing -= set(OF_TRANSLATED_ANSWERS)
        if len(set(collection.question_ids)) < len(collection.question_ids):
            missing -= set(OF_TRANSLATED_QUESTIONS)
    names = []
    for setting in benchmark.settings:
        if setting == "multi":
            pool = [name for name in POOL_METRICS if name not in missing]
            names += [f"{benchmark.name}/multi/{metric}" for metric in (*metrics(), *pool)]
        elif setting in found:
            names += [f"{benchmark.name}/{setting}/{metric}" for metric in metrics()]
    return names


class Scorer:
    """Scores encoders on benchmarks, on all ranks together."""

    def __init__(self, config: Config, names: Sequence[str], group: Group, on_batch: Callable[[], object]) -> None:
        """Load the benchmarks.

        Args:
            config: the run's.
            names: which of its benchmarks.
            group: the ranks.
            on_batch: called for every batch of texts, as often on each rank.

        Raises:
            DataError: a benchmark cannot be loaded.
        """
        self._group, self._on_batch = group, on_batch
        options, cache, judging = config.evaluation, config.data.cache, Judging.of(config.evaluation)
        self._ranker = ExactRanker(options.batch_size)
        self._benchmarks = [
            load_benchmark(spec, candidates=options.candidates, cache=cache, judging=judging)
            for spec in parse_benchmarks(options.benchmarks, config.data.catalogue)
            if spec.name in names
        ]

    def __call__(self, encoder: Encoder) -> dict[str, float]:
        """{`<benchmark>/<setting>/<metric>`: macro score}, the same on all ranks; collective.

        Args:
            encoder: of the same weights on all ranks.

        Raises:
            ModelError: an embedding holds NaN or infinity.
        """
        shared = _SharedEncoder(encoder, self._group, self._on_batch)
        scores: dict[str, float] = {}
        for benchmark in self._benchmarks:
            if self._group.rank == 0:
                scores |= evaluate(shared, benchmark, ranker=self._ranker).macro
            else:
                for collection in benchmark.collections():
                    self._ranker.embed(shared, collection)
        # Ranks on other processors might differ in the last bit, and then in what they decide by it.
        values = [scores]
        dist.broadcast_object_list(values, src=0, device=encoder.device)
        return values[0]


class _SharedEncoder:
    """An encoder whose batches are divided among ranks; all of them get all vectors."""

    def __init__(self, encoder: Encoder, group: Group, on_batch: Callable[[], object]) -> None:
        self.similarity = encoder.similarity
        self._encoder, self._group, self._on_batch = encoder, group, on_batch

    def encode(
        self,
        texts: Sequence[str],
        side: Side,
        batch_size: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Vectors [N, D] of the texts; collective."""

        def told(done: int) -> None:
            self._on_batch()
            if progress is not None:
                progress(done)

        share = self._group.rank, self._group.world_size
        own_ND = self._encoder.encode(texts, side, batch_size, told, share=share)
        x_ND = torch.from_numpy(own_ND).to(self._encoder.device)
        vectors_ND: npt.NDArray[np.float32] = self._group.all_reduce_sum(x_ND).cpu().numpy()
        check_finite(side, vectors_ND)
        return vectors_ND
