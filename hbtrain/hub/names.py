"""The catalogue: data sets by name, those that ship with hbtrain and a user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import unquote

from pydantic import ValidationError

from hbtrain.config.yaml_texts import parse_yaml
from hbtrain.errors import ConfigError, DataError, did_you_mean, shown
from hbtrain.hub.data_set import KINDS, DataSet, Download, Repository
from hbtrain.storage import expand_home

SCHEME = "hub:"
"""What the name of a data set begins with where paths may stand as well."""


@dataclass(frozen=True)
class Selection:
    """A data set, and what of it, as `hub:NAME?languages=ar,de&translator=google` says."""

    name: str
    languages: tuple[str, ...] | None  # None: all that it has
    options: Mapping[str, str]  # values of fields of its patterns, such as `split` and `translator`


def parse(text: str) -> Selection:
    """Parse `hub:NAME` or `hub:NAME?languages=ar,de&split=train`; what the set has of these is not looked at.

    Raises:
        DataError: another form.
    """
    name, mark, query = text.removeprefix(SCHEME).partition("?")
    given = [part.partition("=")[::2] for part in query.split("&")] if mark else []
    options = {unquote(key): unquote(value) for key, value in given}
    languages = tuple(options.pop("languages").split(",")) if "languages" in options else None
    values = (*options, *options.values(), *(languages or ()))
    if not text.startswith(SCHEME) or not name or not all(values) or len(dict(given)) < len(given):
        raise DataError(f"{text!r}: must be hub:NAME or hub:NAME?languages=ar,de, each option once, with & in between")
    return Selection(name, languages, options)


def catalogue(more: Sequence[str] = ()) -> dict[str, DataSet]:
    """{name: data set}: those that ship with hbtrain, and those of the files `more`, which may replace them.

    Raises:
        ConfigError: a file cannot be read, or does not say what `DataSet` asks for.
    """
    return _shipped() | {made.name: made for file in more for made in _read(file)}


def data_set(name: str, more: Sequence[str] = ()) -> DataSet:
    """The data set of a name.

    Args:
        name: of the catalogue; or the path of a file that describes a data set, which ends in .yaml.
        more: see `catalogue`.

    Raises:
        DataError: there is none.
        ConfigError: see `catalogue`.
    """
    members = data_sets(name, more)
    if len(members) > 1:
        raise DataError(f"{name} is {len(members)} data sets: name one of {', '.join(one.name for one in members)}")
    return members[0]


def data_sets(name: str, more: Sequence[str] = ()) -> tuple[DataSet, ...]:
    """The data sets that a name stands for: one, or those of the family of that name.

    Args:
        name: of the catalogue; or the path of a file that describes data sets, which ends in .yaml.
        more: see `catalogue`.

    Raises:
        DataError: there is none.
        ConfigError: see `catalogue`.
    """
    if name.endswith((".yaml", ".yml")):
        return _read(name)
    known = catalogue(more)
    if name in known:
        return (known[name],)
    members = tuple(one for one in known.values() if one.family == name)
    if not members:
        names = sorted({one.family or one.name for one in known.values()})
        raise DataError(
            f"unknown data set {name!r}: {did_you_mean(name, {*known, *names})}known are {', '.join(names)}; "
            "or give a file that describes one, such as mine.yaml"
        )
    return members


def _read(file: str) -> tuple[DataSet, ...]:
    """The data sets that a file of the user's describes."""
    try:
        text = expand_home(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"cannot read catalogue {file}: {reason}") from error
    return read_page(text, f"catalogue {file}")


@cache
def _shipped() -> dict[str, DataSet]:
    folder = resources.files("hbtrain") / "hub" / "catalogue"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    pages = [read_page(file.read_text(encoding="utf-8"), f"catalogue {file.name}") for file in files]
    return {one.name: one for page in pages for one in page}


def read_page(text: str, origin: str) -> tuple[DataSet, ...]:
    """The data set that a file of the catalogue describes, or those that are its `parts`.

    Args:
        text: what is in the file.
        origin: what messages call it.

    Raises:
        ConfigError: it does not say what `DataSet` asks for.
    """
    tree = parse_yaml(text, origin, all_texts=True)  # YAML would take the language `no` for false
    if not isinstance(tree, dict):
        raise ConfigError(f"{origin} must hold keys and values, such as name: mine")
    parts = tree.pop("parts", None)
    if parts is None:
        return (_validated(tree, origin),)
    if not isinstance(parts, dict) or not all(isinstance(own, dict) for own in parts.values()):
        raise ConfigError(f"parts: must be a mapping such as nq: {{repository: ..., revision: ...}} (in {origin})")
    return tuple(_validated(_part(tree, name, own), origin) for name, own in parts.items())


def _part(tree: Mapping[str, Any], name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """What a page says of one of its parts, whose `own` keys are those of its sources."""
    family, sources = tree.get("name"), tree.get("sources")
    if isinstance(sources, list):
        sources = [{**source, **own} if isinstance(source, dict) else source for source in sources]
    title = f"{tree.get('title', '')} ({name})"
    return {**tree, "name": f"{family}-{name}", "family": family, "title": title, "sources": sources}


def _validated(tree: Mapping[str, Any], origin: str) -> DataSet:
    try:
        return DataSet.model_validate(tree)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        *above, last = problem["loc"] or ("",)
        # Between a source and its key, pydantic names the kind of the source.
        at = ".".join(str(part) for part in (*(part for part in above if part not in KINDS), last))
        what, given = problem["msg"].removeprefix("Value error, "), problem["input"]
        if problem["type"] == "extra_forbidden":
            hint = did_you_mean(
                str(last), [key for kind in (DataSet, Repository, Download) for key in kind.model_fields]
            )
            what = f"{hint}that is no key here"
        value = f"{at} = {shown(given)}: " if isinstance(given, str) else f"{at}: " if at else ""
        raise ConfigError(f"{value}{what[:1].lower()}{what[1:]} (in {origin})") from error
