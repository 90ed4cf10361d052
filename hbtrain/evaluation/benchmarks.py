"""Benchmarks by name: `demo`, a data set such as `xquad-r`, or `form=path` such as `xquad-r=data/xquad-r`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path, PurePosixPath

from hbtrain.corpus.data_sets import BENCHMARK, Notify, WantedData, about, fetch_all, is_named
from hbtrain.errors import DataError, did_you_mean, shown
from hbtrain.evaluation.aligned import Candidates, read_belebele, read_parallel, read_squad, read_tatoeba
from hbtrain.evaluation.benchmark import Benchmark, Collection
from hbtrain.evaluation.judged import PLAIN, Judging, find_judged, read_judged
from hbtrain.evaluation.metrics import metrics
from hbtrain.evaluation.out_of_domain import check_in_domain
from hbtrain.evaluation.pooled import read_pooled
from hbtrain.formats.belebele import find_belebele
from hbtrain.formats.inputs import local_copy
from hbtrain.formats.languages import language_files
from hbtrain.formats.locations import is_remote, named
from hbtrain.formats.tatoeba import find_tatoeba
from hbtrain.hub import DataSet
from hbtrain.hub import catalogue as data_sets
from hbtrain.hub.names import SCHEME
from hbtrain.plugins import Plugin, PluginError, plugins
from hbtrain.storage import cache_root, resolved
from hbtrain.storage import place as place_of

__all__ = [
    "Benchmark",
    "BenchmarkSpec",
    "benchmark_files",
    "has_documents",
    "has_sentences",
    "load_benchmark",
    "load_benchmarks",
    "names_data_set",
    "parse_benchmark",
    "parse_benchmarks",
]

SENTENCES = ("xquad-r", "mlqa-r", "lareqa")  # forms whose candidates are sentences, with or without their paragraph
JUDGED = ("miracl", "mr-tydi", "beir", "ciral", "mteb", "mteb-parallel")
"""Forms whose documents have ids of their own, which judgements name."""
FORMS = (*SENTENCES, "squad", "parallel", "belebele", *JUDGED, "tatoeba", "demo")
"""What may stand before the `=`; `demo` takes no path."""
NAMED_BY_PATH = ("lareqa", "squad", "parallel", "beir", "mteb", "mteb-parallel")
"""Forms of many benchmarks, which are therefore named after their folder or file."""


@dataclass(frozen=True)
class BenchmarkSpec:
    """Which benchmark to load from where."""

    name: str  # first part of the metrics' keys
    form: str  # one of FORMS, or one that another package reads
    # a file (parallel) or a folder (other forms), on this machine or a URL; None for the demo and for data sets
    path: str | None
    wanted: WantedData | None = None  # the data set of the catalogue, and what of it; None: it is not from there


def parse_benchmark(text: str, catalogue: Sequence[str] = ()) -> BenchmarkSpec:
    """Parse `demo`, a data set such as `miracl` or `miracl?languages=sw,yo`, `parallel=FILE`, or `FORM=FOLDER` with
    another form, of FORMS or of another package; file and folder may be s3://, gs:// or hf:// URLs, or others that
    `hbtrain.formats` reads.

    Those of NAMED_BY_PATH are named after their folder or file (without `.jsonl`, `.gz`).

    Args:
        text: of the benchmark.
        catalogue: files of the user's own data sets.

    Raises:
        DataError: unknown benchmark, a path missing or not allowed; or see `WantedData.parse`.
        ConfigError: a file of `catalogue` cannot be used.
    """
    if names_data_set(text, catalogue):
        wanted = WantedData.parse(text, BENCHMARK, catalogue)
        return BenchmarkSpec(wanted.data_set.name, wanted.data_set.form_for("benchmark"), None, wanted)
    form, equals, place = text.partition("=")
    if form not in FORMS and form not in plugins("benchmark"):
        named = _benchmarks(catalogue)
        names = ["demo", *dict.fromkeys(one.family or one.name for one in named)]
        forms = [*(one for one in FORMS if one != "demo"), *plugins("benchmark")]
        hint = did_you_mean(form, [*names, *forms, *(one.name for one in named)]).rstrip()
        hint = hint or f"known are {', '.join(names)}; or your own data as FORM=PATH, FORM of {', '.join(forms)}"
        raise DataError(f"unknown benchmark {form!r} in {text!r}: {hint}")
    if form == "demo":
        if equals:
            raise DataError(f"benchmark {text!r}: demo ships with hbtrain and takes no path; write demo")
        return BenchmarkSpec("demo", form, None)
    if not place:
        kind = "FILE" if form == "parallel" else "FOLDER"
        raise DataError(f"benchmark {text!r} needs its data: write {form}={kind}")
    here = not is_remote(place) or place.startswith("file://")
    path = str(place_of(place)) if here or place.startswith("s3://") else place
    return BenchmarkSpec(_name_of(path) if form in NAMED_BY_PATH or form not in FORMS else form, form, path)


def parse_benchmarks(texts: Sequence[str], catalogue: Sequence[str] = ()) -> list[BenchmarkSpec]:
    """Parse benchmarks as `parse_benchmark` does; a family of data sets, such as multilingual-nano, is all its sets.

    Raises:
        DataError: as `parse_benchmark`; or two have one name.
        ConfigError: a file of `catalogue` cannot be used.
    """
    found: dict[str, BenchmarkSpec] = {}
    for text in texts:
        name, mark, options = text.removeprefix(SCHEME).partition("?")
        members = [one.name for one in data_sets(catalogue).values() if one.family == name]
        for one in [f"{member}{mark}{options}" for member in members] or [text]:
            spec = parse_benchmark(one, catalogue)
            if spec.name in found:
                raise DataError(
                    f"benchmark {text!r}: another has the name {spec.name} as well; evaluate them separately"
                )
            found[spec.name] = spec
    return list(found.values())


def names_data_set(text: str, catalogue: Sequence[str] = ()) -> bool:
    """Whether a benchmark is a data set by its name, and not a form with a path. Raises ConfigError for a bad file of
    `catalogue`."""
    name, equals, _ = text.partition("=")
    if is_named(name) or "?" in name:
        return True
    # A form that needs a path, such as squad, may be the name of a data set for training as well.
    named = _benchmarks(catalogue) if name in FORMS else data_sets(catalogue).values()
    return not equals and any(one.name == name for one in named)


def _benchmarks(catalogue: Sequence[str]) -> list[DataSet]:
    return [one for one in data_sets(catalogue).values() if "benchmark" in one.purposes]


def has_sentences(spec: BenchmarkSpec) -> bool:
    """Whether the option `candidates` matters to the benchmark."""
    return spec.form in SENTENCES


def has_documents(spec: BenchmarkSpec) -> bool:
    """Whether the options `ignore_identical_ids` and `allow_missing_documents` matter to the benchmark."""
    return spec.form in JUDGED


def load_benchmarks(
    texts: Sequence[str],
    languages: Sequence[str] | None = None,
    candidates: Candidates = "sentence",
    cache: str | None = None,
    in_domain: str | None = None,
    judging: Judging = PLAIN,
    catalogue: Sequence[str] = (),
    notify: Notify | None = None,
) -> tuple[Benchmark, ...]:
    """Load several benchmarks and check all of their files.

    Args:
        texts: at least one, in the form of `parse_benchmark`.
        languages: see `load_benchmark`.
        candidates: see `load_benchmark`.
        cache: see `load_benchmark`.
        in_domain: the benchmark, or the domain of one, with which the others are compared.
        judging: see `load_benchmark`.
        catalogue: files of the user's own data sets.
        notify: told which data sets are fetched.

    Raises:
        DataError: a benchmark cannot be loaded, two have one name, or `in_domain` is not among them.
    """
    specs = parse_benchmarks(texts, catalogue)
    metrics()  # for the errors of those of other packages
    fetch_all([spec.wanted.only(languages) for spec in specs if spec.wanted is not None], cache, notify)
    benchmarks = tuple(load_benchmark(spec, languages, candidates, cache, judging) for spec in specs)
    for benchmark in benchmarks:
        benchmark.check()
    check_in_domain(in_domain, benchmarks)
    return benchmarks


def load_benchmark(
    spec: BenchmarkSpec,
    languages: Sequence[str] | None = None,
    candidates: Candidates = "sentence",
    cache: str | None = None,
    judging: Judging = PLAIN,
) -> Benchmark:
    """Load a benchmark. Corpora of judged collections (MIRACL and the like) are read only when they are opened.

    Args:
        spec: which benchmark.
        languages: only these, in this order; None: all.
        candidates: what a candidate is in the forms of SENTENCES; other forms ignore it.
        cache: folder for converted corpora and downloads; by default `$HBTRAIN_CACHE` or `~/.cache/hbtrain`.
        judging: how documents are judged in the forms of JUDGED; other forms ignore it.

    Raises:
        DataError: a folder or file is missing, a language is not there, or the data are not of this form.
    """
    if spec.form == "demo":
        with resources.as_file(resources.files("hbtrain") / "corpus" / "demo" / "heldout.jsonl") as path:
            return read_parallel(path, spec.name, languages)
    if spec.wanted is not None:
        wanted = spec.wanted.only(languages)
        fetched = wanted.fetch(cache)
        path = fetched.folder / min(fetched.files) if spec.form == "parallel" else fetched.folder
        found = _read(spec, path, wanted.languages, candidates, cache, judging)
        return replace(found, data=about(fetched))
    path = local_copy(str(spec.path), cache)
    return _read(spec, path, languages, candidates, cache, judging)


def _read(
    spec: BenchmarkSpec,
    path: Path,
    languages: Sequence[str] | None,
    candidates: Candidates,
    cache: str | None,
    judging: Judging,
) -> Benchmark:
    """The benchmark in a file or folder on this machine."""
    if spec.form not in FORMS:
        return _read_by_plugin(plugins("benchmark")[spec.form], spec, path, languages)
    if spec.form == "parallel":
        if not path.is_file():
            raise DataError(f"benchmark {spec.name}: there is no file {spec.path}")
        return read_parallel(path, spec.name, languages)
    if not path.is_dir():
        raise DataError(f"benchmark {spec.name}: there is no folder {spec.path}")
    if spec.form == "mteb-parallel":
        return read_pooled(path, spec.name, languages, cache=cache_root(cache), judging=judging)
    if spec.form in JUDGED:
        root, split = cache_root(cache), spec.wanted.options.get("split") if spec.wanted is not None else None
        return read_judged(spec.form, path, spec.name, languages, cache=root, split=split, judging=judging)
    return _read_aligned(spec, path, languages, candidates)


def _read_by_plugin(plugin: Plugin, spec: BenchmarkSpec, path: Path, languages: Sequence[str] | None) -> Benchmark:
    """The benchmark that another package reads; its collections are opened by that package's code as well."""
    if not path.exists():
        raise DataError(f"benchmark {spec.name}: there is no {spec.path}")
    read = plugin.load()
    with plugin.errors_in_words():
        found = read(path, spec.name, languages)
    if not isinstance(found, Benchmark) or found.name != spec.name:
        raise PluginError(f"{plugin} must return a Benchmark named {spec.name!r}, and returned {shown(found)}")

    def opened(opener: Callable[[], Collection]) -> Collection:
        with plugin.errors_in_words():
            return opener()

    return replace(found, openers=tuple(partial(opened, opener) for opener in found.openers))


def _read_aligned(
    spec: BenchmarkSpec, folder: Path, languages: Sequence[str] | None, candidates: Candidates
) -> Benchmark:
    if spec.form == "tatoeba":
        return read_tatoeba(folder, spec.name, languages)
    if spec.form == "belebele":
        return read_belebele(folder, spec.name, languages)
    return read_squad(folder, spec.name, languages, candidates if spec.form in SENTENCES else "passage")


def benchmark_files(spec: BenchmarkSpec, cache: str | None = None) -> list[str]:
    """The files of all languages that `load_benchmark` reads, in an order that depends on their names only.

    Raises:
        DataError: a folder or file is missing.
    """
    if spec.wanted is not None:
        fetched = spec.wanted.fetch(cache)
        return [str(fetched.folder / name) for name in sorted(fetched.files)]
    if spec.form == "demo":
        return [str(resources.files("hbtrain") / "corpus" / "demo" / "heldout.jsonl")]
    path = str(local_copy(str(spec.path), cache))
    if spec.form == "parallel" or spec.form not in FORMS:
        return [path] if not Path(path).is_dir() else sorted(map(str, filter(Path.is_file, Path(path).rglob("*"))))
    if spec.form in JUDGED:
        found = find_judged(spec.form.removesuffix("-parallel"), path)
        of_languages = (found.of(language) for language in found.languages)
        return [file for files in of_languages for file in (*files.topics, *files.qrels, *files.corpus)]
    if spec.form == "tatoeba":
        return sorted(file for sides in find_tatoeba(path).pairs.values() for file in sides.values())
    files = find_belebele(path) if spec.form == "belebele" else language_files(path, ".json")
    return sorted(files.values())


def _name_of(path: str) -> str:
    name = PurePosixPath(named(path)).name if is_remote(path) else resolved(path).name
    for suffix in (".gz", ".jsonl", ".json"):
        name = name.removesuffix(suffix)
    if not name:
        raise DataError(f"{path} has no name to call the benchmark by")
    return name
