"""Benchmarks by name: `demo`, or `name=path` such as `xquad-r=data/xquad-r`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

from hbtrain.errors import DataError
from hbtrain.evaluation.pool import Benchmark
from hbtrain.evaluation.readers.lareqa import read_lareqa
from hbtrain.evaluation.readers.parallel import read_parallel

__all__ = ["Benchmark", "BenchmarkSpec", "load_benchmark", "parse_benchmark"]

FORMS = ("xquad-r", "mlqa-r", "lareqa", "parallel", "demo")
"""What may stand before the `=`; `demo` stands alone."""


@dataclass(frozen=True)
class BenchmarkSpec:
    """Which benchmark, from where."""

    name: str
    """The first part of its metrics' keys."""
    form: str
    """One of FORMS."""
    path: Path | None
    """A folder (xquad-r, mlqa-r, lareqa) or a file (parallel); None for the demo."""


def parse_benchmark(text: str) -> BenchmarkSpec:
    """The spec of `demo`, `xquad-r=FOLDER`, `mlqa-r=FOLDER`, `lareqa=FOLDER` or `parallel=FILE`.

    The last two are named after their folder or file (without `.jsonl`, `.gz`).

    Raises:
        DataError: unknown benchmark, a path missing or not allowed.
    """
    form, equals, place = text.partition("=")
    if form not in FORMS:
        near = get_close_matches(form, FORMS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(FORMS)}"
        raise DataError(f"unknown benchmark {form!r} in {text!r}: {hint}")
    if form == "demo":
        if equals:
            raise DataError(f"benchmark {text!r}: demo ships with hbtrain and takes no path; write demo")
        return BenchmarkSpec("demo", form, None)
    if not place:
        kind = "FILE" if form == "parallel" else "FOLDER"
        raise DataError(f"benchmark {text!r} needs its data: write {form}={kind}")
    path = Path(place).expanduser()
    return BenchmarkSpec(form if form in ("xquad-r", "mlqa-r") else _name_of(path), form, path)


def load_benchmark(spec: BenchmarkSpec, languages: Sequence[str] | None = None) -> Benchmark:
    """Read a benchmark, restricted to `languages` where given.

    Raises:
        DataError: missing folder or file, a language nobody has, or data that are not of the form.
    """
    if spec.path is None:
        with resources.as_file(resources.files("hbtrain") / "corpus" / "demo" / "heldout.jsonl") as path:
            return read_parallel(path, spec.name, languages)
    if spec.form == "parallel":
        if not spec.path.is_file():
            raise DataError(f"benchmark {spec.name}: there is no file {spec.path}")
        return read_parallel(spec.path, spec.name, languages)
    if not spec.path.is_dir():
        raise DataError(f"benchmark {spec.name}: there is no folder {spec.path}")
    return read_lareqa(spec.path, spec.name, languages)


def _name_of(path: Path) -> str:
    name = path.resolve().name
    for suffix in (".gz", ".jsonl", ".json"):
        name = name.removesuffix(suffix)
    if not name:
        raise DataError(f"{path} has no name to call the benchmark by")
    return name
