"""Extension points: readers, benchmarks and metrics that other packages bring along, found by their entry points.

A package names them in its `pyproject.toml`, and they are there once it is installed:

    [project.entry-points."hbtrain.readers"]
    faq = "my_package:read_faq"

`docs/plugins.md` says what each of them is called with, and what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from hbtrain.errors import HbtrainError, shown

Kind = Literal["reader", "benchmark", "metric"]
GROUPS: dict[Kind, str] = {"reader": "hbtrain.readers", "benchmark": "hbtrain.benchmarks", "metric": "hbtrain.metrics"}
"""{kind: group of entry points}."""


class PluginError(HbtrainError):
    """A plugin that cannot be loaded, fails, or returns something else than it should."""


@dataclass(frozen=True)
class Plugin:
    """A reader, benchmark or metric of another package; nothing of that is imported before `load`."""

    kind: Kind
    name: str  # as users write it
    entry: EntryPoint

    @property
    def package(self) -> str:
        """Name and version of the package it is from, such as `my-package 1.2`."""
        found = self.entry.dist
        return "an unnamed package" if found is None else f"{found.name} {found.version}"

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of {self.package}"

    def load(self) -> Callable[..., Any]:
        """The function behind it. Raises PluginError."""
        with self.errors_in_words("cannot be loaded"):
            function = self.entry.load()
        if not callable(function):
            raise PluginError(f"{self}: {self.entry.value} must be a function, not {shown(function)}")
        loaded: Callable[..., Any] = function
        return loaded

    @contextmanager
    def errors_in_words(self, what: str = "failed") -> Iterator[None]:
        """Turn whatever the block raises, except errors in hbtrain's own words, into a PluginError in one line."""
        try:
            yield
        except HbtrainError:
            raise
        except Exception as error:  # of code that is not ours
            raise PluginError(f"{self} {what}: {type(error).__name__}: {error}") from error


@cache
def plugins(kind: Kind) -> dict[str, Plugin]:
    """{name: plugin} of the packages that are installed; what they bring along is not loaded yet.

    Raises:
        PluginError: two packages use one name, or a name cannot be written where it is to stand.
    """
    found: dict[str, Plugin] = {}
    for entry in sorted(entry_points(group=GROUPS[kind]), key=lambda entry: (entry.name, str(entry.value))):
        plugin = Plugin(kind, entry.name, entry)
        before = found.setdefault(entry.name, plugin)
        if before.entry.value != entry.value:  # else one package is found twice, as in a checkout that is installed
            raise PluginError(f"{plugin}: {before.package} has a {kind} of that name as well; uninstall one of them")
        if not entry.name or set(entry.name) & set("/=?:, ") or entry.name.startswith(("-", ".")):
            raise PluginError(f"{plugin}: a name has no blanks and none of / = ? : , and begins with no - or dot")
    return found
