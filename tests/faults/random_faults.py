"""Runs that random faults happen to, resumed until they end: they are to end as the run that was never hurt."""

import contextlib
import os
import pickle
import signal
import sqlite3
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil

from tests.faults.draws import Fault, draw
from tests.faults.outcome import Outcome
from tests.faults.scene import Scene
from tests.integration.command import title

PACE_S = 0.15
"""How much longer each step of a run takes that is to be hurt: ten seconds of training in all."""
PATIENCE_S = 900
"""A process of the command that takes longer hangs."""
UNHURT_PROCESSES = 2
"""How often the command may be given again without a fault until it has to end well."""
HEADROOM = 6 * 2**30
"""How many more bytes than at its start a machine may use where memory is to run out: for all that runs on it."""

LASTING = {"stop driver", "MLflow locked"}
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "SIGHUP": signal.SIGHUP, "kill driver": signal.SIGKILL}


def happen(seed, number, references):
    """Carry out a draw; the line that tells how it went. `references` is a folder for the ends of unhurt runs."""
    drawn = draw(seed, number)
    unhurt = reference(drawn.run, references)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hbtrain-fault-", ignore_cleanup_errors=True) as folder:
        scene = Scene(drawn.run, folder, PACE_S)
        with scene.set_up(drawn.faults):
            processes = resumed_until_the_end(scene, list(drawn.faults))
            ended = processes[-1]["exit_code"] == 0
            scene.fetch()
            wrong = unhurt.differences(Outcome.of(scene.runs, scene.uri)) if ended else ["it does not end"]
        for i, process in enumerate(processes, 1):
            wrong += [f"process {i} shows a traceback"] if process.pop("traceback") else []
            wrong += [f"process {i} hangs"] if process["exit_code"] == "hangs" else []
        if wrong:
            wrong.append(f"last lines: {processes[-1]['said']}")
    run = drawn.run
    return {
        "seed": seed,
        "number": number,
        "run": {"kind": run.kind, "workers": run.workers, "zero": run.zero, "storage": run.storage},
        "processes": processes,
        "as_unhurt": not wrong,
        "wrong": wrong,
        "seconds": round(time.monotonic() - began),
    }


def reference(run, references):
    """The Outcome of the run that was never hurt."""
    file = Path(references) / f"{run.key}.pickle"
    if not file.exists():
        with tempfile.TemporaryDirectory(prefix="hbtrain-fault-", ignore_cleanup_errors=True) as folder:
            scene = Scene(replace(run, storage="folder"), folder)
            with scene.set_up():
                (process,) = resumed_until_the_end(scene, [])
                assert process["exit_code"] == 0, process
                file.write_bytes(pickle.dumps(Outcome.of(scene.runs, scene.uri)))
    return pickle.loads(file.read_bytes())


def resumed_until_the_end(scene, faults):
    """What was seen of each process of the command, until one ends well, or more fail without a fault than may."""
    seen, unhurt = [], 0
    while not seen or (seen[-1]["exit_code"] != 0 and unhurt < UNHURT_PROCESSES):
        fault = faults.pop(0) if faults else None
        unhurt += fault is None
        seen.append(one_process(scene, fault))
    return seen


def one_process(scene, fault):
    """Run the command, with a fault or None, to its end, and tell what was seen."""
    variables = {}
    if fault is not None and fault.what == "memory":
        memory = psutil.virtual_memory()
        share = (memory.total - memory.available + HEADROOM) / memory.total
        variables = {"RAY_memory_usage_threshold": f"{share:.3f}"}
    command, terminal = scene.start(**variables)
    with command:
        hit = None
        if fault is not None and reached(command, fault):
            hit = hurt(scene, command, terminal, fault)
        try:
            code = command.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            code = None
        time.sleep(0.1)  # for the terminal to show the last lines
        output = command.output
        if any(command.faults.glob("eat-*")) or any(command.faults.glob("kill-*")):
            hit = None  # it was asked for, and no rank came to it
        if code is None or (hit is not None and fault.what in {"kill all", "damaged file"}):
            command.kill_all()
    if scene.resize is not None:
        scene.resize("400m")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return {
        "fault": None if fault is None else fault.what,
        "when": None if fault is None else f"{fault.delay_s} s after {fault.after}",
        "hit": hit,
        "exit_code": "hangs" if code is None else code,
        "resumed": [line for line in lines if "goes on from the checkpoint" in line],
        "traceback": "Traceback (most recent call last)" in output,
        "said": lines[-3:] if code != 0 else [],
    }


def reached(command, fault: Fault):
    """Wait for the fault's moment; False if the command ended before."""
    what, _, number = fault.after.rpartition(" ")
    while not _is_there(command, what, number):
        if command.process.poll() is not None:
            return False
        time.sleep(0.02)
    wait(command, fault.delay_s)
    return command.process.poll() is None


def _is_there(command, what, number):
    if what == "step":
        steps = [file.read_text() for file in command.faults.glob("step-*")]
        return any(int(step or 0) >= int(number) for step in steps)
    if what == "trial":
        return command.output.count("  started") >= int(number)
    return number == "start" or "evaluating the trained model" in command.output


def hurt(scene, command, terminal, fault):
    """Bring the fault about; what was hit, in words, or None where there was nothing to hit."""
    if fault.what in SIGNALS:
        command.process.send_signal(SIGNALS[fault.what])
    elif fault.what == "lost terminal":
        terminal.lose()
    elif fault.what == "full disk":
        scene.full()
    elif fault.what in {"kill all", "damaged file"}:
        command.kill_all()
        scene.end_processes()
        return damage(scene, fault) if fault.what == "damaged file" else fault.what
    elif fault.what in LASTING or fault.what.split()[-1] in {"away", "throttled"}:
        with lasting(scene, command, fault.what):
            wait(command, fault.lasts_s)
        return f"for {fault.lasts_s} s"
    else:
        return hurt_process(scene.run, command, fault)
    return fault.what


@contextlib.contextmanager
def lasting(scene, command, what):
    """For the block the driver is stopped, MLflow's database locked, or a server away or overloaded."""
    if what == "stop driver":
        command.process.send_signal(signal.SIGSTOP)
        yield
        command.process.send_signal(signal.SIGCONT)
    elif what == "MLflow locked":
        with contextlib.closing(sqlite3.connect(scene.database, isolation_level=None, timeout=30)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.execute("ROLLBACK")
    else:
        server, state = what.split()
        with scene.gates[server].being(state):
            yield


def hurt_process(run, command, fault):
    """Kill, stop or bloat one of the command's processes."""
    victims = victims_of(command, fault.what)
    while not victims and command.process.poll() is None:
        wait(command, 0.1)
        victims = victims_of(command, fault.what)
    if not victims:
        return None
    victims.sort(key=lambda process: process.pid)
    victim = victims[int(fault.which * len(victims))]
    rank = int(fault.which * run.workers)
    if fault.what == "memory":
        command.ask("eat", rank, "encode")
        return f"rank {rank} takes memory without end"
    if fault.what == "kill worker" and fault.how < 0.3:
        command.ask("kill", rank, "checkpoint", fault.how / 3)
        return f"rank {rank}, {fault.how / 3:.3f} s after it begins to save a checkpoint"
    name = title(victim).split("/")[-1][:60]
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim.pid, signal.SIGSTOP if fault.what == "stop worker" else signal.SIGKILL)
    return name


def victims_of(command, what):
    """The processes, one of which is hurt; none where the command has ended."""
    try:
        below = psutil.Process(command.process.pid).children(recursive=True)
        return below if what == "kill any process" else command.train_workers()
    except psutil.NoSuchProcess:
        return []


def wait(command, seconds):
    """So long, or until the command ends."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        command.process.wait(seconds)


def damage(scene, fault):
    """Change, cut off or delete a file of a checkpoint, of a model or of results."""
    names = [name for name in scene.files() if {"ray", "model", "results"} & set(Path(name).parts)]
    if not names:
        return None
    name = names[int(fault.which * len(names))]
    words = []

    def change(content):
        how, changed = damaged(content, fault.how)
        words.append(how)
        return changed

    scene.change(name, change)
    return f"{words[0]} {name}"


def damaged(content, how):
    """What is damaged, in words, and the content after that, None where it is deleted; `how` is from 0 to 1."""
    if how < 1 / 3:
        return "the whole of", None
    if how < 2 / 3:
        return "the end of", content[: int((how * 3 - 1) * len(content))]
    return "a bit of", flipped(content, how * 3 - 2)


def flipped(content, where):
    """`content` with one bit changed."""
    if not content:
        return content
    i = int(where * len(content))
    return content[:i] + bytes([content[i] ^ 4]) + content[i + 1 :]
