"""Texts read in plan order from a prepared corpus: texts a second on one core, and memory. Prints one JSON line.

The corpus is generated once in --folder and kept there: rows in seven languages, queries of 40 and passages of 240
characters. Batches are the plan's (hybrid, of --batch pairs), so rows come from all over the files.

python -m tests.bench.bench_read --rows 1000000 --folder /tmp/bench-read
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import psutil

from hbtrain.batching import BatchPlan
from hbtrain.config import load_config
from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.drops import Drops
from hbtrain.corpus.prepare.prepare import prepare
from hbtrain.corpus.readers.items import PairItem, Part, TextItem
from hbtrain.formats.inputs import Position
from tests.bench.measure import peak_mib, tell

LANGUAGES = ("ar", "de", "en", "es", "hi", "ru", "zh")
PLACE = Position("generated", 1)


class Generated:
    """A reader of made-up texts."""

    kind = "generated"
    inputs: Sequence[str] = ()
    content_keys = complete = sentences = False

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.options = {"rows": rows}

    def parts(self) -> list[Part]:
        return [
            Part(f"{side} {x}", lambda _, s=side, n=n, x=x: self._texts(s, n, x))
            for side, n in (("query", 4), ("passage", 24))
            for x in LANGUAGES
        ]

    def _texts(self, side: str, words: int, language: str) -> Iterator[TextItem]:
        filler = " words of text" * words
        for i in range(self._rows):
            key = str(i)
            yield TextItem(side, language, key, f"{language} {key}{filler}"[: 10 * words], PLACE)

    def pairs(self, drops: Drops) -> Iterator[PairItem]:
        for i in range(self._rows):
            yield PairItem(key := str(i), key, (), PLACE)


def memory() -> dict[str, float]:
    info = psutil.Process().memory_full_info()
    return {"rss_mib": info.rss / 2**20, "anonymous_mib": (info.rss - info.shared) / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = (arguments.folder or Path(name)) / f"corpus-{arguments.rows}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        prepare(Generated(arguments.rows), folder)
        changes = {
            "data.sources": [str(folder)],
            "data.validation": None,
            "batching.global_batch_size": arguments.batch,
        }
        config = load_config("quickstart", changes)
        corpus = ParallelCorpus.from_config(config)
        plan = BatchPlan.over(corpus, config)
        (source,) = corpus.sources.values()
        before = memory()
        spent, read, step, halfway = 0.0, 0, 0, None
        while read < arguments.texts:
            batch = plan.batch(step)
            start = time.process_time()
            texts = source.texts("query", batch.rows, batch.query_languages)
            texts += source.texts("passage", batch.rows, batch.passage_languages)
            spent += time.process_time() - start
            assert texts[0].startswith(f"{batch.query_languages[0]} {batch.rows[0]} ")
            read += len(texts)
            step += 1
            if halfway is None and read >= arguments.texts / 2:
                halfway = memory()
        after = memory()
        tell(
            "read",
            rows=arguments.rows,
            languages=len(LANGUAGES),
            corpus_mib=sum(path.stat().st_size for path in folder.iterdir()) / 2**20,
            batch=arguments.batch,
            texts=read,
            texts_per_cpu_s=read / spent,
            peak_mib=peak_mib(),
            **{
                f"{when}_{key}": x
                for when, m in zip(("before", "halfway", "after"), (before, halfway, after), strict=True)
                for key, x in m.items()
            },
        )


if __name__ == "__main__":
    main()
