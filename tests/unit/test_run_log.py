"""The log of a run, on a disk and in a bucket."""

import json
import re

import pytest

from hbtrain.events import Event
from hbtrain.runs import run_log
from hbtrain.runs.run_log import LOG, RunLog, utc
from hbtrain.storage import place


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_every_event_note_and_phase_is_a_line_with_time_rank_and_step(tmp_path):
    log = RunLog(tmp_path)
    log.phase("training 30 steps")
    log.event(Event(10, {"train/loss": 1.5}, time_s=1_700_000_000.25))
    log.event(Event(12, {}, "rank 3 hangs\nfor long: ü", kind="hang", rank=3))
    log.event(Event(12, {}, "told by nobody", rank=None))
    log.flush()
    phase, figures, note, other = lines((tmp_path / LOG).read_text(encoding="utf-8"))
    assert phase.keys() == {"time", "phase"}
    assert figures == {"time": "2023-11-14T22:13:20.250Z", "step": 10, "rank": 0, "metrics": {"train/loss": 1.5}}
    assert (note["rank"], note["kind"], note["note"]) == (3, "hang", "rank 3 hangs\nfor long: ü")
    assert (other["rank"], other["kind"]) == (None, "note")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in (phase, note, other))


def test_a_later_attempt_goes_on_and_parts_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(run_log, "PART_BYTES", 400)
    monkeypatch.setattr(run_log, "PARTS", 3)
    for attempt in range(2):
        log = RunLog(tmp_path)
        for step in range(40):
            log.event(Event(100 * attempt + step, {}, "x" * 20))
        log.flush()
    parts = sorted(path.name for path in tmp_path.glob("log-*.jsonl"))
    assert len(parts) == 3
    assert int(parts[-1][4:8]) > 5, "older ones made room"
    text = "".join((tmp_path / name).read_text() for name in parts)
    text += (tmp_path / LOG).read_text() if (tmp_path / LOG).exists() else ""
    steps = [line["step"] for line in lines(text)]
    assert steps == list(range(140 - len(steps), 140)), "no line is missing between those that are left"
    assert all((tmp_path / name).stat().st_size < 600 for name in parts)


def test_a_disk_that_fails_ends_nothing(tmp_path):
    log = RunLog(tmp_path / "missing")
    log.event(Event(1, {}, "lost for now"))
    (tmp_path / "missing").mkdir()
    log.event(Event(2, {}, "here"))
    assert [line["step"] for line in lines((tmp_path / "missing" / LOG).read_text())] == [1, 2]


@pytest.fixture
def counted(monkeypatch):
    """How often an object was written."""
    writes = []
    real = run_log.write_text
    monkeypatch.setattr(run_log, "write_text", lambda file, text: (writes.append(file.name), real(file, text)))
    return writes


def test_a_bucket_gets_one_request_a_minute_whatever_happens(bucket, counted):
    now = [0.0]
    folder = place(f"{bucket.uri}/runs/one")
    log = RunLog(folder, lambda: now[0])
    for second in range(300):
        now[0] = float(second)
        for _ in range(3):
            log.event(Event(second, {"train/loss": 1.0}))
    assert counted == [LOG] * 4
    log.flush()
    assert len(counted) == 5
    assert len(lines(bucket.get(f"runs/one/{LOG}").decode())) == 900
    again = RunLog(folder, lambda: now[0])
    again.phase("goes on")
    again.flush()
    assert len(lines(bucket.get(f"runs/one/{LOG}").decode())) == 901


def test_parts_in_a_bucket_and_an_outage(bucket, counted, monkeypatch):
    monkeypatch.setattr(run_log, "PART_BYTES", 600)
    monkeypatch.setattr(run_log, "PARTS", 2)
    monkeypatch.setattr(run_log, "REMOTE_EVERY_S", 0.0)
    log = RunLog(place(f"{bucket.uri}/runs/one"))
    for step in range(40):
        log.event(Event(step, {}, "y" * 40))
    keys = bucket.keys("runs/one/log")
    assert len([key for key in keys if "log-" in key]) == 2
    monkeypatch.setattr(run_log, "write_text", lambda file, text: (_ for _ in ()).throw(OSError("away")))
    for step in range(100):
        log.event(Event(step, {}, "z" * 40))
    assert len(log._waiting) < 2 * 600, "memory is bounded while storage is away"


def test_passwords_stay_out(tmp_path):
    log = RunLog(tmp_path)
    log.phase("MLflow at postgresql://me:secret@host/mlflow?password=secret is away")
    log.event(Event(1, {}, "https://host/x?token=secret"))
    text = (tmp_path / LOG).read_text()
    assert "secret" not in text
    assert len(lines(text)) == 2


def test_times_are_utc():
    assert utc(0.5) == "1970-01-01T00:00:00.500Z"
