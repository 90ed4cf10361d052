"""On the PYTHONPATH of a run that is to be hurt: makes its workers do what files in `$HBTRAIN_FAULTS` ask for.

A worker leaves its process id in `rank-R`, and the number of the step that it is in in `step-R`. A file `hang-R-PHASE`
makes rank R wait for ever when that phase begins, and `kill-R-PHASE` makes it kill -9 itself there; the file's text is
a delay in seconds. `eat-R-PHASE` makes it take memory without end. Each file works once. With `$HBTRAIN_PACE_S` each
step takes so much longer: time to come between, which costs no work.
"""

import importlib.abc
import importlib.machinery
import os
import signal
import sys
import threading
import time
from pathlib import Path

import quick_start  # noqa: F401

FOLDER = Path(os.environ.get("HBTRAIN_FAULTS", ""))
TARGET = "hbtrain.runs.hang_detection"
TOLD = set()
PACE_S = float(os.environ.get("HBTRAIN_PACE_S", "0"))


class Finder(importlib.abc.MetaPathFinder):
    """Finds TARGET as anyone would, and wraps `Heartbeat.begin_phase` once it is loaded."""

    def find_spec(self, name, path, target=None):
        if name != TARGET:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module.Heartbeat.begin_phase = hurting(module.Heartbeat.begin_phase)

        spec.loader.exec_module = exec_module
        return spec


def hurting(begin_phase):
    def begin_and_hurt(self, phase, step=None):
        begin_phase(self, phase, step)
        rank = self._progress.rank
        if os.getpid() not in TOLD:
            TOLD.add(os.getpid())
            (FOLDER / f".rank-{rank}").write_text(str(os.getpid()))
            (FOLDER / f".rank-{rank}").rename(FOLDER / f"rank-{rank}")
        name = f"{rank}-{phase.replace(' ', '-')}"
        delay_s = asked(f"kill-{name}")
        if delay_s is not None:
            threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()
        if asked(f"hang-{name}") is not None:
            time.sleep(10_000)
        if asked(f"eat-{name}") is not None:
            taken = []
            while True:
                taken.append(b"\1" * 2**26)
                time.sleep(0.02)
        if phase == "encode":
            (FOLDER / f"step-{rank}").write_text(str(self._progress.step))
            time.sleep(PACE_S)

    return begin_and_hurt


def asked(name):
    file = FOLDER / name
    if not file.exists():
        return None
    delay_s = float(file.read_text() or 0)
    file.unlink()
    return delay_s


if os.environ.get("HBTRAIN_FAULTS"):
    sys.meta_path.insert(0, Finder())
