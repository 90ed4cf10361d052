"""The console of all commands, on which names and texts stand as they are.

Rich takes `[word]` for markup and `:word:` for a picture, and a terminal obeys escape sequences. Texts of corpora,
names of files and questions of users hold all of these, and mean none of them.
"""

from __future__ import annotations

import io
import sys
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
"""{control character: how it is shown}, but for the two that only make space."""
WIDEST = 10_000  # characters of a line that no table has


class TextConsole(Console):
    """A console that prints texts as they are: no markup, no pictures, no colours of numbers, no control characters.

    What is to be styled is a `rich.text.Text`, or has a `style`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, but tables whole: rich leaves out columns that do not fit, and takes a log file for a
        terminal of 80 characters."""
        if objects and isinstance(objects[0], Table):
            objects = (_Whole(objects[0]), *objects[1:])
            options.setdefault("crop", False)
        super().print(*objects, **options)

    def narrowest(self, table: Table) -> int:
        """The width, in characters, below which the table loses something."""
        return self.measure(table, options=self.options.update(max_width=WIDEST)).minimum

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn a text that is printed, on its own or in a table, into rich's `Text`."""
        return super().render_str(visible(text), **options)


class _Whole:
    """A table that is as wide as the console, or as it has to be."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: TextConsole, options: ConsoleOptions) -> RenderResult:
        return console.render(
            self._table, options.update(max_width=max(options.max_width, console.narrowest(self._table)))
        )


def visible(text: str) -> str:
    """The text with control characters, such as those that begin escape sequences, written out: `\\x1b`."""
    return text.translate(CONTROL)


def replace_unencodable() -> None:
    """Let standard output show `?` where its encoding lacks a character, instead of ending with an error.

    Standard error writes such characters out by itself.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
