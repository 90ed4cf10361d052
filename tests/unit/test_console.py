import io
import re
import time

import pytest
from rich.console import Console

from hbtrain.cli.display import RunDisplay, describe, show_agreement
from hbtrain.config import load_config
from hbtrain.events import Event
from hbtrain.reporting.console import TextConsole
from hbtrain.reporting.table import table_of, terminal
from hbtrain.training.verify import Agreement


def test_figures_in_words():
    figures = {"train/loss_mono": 1.23456, "train/loss_cross": 2.0, "train/pairs_per_s": 1234.5, "validation/loss": 3.1}
    assert describe(figures) == "loss mono 1.235 cross 2.000  validation 3.100  1,234 pairs/s"
    assert describe({}) == ""


@pytest.mark.parametrize(("cosine", "verdict"), [(0.99999999, "right"), (0.93, "wrong")])
def test_the_verdict_on_a_gradient(cosine, verdict):
    out = io.StringIO()
    config = load_config("quickstart", {"training.chunks": 4, "training.deepspeed.zero_optimization.stage": 2})
    show_agreement(Console(file=out, width=120), config, Agreement(1.0, cosine, 0.01, 1e-5))
    text = " ".join(out.getvalue().split())
    assert "2 workers, ZeRO 2, 4 chunks, fp32" in text
    assert f"cosine {cosine:.7f}" in text
    assert f"verdict {verdict}:" in text


def test_lines_where_there_is_no_terminal(monkeypatch):
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr("hbtrain.cli.display.time.monotonic", lambda: float(next(clock)))
    out = io.StringIO()
    with RunDisplay(Console(file=out, width=120), steps=40) as display:
        display.phase("training 40 steps")
        for step in (10, 20, 30, 40):
            display.event(Event(step, {"train/loss_mono": 1.0 / step}))
        display.event(Event(40, {"train/gradient_cosine": 0.5}))
        noon = time.mktime((2026, 3, 1, 12, 34, 56, 0, 0, -1))
        display.event(Event(40, {}, "checkpoint kept", time_s=noon))
    lines = out.getvalue().splitlines()
    assert "training 40 steps" in lines[0]
    assert "step 40/40" in lines[-2]
    assert "s left" in lines[-3]
    assert lines[-1] == "12:34:56 step 40: checkpoint kept"
    assert re.match(r"\d\d:\d\d:\d\d step 40/40 ", lines[-2]), "the time of day, as nobody watches"
    assert "step 40/40" not in lines[-3], "once"
    assert len(lines) < 7, "not a line for every event"


@pytest.mark.parametrize("width", [20, 80, 200])
def test_no_column_of_a_table_is_cut_off(width):
    table = table_of("settings", [f"column {number}" for number in range(13)], [["a", *["0.123 ± 0.456"] * 12]])
    out = io.StringIO()
    TextConsole(file=out, width=width).print(terminal(table))
    assert out.getvalue().count("0.456") == 12
