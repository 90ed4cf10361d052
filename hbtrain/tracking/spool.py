"""A spool: messages for a server that is away, in a file or in remote storage, where the next process finds them.

Every message is written once, and read once by a process that delivers them, block by block. On disk there is one file,
which grows. An object cannot grow, so in remote storage each call of `add` makes one: `name.jsonl`, `name-1.jsonl`, ...
A file or object is a line that identifies the server, and a line of JSON for each message.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hbtrain.storage import Place, files_in, write_text

BLOCK_BYTES = 1 << 20  # of a file that are read at one time, and the rest of the last line

DESCRIPTION = "mlflow.note.content"  # the tag that MLflow shows at the head of a run's page


@dataclass
class Message:
    """A change of a run that the server is to make."""

    run_id: str  # id of the MLflow run
    kind: str  # `figures`, `tag`, `untag`, `artifact`, `status`, `inputs`, `tables`, `model` or `register`
    # arguments by kind, as JSON values: of `figures` a list [name, value, time in ms, step] for each metric, of `tag`
    # [name, value], of `untag` [name], of `artifact` [path, folder], of `status` [status, time in ms], of `inputs` what
    # `DataInput.to_json` gives, of `tables` paths of artifacts, of `model` [path, step, figures], each with name and
    # digest of a data set behind it, of `register` [name, id of the run whose model it is]
    content: list[Any]

    def __str__(self) -> str:
        if self.kind == "figures":
            return f"figure {self.content[0][0]}" if len(self.content) == 1 else f"{len(self.content)} figures"
        if self.kind == "artifact":
            path, folder = self.content
            return f"artifact {folder or Path(path).name}"
        if self.kind == "model":
            return "the model"
        if self.kind in ("inputs", "tables"):
            return f"{len(self.content)} {'data sets' if self.kind == 'inputs' else 'tables'}"
        return f"{self.kind} {'description' if self.content[0] == DESCRIPTION else self.content[0]}"


class Spool:
    """Messages that are added at the end and read from the beginning. One thread at a time may use it."""

    def __init__(self, file: Place, server: str) -> None:
        """A spool that begins empty, and replaces what is in `file`; see `resume`. `server` identifies the server."""
        self.file = file
        self._server = server
        self._read = 0  # bytes of the file that have been read, or objects
        self._end = 0  # bytes of the file, or objects
        self._left_over = 0  # how many of these another process wrote

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added since the beginning, or since `clear`."""
        return not self._end

    @property
    def is_read(self) -> bool:
        """Whether all that was added has been read."""
        return self._read >= self._end

    @property
    def is_left_over(self) -> bool:
        """Whether what `read` gives next was written by another process."""
        return self._read < self._left_over

    def resume(self) -> None:
        """Go on with what another process left in the file, if that is for the same server.

        A last line that the process had not finished is cut off. Raises OSError: it cannot be read.
        """
        end, at = 0, self._part(0)
        if not isinstance(at, Path):
            while (at := self._part(end)).exists() and at.read_bytes().split(b"\n", 1)[0] == self._server.encode():
                end += 1
        elif at.is_file() and at.stat().st_size:
            with at.open("rb+") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.readline() == f"{self._server}\n".encode():
                    end = content.rfind(b"\n") + 1
            if end:
                os.truncate(at, end)
        self._read, self._end, self._left_over = 0, end, end

    def add(self, messages: Iterable[Message], are_read: bool = False) -> None:
        """Write messages, which then outlive this process; `are_read` if `read` shall not give them.

        Raises OSError: they cannot be written, and nothing has changed.
        """
        lines = "".join(f"{json.dumps(asdict(message))}\n" for message in messages)
        text = f"{self._server}\n{lines}"
        if not isinstance(self.file, Path):
            if not self._end:
                self._clear_parts()
            write_text(self._part(self._end), text)
            self._end += 1
        elif not self._end or not self.file.exists():
            self._read = 0
            write_text(self.file, text)
            self._end = len(text.encode())
        else:
            self._append(self.file, lines.encode())
        if are_read:
            self._read = self._end

    def read(self) -> list[Message]:
        """The next messages that were added; none at the end, or where another process has deleted what it delivered.

        Raises OSError.
        """
        try:
            messages, self._read = self._block(self._read)
        except FileNotFoundError:
            messages, self._read = [], self._end
        return messages

    def unread(self) -> Iterator[Message]:
        """All messages that `read` has still to give. Raises OSError."""
        at = self._read
        while at < self._end:
            messages, at = self._block(at)
            yield from messages

    def clear(self) -> None:
        """Delete all, as they are delivered. Raises OSError."""
        objects, self._read, self._end, self._left_over = self._end, 0, 0, 0
        self.file.unlink(missing_ok=True)  # first: without it the others count as deleted
        if not isinstance(self.file, Path):
            for number in range(1, objects):
                self._part(number).unlink(missing_ok=True)

    def _part(self, number: int) -> Place:
        return self.file.parent / f"{self._stem}-{number}.jsonl" if number else self.file

    @property
    def _stem(self) -> str:
        return self.file.name.removesuffix(".jsonl")

    def _clear_parts(self) -> None:
        """Delete objects that a process which was killed in `clear` has left; they would count as added."""
        for name in files_in(self.file.parent, f"{self._stem}-*.jsonl"):
            (self.file.parent / name).unlink(missing_ok=True)

    def _append(self, file: Path, lines: bytes) -> None:
        try:
            with file.open("r+b") as stream:
                stream.seek(self._end)
                stream.write(lines)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError:
            with suppress(OSError):
                os.truncate(file, self._end)
            raise
        self._end += len(lines)

    def _block(self, at: int) -> tuple[list[Message], int]:
        """The messages at a position, and the position after them."""
        if not isinstance(self.file, Path):
            return _messages(self._part(at).read_bytes().split(b"\n")[1:]), at + 1
        stop = self._left_over if at < self._left_over else self._end
        with self.file.open("rb") as stream:
            if not at:
                at += len(stream.readline())
            stream.seek(at)
            found = stream.read(min(BLOCK_BYTES, stop - at))
            if at + len(found) < stop:
                found += stream.readline()
        return _messages(found.split(b"\n")), at + len(found)


def _messages(lines: Iterable[bytes]) -> list[Message]:
    """The messages of lines; what is no message, as in a file that was damaged, is left out."""
    messages = []
    for line in lines:
        with suppress(ValueError, TypeError):
            messages.append(Message(**json.loads(line)))
    return messages
