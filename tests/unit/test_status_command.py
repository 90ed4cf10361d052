import json
import time

import pytest

from hbtrain.cli.status import status
from hbtrain.errors import StorageError
from tests.unit.test_run_status import ELSEWHERE, HERE, begin


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """A storage with a run that trains and one that is finished, as of now."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("tests.unit.test_run_status.NOW", time.time() - 3)
    root = tmp_path / "runs"
    figures = {"step": 250, "steps": 1000, "pairs_per_s": 12345.6, "steps_per_s": 0.05, "restarts": 1, "hangs": 2}
    begin(root / "quickstart-1", **HERE, **figures, doing="training 1,000 steps on 2 workers")
    begin(root / "quickstart-2", finished=True, **ELSEWHERE, step=1000, steps=1000)
    return root


def test_all_is_well(storage, capsys):
    status(str(storage))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "state", "step", "pairs/s", "left", "heard", "of"]
    assert lines[1].split()[:10] == [
        "quickstart-1", "running", "250", "of", "1,000", "25%", "12,346", "4", "h", "10",
    ]  # fmt: skip
    assert lines[1].endswith("s ago")
    assert lines[2] == "  training 1,000 steps on 2 workers; 1 restart; 2 hangs"
    assert lines[3].split()[:2] == ["quickstart-2", "finished"]
    assert lines[-1] == "1 running, 1 finished, nothing to look at"


def test_a_run_that_failed_is_said_and_makes_the_exit_code(storage, capsys):
    begin(storage / "quickstart-3", **HERE, state="failed", reason="the loss of step 5 is nan\x1b[31m")
    with pytest.raises(SystemExit) as end:
        status(str(storage))
    assert end.value.code == 1
    out = capsys.readouterr().out
    assert "  the loss of step 5 is nan\\x1b[31m\n" in out
    assert out.endswith("1 running, 1 finished, 1 to look at\n")


def test_for_scripts(storage, capsys):
    status(str(storage), json_=True)
    document = json.loads(capsys.readouterr().out)
    assert document["well"] is True
    first, second = document["runs"]
    assert (first["state"], first["step"], first["steps"], first["restarts"]) == ("running", 250, 1000, 1)
    assert first["path"] == str(storage / "quickstart-1")
    assert first["silent_s"] >= 3
    assert second["state"] == "finished"


def test_many_that_are_finished_are_counted(storage, capsys):
    for number in range(10, 30):
        begin(storage / f"quickstart-{number}", finished=True, **HERE)
    status(str(storage))
    out = capsys.readouterr().out
    assert out.count(" finished") == 5 + 1
    assert out.endswith("1 running, 21 finished (16 of them not shown), nothing to look at\n")


def test_no_run_is_bad_input(tmp_path):
    with pytest.raises(StorageError) as error:
        status(str(tmp_path))
    assert error.value.exit_code == 2
