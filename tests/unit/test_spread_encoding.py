"""What actors encode: passages and queries, in the precision of their devices, as one process does to the last bit."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling import Encoder
from hbtrain.retrieval import actors
from hbtrain.retrieval.collection_search import SearchOptions, search_collection
from hbtrain.retrieval.encoding import Batching, BlockEncoder, DevicesEncoder, StoredEncoder, cached_embeddings, load_on
from hbtrain.retrieval.mining import Miner, MiningOptions
from hbtrain.retrieval.workers import LocalWorkers
from tests.unit.retrieval_samples import texts_of
from tests.unit.tiny_models import encoder_config

TEXTS = texts_of(60)
QUERIES = [f"question {number} " + "of " * (number % 5) for number in range(23)]


class InTurn(LocalWorkers):
    """Workers that take turns, each with an object of its own, and finish last first."""

    def map_unordered(self, method, tasks):
        done = [
            (number, getattr(self._object(number % len(self._factories)), method)(*arguments))
            for number, arguments in enumerate(tasks)
        ]
        yield from reversed(done)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    Encoder.build(encoder_config("transformer"), lambda: TEXTS, 0).save(path)
    return str(path)


@pytest.fixture
def session(monkeypatch):
    """No Ray: workers in this process. What was started is noted; `precision` is that of the workers' devices."""
    monkeypatch.setattr("hbtrain.modeling.features.WINDOW_TEXTS", 5)
    started = []

    @contextmanager
    def session(demand, address=None):
        @contextmanager
        def start(factories):
            started.append(len(factories))
            yield InTurn(factories)

        yield start

    monkeypatch.setattr(actors, "actor_session", session)
    monkeypatch.setattr(actors, "precision_of_actors", lambda start: None)
    return started


def options(cache, **changes):
    return SearchOptions(rows_per_shard=20, block_rows=8, cache=cache, batching=Batching(batch_size=None), **changes)


def vectors_of(cache):
    (path,) = (cache / "embeddings").glob("query-*.npy")
    return path.name, np.load(path)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_actors_encode_the_queries_and_their_vectors_are_those_of_one_process(
    session, folder, tmp_path, monkeypatch, count
):
    here = search_collection(Encoder.load(folder), TEXTS, QUERIES, 4, options(tmp_path / "here"))
    encoder, told = Encoder.load(folder), []
    monkeypatch.setattr(encoder, "encode", None)  # this process encodes nothing
    there = search_collection(
        encoder, TEXTS, QUERIES, 4, options(tmp_path / "there", actors=count), progress=lambda *at: told.append(at)
    )
    name, vectors = vectors_of(tmp_path / "there")
    assert name == vectors_of(tmp_path / "here")[0]
    np.testing.assert_array_equal(vectors, vectors_of(tmp_path / "here")[1])
    np.testing.assert_array_equal(there.found.places, here.found.places)
    assert session == [count, count]  # the same actors encode both, others search
    assert [side for side, *_ in told].index("query") == 9  # three shards of three blocks
    assert told[-1] == ("query", 23, 23)
    search_collection(encoder, TEXTS, QUERIES, 4, options(tmp_path / "there", actors=count))
    assert session == [count, count, count], "what was encoded is not encoded again"


def test_actors_on_gpus_that_have_bf16_use_it_unless_told_otherwise(session, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(actors, "precision_of_actors", lambda start: "bf16")
    found = {}
    for name, precision in (("default", None), ("bf16", "bf16"), ("fp32", "fp32")):
        encoder = Encoder.load(folder, precision=precision)
        search_collection(encoder, TEXTS, QUERIES, 4, options(tmp_path / name, actors=2))
        found[name] = (encoder.precision, *vectors_of(tmp_path / name))
    np.testing.assert_array_equal(found["default"][2], found["bf16"][2])
    assert found["default"][:2] == found["bf16"][:2]
    assert found["default"][0] == "bfloat16"
    assert found["fp32"][0] == "float32"
    assert found["fp32"][1] != found["bf16"][1], "neither takes the other's embeddings from the cache"
    assert not np.array_equal(found["fp32"][2], found["bf16"][2])


def test_a_cluster_without_gpus_is_not_asked_for_its_precision(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    assert actors.precision_of_actors(None) is None
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 2.0})
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    for device, precision in (("cuda", "bf16"), ("cpu", None)):  # GPUs that others use are none of the actors'

        @contextmanager
        def start(factories, device=device):
            yield LocalWorkers(factories, [device])

        assert actors.precision_of_actors(start) == precision


def test_a_model_that_gives_all_queries_one_vector_is_told_with_actors_too(session, folder, tmp_path):
    encoder = Encoder.load(folder)
    for weight in encoder.model.parameters():
        weight.data.zero_()
    workers = InTurn([lambda device: BlockEncoder(encoder, Batching())])
    cached_embeddings(encoder, "digest", QUERIES, "query", tmp_path, Batching(), lambda: workers)
    assert any("all 23 different texts of a query have one and the same vector" in note for note in encoder.notes)


def test_files_in_bf16_have_another_digest_where_their_tokens_are_averaged_in_float32(folder, tmp_path):
    half = Encoder.load(folder)
    half.model.bfloat16()
    half.save(tmp_path / "half")
    as_saved, pooled = (Encoder.load(str(tmp_path / "half"), precision=precision) for precision in (None, "bf16"))
    assert as_saved.precision == pooled.precision == "bfloat16"
    assert not np.array_equal(as_saved.encode(TEXTS, "query"), pooled.encode(TEXTS, "query"))
    assert as_saved.digest() != pooled.digest()


def test_batches_on_a_gpu_are_cut_by_tokens_alone(folder, monkeypatch):
    from hbtrain.modeling import features

    limits = []
    cut = features.within_budget
    monkeypatch.setattr(features, "within_budget", lambda *at: limits.append(at[1:3]) or cut(*at))
    encoder = Encoder.load(folder)
    encoder.encode(TEXTS, "query")
    monkeypatch.setattr(type(encoder), "device", SimpleNamespace(type="cuda"))
    for name in ("pinned", "moved"):
        monkeypatch.setattr(features, name, lambda batch, to: batch)
    encoder.encode(TEXTS, "query")
    encoder.encode(TEXTS, "query", batch_size=7, batch_tokens=100)
    assert limits == [(128, 4096), (65_536, 65_536), (7, 100)]


@pytest.mark.parametrize("rescored", [False, True])
def test_mining_over_actors_gives_what_one_process_does(session, folder, tmp_path, monkeypatch, write_source, rescored):
    class Pairs:
        def score(self, queries, passages):
            pairs = zip(queries, passages, strict=True)
            return np.array([len(set(query) & set(passage)) / 26 for query, passage in pairs], np.float32)

        def loader(self, anew):
            return lambda device: Pairs()

    monkeypatch.setattr("hbtrain.retrieval.rescoring.TASK_PAIRS", 7)
    table = [
        {"id": i, "query": {"en": QUERIES[i]}, "passage": {"en": TEXTS[i], "de": TEXTS[-i - 1] + " de"}}
        for i in range(20)
    ]
    corpus, found = ParallelCorpus.open([str(write_source(table))]), []
    for count, devices in ((0, ("cpu",)), (0, ("cpu", "cpu")), (1, ("cpu",)), (3, ("cpu",))):
        search = options(tmp_path / f"{count} {len(devices)}", actors=count, devices=devices)
        encoder = load_on(devices, folder, None)
        mining = MiningOptions(negatives=3, languages="both", margin=-0.2)
        with Miner(encoder, corpus, mining, search, rescorer=Pairs() if rescored else None) as miner:
            found.append([row for source in corpus.sources.values() for row in miner.rows(source)])
    assert found[0] == found[1] == found[2] == found[3]
    assert sum(len(row.negatives) for row in found[0]) > 20
    # To encode, and to search two files of the store; all actors score pairs.
    assert session == [1, 1, 3, 3 if rescored else 2]


def test_an_encoder_on_several_devices_gives_what_one_gives_and_all_of_them_encode(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("hbtrain.modeling.features.WINDOW_TEXTS", 5)
    encoder, devices = Encoder.load(folder), ("cpu",) * 3
    spread = DevicesEncoder(encoder, devices)
    assert isinstance(spread, StoredEncoder)
    assert len({id(own.model) for own in spread.encoders}) == 3
    asked, encode = [], Encoder.encode
    monkeypatch.setattr(
        Encoder, "encode", lambda self, *at, **more: asked.append(id(self)) or encode(self, *at, **more)
    )
    told = []
    found = spread.encode(TEXTS, "passage", progress=told.append)
    assert set(asked) == {id(own) for own in spread.encoders}
    assert told[-1] == len(TEXTS)
    np.testing.assert_array_equal(found, encoder.encode(TEXTS, "passage"))
    here = search_collection(encoder, TEXTS, QUERIES, 4, options(tmp_path / "here"))
    asked.clear()
    there = search_collection(spread, TEXTS, QUERIES, 4, options(tmp_path / "there", devices=devices))
    assert set(asked) == {id(own) for own in spread.encoders}, "blocks of the store are spread over all"
    assert vectors_of(tmp_path / "there")[0] == vectors_of(tmp_path / "here")[0]
    np.testing.assert_array_equal(vectors_of(tmp_path / "there")[1], vectors_of(tmp_path / "here")[1])
    np.testing.assert_array_equal(there.found.places, here.found.places)
    np.testing.assert_array_equal(there.found.scores, here.found.scores)


def test_a_collapsed_model_is_told_on_several_devices_too(folder):
    encoder = Encoder.load(folder)
    for weight in encoder.model.parameters():
        weight.data.zero_()
    spread = DevicesEncoder(encoder, ["cpu"] * 2)
    spread.encode(TEXTS, "passage")
    assert any("all 60 different texts of a passage" in note for note in spread.notes)
