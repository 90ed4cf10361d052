"""Checks that models and data can give what the loss asks for: guide, teacher, scores, translations.

They need no weights and start no process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hbtrain.batching import BatchPlan
from hbtrain.config import Config
from hbtrain.config.encoder import EncoderConfig
from hbtrain.config.loss import QUERY_TERMS, SCORES, VECTOR_TERMS, LossConfig
from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.source import Side, Source
from hbtrain.errors import ConfigError, DataError
from hbtrain.modeling.backbone import BUILT_BACKBONES, find_backbone
from hbtrain.modeling.model_files import check_encoder_files, read_json
from hbtrain.planning.estimate import backbone_shape
from hbtrain.training.frozen_models import check_dimension

SIDES: tuple[Side, ...] = ("query", "passage")


def check_frozen_models(config: Config) -> None:
    """Check that the guide and the teacher are models that can be loaded, and of the dimension that is needed.

    Raises:
        ConfigError: a model with random weights, or a dimension that does not fit.
        ModelError: there is no such model, or it is unsafe.
    """
    loss = config.loss
    for key, model in (("loss.guide", loss.guide), ("loss.teacher", loss.teacher)):
        if model in BUILT_BACKBONES:
            raise ConfigError(f"{key} = {model!r} would have random weights; give a model's folder or name")
        if model is not None and model != SCORES:
            backbone = find_backbone(model, key)
            check_encoder_files(backbone.name, backbone.is_sentence_transformer)
    if loss.teacher is not None and any(term in VECTOR_TERMS for term in loss.active_terms):
        student = _dimension(config.encoder)
        teacher = _dimension(EncoderConfig(backbone=loss.teacher))
        if student is not None and teacher is not None:
            check_dimension(loss, teacher, student)


def _dimension(encoder: EncoderConfig) -> int | None:
    """The dimension of a model's vectors, from its files; None if they do not tell it."""
    if (shape := backbone_shape(encoder)) is not None:
        return shape.dimension
    folder = find_backbone(encoder.backbone).name
    modules = {module["type"].rpartition(".")[2]: module["path"] for module in read_json(folder, "modules.json") or ()}
    weights = Path(folder) / modules.get("StaticEmbedding", "") / "model.safetensors"
    if "StaticEmbedding" not in modules or "Dense" in modules or not weights.is_file():
        return None
    from safetensors import safe_open

    with safe_open(weights, "numpy") as tensors:
        return int(tensors.get_slice("embedding.weight").get_shape()[1])


def check_data_for_loss(config: Config, corpus: ParallelCorpus, plan: BatchPlan, notify: Callable[[str], None]) -> None:
    """Check that the sources which are drawn from have what the loss asks for; `notify` is told what some rows lack.

    Raises:
        DataError: rows lack scores, or the language of a teacher; or no row can serve a term.
    """
    loss = config.loss
    drawn = dict.fromkeys(offer.availability.source.name for offer in plan.catalogue.offers if offer.weight > 0)
    sources = [corpus.sources[name] for name in drawn]
    for key, model in (("guide", loss.guide), ("teacher", loss.teacher)):
        if model == SCORES:
            _check_scores(key, sources)
    if loss.guide_language is not None:
        _check_guide_language(loss.guide_language, sources, notify)
    if loss.teacher_language is not None:
        _check_teacher_language(loss, loss.teacher_language, sources)
    query_terms = [term for term in loss.active_terms if term in QUERY_TERMS]
    if query_terms:
        _check_translations(f"loss.terms has {query_terms[0]}, for which", "query", sources, plan, notify)
    if loss.translations:
        _check_translations(f"loss.translations = {loss.translations}, for which", "passage", sources, plan, notify)


def _check_scores(key: str, sources: list[Source]) -> None:
    for source in sources:
        if missing := source.rows_without_scores():
            raise DataError(
                f"loss.{key} = scores, and {missing:,} of {source.index.rows:,} rows of source {source.name} have hard "
                "negatives without scores; have `hbtrain mine --rescore MODEL` write them, or leave the source out "
                "(batching.source_weights)"
            )
    if not any(source.has_negatives for source in sources):
        raise DataError(
            f"loss.{key} = scores, which are of hard negatives, and no row of {_names(sources)} has any; have "
            "`hbtrain mine --rescore MODEL` find them"
        )


def _check_guide_language(language: str, sources: list[Source], notify: Callable[[str], None]) -> None:
    if all(_lacking(source, side, language) == source.index.rows for source in sources for side in SIDES):
        raise DataError(
            f"loss.guide_language = {language!r}: no row of {_names(sources)} has it; take one that rows have"
        )
    for source in sources:
        for side in SIDES[: 1 if source.index.sentences else 2]:
            if lacking := _lacking(source, side, language):
                notify(
                    f"loss.guide_language = {language}: {lacking:,} of {source.index.rows:,} rows of source "
                    f"{source.name} have no {side} in it, and the guide reads these as they are"
                )


def _check_teacher_language(loss: LossConfig, language: str, sources: list[Source]) -> None:
    remedy = (
        "translate them (`hbtrain translate`), leave the source out (batching.source_weights), or take a teacher that "
        "knows all languages, without loss.teacher_language"
    )
    for source in sources:
        for side in SIDES:
            if lacking := _lacking(source, side, language):
                raise DataError(
                    f"loss.teacher_language = {language!r}, and {lacking:,} of {source.index.rows:,} rows of source "
                    f"{source.name} have no {side} in it, which the teacher could read; {remedy}"
                )
        if loss.hard_negatives and (lacking := source.negatives_without(language)):
            raise DataError(
                f"loss.teacher_language = {language!r}, and {lacking:,} hard negatives of source {source.name} are not "
                f"in it, so that the teacher cannot read them; {remedy}"
            )


def _lacking(source: Source, side: Side, language: str) -> int:
    """How many rows have no query, or no passage, in a language."""
    index = source.index
    if language not in index.languages:
        return index.rows
    patterns = index.query_patterns if side == "query" else index.passage_patterns
    return int(index.pattern_counts[~patterns[:, index.languages.index(language)]].sum())


def _check_translations(
    what: str, side: Side, sources: list[Source], plan: BatchPlan, notify: Callable[[str], None]
) -> None:
    """Rows bring along translations of the side's text if it is in enough of the training languages."""
    able = {source.name: _translatable(source, side, plan.languages) for source in sources}
    if not any(able.values()):
        raise DataError(
            f"{what} a row needs its {side} in another training language as well, and no row of {_names(sources)} has "
            f"that ({', '.join(plan.languages)}); add parallel sources or languages, or leave it out"
        )
    for source in sources:
        if lacking := source.index.rows - able[source.name]:
            notify(
                f"{what} {lacking:,} of {source.index.rows:,} rows of source {source.name} have no {side} in another "
                "training language: these go without"
            )


def _translatable(source: Source, side: Side, languages: tuple[str, ...]) -> int:
    """How many rows have the side's text in a training language that no pair of theirs has already."""
    index = source.index
    columns = [index.languages.index(language) for language in languages if language in index.languages]
    patterns = index.query_patterns if side == "query" else index.passage_patterns
    taken = 2 if index.sentences else 1  # of parallel sentences, query and passage are translations of each other
    return int(index.pattern_counts[np.asarray(patterns[:, columns].sum(axis=1) > taken)].sum())


def _names(sources: list[Source]) -> str:
    return ", ".join(source.name for source in sources)
