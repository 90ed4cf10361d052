"""The flags that say how benchmarks are read, for all commands that evaluate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from hbtrain.cli.outputs import said_aside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hbtrain.evaluation.benchmark import Benchmark
    from hbtrain.evaluation.judged import Judging

Many = Parameter(consume_multiple=True)


@dataclass(frozen=True, kw_only=True)
class BenchmarkFlags:
    """How benchmarks are read.

    Attributes:
        candidates: What a candidate of xquad-r, mlqa-r and lareqa is: a sentence, or a sentence with its paragraph.
        languages: Only these languages; of a data set by name, no other is fetched.
        catalogue: Files that describe data sets of your own, which then have names as well.
    """

    candidates: Literal["sentence", "sentence+context"] = "sentence"
    languages: Annotated[list[str] | None, Many] = None
    catalogue: Annotated[list[str] | None, Many] = None

    @property
    def data_sets(self) -> list[str]:
        """The files of `catalogue`, where there are any."""
        return self.catalogue or []

    def load(
        self, names: Sequence[str], *, judging: Judging | None = None, in_domain: str | None = None
    ) -> tuple[Benchmark, ...]:
        """The benchmarks, fetched where they are data sets of a catalogue.

        Args:
            names: their names, or FORM=PATH; see `load_benchmarks`.
            judging: how judgements are taken, by default as they are.
            in_domain: the benchmark, or the domain of one, with which the others are compared.

        Raises:
            DataError: see `load_benchmarks`.
        """
        from hbtrain.evaluation.benchmarks import load_benchmarks
        from hbtrain.evaluation.judged import PLAIN

        return load_benchmarks(
            names,
            self.languages,
            self.candidates,
            in_domain=in_domain,
            judging=judging or PLAIN,
            catalogue=self.data_sets,
            notify=said_aside,
        )


Benchmarked = Annotated[BenchmarkFlags, Parameter(name="*")]
WHOLE = BenchmarkFlags()
"""All languages, sentences as candidates, no data sets but those of the catalogue that ships."""


@dataclass(frozen=True, kw_only=True)
class JudgingFlags:
    """How judgements are taken that do not go with queries and documents as they are.

    Attributes:
        ignore_identical_ids: For queries that are documents (ArguAna, Quora): leave a query's own document out.
        allow_missing_documents: Count relevant documents that the corpus lacks as never found, not refuse them.
    """

    ignore_identical_ids: bool = False
    allow_missing_documents: bool = False


Judged = Annotated[JudgingFlags, Parameter(name="*")]
AS_THEY_ARE = JudgingFlags()
