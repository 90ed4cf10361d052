"""The quality gates of translations on real parallel texts: how many good ones they reject, how many broken ones they
catch. Prints a JSON line for each file and one for each fault.

Files are parallel JSON lines (plain or .gz) with English; faults are made of texts of at least 60 letters that pass.

python -m tests.bench.bench_translation_gates ../shared/data/sentences/*.jsonl.gz --every 10
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.translation.gates import Limits, reason_to_reject
from hbtrain.translation.languages import LANGUAGES, Identifier
from hbtrain.translation.rows import RowSource, sides
from hbtrain.translation.scores import score
from tests.bench.measure import tell

FAULTS: dict[str, Callable[[str, str], str]] = {
    "copy": lambda text, good: text,
    "first half a copy": lambda text, good: text[: len(text) // 2] + " " + good[len(good) // 2 :],
    "cut to a quarter": lambda text, good: good[: len(good) // 4],
    "cut to 40 %": lambda text, good: good[: len(good) * 2 // 5],
    "half, then a loop": lambda text, good: good[: len(good) // 2] + (" " + good[:20]) * 20,
    "whole, then a loop": lambda text, good: good + (" " + good[-12:]) * 12,
}


def pairs(file: str) -> Iterator[tuple[str, dict[str, str]]]:
    for record in RowSource.open(file).records():
        for _, texts in sides(record):
            if "en" in texts:
                yield texts["en"], {x: text for x, text in texts.items() if x != "en"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--every", type=int, default=10, help="faults are made of each so many-th text")
    arguments = parser.parse_args()
    identifier, limits = Identifier(), Limits()

    def reason(text: str, translation: str, language: str) -> str | None:
        scores = score(text, translation, LANGUAGES["en"], LANGUAGES[language], identifier)
        return reason_to_reject(scores, limits)

    made, caught = Counter[str](), Counter[str]()
    for file in arguments.files:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        number, spent = 0, 0.0
        for row, (text, translations) in enumerate(pairs(file)):
            start = time.process_time()
            reasons = {x: reason(text, good, x) for x, good in translations.items()}
            spent += time.process_time() - start
            number += len(reasons)
            for language, why in reasons.items():
                counts[language][why or "kept"] += 1
            if row % arguments.every or len(text) < 60:
                continue
            for language, good in translations.items():
                if reasons[language] is not None:
                    continue
                broken = {fault: make(text, good) for fault, make in FAULTS.items()}
                broken |= {f"in {x}": other for x, other in translations.items() if x != language}
                for fault, wrong in broken.items():
                    kind = "another language" if fault.startswith("in ") else fault
                    made[kind] += 1
                    caught[kind] += reason(text, wrong, language) is not None
        rejected = {
            x: {"texts": own.total(), "rejected": 1 - own["kept"] / own.total(), **own}
            for x, own in sorted(counts.items())
        }
        tell("gates", file=Path(file).name, texts=number, texts_per_cpu_s=number / spent, languages=rejected)
    for fault, number in made.items():
        tell("faults", fault=fault, made=number, caught=caught[fault] / number)


if __name__ == "__main__":
    main()
