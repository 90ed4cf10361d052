"""The campaign for GPUs runs from beginning to end, and loses nothing where a stage fails, hangs or dies."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.bench.bench_gpu import stages_of
from tests.bench.gpu import campaign
from tests.bench.gpu.campaign import LeftOut, Stage, run_campaign, run_stage
from tests.bench.gpu.lines import Lines
from tests.bench.gpu.settings import SIZES, Settings
from tests.distributed.ranks import run_ranks


def all_lines(folder):
    """The lines of every stage at the least size, in this process."""
    settings, lines = Settings("cpu", SIZES["least"], Path(folder), None, threads=1), []
    settings.prepare_process()
    for stage in stages_of(settings.sizes):
        run_stage(stage, settings, lines.append, time.monotonic() + 300)
    return lines


def test_every_stage_runs_on_a_cpu(tmp_path):
    (lines,) = run_ranks(all_lines, 1, str(tmp_path), connect=False)
    assert not [line for line in lines if "failed" in line]
    ends = {line["stage"]: line for line in lines if line["case"] == "end"}
    assert list(ends) == [stage.name for stage in stages_of(SIZES["least"])]
    assert {name for name, line in ends.items() if "left_out" in line} == {"ranks", "largest"}
    assert all(line["right"] for line in lines if line["stage"] == "gradients" and line["case"] != "end")
    for line in lines:
        equal = [value for name, value in line.items() if name.endswith("equal_to_the_last_bit")]
        assert all(equal), line
        assert line.get("pairs_per_s", 1) > 0
    table = Lines("cpu")
    for line in lines:
        table.add(line)
    assert table.table().count("\n| step-") == 6, "ours, theirs and the ratio for two batches"


class Nothing:
    """Settings of stages that need none."""

    device = torch.device("cpu")

    def prepare_process(self):
        pass


def right(settings):
    yield {"case": "one", "figure": 1.23456}
    yield {"case": "two", "figure": 2}


def wrong(settings):
    yield {"case": "one", "figure": 1}
    raise ValueError("too small\nby much")


def without_memory(settings):
    raise torch.OutOfMemoryError("Tried to allocate 1 TiB")
    yield


def broken(settings):
    raise RuntimeError("CUDA error: an illegal memory access was encountered")
    yield


def absent(settings):
    yield {"case": "one", "figure": 1}
    raise LeftOut("there is no second device")


def endless(settings):
    yield {"case": "one", "figure": 1}
    while True:
        time.sleep(0.01)


def deaf(settings):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    yield from endless(settings)


def dying(settings):
    yield {"case": "one", "figure": 1}
    os._exit(3)


@pytest.fixture
def campaign_of(monkeypatch, tmp_path):
    monkeypatch.setattr(campaign, "CONTEXT", multiprocessing.get_context("fork"))
    monkeypatch.setattr(campaign, "GRACE_S", 1.0)
    monkeypatch.setattr(campaign, "LEAST_S", 0.05)

    def run(seconds, budget_s, *functions):
        lines = Lines("none", tmp_path / "results" / "lines.jsonl")
        stages = [Stage(f.__name__, seconds * campaign.USUAL_S / budget_s, f) for f in functions]
        run_campaign(stages, Nothing(), lines, budget_s)
        written = (tmp_path / "results" / "lines.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in written] == lines.all
        return lines

    return run


def test_what_fails_or_ends_the_process_is_a_line_and_the_next_stage_goes_on(campaign_of):
    failing = (wrong, without_memory, broken, absent, endless, deaf, dying)
    lines = campaign_of(2, 120, *(f for failure in failing for f in (failure, right)))
    reasons = [line.get("failed") or line.get("left_out") for line in lines.all]
    assert [reason for reason in reasons if reason] == [
        "ValueError: too small",
        "out of memory: Tried to allocate 1 TiB",
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        "there is no second device",
        "cut off after 2 s; the lines before are whole",
        "it did not end in its time, and its process was killed after 1 s more",
        "its process ended with exit code 3",
    ]
    figures = [(line["stage"], line["figure"]) for line in lines.all if "figure" in line]
    for failure in failing:
        if failure not in (without_memory, broken):
            assert (failure.__name__, 1) in figures, "what was measured before"
    assert figures.count(("right", 1.235)) == figures.count(("right", 2)) == len(failing)
    table = lines.table()
    assert "| right | one | figure 1.235 |" in table
    assert "- `wrong` failed: ValueError: too small" in table
    assert Lines.read(lines._output).table() == table


def test_what_one_stage_changes_in_torch_is_not_there_for_the_next(monkeypatch):
    """ZeRO-3 has DeepSpeed replace the function of linear layers, for good."""
    before = torch.nn.functional.linear

    def replacing(settings):
        monkeypatch.setattr(torch.nn.functional, "linear", lambda x, weight, bias=None: x @ weight.T)
        yield {"case": "one", "figure": 1}

    assert run_stage(Stage("one", 5, replacing), Nothing(), lambda line: None, time.monotonic() + 5)
    assert torch.nn.functional.linear is before


def test_a_campaign_ends_in_its_time_and_names_what_it_had_none_for(campaign_of):
    started = time.monotonic()
    lines = campaign_of(60, 2, right, endless, right, wrong)
    assert time.monotonic() - started < 10
    assert [line.get("case") for line in lines.all[:3]] == ["one", "two", "end"]
    assert [line["left_out"] for line in lines.all if "left_out" in line] == ["the campaign's 2 s were over"] * 2


def starting(command):
    def compile_something(settings):
        os.system(command)
        yield {"case": "one", "figure": 1}

    return compile_something


@pytest.mark.parametrize(
    ("command", "started"),
    [
        ("nvcc -c kernel.cu 2> /dev/null", ["nvcc -c kernel.cu 2> /dev/null"]),
        ("/usr/bin/ninja --version > /dev/null 2>&1", []),
        ("true ninja", []),
    ],
)
def test_compilers_that_a_stage_starts_are_named(command, started):
    lines = []
    run_stage(Stage("one", 5, starting(command)), Nothing(), lines.append, time.monotonic() + 5)
    assert lines[-1]["compilers_started"] == started
