"""Dotted keys of the configuration, such as `batching.alpha`: the same in recipes, flags, sweeps and MLflow."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from hbtrain.config.schema import Config
from hbtrain.errors import ConfigError

NON_TRAINING_KEYS = (
    "tracking.",
    "storage",
    "resources.",
    "evaluation.",
    "data.cache",
    "loss.block_rows",
    "training.log_every",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.max_failures",
    "training.step_timeout_s",
)
"""Keys, or prefixes of keys, that do not change the trained model: with other values of them the same run goes on.

The number of workers is one of them, as it does not change the batches.
"""


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
            if i + 1 == len(parts) or _holds_mapping(field.annotation):
                return
            raise unknown_key(key, origin)
        model = section


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
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    for option in options:
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _holds_mapping(annotation: Any) -> bool:
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return any((get_origin(option) or option) is dict for option in options)
