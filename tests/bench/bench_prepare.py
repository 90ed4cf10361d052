"""`hbtrain prepare mmarco` over a generated folder of mMARCO's shape, at two sizes. Prints one JSON line.

Collections, queries (one for ten passages) and triples (one for each passage) in some languages; the last language's
collection comes in another order than the first's, so that ids have to be aligned. Each size is prepared by a process
of its own, whose peak of resident memory is told, and beside it how much of it was anonymous (the rest are pages of
files, which the system takes back when it needs them). The peak grows to what DuckDB may hold beside Python and Arrow,
some 600 MiB, and then no more but by four bytes a query and passage: it stays below 1 GiB.

python -m tests.bench.bench_prepare --passages 1000000 --languages 3
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.measure import peak_mib, tell

NAMES = ("english", "german", "chinese", "arabic", "spanish", "russian", "hindi")


def generate(folder: Path, passages: int, languages: int) -> None:
    """Write the folder."""
    folder.mkdir(parents=True)
    step = 7919  # prime to all sizes in use: another order of the same ids
    for number, name in enumerate(NAMES[:languages]):
        other = number == languages - 1 and number > 0
        with (folder / f"{name}_collection.tsv").open("w") as stream:
            for i in range(passages):
                p = i * step % passages if other else i
                stream.write(
                    f"{p}\tpassage {p} in {name}, of some length, as passages of the web have it{' and so on' * 12}\n"
                )
        with (folder / f"{name}_queries.train.tsv").open("w") as stream:
            for q in range(passages // 10):
                stream.write(f"{q}\twhat is said of {q} in {name}\n")
    with (folder / "triples.train.ids.small.tsv").open("w") as stream:
        for i in range(passages):
            stream.write(f"{i % (passages // 10)}\t{i * 13 % passages}\t{i * 17 % passages}\n")


class Watch:
    """The most anonymous memory of this process, looked at ten times a second."""

    def __init__(self) -> None:
        self.most_mib = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            lines = Path("/proc/self/status").read_text().splitlines()
            kib = int(next(line for line in lines if line.startswith("RssAnon")).split()[1])
            self.most_mib = max(self.most_mib, kib / 1024)


def prepare_here(folder: Path, output: Path) -> None:
    """Prepare in this process, and print what it took."""
    from hbtrain.corpus.prepare.prepare import prepare
    from hbtrain.corpus.readers.by_id import MmarcoReader

    start, cpu = time.perf_counter(), time.process_time()
    with Watch() as watch:
        manifest = prepare(MmarcoReader(str(folder)), output).manifest
    figures = {"s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu, "rows": manifest["rows"]}
    print(json.dumps(figures | {"peak_mib": peak_mib(), "anonymous_mib": watch.most_mib}))


def measure(passages: int, languages: int, folder: Path) -> dict[str, float]:
    """Generate, and prepare in a process of its own."""
    raw = folder / f"raw-{passages}"
    generate(raw, passages, languages)
    command = [sys.executable, "-m", "tests.bench.bench_prepare", "--run", str(raw), str(folder / f"out-{passages}")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    texts = languages * (passages + passages // 10)
    return figures | {
        "texts_per_cpu_s": (texts + figures["rows"]) / figures["cpu_s"],
        "rows_per_s": figures["rows"] / figures["s"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=40_000)
    parser.add_argument("--languages", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work; by default a temporary folder")
    parser.add_argument("--run", nargs=2, type=Path)
    arguments = parser.parse_args()
    if arguments.run:
        prepare_here(*arguments.run)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        small = measure(arguments.passages // 4, arguments.languages, Path(name))
        large = measure(arguments.passages, arguments.languages, Path(name))
    tell(
        "prepare",
        passages=arguments.passages,
        languages=arguments.languages,
        **{
            f"{size}_{key}": value
            for size, found in (("quarter", small), ("whole", large))
            for key, value in found.items()
        },
        peak_ratio=large["peak_mib"] / small["peak_mib"],
        anonymous_ratio=large["anonymous_mib"] / small["anonymous_mib"],
    )


if __name__ == "__main__":
    main()
