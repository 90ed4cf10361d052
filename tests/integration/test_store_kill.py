"""kill -9 while a store is being written: what is there is whole, and the same call goes on from it."""

import signal

import pytest

from hbtrain.errors import StorageError
from hbtrain.retrieval.collection_search import embed_collection
from hbtrain.retrieval.store import EmbeddingStore
from tests.integration.command import ROOT, Command
from tests.integration.encode_halfway import HALFWAY, OPTIONS, TEXTS
from tests.unit.retrieval_samples import Hashed

SCRIPT = ROOT / "tests" / "integration" / "encode_halfway.py"


def test_a_killed_encoding_goes_on_where_it_stopped(tmp_path):
    store = tmp_path / "store"
    with Command(tmp_path, store, program=[SCRIPT]) as encoding:
        encoding.wait_for(f"{HALFWAY} of {len(TEXTS)}.")
        with pytest.raises(StorageError, match="being written by another process"):
            embed_collection(Hashed(), TEXTS, OPTIONS, store)
        encoding.process.send_signal(signal.SIGKILL)
        assert encoding.finish(10) == -signal.SIGKILL
    with pytest.raises(StorageError, match="is unfinished"):
        EmbeddingStore(store)
    kept = sorted(path.name for path in store.glob("shard-*.npy"))
    assert kept == ["shard-00000.npy", "shard-00001.npy"]
    encoder = Hashed()
    embed_collection(encoder, TEXTS, OPTIONS, store).verify()
    assert [text for block in encoder.asked for text in block] == TEXTS[10 * len(kept) :]
    embed_collection(Hashed(), TEXTS, OPTIONS, tmp_path / "whole")
    for path in (tmp_path / "whole").glob("shard-*"):
        assert path.read_bytes() == (store / path.name).read_bytes()
