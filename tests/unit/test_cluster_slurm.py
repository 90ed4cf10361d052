"""The SLURM script, with programs in SLURM's and Ray's place that write down how they were called."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm" / "ray.sbatch"

PROGRAMS = {
    "scontrol": "printf 'node1\\nnode2\\nnode3\\n'",
    "srun": """
        echo "$*" >>"$CALLS/srun"
        while [[ $1 == --* ]]; do shift; done
        exec "$@"
    """,
    "ray": """
        if [[ $1 == status ]]; then
            # As long as its nodes have not started, there are none to show.
            until (($(cat "$CALLS"/processes 2>/dev/null | wc -l) == STEPS)); do sleep 0.05; done
            [[ $RAY_ADDRESS == node1:6379 ]] && printf 'Active:\\n%s' "$NODES"
            exit
        fi
        echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" >>"$CALLS/tokens"
        echo $$ >>"$CALLS/processes"
        exec sleep 60
    """,
    "trainer": """
        echo "$RAY_ADDRESS $RAY_AUTH_TOKEN $*" >"$CALLS/trainer"
        exit 7
    """,
}


@pytest.fixture
def run(tmp_path):
    """Runs the script as SLURM would; gives (its exit code, its errors, {file: lines} of the calls)."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    calls.mkdir()
    for name, body in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}")
        (programs / name).chmod(0o755)

    def script(*arguments, **variables):
        for path in calls.iterdir():
            path.unlink()
        environment = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "CALLS": str(calls),
            "SHARED": "/shared",
            "NODES": "".join(f" 1 node_{i}\n" for i in range(3)),
            "STEPS": "2",
            "SLURM_JOB_ID": "42",
            "SLURM_JOB_NODELIST": "node[1-3]",
            "SLURM_JOB_NUM_NODES": "3",
            "SLURM_CPUS_PER_TASK": "4",
        } | variables
        # A file, not a pipe: what the script left running would hold a pipe open.
        with (tmp_path / "errors").open("w") as errors:
            done = subprocess.run(["bash", SCRIPT, *arguments], env=environment, stderr=errors, timeout=99, check=False)
        said = {path.name: path.read_text().splitlines() for path in calls.iterdir()}
        return done.returncode, (tmp_path / "errors").read_text(), said

    return script


def test_shellcheck_finds_nothing():
    path = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert path, "shellcheck is not installed; pip install '.[dev]'"
    done = subprocess.run([path, SCRIPT], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_the_job_ends_with_the_code_of_the_command_and_leaves_nothing_running(run):
    code, _, calls = run("trainer", "one word", "--flag")
    assert code == 7
    assert calls["trainer"][0].startswith("node1:6379 ")
    assert calls["trainer"][0].endswith(" one word --flag")
    assert len(calls["processes"]) == 2
    deadline = time.monotonic() + 100
    while any(psutil.pid_exists(int(process)) for process in calls["processes"]):
        assert time.monotonic() < deadline, "ray was left running"
        time.sleep(0.05)


def test_the_first_node_is_the_head_and_the_others_join_it(run):
    _, _, calls = run("trainer")
    head, workers = sorted(calls["srun"], key=lambda call: "--head" not in call)
    assert "--nodes=1 --ntasks=1 --nodelist=node1 ray start --head --block --port=6379 --num-cpus=4" in head
    assert "--nodes=2 --ntasks=2 --exclude=node1 ray start --block --address=node1:6379 --num-cpus=4" in workers
    assert "--cpus-per-task=4" in head
    assert "--cpus-per-task=4" in workers


def test_one_node_has_no_workers(run):
    code, _, calls = run("trainer", SLURM_JOB_NUM_NODES="1", NODES=" 1 node_0\n", STEPS="1")
    assert code == 7
    assert len(calls["srun"]) == 1


def test_all_share_a_token_that_is_each_jobs_own(run):
    _, _, calls = run("trainer")
    assert len(calls["tokens"]) == 2
    (token,) = {line.removeprefix("token ") for line in calls["tokens"]}
    assert len(bytes.fromhex(token)) == 32
    assert calls["trainer"][0].split()[1] == token
    _, _, calls = run("trainer")
    assert token not in calls["tokens"][0]


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "message"),
    [
        ([], {}, 2, "run what? sbatch cluster/slurm/ray.sbatch hbtrain train quickstart"),
        (["trainer"], {"SHARED": ""}, 1, "SHARED: name the folder that all nodes see"),
    ],
)
def test_what_is_missing_is_said(run, arguments, variables, code, message):
    found, errors, calls = run(*arguments, **variables)
    assert found == code
    assert message in errors
    assert not calls


def test_options_stand_before_the_first_command():
    lines = SCRIPT.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    options = [i for i, line in enumerate(lines) if line.startswith("#SBATCH ")]
    assert options
    assert max(options) < first


@pytest.mark.parametrize(("sent", "code"), [("USR1", 143), ("TERM", 143)])
def test_the_warning_before_the_time_limit_reaches_the_command_which_ends_in_its_own_way(run, sent, code):
    waits = """
        trap 'echo asked >>"$CALLS/trainer"; sleep 0.3; exit 143' USR1 TERM
        echo begins >>"$CALLS/trainer"
        kill -SIGNAL "$PPID"
        for _ in {1..200}; do sleep 0.05; done
        exit 3
    """
    ended, errors, calls = run("bash", "-c", waits.replace("SIGNAL", sent))
    assert ended == code, errors
    assert calls["trainer"] == ["begins", "asked"]
    assert any(line == "#SBATCH --signal=B:USR1@300" for line in SCRIPT.read_text().splitlines())
