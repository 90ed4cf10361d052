"""Dotted keys of the configuration, such as `batching.alpha`: the same in recipes, flags, sweeps and MLflow."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from hbtrain.config.schema import Config
from hbtrain.errors import ConfigError

NON_TRAINING_KEYS = (
    "tracking.",
    "storage",
    "resources.",
    "evaluation.",
    "data.cache",
    "data.catalogue",
    "loss.block_rows",
    "training.log_every",
    "training.gradient_cosine_every",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.max_failures",
    "training.step_timeout_s",
)
"""Keys, or prefixes of keys, that do not change the trained model: with other values of them the same run goes on.

The number of workers is one of them, as it does not change the batches.
"""

CHOOSING_KEYS = (
    "evaluation.keep_best",
    "evaluation.every",
    "evaluation.precision",
    "evaluation.candidates",
    "evaluation.ignore_identical_ids",
    "evaluation.allow_missing_documents",
)
"""Keys that decide which encoder is the trained one, where the first has a value: then they are of the training."""

LATER_KEYS = (
    "batching.mixture",
    "batching.switching.",
    "encoder.average_with_initial",
    "encoder.compile",
    "encoder.dropout",
    "evaluation.allow_missing_documents",
    "evaluation.candidates",
    "evaluation.ignore_identical_ids",
    "evaluation.precision",
    "loss.guide",
    "loss.hardness",
    "loss.positives",
    "loss.teacher",
    "loss.terms",
    "loss.translations",
    "training.average",
    "training.optimizer",
)
"""Keys, or prefixes of keys, that count as part of a training only where they are not at their default: runs and sweeps
that began before there were such keys keep the names of their folders."""


def of_training(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of {dotted key: value} that change the trained model."""
    chooses = values.get(CHOOSING_KEYS[0]) is not None
    return {
        key: value
        for key, value in values.items()
        if not key.startswith(NON_TRAINING_KEYS) or (chooses and key in CHOOSING_KEYS)
    }


def all_keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a value, not of a section, in the order of the schema."""
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is None:
            yield prefix + name
        else:
            yield from all_keys(section, f"{prefix}{name}.")


def check_key(key: str, origin: str) -> None:
    """Raise ConfigError unless `key` exists: a value, a section, or an entry of a mapping such as `language_weights`.

    The message suggests similar keys, and names `origin`, where the key was written.
    """
    model: type[BaseModel] = Config
    parts = key.split(".")
    for i, part in enumerate(parts):
        field = model.model_fields.get(part)
        if field is None:
            raise unknown_key(key, origin)
        section = _section(field.annotation)
        if section is None:
            if i + 1 == len(parts) or _holds(field.annotation, dict):
                return
            raise unknown_key(key, origin)
        model = section


def takes_text(key: str) -> bool:
    """Whether the values of a key, or the members of its list, can only be texts, not numbers or truth values."""
    annotation = _annotation(key)
    return annotation is not None and _plain_types(annotation) <= {str, types.NoneType}


def takes_several(key: str) -> bool:
    """Whether the value of a key is, or may be, a list of any length."""
    return any(get_origin(option) is tuple and Ellipsis in get_args(option) for option in _options(_annotation(key)))


def has_named_entries(key: str) -> bool:
    """Whether the value of a key is a mapping whose keys are texts, such as {language: factor}."""
    annotation = _annotation(key)
    options = (annotation, *get_args(annotation))
    return any(get_origin(option) is dict and get_args(option)[0] is str for option in options)


def unknown_key(key: str, origin: str) -> ConfigError:
    """The error for a key that does not exist, with similar ones that do."""
    known = list(all_keys())
    near = get_close_matches(key, known, n=3, cutoff=0.6)
    if not near:
        ends = [k.rsplit(".", 1)[-1] for k in known]
        close = get_close_matches(key.rsplit(".", 1)[-1], ends, n=1, cutoff=0.6)
        near = [k for k, end in zip(known, ends, strict=True) if end in close][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "`hbtrain keys` lists them all"
    return ConfigError(f"unknown key {key!r} in {origin}: {hint}")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as {dotted key: value}; lists and empty mappings stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value and all(isinstance(k, str) for k in value):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def dotted_location(location: tuple[int | str, ...]) -> str:
    """The dotted key of a pydantic error's location, without the names of union members that pydantic adds."""
    model: type[BaseModel] | None = Config
    parts: list[str] = []
    for part in location:
        if model is None:
            break
        if not isinstance(part, str):
            continue
        field = model.model_fields.get(part)
        if field is None:
            if part != model.__name__:
                parts.append(part)
                break
            continue
        parts.append(part)
        model = _section(field.annotation)
    return ".".join(parts)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section class that an annotation means, also in a union such as `LoraConfig | None`; None for a value."""
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _annotation(key: str) -> Any:
    """The type of a key's value; None if there is no such key, or it is a section."""
    model: type[BaseModel] = Config
    *sections, name = key.split(".")
    for part in sections:
        field = model.model_fields.get(part)
        section = None if field is None else _section(field.annotation)
        if section is None:
            return None
        model = section
    field = model.model_fields.get(name)
    return None if field is None or _section(field.annotation) is not None else field.annotation


def _plain_types(annotation: Any) -> set[Any]:
    """The types that an annotation such as `tuple[str, ...] | None` is made of; of a Literal, those of its values."""
    if get_origin(annotation) is Literal:
        return {type(value) for value in get_args(annotation)}
    parts = [part for part in get_args(annotation) if part is not Ellipsis]
    return set().union(*map(_plain_types, parts)) if parts else {annotation}


def _holds(annotation: Any, kind: type) -> bool:
    """Whether a value of this type may be a `kind`, such as dict."""
    return any((get_origin(option) or option) is kind for option in _options(annotation))


def _options(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; of any other type, itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
