"""Probes: what becomes of a question that is asked partly in another language, in the pool of all languages.

- `interpolate a+b` moves the vector of a query in a towards that of its translation in b: the unit vectors q_a and q_b
  become (1 - t) q_a + t q_b, whose length does not matter for ranks by cosine.
- `switch a+b` replaces words of a query in a by their translations into b, each that the lexicon knows with
  probability t.

Both are measured at t = 0, 1/4, 1/2, 3/4 and 1, on the questions that are asked in both languages. A model without
language bias ranks the same whatever t is.

Shapes: Q queries, N candidates, D dimensions.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from hbtrain.batching.switching import Switcher
from hbtrain.errors import ConfigError
from hbtrain.evaluation.benchmark import Benchmark, Collection, Int64s
from hbtrain.evaluation.geometry import unit
from hbtrain.evaluation.metrics import FIRST_PLACES
from hbtrain.evaluation.own_documents import deep_enough, with_own, without_own
from hbtrain.evaluation.rankers import TextEncoder, TopLists
from hbtrain.evaluation.scoring import score_collection
from hbtrain.evaluation.summary import summarise
from hbtrain.formats.lexicons import Lexicon
from hbtrain.reporting.metric_names import RANK_DISTANCE, shown
from hbtrain.reporting.table import table_of, terminal
from hbtrain.retrieval.ranks import exact_search
from hbtrain.retrieval.scores import Floats, for_inner_products
from hbtrain.storage.files import whole

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from hbtrain.retrieval.ranks import Search, Vectors

Kind = Literal["interpolate", "switch"]
KINDS: tuple[Kind, ...] = ("interpolate", "switch")
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # t
COLUMNS = ("benchmark", "probe", "from", "to", "t", "queries", "map", RANK_DISTANCE, "share_from", "share_to")


@dataclass(frozen=True)
class Probe:
    """A kind of probe between two languages."""

    kind: Kind
    start: str  # the language of the queries at t = 0
    end: str

    def __str__(self) -> str:
        return f"{self.kind} {self.start}+{self.end}"


@dataclass(frozen=True)
class ProbeScores:
    """What a probe found at one t."""

    benchmark: str
    probe: Probe
    t: float
    queries: int
    map: float
    rank_distance: float | None  # None: no query has several relevant candidates
    share_of_start: float  # of the probe's two languages among the first ten candidates
    share_of_end: float


def parse_probes(words: Sequence[str], lexicons: Mapping[tuple[str, str], object]) -> tuple[Probe, ...]:
    """The probes of `interpolate de+en fr+en switch de+en`: kinds, and after each the pairs of languages.

    Raises:
        ConfigError: no kind, no pair, or a pair without its lexicon.
    """
    probes: list[Probe] = []
    kind: Kind | None = None
    for word in words:
        if named := next((known for known in KINDS if known == word), None):
            kind = named
            continue
        start, plus, end = word.partition("+")
        if kind is None or not plus or not start or not end or start == end:
            raise ConfigError(
                f"--probe {word}: give a kind ({', '.join(KINDS)}), then pairs of languages such as de+en"
            )
        if kind == "switch" and (start, end) not in lexicons:
            raise ConfigError(f"--probe switch {word}: needs a lexicon; add --lexicons {start}-{end}=FILE")
        probes.append(Probe(kind, start, end))
    if words and (not probes or words[-1] in KINDS):
        raise ConfigError(f"--probe {words[-1]}: which languages? Add a pair such as de+en")
    return tuple(dict.fromkeys(probes))


def check_probes(probes: Sequence[Probe], benchmarks: Sequence[Benchmark]) -> None:
    """Raise ConfigError unless one of the benchmarks asks some questions in both languages of each probe."""
    pooled = [b for b in benchmarks if "multi" in b.settings]
    for probe in probes:
        if not any(len(_asked_in_both(c, probe)[0]) for b in pooled for c in b.collections()):
            names = ", ".join(b.name for b in benchmarks)
            raise ConfigError(
                f"--probe {probe}: {names} has no pool of several languages with questions that are asked in both; "
                "take other languages, or a benchmark such as xquad-r"
            )


class Probes:
    """Takes the vectors of an evaluation, and measures what other queries would find."""

    def __init__(
        self, probes: Sequence[Probe], encoder: TextEncoder, lexicons: Mapping[tuple[str, str], Lexicon], seed: int = 0
    ) -> None:
        """Args:
        probes: which.
        encoder: embeds the switched queries.
        lexicons: {(language of the words, language of their translations): lexicon} of the probes that switch words.
        seed: of the draws of words.
        """
        self.found: list[ProbeScores] = []
        self._probes = probes
        self._encoder = encoder
        self._lexicons = lexicons
        self._seed = seed

    def depth_for(self, benchmark: Benchmark) -> int:
        return FIRST_PLACES

    def add(self, benchmark: Benchmark, collection: Collection, ranking: Search | TopLists) -> None:
        """Measure the probes between languages of a collection; see `ListTaker`."""
        if "multi" not in benchmark.settings or ranking.vectors is None:
            return
        vectors = ranking.vectors
        every = np.arange(len(collection.candidate_texts))
        p_ND = for_inner_products(vectors.passages(every), "passage", vectors.similarity)
        for probe in self._probes:
            own, others = _asked_in_both(collection, probe)
            if len(own):
                asked = collection.only(own.tolist())
                for t in SHARES:
                    q = for_inner_products(
                        self._queries(probe, t, asked, own, others, vectors), "query", vectors.similarity
                    )
                    self.found.append(_scores(benchmark, asked, probe, t, q, p_ND))

    def _queries(
        self, probe: Probe, t: float, asked: Collection, own: Int64s, others: Int64s, vectors: Vectors
    ) -> Floats:
        """[Q, D] what is searched for at t, unit vectors where the similarity is the cosine."""
        if probe.kind == "interpolate":
            q_QD, other_QD = vectors.queries[own], vectors.queries[others]
            return np.asarray(
                q_QD if t == 0 else other_QD if t == 1 else unit((1 - t) * unit(q_QD) + t * unit(other_QD))
            )
        pair = (probe.start, probe.end)
        switcher = Switcher({pair: self._lexicons[pair]}, t, self._seed)
        texts = switcher.switch(asked.query_texts, probe.start, "query", 0, np.arange(len(own)))
        return np.asarray(self._encoder.encode(texts, "query"), np.float32)


def _asked_in_both(collection: Collection, probe: Probe) -> tuple[Int64s, Int64s]:
    """[Q] places of the queries in the first language that are asked in the second too, and of their translations."""
    place = {
        (x, question): number
        for number, (x, question) in enumerate(zip(collection.query_languages, collection.question_ids, strict=True))
        if x in (probe.start, probe.end)
    }
    pairs = [
        (number, place[probe.end, question])
        for (x, question), number in place.items()
        if x == probe.start and (probe.end, question) in place
    ]
    own, others = np.array(pairs, np.int64).reshape(-1, 2).T
    return own, others


def _scores(benchmark: Benchmark, asked: Collection, probe: Probe, t: float, q_QD: Floats, p_ND: Floats) -> ProbeScores:
    """The scores in the pool of all languages of queries with other vectors."""
    codes, depth = asked.candidate_codes, deep_enough(asked, FIRST_PLACES)
    found = without_own(asked, exact_search(q_QD, p_ND, codes, with_own(asked), depth), FIRST_PLACES)
    pooled = replace(benchmark, settings=("multi",))
    evaluation = summarise(pooled, [score_collection(pooled, asked, found)], {"search": "exact"})
    shares = evaluation.first_languages.get(probe.start, {})
    return ProbeScores(
        benchmark.name,
        probe,
        t,
        len(q_QD),
        evaluation.metrics[f"{benchmark.name}/multi/map"],
        evaluation.metrics.get(f"{benchmark.name}/multi/{RANK_DISTANCE}"),
        shares.get(probe.start, 0.0),
        shares.get(probe.end, 0.0),
    )


def save_probes(found: Sequence[ProbeScores], path: Path) -> None:
    """Write a CSV file with the columns `COLUMNS`, one row per benchmark, probe and t. Raises OSError."""
    with whole(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for one in found:
            distance = "" if one.rank_distance is None else f"{one.rank_distance:.6f}"
            numbers = [f"{one.map:.6f}", distance, f"{one.share_of_start:.6f}", f"{one.share_of_end:.6f}"]
            place = [one.benchmark, one.probe.kind, one.probe.start, one.probe.end]
            writer.writerow([*place, one.t, one.queries, *numbers])


def probe_table(found: Sequence[ProbeScores]) -> RichTable:
    """Of each probe, mAP, rank distance and the shares of its two languages by t."""
    rows = []
    for one in found:
        distance = "" if one.rank_distance is None else shown(one.rank_distance, RANK_DISTANCE)
        shares = (f"{one.share_of_start:.2f}", f"{one.share_of_end:.2f}")
        name = str(one.probe) if one.t == 0 else ""
        rows.append((one.benchmark if one.t == 0 else "", name, f"{one.t:g}", shown(one.map, "map"), distance, *shares))
    head = (
        "benchmark",
        "probe",
        "t",
        "mAP",
        "rank distance",
        "first language\namong ten",
        "second language\namong ten",
    )
    return terminal(table_of("probes: queries partly in another language", head, rows))
