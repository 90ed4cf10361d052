"""The errors hbtrain raises for its users.

Every message is one line that names the value, the place it came from, what is allowed and what to do.
The command line prints it and ends with `exit_code`; a traceback is reserved for bugs.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from difflib import get_close_matches

MAKE_ROOM = "make room there, and the same command goes on"
"""The remedy that messages name for errors of which `is_full` is true."""
SHOWN_CHARACTERS = 80  # how much of a value messages show


class HbtrainError(Exception):
    """An error that the user can fix. `exit_code` is that of the command.

    Passwords in the message are replaced, and the lines of values in it joined.
    """

    exit_code = 2

    def __init__(self, message: str = "") -> None:
        # Half a surrogate pair (of a file's text, or of a name that is not UTF-8) could not be printed.
        printable = without_passwords(message).encode("utf-8", "backslashreplace").decode()
        super().__init__(" ".join(printable.splitlines()))


class ConfigError(HbtrainError):
    """A recipe, an override or a key that cannot be used."""


class DataError(HbtrainError):
    """A source, a corpus or a benchmark that cannot be used."""


class ModelError(HbtrainError):
    """A backbone or a saved model that cannot be used."""


class StorageError(HbtrainError):
    """A path that cannot be read or written, or holds something unexpected."""


class LeaseLostError(HbtrainError):
    """Another process drives the run now; this one has stopped before it wrote anything more."""

    exit_code = 1


class ClusterError(HbtrainError):
    """Ray did not start on this machine."""

    exit_code = 1


class TrainingError(HbtrainError):
    """Training stopped after it had begun. The message names the last good checkpoint where there is one."""

    exit_code = 1


class RetrievalError(HbtrainError):
    """Encoding or searching stopped after it had begun. Finished shards stay on disk."""

    exit_code = 1


class TranslationError(HbtrainError):
    """Translating stopped after it had begun. Finished blocks stay on disk."""

    exit_code = 1


class Terminated(KeyboardInterrupt):
    """The process was asked to end by a signal (see `hbtrain.cluster.termination`); the message says what goes on."""

    exit_code = 143  # of a process that SIGTERM ended: 128 + 15


def shown(value: object) -> str:
    """A value as messages show it: as Python writes it, and cut to `SHOWN_CHARACTERS` where it is longer."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out an integer of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}... ({len(text):,} characters)"


def is_full(error: Exception) -> bool:
    """Whether a disk or quota is full, by error number, or by the message where a library gives no number."""
    numbers = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in numbers
    return any(f"os error {number}" in str(error) or os.strerror(number) in str(error) for number in numbers)


def is_write_error(error: Exception) -> bool:
    """Whether a file could not be written. A broken connection, also an OSError or RuntimeError, does not count."""
    if isinstance(error, OSError):
        return not isinstance(error, ConnectionError | TimeoutError)
    return is_full(error) or "inline_container" in str(error)  # how torch.save says it


def did_you_mean(wanted: str, known: Iterable[str]) -> str:
    """`did you mean NAME? ` with the known name that is most like `wanted`; empty if none is like it."""
    near = get_close_matches(wanted, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}? " if near else ""


# Up to the last @ before a slash: clients take passwords that hold an @. One slash, for `Path` folds two into one.
_PASSWORD = re.compile(r"(?<=:/)(/?[^/\s:@]*):([^/\s]+)@")
# The whole of what stands before the @ of a web address: a token that is given as the user's name.
_TOKEN = re.compile(r"(?i)\b((?:[a-z][a-z0-9.-]*\+)?https?://?)[^/\s:@]+@")
_PARAMETER = re.compile(
    r"(?i)([?&;#](?:[^=&;#\s]*(?:password|passwd|passphrase|pwd|secret|token|signature|credential|key|jwt)[^=&;#\s]*"
    r"|(?:[^=&;#\s]*[-_.])?(?:sig|auth|authorization|pass|sas))=)[^&;\s'\")\]]+"
)


def without_passwords(text: str) -> str:
    """`text` with `***` in place of what is secret in addresses.

    That is every password in `scheme://user:password@host`, every token in `https://token@host`, and every parameter
    that is called so, such as `?password=...` or `&sig=...`.
    """
    return _PARAMETER.sub(r"\1***", _TOKEN.sub(r"\1***@", _PASSWORD.sub(r"\1:***@", text)))
