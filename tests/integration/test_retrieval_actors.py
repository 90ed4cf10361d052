"""Ray's actors encode and search the same as this process, one or two of them, killed or not."""

import os
import signal

import numpy as np
import psutil
import pytest

from hbtrain.cluster.capacity import Demand
from hbtrain.errors import ConfigError, ModelError, RetrievalError
from hbtrain.modeling import Encoder
from hbtrain.retrieval.actors import actor_session
from hbtrain.retrieval.collection_search import SearchOptions, embed_collection, rank_collection, search_collection
from hbtrain.retrieval.encoding import cached_embeddings
from hbtrain.retrieval.ranks import exact_search
from hbtrain.retrieval.store import EmbeddingStore
from tests.integration.command import called, workers_are_forks
from tests.unit.retrieval_samples import texts_of
from tests.unit.tiny_models import encoder_config

# A session looks whether the head answers, at an address of the machine's own.
pytestmark = [pytest.mark.ray, pytest.mark.enable_socket]

TEXTS = texts_of(240)
QUERIES = TEXTS[100:103]


class Tool:
    """What the tests' actors hold."""

    def __init__(self, folder):
        self._folder = folder

    def where(self, number):
        return number, os.getpid()

    def add(self, one, two):
        return one + two

    def fail(self, kind):
        raise {"known": ModelError("no such vector"), "unknown": ZeroDivisionError("oh")}[kind]

    def die_once(self, number):
        """Ends its process, the first time that it is asked."""
        try:
            (self._folder / f"died-{number}").touch(exist_ok=False)
        except FileExistsError:
            return number
        return os.kill(os.getpid(), signal.SIGKILL)

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)


class MakeTool:
    def __init__(self, folder):
        self._folder = folder

    def __call__(self, device):
        return Tool(self._folder)


@pytest.fixture(scope="module")
def cluster():
    import ray

    with workers_are_forks():
        ray.init(address="local", num_cpus=2, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    Encoder.build(encoder_config("transformer"), lambda: TEXTS, 0).save(path)
    return Encoder.load(str(path), device="cpu")


def options(cache, **changes):
    return SearchOptions(**({"rows_per_shard": 60, "block_rows": 16, "cache": cache} | changes))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture(scope="module")
def here(encoder, tmp_path_factory):
    """What this process gives on its own: the folder of the store, and what is found."""
    folder = tmp_path_factory.mktemp("here")
    found = search_collection(encoder, TEXTS, QUERIES, 5, options(folder), folder / "store")
    return folder / "store", found


@pytest.mark.parametrize("actors", [1, 2])
def test_any_number_of_actors_gives_the_same_files_and_results(cluster, encoder, here, tmp_path, actors):
    found = search_collection(encoder, TEXTS, QUERIES, 5, options(tmp_path, actors=actors), tmp_path / "store")
    assert files(tmp_path / "store") == files(here[0])
    np.testing.assert_array_equal(found.found.places, here[1].found.places)
    np.testing.assert_array_equal(found.found.scores, here[1].found.scores)


def test_a_killed_actor_is_replaced_and_its_block_done_again(cluster, encoder, here, tmp_path):
    killed = []

    def kill(side, done, total):
        """Kill an actor that encodes, after the first block."""
        if not killed:
            victim = called("_RetrievalActor", psutil.Process().children(recursive=True))[0]
            victim.kill()
            killed.append(victim.pid)

    store = embed_collection(encoder, TEXTS, options(tmp_path, actors=2), tmp_path / "store", kill)
    assert len(killed) == 1
    store.verify()
    assert files(tmp_path / "store") == files(here[0])


def test_an_encoding_that_was_killed_goes_on_with_another_number_of_actors(cluster, encoder, here, tmp_path):
    def stop(side, done, total):
        if done >= 130:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_collection(encoder, TEXTS, options(tmp_path, actors=2), tmp_path / "store", stop)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*.npy")}
    assert 1 <= len(kept) < 4
    embed_collection(encoder, TEXTS, options(tmp_path, actors=1), tmp_path / "store")
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    assert files(tmp_path / "store") == files(here[0])
    EmbeddingStore(tmp_path / "store").verify()


def test_actors_hold_an_index_each_and_say_its_recall(cluster, encoder, here, tmp_path):
    found = search_collection(
        encoder, TEXTS, QUERIES, 5, options(tmp_path, actors=2, index="IVF4,Flat", parameters="nprobe=4")
    )
    assert found.recall == 1
    np.testing.assert_array_equal(found.found.places, here[1].found.places)


def test_exact_ranks_spread_over_actors_are_those_of_one_pass(cluster, encoder, tmp_path):
    languages = np.repeat([0, 1, 2], len(TEXTS) // 3)
    relevant = [np.array(places) for places in ([3, 100, 199], [90], [0, 1, 239])]
    found = rank_collection(encoder, TEXTS, QUERIES, languages, relevant, 7, options(tmp_path, actors=2))
    passages = embed_collection(encoder, TEXTS, options(tmp_path))
    p_ND = np.concatenate([passages.shard(file) for file in range(len(passages.manifest.shards))])
    queries = cached_embeddings(encoder, encoder.digest(), QUERIES, "query", tmp_path, options(tmp_path).batching)
    wanted = exact_search(queries, p_ND, languages, relevant, 7)
    names = ("query", "candidate", "language", "in_language", "in_pool", "score", "equal_in_language", "equal_in_pool")
    for name in names:
        np.testing.assert_array_equal(getattr(found.ranks, name), getattr(wanted.ranks, name))
    np.testing.assert_array_equal(found.pool.places, wanted.pool.places)
    np.testing.assert_array_equal(found.pool.scores, wanted.pool.scores)


def test_tasks_are_shared_and_lost_ones_done_again(cluster, tmp_path):
    with actor_session(Demand("--actors 2", 2, 1)) as start, start([MakeTool(tmp_path)] * 2) as workers:
        results = dict(workers.map_unordered("where", [(number,) for number in range(20)]))
        assert [results[number][0] for number in range(20)] == list(range(20))
        assert len({process for _, process in results.values()}) == 2
        assert sorted(workers.map_unordered("die_once", [(number,) for number in range(2)])) == [(0, 0), (1, 1)]
        assert workers.call_all("add", 3, 4) == [7, 7]
        assert list(workers.map_unordered("add", [])) == []


def test_errors_of_actors_are_one_line_and_a_task_that_kills_is_given_up(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("hbtrain.retrieval.actors.RESTARTS", 1)
    with actor_session(Demand("--actors 1", 1, 1)) as start, start([MakeTool(tmp_path)]) as workers:
        with pytest.raises(ModelError, match="no such vector"):
            workers.call_all("fail", "known")
        with pytest.raises(RetrievalError, match="an actor failed: ZeroDivisionError"):
            workers.call_all("fail", "unknown")
        with pytest.raises(RetrievalError, match="lost 2 times") as error:
            list(workers.map_unordered("die", [()]))
        assert "\n" not in str(error.value)


def test_more_actors_than_cpus_are_refused_before_anything_is_encoded(cluster, encoder, tmp_path):
    with pytest.raises(ConfigError, match="3 needs 3 CPUs, and the cluster has 2 CPUs; lower it, join nodes"):
        search_collection(encoder, TEXTS, QUERIES, 5, options(tmp_path, actors=3), tmp_path / "store")
    assert not (tmp_path / "store").exists()
