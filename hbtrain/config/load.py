"""Loading a configuration from a recipe and overrides, validating it, and writing it as YAML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hbtrain.config.keys import (
    LATER_KEYS,
    all_keys,
    check_key,
    dotted_location,
    flatten,
    of_training,
    takes_several,
    takes_text,
    unknown_key,
)
from hbtrain.config.loss import SCORES
from hbtrain.config.schema import FLAGS, Config, EvaluationConfig, called
from hbtrain.config.yaml_texts import parse_yaml
from hbtrain.errors import ConfigError, did_you_mean
from hbtrain.storage import expand_home, place

EXTENDS = "extends"
"""The key of a recipe that names another one: what is not said is as it is there."""


def recipe_names() -> list[str]:
    """Names of the recipes that ship with hbtrain, sorted; `paper/xlmr-hybrid` lies in a folder of its own."""
    shipped = resources.files("hbtrain") / "recipes"
    folders = [("", shipped), *((f"{folder.name}/", folder) for folder in shipped.iterdir() if folder.is_dir())]
    files = (f"{prefix}{file.name}" for prefix, folder in folders for file in folder.iterdir())
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))


def recipe_summary(name: str) -> str:
    """The comment at the head of a shipped recipe."""
    lines = takewhile(lambda line: line.startswith("#"), _shipped(name).splitlines())
    return " ".join(line.lstrip("# ") for line in lines)


def _shipped(name: str) -> str:
    return (resources.files("hbtrain") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def load_config(recipe: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Load a recipe and validate it.

    Args:
        recipe: name of a shipped recipe, or path of a YAML file.
        overrides: {dotted key: value} in place of the recipe's values.

    Raises:
        ConfigError: unknown recipe, unreadable YAML, unknown key, or a value that is not allowed.
    """
    tree, origin = _read(str(recipe))
    _check_tree(tree, origin)
    return _validate(_with_overrides(tree, overrides or {}), origin)


def override(config: Config, overrides: Mapping[str, Any]) -> Config:
    """A copy of `config` with the values of {dotted key: value}, validated again. Raises ConfigError."""
    return _validate(_with_overrides(to_tree(config), overrides), "overrides")


def to_tree(config: Config) -> dict[str, Any]:
    """The whole resolved configuration as plain nested values."""
    return config.model_dump(mode="json")


def to_flat(config: Config) -> dict[str, Any]:
    """The whole resolved configuration as {dotted key: value}."""
    return flatten(to_tree(config))


def training_values(config: Config) -> dict[str, Any]:
    """{dotted key: value} of what decides the training, from which the names of folders are made."""
    defaults = to_flat(Config())
    return {
        key: value
        for key, value in of_training(to_flat(config)).items()
        if not (key.startswith(LATER_KEYS) and value == defaults.get(key))
    }


def to_yaml(config: Config) -> str:
    """The whole resolved configuration as YAML that `load_config` reads back to an equal one."""
    return yaml.safe_dump(to_tree(config), sort_keys=False, allow_unicode=True)


def from_tree(tree: Mapping[str, Any]) -> Config:
    """The inverse of `to_tree`."""
    return _validate(dict(tree), "configuration")


def evaluation_from_flags(**options: Any) -> EvaluationConfig:
    """The evaluation options of a command line; `options` are its flags, with underscores in their names.

    Raises:
        ConfigError: a value that is not allowed, or options that exclude each other; the message names the flags.
    """
    try:
        return EvaluationConfig.model_validate(options, context=FLAGS)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        allowed, limits = problem["msg"].removeprefix("Value error, "), problem.get("ctx", {})
        if "gt" in limits or "ge" in limits:
            allowed = f"must be {limits['gt'] + 1 if 'gt' in limits else limits['ge']} or more"
        given = f"{called(str(problem['loc'][0]), FLAGS)} {problem['input']}: " if problem["loc"] else ""
        raise ConfigError(f"{given}{allowed}") from error


def _read(recipe: str, extended_by: tuple[str, ...] = ()) -> tuple[dict[str, Any], str]:
    """The keys and values of a recipe, with those of the one that it extends, and what messages call it."""
    path = Path(recipe)
    if recipe in recipe_names():
        origin = f"recipe {recipe!r}"
        text, name = _shipped(recipe), recipe.replace("/", "-")
    elif path.suffix in {".yaml", ".yml"} or path.is_file():
        origin, name = f"recipe {recipe}", path.stem
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise ConfigError(f"cannot read recipe {recipe}: {reason}") from error
    else:
        names = recipe_names()
        hint = did_you_mean(recipe, names)
        raise ConfigError(f"unknown recipe {recipe!r}: {hint}shipped are {', '.join(names)}; or give a YAML file")
    tree = parse_yaml(text, origin)
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise ConfigError(f"{origin} must hold keys and values, not {type(tree).__name__}")
    tree.setdefault("name", name)
    if (other := tree.pop(EXTENDS, None)) is not None:
        beside = str(path.parent / str(other))
        other = beside if str(other) not in recipe_names() and Path(beside).is_file() else str(other)
        if _identity(other) in map(_identity, (recipe, *extended_by)):
            raise ConfigError(f"{origin} extends itself: {' > '.join([*extended_by, recipe, other])}")
        tree = _merged(_read(other, (*extended_by, recipe))[0], tree)
    return tree, origin


def _identity(recipe: str) -> str:
    """The name of a shipped recipe; of a file its path, however it is written."""
    return recipe if recipe in recipe_names() else str(Path(recipe).resolve())


def _merged(tree: Mapping[str, Any], own: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The tree with `own` values in place of its, key by key.

    A mapping that is a value, such as a mixture or the points of a schedule, takes the other's place as a whole.
    """
    values = set(all_keys())
    both = {
        key: _merged(tree[key], x, f"{prefix}{key}.")
        for key, x in own.items()
        if isinstance(x, dict) and isinstance(tree.get(key), dict) and f"{prefix}{key}" not in values
    }
    return {**tree, **own, **both}


def _check_tree(tree: Mapping[str, Any], origin: str) -> None:
    for key in flatten(tree):
        check_key(key, origin)


def _with_overrides(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    result = _copy(tree)
    for key, value in overrides.items():
        check_key(key, "overrides")
        node = result
        *parents, leaf = key.split(".")
        for parent in parents:
            child = node.get(parent)
            node[parent] = child if isinstance(child, dict) else {}
            node = node[parent]
        node[leaf] = value
    return result


def _copy(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in tree.items()}


def _validate(tree: dict[str, Any], origin: str) -> Config:
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise _one_line(error, origin) from error


def _one_line(error: ValidationError, origin: str) -> ConfigError:
    """The first problem that pydantic found, as one line: key, value, what is allowed, and the origin of the key."""
    problems = error.errors(include_url=False)
    # A union reports one problem per option; the option whose type fits says what is really wrong.
    fitting = [p for p in problems if not p["type"].endswith(("_type", "_parsing"))] or problems
    first = fitting[0]
    key = dotted_location(first["loc"])
    if first["type"] == "extra_forbidden":
        return unknown_key(key, origin)
    same = [p["msg"].removeprefix("Value error, ") for p in fitting if dotted_location(p["loc"]) == key]
    allowed = " or ".join(m[:1].lower() + m[1:] for m in dict.fromkeys(same))
    value = first.get("input")
    shown = f"{key} = {value!r}: " if key and not isinstance(value, dict) else (f"{key}: " if key else "")
    if allowed.startswith(f"{key}."):  # it names a key of this section itself
        shown = ""
    return ConfigError(f"{shown}{allowed} (in {origin})")


def absolute_paths(config: Config) -> Config:
    """The same configuration with absolute paths, as seen from the current folder; hub and shipped names stay."""
    changes: dict[str, object] = {"storage": _absolute(config.storage)}
    if config.data.cache is not None:
        changes["data.cache"] = _absolute(config.data.cache)
    changes["data.catalogue"] = [_absolute_if_exists(file) for file in config.data.catalogue]
    changes["data.sources"] = [_absolute_if_exists(source) for source in config.data.sources]
    if config.data.validation is not None:
        changes["data.validation"] = _absolute_if_exists(config.data.validation)
    if isinstance(config.training.deepspeed, str):
        changes["training.deepspeed"] = _absolute_if_exists(config.training.deepspeed)
    changes["encoder.backbone"] = _absolute_if_exists(config.encoder.backbone)
    if config.encoder.trust_remote_code is not None:
        changes["encoder.trust_remote_code"] = changes["encoder.backbone"]  # they agree, as the schema demands
    for key, model in (("guide", config.loss.guide), ("teacher", config.loss.teacher)):
        if model not in (None, SCORES):
            changes[f"loss.{key}"] = _absolute_if_exists(str(model))
    for section, vocabulary in (
        ("static", config.encoder.static.vocabulary),
        ("transformer", config.encoder.transformer.vocabulary),
    ):
        if vocabulary is not None:
            changes[f"encoder.{section}.vocabulary"] = _absolute_if_exists(vocabulary)
    lexicons = config.batching.switching.lexicons
    changes["batching.switching.lexicons"] = {pair: _absolute_if_exists(file) for pair, file in lexicons.items()}
    changes["evaluation.benchmarks"] = [_benchmark(text) for text in config.evaluation.benchmarks]
    return override(config, changes)


def _absolute(path: str) -> str:
    root = place(path)
    return str(root.absolute() if isinstance(root, Path) else root)


def _absolute_if_exists(name: str) -> str:
    """The absolute path if `name` is one that exists; anything else (a hub name, a shipped name, a typo) as it is."""
    return _absolute(name) if expand_home(name).exists() else name


def _benchmark(text: str) -> str:
    name, equals, folder = text.partition("=")
    return f"{name}={_absolute_if_exists(folder)}" if equals and "?" not in name else text  # else a data set's options


def parse_flags(arguments: Sequence[str]) -> dict[str, Any]:
    """{dotted key: value} of flags such as `--batching.alpha 0.3`; several values make a list, none means true.

    Of a flag that is there twice the last one counts, so that scripts can end with flags of their caller's.

    Raises:
        ConfigError: an argument that belongs to no flag, or a flag that takes several values is there twice.
    """
    values: dict[str, list[Any]] = {}
    key = ""
    for argument in arguments:
        if argument.startswith("--") and len(argument) > 2:
            key, equals, value = argument[2:].partition("=")
            if key in values and takes_several(key):
                raise ConfigError(f"--{key} is given twice; several values follow one flag: --{key} VALUE VALUE")
            values[key] = [_value(value, key)] if equals else []
        elif key:
            values[key].append(_value(argument, key))
        else:
            raise ConfigError(f"unexpected argument {argument!r}; overrides are written --key value")
    return {key: True if not given else given[0] if len(given) == 1 else given for key, given in values.items()}


def _value(text: str, key: str) -> Any:
    """Parse a flag's value: a number, true, false, null, a [list] or {mapping}; else, or if the key takes texts, a text
    (`no` is a language, and 2024 may be an experiment).
    """
    if text[:1] in {"{", "["}:
        return parse_yaml(text, f"--{key} {text}", key)
    if text[:1] not in set("-0123456789tfn") or (takes_text(key) and text != "null"):
        return text
    try:
        return json.loads(text)
    except ValueError:  # no JSON, or a number of thousands of digits
        return text
