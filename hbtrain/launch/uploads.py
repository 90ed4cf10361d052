"""Taking checkpoints to storage through Ray Train while training goes on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from hbtrain.errors import HbtrainError
from hbtrain.training.worker import Part

LONGEST_S = 600.0
"""After this long an upload no longer holds up the next one: Ray Train may have dropped it with a lost worker."""


class Uploads:
    """One worker's uploads, one at a time: were they slower than training, parts would pile up on the local disk."""

    def __init__(self, mailbox: Any) -> None:
        """`mailbox` is told why an upload failed."""
        self._mailbox = mailbox
        self._idle = threading.Event()
        self._idle.set()

    def keep(self, part: Part) -> None:
        """Report a part of a checkpoint to Ray Train, which calls back on a thread of its own; collective."""
        import ray
        import ray.train
        from ray.train import Checkpoint, CheckpointUploadMode

        def upload(_: Checkpoint, __: str) -> Checkpoint:
            try:
                part.store()
            except HbtrainError as error:
                ray.get(self._mailbox.fail.remote(str(error)))
                raise
            finally:
                self._idle.set()
            kept = str(part.to)
            return Checkpoint.from_directory(kept) if isinstance(part.to, Path) else Checkpoint(kept)

        self._idle.wait(LONGEST_S)
        self._idle.clear()
        ray.train.report(
            {"step": part.step},
            checkpoint=Checkpoint.from_directory(str(part.folder)),
            checkpoint_dir_name=part.to.name,
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=False,  # `store` has deleted it
            checkpoint_upload_fn=upload,
        )
