"""Metrics for Prometheus, and the dashboard that shows them."""

import json
import re

import pytest
import ray
import ray.util.metrics

from hbtrain.runs.gauges import GAUGES, OF_METRIC, Gauges
from hbtrain.runs.run_status import RunStatus
from tests.integration.command import ROOT

STATUS = RunStatus(step=30, steps=300, restarts=1, hangs=2, skipped_steps=3, waits=4)


@pytest.fixture
def shown(monkeypatch):
    """{name: (value, labels)} of what Ray was given."""
    values = {}

    class Gauge:
        def __init__(self, name, description, tag_keys):
            assert name not in values, "made once"
            assert description
            self.name, self.keys = name, tag_keys

        def set(self, value, tags):
            assert set(tags) == set(self.keys)
            values[self.name] = value, tags

    monkeypatch.setattr(ray.util.metrics, "Gauge", Gauge)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    return values


def test_an_event_sets_the_gauges_of_its_metrics_and_of_the_run(shown):
    gauges = Gauges("quickstart-1")
    gauges.show({"train/loss": 0.5, "train/loss_mono": 0.4}, STATUS, 1_700_000_000.0)
    assert {value[1]["run"] for value in shown.values()} == {"quickstart-1"}
    assert {name: value for name, (value, _) in shown.items()} == {
        "hbtrain_loss": 0.5, "hbtrain_step": 30, "hbtrain_steps": 300, "hbtrain_heartbeat_seconds": 1_700_000_000.0,
        "hbtrain_restarts": 1, "hbtrain_hangs": 2, "hbtrain_skipped_steps": 3, "hbtrain_waits": 4,
    }  # fmt: skip
    gauges.show(dict.fromkeys(OF_METRIC, 1.0), STATUS, 0.0)
    assert shown.keys() == GAUGES.keys(), "each gauge has something that sets it"


def test_without_ray_nothing_is_shown(shown, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    Gauges("quickstart-1").show({"train/loss": 0.5}, STATUS, 0.0)
    assert shown == {}


def test_the_dashboard_shows_every_gauge_and_nothing_else():
    board = json.loads((ROOT / "cluster" / "grafana" / "hbtrain.json").read_text())
    assert board["title"] == board["uid"] == "hbtrain"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    named = set()
    for panel in board["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert target["expr"].count("(") == target["expr"].count(")")
            assert target["expr"].count("ray_hbtrain_") == target["expr"].count('{run=~"$run"}')
            named |= set(re.findall(r"ray_(hbtrain_\w+)", target["expr"]))
    assert named == GAUGES.keys()
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables.keys() == {"datasource", "run"}
    assert variables["run"]["query"]["query"] == "label_values(ray_hbtrain_step, run)"
