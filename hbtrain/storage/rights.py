"""Whether storage can be written, found out before anything starts."""

from __future__ import annotations

import uuid

from hbtrain.errors import StorageError
from hbtrain.storage.remote import RemotePath


def check_writable(folder: RemotePath, key: str) -> None:
    """Write, read, list and delete a probe in `folder`.

    Args:
        folder: where.
        key: what the configuration calls it, for the message.

    Raises:
        StorageError: one of them is refused, or the storage does not answer.
    """
    probe = folder / f".probe-{uuid.uuid4().hex[:12]}"
    for verb, act in (
        ("written", lambda: probe.write_text("hbtrain")),
        ("read", probe.read_text),
        ("listed", folder.children),
        ("cleaned up (objects cannot be deleted)", probe.unlink),
    ):
        try:
            act()
        except OSError as error:
            raise StorageError(
                f"{key} = '{folder}' cannot be {verb}: {error.strerror}; see to the bucket, the endpoint and the keys "
                "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine's role)"
            ) from error
