"""The errors hbtrain raises for its users.

Every message is one line that names the value, the place it came from, what is allowed and what to do.
The command line prints it and ends with `exit_code`; a traceback is reserved for bugs.
"""

from __future__ import annotations


class HbtrainError(Exception):
    """Something the user can mend. `exit_code` is what the command line ends with."""

    exit_code = 2


class ConfigError(HbtrainError):
    """A recipe, an override or a key that cannot be used."""


class DataError(HbtrainError):
    """A source, a corpus or a benchmark that cannot be used."""


class ModelError(HbtrainError):
    """A backbone or a saved model that cannot be used."""


class StorageError(HbtrainError):
    """A path that cannot be written or holds something else than expected."""


class TrainingError(HbtrainError):
    """Training stopped after it had begun. The message names the last good checkpoint where there is one."""

    exit_code = 1
