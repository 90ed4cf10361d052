"""Relative paths of a configuration, made absolute: workers run in other folders, on other machines."""

from __future__ import annotations

from pathlib import Path

from hbtrain.config.load import override
from hbtrain.config.schema import Config
from hbtrain.storage import place


def absolute_paths(config: Config) -> Config:
    """The same configuration with every path that exists, or is to be made, as seen from the current folder."""
    changes: dict[str, object] = {"storage": _absolute(config.storage)}
    if config.data.cache is not None:
        changes["data.cache"] = _absolute(config.data.cache)
    changes["data.sources"] = [_if_there(source) for source in config.data.sources]
    if config.data.validation is not None:
        changes["data.validation"] = _if_there(config.data.validation)
    if isinstance(config.training.deepspeed, str):
        changes["training.deepspeed"] = _if_there(config.training.deepspeed)
    changes["encoder.backbone"] = _if_there(config.encoder.backbone)
    if config.encoder.trust_remote_code is not None:
        changes["encoder.trust_remote_code"] = changes["encoder.backbone"]  # the schema sees to it that they agree
    for section, vocabulary in (
        ("static", config.encoder.static.vocabulary),
        ("transformer", config.encoder.transformer.vocabulary),
    ):
        if vocabulary is not None:
            changes[f"encoder.{section}.vocabulary"] = _if_there(vocabulary)
    changes["evaluation.benchmarks"] = [_benchmark(text) for text in config.evaluation.benchmarks]
    return override(config, changes)


def _absolute(path: str) -> str:
    at = place(path)
    return str(at.absolute() if isinstance(at, Path) else at)


def _if_there(name: str) -> str:
    """A path that exists, absolute; anything else (a hub name, a shipped name, a typing error) as it is."""
    return _absolute(name) if Path(name).expanduser().exists() else name


def _benchmark(text: str) -> str:
    name, equals, folder = text.partition("=")
    return f"{name}={_if_there(folder)}" if equals else text
