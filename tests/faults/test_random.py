"""Random faults: what is drawn, how ends are compared, and some draws that are carried out on ranks."""

import copy
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest
import requests

from tests.faults.draws import FAULTS, KINDS, ONLY_IN, draw
from tests.faults.gate import Gate
from tests.faults.on_ranks import happen_on_ranks
from tests.faults.outcome import Outcome
from tests.faults.random_faults import damaged
from tests.faults.table import random_table
from tests.web import serving


def test_a_draw_follows_from_its_number_and_all_that_can_happen_is_drawn():
    draws = [draw(3, number) for number in range(400)]
    assert draws == [draw(3, number) for number in range(400)]
    assert draws != [draw(4, number) for number in range(400)]
    assert {drawn.run.kind for drawn in draws} == KINDS.keys()
    assert {fault.what for drawn in draws for fault in drawn.faults} == FAULTS.keys()
    assert {(d.run.workers, d.run.zero, d.run.storage) for d in draws if d.run.kind == "plain"} == {
        (workers, zero, storage) for workers in (1, 2) for zero in (0, 1, 2) for storage in ("folder", "s3")
    }
    for drawn in draws:
        for fault in drawn.faults:
            assert ONLY_IN.get(fault.what, drawn.run.storage) == drawn.run.storage


WHOLE = Outcome(
    {"run table": np.ones(3, np.float32)},
    {"run": {"train/loss": {5: 0.5, 10: 0.25}}},
    {"run/results/metrics.json": {"demo/multi/map": 0.5}},
)


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("weights", "run table", np.float32([1, 1, 1 + 1e-6]), "weights run table differ by 9.5e-07"),
        ("weights", "other table", np.ones(3), "models other table are not in both"),
        ("figures", "run", {"train/loss": {5: 0.5}}, "differs at 1 steps (10: 0.25 and None)"),
        ("figures", "run", {"train/loss": {5: 0.5, 10: 0.26}}, "differs at 1 steps (10: 0.25 and 0.26)"),
        ("figures", "other", {}, "MLflow runs other are not in both"),
        ("scores", "run/results/metrics.json", {"demo/multi/map": 0.4}, "scores in run/results/metrics.json differ"),
        ("scores", "other", {}, "only one has other"),
    ],
)
def test_what_differs_is_said(part, key, value, said):
    other = copy.deepcopy(WHOLE)
    assert WHOLE.differences(other) == []
    getattr(other, part)[key] = value
    (words,) = WHOLE.differences(other)
    assert said in words


def test_a_gate_is_open_shut_or_narrow():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_):
            pass

    with serving(Handler) as behind:
        gate = Gate(int(behind.rsplit(":", 1)[1]))

        def status():
            return requests.get(gate.address, timeout=10).status_code

        assert status() == 200
        with gate.being("away"), pytest.raises(requests.ConnectionError):
            status()
        with gate.being("throttled"):
            assert {status() for _ in range(20)} == {200, 503}
        assert status() == 200
        gate.close()


@pytest.mark.parametrize(("how", "content"), [(0.1, None), (0.5, b"01234"), (0.9, b"0123456389")])
def test_files_are_damaged_in_three_ways(how, content):
    assert damaged(b"0123456789", how)[1] == content


def test_the_table_counts_what_happened():
    lines = [
        {"processes": [{"fault": "SIGTERM", "hit": "SIGTERM"}, {"fault": None, "hit": None}], "as_unhurt": True},
        {"processes": [{"fault": "SIGTERM", "hit": "SIGTERM"}, {"fault": "memory", "hit": None}], "as_unhurt": False},
        {"processes": [{"fault": "kill all", "hit": "all"}] * 2, "as_unhurt": True},
    ]
    assert random_table(lines)[2:] == [
        "| SIGTERM | 2 | 2 | 1 |",
        "| kill all | 2 | 1 | 1 |",
        "| all | 4 | 3 | 2 |",
    ]


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    return tmp_path_factory.mktemp("references")


@pytest.mark.parametrize(("storage", "number"), [("folder", 18), ("folder", 27), ("s3", 11), ("s3", 12)])
def test_trainings_on_ranks_end_as_if_never_hurt(storage, number, references):
    """Killed ranks, SIGTERM, a full disk, damaged files and an outage of S3, on one and two ranks, also in segments."""
    line = happen_on_ranks(1, number, references, storage)
    assert line["as_unhurt"], line
    assert any(process["hit"] for process in line["processes"]), line
