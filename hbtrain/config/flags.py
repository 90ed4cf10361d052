"""Dotted flags of the command line: `--batching.alpha 0.3 --data.sources a.jsonl b.jsonl --resources.use_gpu`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml

from hbtrain.errors import ConfigError


def parse_flags(arguments: Sequence[str]) -> dict[str, Any]:
    """{dotted key: value} of the flags; several values make a list, none makes true.

    Raises:
        ConfigError: an argument that belongs to no flag.
    """
    values: dict[str, list[Any]] = {}
    key = ""
    for argument in arguments:
        if argument.startswith("--") and len(argument) > 2:
            key, equals, value = argument[2:].partition("=")
            values[key] = [_value(value, key)] if equals else []
        elif key:
            values[key].append(_value(argument, key))
        else:
            raise ConfigError(f"unexpected argument {argument!r}; overrides are written --key value")
    return {key: True if not given else given[0] if len(given) == 1 else given for key, given in values.items()}


def _value(text: str, key: str) -> Any:
    """A number, true, false, null, a [list] or a {mapping}; any other text is itself (`no` is a language)."""
    try:
        if text[:1] in {"{", "["}:
            return yaml.safe_load(text)
        return json.loads(text) if text[:1] and text[:1] in "-0123456789tfn" else text
    except json.JSONDecodeError:
        return text
    except yaml.YAMLError as error:
        raise ConfigError(f"--{key} {text}: cannot be read as YAML: {getattr(error, 'problem', error)}") from error
