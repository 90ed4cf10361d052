"""Translates the texts of a source into other languages; after an interruption, the same call goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hbtrain.errors import ConfigError, DataError, StorageError
from hbtrain.storage import expand_home, try_to_write, write_text
from hbtrain.translation.assemble import assemble, judge
from hbtrain.translation.blocks import Block, blocks_of
from hbtrain.translation.gates import Limits
from hbtrain.translation.languages import check_pair
from hbtrain.translation.model import TranslationModel, find_translation_model
from hbtrain.translation.ray_pipeline import Pool, Work, translated
from hbtrain.translation.rows import RowSource
from hbtrain.translation.texts import Texts, collect_texts
from hbtrain.translation.translator import Generation
from hbtrain.translation.workspace import Outputs, finish, workspace

FORMAT = 1  # version of the blocks and the manifest

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is in all (0: not known)."""


@dataclass(frozen=True)
class Translation:
    """What is to be translated, by which model, and where the output goes."""

    source: str  # parallel JSON lines, a folder of `hbtrain prepare`, or a shipped name
    model: str  # a folder, or a name on the hub
    from_language: str  # ISO 639-1 code
    to_languages: tuple[str, ...]  # ISO 639-1 codes
    output: Path  # a file, `.jsonl` or `.jsonl.gz`, in a folder that every node of the cluster sees
    block_texts: int = 1024  # how many texts a block has; an interruption loses the blocks that are being translated
    generation: Generation = field(default_factory=Generation)  # how the model generates translations
    limits: Limits = field(default_factory=Limits)  # of the quality gates
    pool: Pool = field(default_factory=Pool)  # the actors that translate. The result does not depend on it


@dataclass(frozen=True)
class Translated:
    """A finished translation."""

    outputs: Outputs
    manifest: dict[str, Any]  # content of its manifest
    fresh: bool  # whether this call has made it; False if it was there before


def translate(wanted: Translation, progress: Progress = lambda what, done, of: None) -> Translated:
    """Translate the texts of a source, and write its rows with the translations that pass the quality gates.

    Raises:
        HbtrainError: the input is wrong; nothing has been started.
        TranslationError: translating stopped; finished blocks are kept.
    """
    check_pair(wanted.from_language, wanted.to_languages)
    if wanted.block_texts < 1:
        raise ConfigError(f"--block-texts {wanted.block_texts}: must be 1 or more")
    outputs = Outputs(expand_home(wanted.output).absolute())
    source = RowSource.open(wanted.source)
    _check_folder(outputs.rows.parent)
    model = find_translation_model(wanted.model, wanted.from_language, list(wanted.to_languages))
    blocks_request = _blocks_request(wanted, source, model)
    request = blocks_request | {"limits": asdict(wanted.limits)}
    if (there := outputs.existing(request)) is not None:
        shutil.rmtree(outputs.work, ignore_errors=True)
        return Translated(outputs, there, fresh=False)
    with workspace(outputs, blocks_request) as folder:
        texts = _texts(wanted, source, folder, progress)
        blocks = blocks_of(texts, wanted.block_texts)
        _translate_blocks(wanted, model, texts, blocks, progress)
        manifest = request | _write(wanted, source, texts, blocks, outputs, progress)
        finish(outputs, manifest)
    return Translated(outputs, manifest, fresh=True)


def _blocks_request(wanted: Translation, source: RowSource, model: TranslationModel) -> dict[str, Any]:
    """Everything that decides what is in the blocks."""
    return {
        "translated": FORMAT,
        "source": {"name": wanted.source, "sha256": source.digest},
        "model": {"name": wanted.model, "family": model.family, "digest": model.digest},
        "from": wanted.from_language,
        "to": list(wanted.to_languages),
        "block_texts": wanted.block_texts,
        "generation": asdict(wanted.generation),
        "identify": wanted.limits.language > 0,
    }


def _texts(wanted: Translation, source: RowSource, folder: Path, progress: Progress) -> Texts:
    if (there := Texts.load(folder)) is not None:
        return there
    try:
        return collect_texts(
            source.records(),
            wanted.from_language,
            wanted.to_languages,
            folder,
            lambda rows: progress("reading rows", rows, 0),
        )
    except DataError as error:
        # Leave nothing of a source that cannot be translated; some file systems keep the lock, which is still open.
        shutil.rmtree(folder, ignore_errors=True)
        raise DataError(f"{wanted.source}: {error}") from error


def _translate_blocks(
    wanted: Translation, model: TranslationModel, texts: Texts, blocks: list[Block], progress: Progress
) -> None:
    todo = [block for block in blocks if not block.path(texts.folder).exists()]
    of = sum(texts.wanted.values())
    done = of - sum(block.stop - block.start for block in todo)
    progress("translating texts", done, of)
    if not todo:
        return
    identify = wanted.limits.language > 0
    work = Work(model, wanted.from_language, wanted.to_languages, wanted.generation, identify)
    for block, results in translated(work, wanted.pool, texts, todo):
        write_text(block.path(texts.folder), results)
        done += block.stop - block.start
        progress("translating texts", done, of)


def _write(
    wanted: Translation, source: RowSource, texts: Texts, blocks: list[Block], outputs: Outputs, progress: Progress
) -> dict[str, Any]:
    """Write the rows and the rejects; returns the manifest's entries on them."""
    accepted = texts.folder / "kept"
    shutil.rmtree(accepted, ignore_errors=True)
    accepted.mkdir()
    progress("judging translations", 0, 0)
    with outputs.unfinished(outputs.rejects) as stream:
        counts = judge(texts, blocks, wanted.limits, accepted, stream)
    progress("writing rows", 0, 0)
    with outputs.unfinished(outputs.rows) as stream:
        try:
            assemble(source.records(), texts, wanted.to_languages, accepted, stream)
        except DataError as error:  # there was none when the texts were collected
            raise DataError(
                f"source {wanted.source} changed while it was translated: {error}; make it what it was, and the same "
                f"command goes on, or delete {outputs.work} and run again"
            ) from error
    outputs.place()
    return {
        "rows": texts.rows,
        "texts": texts.number,
        "languages": {language: count.as_dict() for language, count in counts.items()},
    }


def _check_folder(folder: Path) -> None:
    try:
        try_to_write(folder)
    except OSError as error:
        raise StorageError(f"--output: cannot make {folder}, or write into it: {error.strerror}") from error
