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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hbtrain.config import Config, without_passwords
from hbtrain.corpus.cache import stored_digest
from hbtrain.corpus.parallel import source_path
from hbtrain.corpus.prepared import read_prepared
from hbtrain.errors import DataError
from hbtrain.evaluation.benchmarks import parse_benchmark
from hbtrain.formats.inputs import local_copy
from hbtrain.formats.locations import list_files
from hbtrain.modeling.backbone import BUILT_BACKBONES
from hbtrain.storage import cache_root, is_remote, place
from hbtrain.storage import local_copy as stored_copy

ACCEPT = "--accept-changed-inputs"
"""The flag by which a run goes on although its inputs have changed."""

SHOWN = 3
"""How many changed inputs a message names."""


@dataclass(frozen=True)
class RunInputs:
    """What a run reads.

    Attributes:
        digests: {`data.sources = /data/pairs.jsonl`: digest of its content} of all inputs, earlier ones included.
        changed: names of the inputs whose content is another than before, in words; empty if there are none.
    """

    digests: dict[str, str]
    changed: str


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


def _digests(config: Config) -> Iterator[tuple[str, str]]:
    """(name, digest) of every input of a configuration."""
    root = cache_root(config.data.cache)
    for key, value, path in _inputs(config):
        try:
            digest = _digest(path, root, is_source=key.startswith("data."))
        except OSError as error:
            raise DataError(f"{key} = {value} cannot be read: {error.strerror or error}") from error
        yield without_passwords(f"{key} = {value}"), digest


def _inputs(config: Config) -> Iterator[tuple[str, str, Path]]:
    """(key, value, path on this machine) of everything that is read from files and folders of the user's."""
    data, encoder = config.data, config.encoder
    for source in data.sources:
        yield "data.sources", source, source_path(source, data.cache)
    if data.validation is not None:
        yield "data.validation", data.validation, source_path(data.validation, data.cache)
    if encoder.backbone in BUILT_BACKBONES:
        vocabulary = (encoder.static if encoder.backbone == "static" else encoder.transformer).vocabulary
        if vocabulary is not None:
            yield f"encoder.{encoder.backbone}.vocabulary", vocabulary, stored_copy(place(vocabulary))
    elif is_remote(encoder.backbone) or Path(encoder.backbone).expanduser().is_dir():
        yield "encoder.backbone", encoder.backbone, stored_copy(place(encoder.backbone))
    if isinstance(config.training.deepspeed, str):
        yield "training.deepspeed", config.training.deepspeed, Path(config.training.deepspeed).expanduser()
    for text in config.evaluation.benchmarks:
        path = parse_benchmark(text).path
        if path is not None:
            yield "evaluation.benchmarks", text, local_copy(path, data.cache)


def _digest(path: Path, root: Path, is_source: bool) -> str:
    """Digest of a file, of a prepared corpus by its manifest, or of all files in a folder but notes and hidden ones."""
    if path.is_file():
        return stored_digest(path, root)
    if is_source:
        files = {name: recorded["sha256"] for name, recorded in read_prepared(path)["files"].items()}
    else:
        inside = [(Path(file).relative_to(path), Path(file)) for file in list_files(str(path))]
        read = [(name, file) for name, file in inside if name.suffix != ".md" and not _is_hidden(name)]
        files = {name.as_posix(): stored_digest(file, root) for name, file in read}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _is_hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)
