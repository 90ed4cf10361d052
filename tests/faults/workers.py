"""Workers, drivers and processes that die or hang."""

import os
import re
import signal

import psutil

from tests.faults.hurt import NO_SCORES, HurtRun, Seen
from tests.faults.row import Row, line_with, no_traceback, survived

KEPT = "checkpoint of step 100 kept"
STEP_TIMEOUT = ["--training.step_timeout_s", "15"]


def went_on(seen, at_least=100):
    return {"went on from a checkpoint": bool(seen.resumed) and seen.resumed[-1] >= at_least}


def worker_killed(folder, rank=1):
    """kill -9 of a worker."""
    with HurtRun(folder, *NO_SCORES) as run:
        run.wait_for(KEPT)
        os.kill(run.pid(rank), signal.SIGKILL)
        seen = Seen.of(run)
    checks = survived(seen) | went_on(seen)
    return Row(f"rank {rank} killed", "kill -9 of its process after step 100 of 300", seen, said(seen), checks)


def rank_0_killed(folder):
    """kill -9 of rank 0, which speaks for all and saves the model."""
    return worker_killed(folder, rank=0)


def killed_while_saving(folder, rank=1):
    """kill -9 while a checkpoint is being written."""
    with HurtRun(folder, *NO_SCORES) as run:
        run.wait_for(KEPT)
        run.ask("kill", rank, "checkpoint", delay_s=0.02)
        seen = Seen.of(run)
    checks = survived(seen) | went_on(seen)
    done = f"kill -9 of rank {rank}, 20 ms after it began to save a checkpoint"
    return Row("killed while saving", done, seen, said(seen), checks)


def driver_killed(folder):
    """kill -9 of the command and all that it started; then the same command again."""
    with HurtRun(folder, *NO_SCORES) as run:
        run.wait_for(KEPT)
        run.kill_all()
    with HurtRun(folder, *NO_SCORES) as run:
        seen = Seen.of(run)
    folders = list((run.folder / "runs").glob("quickstart-*"))
    checks = survived(seen) | went_on(seen) | {"the same run folder": len(folders) == 1}
    return Row(
        "driver killed", "kill -9 of the command and all below it; the same command again", seen, said(seen), checks
    )


def driver_terminated(folder):
    """SIGTERM to the command; then the same command again."""
    with HurtRun(folder, *NO_SCORES) as run:
        run.wait_for(KEPT)
        os.kill(run.process.pid, signal.SIGTERM)
        ended = Seen.of(run)
    at = int(re.findall(r"checkpoint of step (\d+) kept", ended.output)[-1])
    with HurtRun(folder, *NO_SCORES) as run:
        seen = Seen.of(run)
    checks = survived(seen) | went_on(seen, at)
    checks |= {"143 when terminated": ended.exit_code == 143, "MLflow run KILLED then": ended.mlflow == ["KILLED"]}
    checks |= {"no crash": "Traceback" not in ended.output and "***" not in ended.output}
    done = "SIGTERM to the command after step 100; the same command again"
    return Row("driver terminated", done, seen, line_with("ended by SIGTERM", ended.output), checks)


def worker_out_of_memory(folder, rank=1):
    """A worker takes memory without end, until Ray kills it."""
    used = psutil.virtual_memory()
    limit = 1 - (used.available - 6 * 2**30) / used.total  # six GiB for the run and for what else this machine does
    with HurtRun(folder, *NO_SCORES, RAY_memory_usage_threshold=f"{limit:.3f}") as run:
        run.wait_for(KEPT)
        pid = run.pid(rank)
        run.ask("eat", rank, "encode")
        seen = Seen.of(run)
    words = line_with("memory ran out", seen.output)
    checks = survived(seen) | went_on(seen) | named(words, rank, pid)
    checks |= {"what was used": "it used" in words and ", its node " in words, "what to lower": "lower " in words}
    checks |= {"in one line": words.endswith("(restart 1 of 3 without progress)")}
    done = f"rank {rank} takes memory until Ray's memory monitor kills it"
    return Row("worker out of memory", done, seen, words, checks)


def worker_stopped(folder, rank=1):
    """A worker's process is stopped as a whole."""
    with HurtRun(folder, *NO_SCORES, *STEP_TIMEOUT) as run:
        run.wait_for(KEPT)
        pid = run.pid(rank)
        os.kill(pid, signal.SIGSTOP)
        seen = Seen.of(run)
    words = line_with(" hangs since ", seen.output)
    checks = survived(seen) | went_on(seen) | named(words, rank, pid) | {"as stopped": "stopped or cut off" in words}
    return Row("worker stopped", f"SIGSTOP of rank {rank}; step_timeout_s 15", seen, words, checks)


def worker_waits_for_ever(folder, rank=0, phase="encode"):
    """The training thread of one rank waits for ever, its process answers."""
    with HurtRun(folder, *NO_SCORES, *STEP_TIMEOUT) as run:
        run.wait_for(KEPT)
        pid = run.pid(rank)
        run.ask("hang", rank, phase)
        seen = Seen.of(run)
    words = line_with(" hangs since ", seen.output)
    checks = survived(seen) | went_on(seen) | named(words, rank, pid) | {"its phase": f"in phase {phase} of" in words}
    done = f"rank {rank} sleeps without end when it comes to `{phase}`; step_timeout_s 15"
    return Row("training thread hangs", done, seen, words, checks)


def worker_stopped_once_too_often(folder, rank=1):
    """The same, with no restarts left."""
    with HurtRun(folder, *NO_SCORES, *STEP_TIMEOUT, "--training.max_failures", "0") as run:
        run.wait_for(KEPT)
        pid = run.pid(rank)
        os.kill(pid, signal.SIGSTOP)
        seen = Seen.of(run)
    words = line_with("error: ", seen.output)
    checks = named(words, rank, pid) | no_traceback(seen)
    checks |= {
        "exit code 1": seen.exit_code == 1,
        "the last good checkpoint": "the last good checkpoint is " in words,
        "MLflow run FAILED": seen.mlflow == ["FAILED"],
    }
    done = f"SIGSTOP of rank {rank}; step_timeout_s 15, max_failures 0"
    return Row("worker stopped, no restarts left", done, seen, words, checks)


def named(words, rank, pid):
    return {"the rank and its process are named": f"rank {rank} on node" in words and f"(pid {pid})" in words}


def said(seen):
    return line_with("goes on from the checkpoint", seen.output)
