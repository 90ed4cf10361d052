"""Where files are: in folders that this machine sees, or in S3-compatible storage, by URI."""

from hbtrain.storage.place import Place, files_in, folders_in, is_remote, place, remove_tree, write_text
from hbtrain.storage.remote import RemoteError, RemotePath
from hbtrain.storage.transfer import (
    as_local,
    cache_root,
    cached_copy,
    check_writable,
    fetch,
    is_whole,
    local_copy,
    patiently,
    push,
    pushed,
    put,
)

__all__ = [
    "Place",
    "RemoteError",
    "RemotePath",
    "as_local",
    "cache_root",
    "cached_copy",
    "check_writable",
    "fetch",
    "files_in",
    "folders_in",
    "is_remote",
    "is_whole",
    "local_copy",
    "patiently",
    "place",
    "push",
    "pushed",
    "put",
    "remove_tree",
    "write_text",
]
