"""Files and folders on this machine's disks, and in S3-compatible storage by URI."""

from hbtrain.storage.files import write_text
from hbtrain.storage.place import (
    Place,
    expand_home,
    files_in,
    folders_in,
    is_remote,
    place,
    quoted,
    remove_tree,
    resolved,
    settle_home,
)
from hbtrain.storage.remote import RemoteError, RemotePath
from hbtrain.storage.transfer import (
    as_local,
    cache_root,
    cached_copy,
    check_writable,
    fetch,
    is_whole,
    local_copy,
    push,
    pushed,
    put,
    try_to_write,
    with_retries,
)

__all__ = [
    "Place",
    "RemoteError",
    "RemotePath",
    "as_local",
    "cache_root",
    "cached_copy",
    "check_writable",
    "expand_home",
    "fetch",
    "files_in",
    "folders_in",
    "is_remote",
    "is_whole",
    "local_copy",
    "place",
    "push",
    "pushed",
    "put",
    "quoted",
    "remove_tree",
    "resolved",
    "settle_home",
    "try_to_write",
    "with_retries",
    "write_text",
]
