"""Looking at nodes that do not answer, or are called alike, and at a machine where Ray does not start."""

import pytest
import ray

from hbtrain.cluster.capacity import Demand
from hbtrain.doctor import survey as surveys
from hbtrain.doctor.survey import Survey, survey
from hbtrain.errors import StorageError

ANY = Demand("--gpus 0", 0, cpus=1)


@pytest.fixture
def probed(monkeypatch):
    """The probes that are asked for; each of them finds nothing but what a folder has made."""
    asked = []

    def run(probes, timeout_s):
        asked.append(probes)
        return {key: {"made": ["/made"]} if name == "mark" else {} for key, (name, _) in probes.items()}

    monkeypatch.setattr(surveys, "run_probes", run)
    return asked


@pytest.fixture
def no_ray(monkeypatch):
    """A machine on which Ray does not start."""

    def refuse(*arguments):
        raise OSError("several lines\nand the last: AF_UNIX path length cannot exceed 107 bytes")

    monkeypatch.setattr(surveys, "ray_session", refuse)


def test_ray_that_does_not_start_is_seen_and_the_rest_as_well(no_ray, probed, cache):
    found = survey(None, None, None, ANY, 5, lambda text: None)
    assert found.ray == {"error": "and the last: AF_UNIX path length cannot exceed 107 bytes"}
    assert {"software", "machine", "gpus", "search", "tracking", str(cache)} == set(found.here)
    assert len(found.nodes) == 1
    assert found.ranks == []
    (name, arguments) = probed[-1][str(cache)]
    assert (name, arguments["made"]) == ("clear", ["/made"])


def test_an_address_or_gpus_that_are_not_there_are_an_error(no_ray, probed):
    with pytest.raises(OSError, match="AF_UNIX"):
        survey("10.0.0.1:6379", None, None, ANY, 5, lambda text: None)
    with pytest.raises(OSError, match="AF_UNIX"):
        survey(None, None, None, Demand("--gpus 2", 2, cpus=1, gpus=1), 5, lambda text: None)


def test_what_has_been_written_is_cleared_away_on_an_interrupt(probed, monkeypatch, cache):
    monkeypatch.setattr(surveys, "_connect", lambda *arguments: None)

    def interrupted(seen):
        raise KeyboardInterrupt

    monkeypatch.setattr(surveys, "_ray_nodes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        survey("10.0.0.1:6379", None, None, ANY, 5, lambda text: None)
    assert probed[-1][str(cache)][0] == "clear"


def test_nodes_are_named_by_what_tells_them_apart(monkeypatch):
    def names(*nodes):
        keys = ("NodeManagerHostname", "NodeManagerAddress", "NodeManagerPort", "Alive")
        monkeypatch.setattr(ray, "nodes", lambda: [dict(zip(keys, node, strict=True)) for node in nodes])
        return list(surveys._ray_nodes(Survey("10.0.0.1:6379", {})))

    assert names(("b", "10.0.0.2", 1, True), ("a", "10.0.0.1", 1, True), ("c", "10.0.0.3", 1, False)) == ["a", "b"]
    assert names(("a", "10.0.0.1", 1, True), ("a", "10.0.0.2", 1, True)) == ["10.0.0.1", "10.0.0.2"]
    assert names(("a", "10.0.0.1", 1, True), ("a", "10.0.0.1", 2, True)) == ["10.0.0.1:1", "10.0.0.1:2"]


def test_answers_of_actors_that_raise_die_or_hang(monkeypatch):
    outcomes = {
        "well": {"clock": 1.0},
        "raises": ray.exceptions.RayTaskError("measure", "a traceback", RuntimeError("no GPU\nGPU 3 fell off the bus")),
        "dies": ray.exceptions.RayActorError(
            error_msg="The actor died\nModuleNotFoundError: No module named 'hbtrain'"
        ),
    }

    def get(call):
        if isinstance(outcomes[call], Exception):
            raise outcomes[call]
        return outcomes[call]

    monkeypatch.setattr(ray, "wait", lambda calls, num_returns, timeout: (list(outcomes), ["hangs"]))
    monkeypatch.setattr(ray, "get", get)
    assert surveys._answers({call: call for call in (*outcomes, "hangs")}, 7) == {
        "well": {"clock": 1.0},
        "raises": {"error": "GPU 3 fell off the bus"},
        "dies": {"error": "ModuleNotFoundError: No module named 'hbtrain'"},
        "hangs": {"error": "no answer in 7 s"},
    }
    assert surveys._answers({}, 7) == {}


def test_a_clock_is_read_as_of_the_fastest_round_trip(monkeypatch):
    # Departure and return by this process's clock; the node's is 100 s ahead.
    times = iter([0.0, 8.0, 10.0, 10.5, 20.0, 22.0, 30.0, 33.0, 40.0, 44.0])
    answers = iter([105.0, 110.25, 121.0, 131.5, 142.0])
    monkeypatch.setattr(surveys.time, "time", lambda: next(times))
    monkeypatch.setattr(ray, "get", lambda call, timeout: next(answers))

    class Examiner:
        class clock:  # noqa: N801
            @staticmethod
            def remote():
                return None

    assert surveys._clock(Examiner) == {"ahead_s": 100.0, "within_s": 0.25}
    monkeypatch.undo()
    monkeypatch.setattr(ray, "get", lost)
    assert surveys._clock(Examiner) == {"error": "no answer"}


def lost(call, timeout):
    raise ray.exceptions.GetTimeoutError


def test_storage_is_looked_at_beside_the_cache(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert surveys._folders(None) == {str(cache): "cache"}
    assert surveys._folders("runs") == {str(cache): "cache", str(tmp_path / "runs"): "storage"}
    assert surveys._folders("s3://bucket/runs")["s3://bucket/runs"] == "storage"
    with pytest.raises(StorageError, match="remote storage is s3"):
        surveys._folders("ftp://host/runs")
