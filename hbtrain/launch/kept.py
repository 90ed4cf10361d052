"""The last good checkpoint of a run, in words, for whoever reads why it stopped."""

from __future__ import annotations

from hbtrain.storage import Place, RemoteError
from hbtrain.training.checkpoint_files import checkpoints_in, is_complete


def with_last_checkpoint(reason: str, storage: Place) -> str:
    """`reason`, and which of the checkpoints in `storage` is the last good one."""
    try:
        last = next((storage / name for name in checkpoints_in(storage) if is_complete(storage / name)), None)
    except RemoteError as error:
        return f"{reason}; {storage} does not answer: {error.strerror}"
    kept = "there is no checkpoint before it" if last is None else f"the last good checkpoint is {last}"
    return f"{reason}; {kept}"
