"""What a run reads from remote storage, copied to the machine of the driver with a word about it."""

from __future__ import annotations

from collections.abc import Iterator

from hbtrain.config import Config
from hbtrain.launch.observer import Observer
from hbtrain.storage import is_remote, local_copy, place


def fetch_inputs(config: Config, observer: Observer) -> None:
    """Fetch sources and benchmarks that are not in the cache yet.

    Raises:
        DataError: one is not there, or the storage refuses it.
        StorageError: the cache cannot be written.
    """
    for uri in _remote_inputs(config):
        local_copy(place(uri), config.data.cache, observer.phase)


def _remote_inputs(config: Config) -> Iterator[str]:
    data = config.data
    named = (text.partition("=")[2] for text in config.evaluation.benchmarks)
    yield from (text for text in (*data.sources, data.validation or "", *named) if is_remote(text))
