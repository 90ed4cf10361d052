"""Which compilers a process starts: hbtrain promises that nvcc and ninja compile nothing on the user's machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

COMPILERS = ("nvcc", "ninja", "gcc", "g++", "cc", "c++", "clang", "clang++", "ptxas", "hipcc")
ASKING = {"-V", "-v", "--version", "-dumpversion", "-dumpfullversion", "-print-file-name"}

_current: list[list[str]] = []  # the lists of the `Compilers` that are entered
_hooked = False


class Compilers:
    """While it is entered, `started` collects the compilers that Python starts; those only asked for their version do
    not count."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def __enter__(self) -> Compilers:
        global _hooked  # noqa: PLW0603  # an audit hook cannot be taken away again
        if not _hooked:
            sys.addaudithook(_watch)
            _hooked = True
        _current.append(self.started)
        return self

    def __exit__(self, *_: object) -> None:
        _current.remove(self.started)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.system") or not _current:
        return
    command = arguments[0] if event == "os.system" else arguments[1] or arguments[:1]
    words = (
        os.fsdecode(command).split() if isinstance(command, str | bytes) else [os.fsdecode(word) for word in command]
    )
    if words and Path(words[0]).name in COMPILERS and not ASKING & set(words):
        for started in _current:
            started.append(" ".join([Path(words[0]).name, *words[1:]])[:200])
