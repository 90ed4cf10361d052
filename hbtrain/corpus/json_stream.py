"""The elements of an array in a large JSON document, one after the other, without holding the document."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from hbtrain.corpus.files import open_unzipped
from hbtrain.errors import DataError

READ_BYTES = 1 << 20


def array_elements(path: str, key: str) -> Iterator[Any]:
    """The elements of the first array under `key`, in their order; what stands before and after it is not looked at.

    Raises:
        DataError: the file cannot be read, is no JSON or not UTF-8, or has no such array.
    """
    with open_unzipped(path) as stream:
        text = _Text(stream, path)
        start = re.compile(rf'"{re.escape(key)}"\s*:\s*\[')
        while (found := start.search(text.buffer)) is None:
            if not text.more():
                raise DataError(f"{path} has no array {key!r}, or is not JSON")
        text.drop(found.end())
        while (element := text.next_element()) is not _END:
            yield element


_END = object()


class _Text:
    """What is read of a file and not yet consumed."""

    def __init__(self, stream: BinaryIO, path: str) -> None:
        self.buffer = ""
        self._stream = stream
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._at = 0

    def more(self) -> bool:
        """Read on, at least as much again as there is; False at the end."""
        raw = self._stream.read(max(READ_BYTES, len(self.buffer)))
        try:
            self.buffer += self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            raise DataError(f"{self._path} is not UTF-8, some {error.start} bytes into a block") from error
        return bool(raw)

    def drop(self, length: int) -> None:
        """Forget the beginning."""
        self.buffer = self.buffer[length:]
        self._at = 0

    def next_element(self) -> Any:
        """The next element of the array; `_END` after the last."""
        while True:
            rest = re.compile(r"[\s,]*").match(self.buffer, self._at)
            at = rest.end() if rest else self._at
            if self.buffer.startswith("]", at):
                return _END
            try:
                element, end = self._json.raw_decode(self.buffer, at)
                if end < len(self.buffer):  # a number at the very end might go on
                    self._at = end
                    if end > READ_BYTES:
                        self.drop(end)
                    return element
            except json.JSONDecodeError as error:
                problem = error
            except RecursionError as error:
                raise DataError(f"{self._path} is nested too deeply") from error
            else:
                problem = json.JSONDecodeError("the document breaks off", self.buffer, at)
            if not self.more():
                raise DataError(f"{self._path} is not JSON: {problem.msg}; fetch it again")
