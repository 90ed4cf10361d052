"""The inputs of a run: digests of the contents behind the paths in its configuration.

The name of a run's folder follows from the configuration, which holds paths. Files may be written anew under the same
path, and a run that went on with them would be trained on one content up to its last checkpoint, and on another from
there. So a run keeps the digests of what it began with, and goes on with the same contents only, unless its user
accepts others.

A model of the hub is not among the inputs: a run keeps its own copy of the encoder it began with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hbtrain.config import Config, without_passwords
from hbtrain.config.loss import SCORES
from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.cache import stored_digest
from hbtrain.corpus.data_sets import TRAINING, WantedData, is_named
from hbtrain.corpus.parallel import source_path
from hbtrain.corpus.prepared import read_prepared
from hbtrain.corpus.source import Source
from hbtrain.errors import DataError
from hbtrain.evaluation.benchmarks import Benchmark, benchmark_files, parse_benchmarks
from hbtrain.formats import inputs
from hbtrain.formats.locations import expanded
from hbtrain.modeling.backbone import BUILT_BACKBONES
from hbtrain.storage import cache_root, expand_home, is_remote, local_copy, place
from hbtrain.tracking.data_inputs import Context, DataInput

ACCEPT = "--accept-changed-inputs"  # the flag by which a run goes on although its inputs have changed

SHOWN = 3  # how many changed inputs a message names


@dataclass(frozen=True)
class RunInputs:
    """What a run reads."""

    # {`data.sources = /data/pairs.jsonl`: digest of its content} of all inputs, earlier ones included
    digests: dict[str, str]
    changed: str  # names of the inputs whose content is another than before, in words; empty if there are none


def named_data_sets(config: Config) -> tuple[list[WantedData], list[WantedData]]:
    """The data sets of the catalogue that a configuration names, as sources and as benchmarks; asks no server.

    Raises:
        DataError: a name, language or option that is not known, or a set that is for something else.
        ConfigError: a file of `data.catalogue` cannot be used.
    """
    data = config.data
    sources = [*data.sources, *([] if data.validation is None else [data.validation])]
    specs = parse_benchmarks(config.evaluation.benchmarks, data.catalogue)
    return (
        [WantedData.parse(source, TRAINING, data.catalogue) for source in sources if is_named(source)],
        [spec.wanted for spec in specs if spec.wanted is not None],
    )


def checked_inputs(configs: Iterable[Config], before: Mapping[str, str] | None, what: str, accept: bool) -> RunInputs:
    """The inputs of a run, or of all trials of a sweep, compared with those that it began with.

    Args:
        configs: checked, with absolute paths (see `hbtrain.runs.preflight`).
        before: the digests that it began with; None: it has not begun, or by a version that kept none.
        what: what messages call it, such as `run quickstart-1a2b3c4d`.
        accept: whether it may go on with changed inputs.

    Raises:
        DataError: a file cannot be read; or an input has changed, and this is not accepted.
        StorageError: the cache, which stores the digests of files so that an unchanged one is read once, cannot be
            written.
    """
    before = before or {}
    now = {name: digest for config in configs for name, digest in _digests(config)}
    changed = [name for name, digest in now.items() if before.get(name, digest) != digest]
    names = ", ".join(changed[:SHOWN]) + (f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else "")
    if changed and not accept:
        raise DataError(
            f"{names}: the content has changed since {what} began with it; begin another by a name of its own "
            f"(--name NAME), or let this one go on with other content ({ACCEPT})"
        )
    return RunInputs({**before, **now}, names)


def data_inputs(
    config: Config, corpus: ParallelCorpus, benchmarks: Sequence[Benchmark], digests: Mapping[str, str]
) -> list[DataInput]:
    """Sources, the source of validation and benchmarks as MLflow shows them.

    Args:
        config: checked, with absolute paths.
        corpus: the training sources, opened.
        benchmarks: those of the configuration, loaded.
        digests: of `RunInputs`.
    """
    data = config.data
    sources: list[tuple[Context, str, str, Source]] = [
        ("training", "data.sources", *pair) for pair in zip(data.sources, corpus.sources.values(), strict=True)
    ]
    if data.validation is not None:
        [watched] = ParallelCorpus.open([data.validation], data.cache, data.catalogue).sources.values()
        sources.append(("validation", "data.validation", data.validation, watched))
    found = []
    for context, key, text, source in sources:
        index, digest = source.index, digests[_named(key, text)]
        sides = (("query", index.query_patterns), ("passage", index.passage_patterns))  # bool [P, L]
        columns = [
            f"{side}.{x}"
            for side, patterns in sides
            for code, x in enumerate(index.languages)
            if patterns[:, code].any()
        ]
        profile = {"num_rows": index.rows, "languages": list(index.languages)}
        found.append(DataInput(source.name, digest, context, text, tuple(columns), profile, source.data_set))
    texts = {
        spec.name: text for text in config.evaluation.benchmarks for spec in parse_benchmarks([text], data.catalogue)
    }
    for benchmark in benchmarks:
        text = texts[benchmark.name]
        digest = benchmark.data.get("digest") or digests[_named("evaluation.benchmarks", text)]
        columns = [f"{side}.{x}" for side in ("query", "candidate") for x in benchmark.languages]
        profile = {
            "languages": list(benchmark.languages),
            "settings": list(benchmark.settings),
            "candidates": benchmark.candidates_kind,
        }
        location = text if benchmark.data else text.partition("=")[2] or text
        about = benchmark.data or None
        found.append(DataInput(benchmark.name, digest, "evaluation", location, tuple(columns), profile, about))
    return found


def _digests(config: Config) -> Iterator[tuple[str, str]]:
    """(name, digest) of every file or folder of the user's that a configuration names."""
    data, encoder, root = config.data, config.encoder, cache_root(config.data.cache)
    sources = [("data.sources", source) for source in data.sources]
    if data.validation is not None:
        sources.append(("data.validation", data.validation))
    for key, source in sources:
        path = source_path(source, data.cache, data.catalogue)
        yield _named(key, source), _prepared_digest(path) if path.is_dir() else _digest([path], root)
    if encoder.backbone in BUILT_BACKBONES:
        vocabulary = (encoder.static if encoder.backbone == "static" else encoder.transformer).vocabulary
        if vocabulary is not None:
            name = _named(f"encoder.{encoder.backbone}.vocabulary", vocabulary)
            yield name, _digest([local_copy(place(vocabulary))], root)
    pretrained = [] if encoder.backbone in BUILT_BACKBONES else [("encoder.backbone", encoder.backbone)]
    frozen = (("loss.guide", config.loss.guide), ("loss.teacher", config.loss.teacher))
    for key, model in [*pretrained, *((key, model) for key, model in frozen if model not in (None, SCORES))]:
        if is_remote(model) or expand_home(model).is_dir():
            yield _named(key, model), _digest(_model_files(local_copy(place(model))), root)
    if isinstance(config.training.deepspeed, str):
        file = expand_home(config.training.deepspeed)
        yield _named("training.deepspeed", config.training.deepspeed), _digest([file], root)
    lexicons = config.batching.switching.lexicons if "switched" in config.batching.kinds else {}
    for pair, lexicon in lexicons.items():
        yield (
            _named(f"batching.switching.lexicons.{pair}", lexicon),
            _digest([inputs.local_copy(expanded(lexicon), data.cache)], root),
        )
    for text in config.evaluation.benchmarks:
        specs = parse_benchmarks([text], data.catalogue)
        files = [Path(file) for spec in specs for file in benchmark_files(spec, data.cache)]
        yield _named("evaluation.benchmarks", text), _digest(files, root)


def _named(key: str, value: str) -> str:
    return without_passwords(f"{key} = {value}")


def _digest(files: Sequence[Path], root: Path) -> str:
    """Digest of the names and contents of files in their order. Raises DataError and StorageError."""
    try:
        contents = [(file.name, stored_digest(file, root)) for file in files]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from error
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def _prepared_digest(folder: Path) -> str:
    """Digest of a prepared corpus, from the digests of its files in its manifest."""
    files = {name: recorded["sha256"] for name, recorded in read_prepared(folder)["files"].items()}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _model_files(folder: Path) -> list[Path]:
    """The files of a model's folder, without model cards and hidden files, in the order of their paths."""
    inside = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [folder / x for x in inside if x.suffix != ".md" and not any(part.startswith(".") for part in x.parts)]
