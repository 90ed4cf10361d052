"""Faults at random moments of random runs, as values: the draw of a number follows from it and a seed alone."""

import random
from dataclasses import dataclass

STEPS, CHECKPOINT_EVERY, LOG_EVERY = 60, 10, 5

KINDS = {"plain": 6, "pbt": 1, "sweep": 1}
"""{kind of run: how often it is drawn}. Trainings, populations of two members, grids of two trials."""

FAULTS = {
    "kill worker": 4,
    "kill any process": 4,
    "kill driver": 3,
    "kill all": 2,
    "stop worker": 2,
    "stop driver": 1,
    "SIGTERM": 3,
    "SIGINT": 1,
    "SIGHUP": 1,
    "lost terminal": 2,
    "memory": 1,
    "full disk": 2,
    "damaged file": 4,
    "MLflow locked": 1,
    "MLflow away": 2,
    "MLflow throttled": 1,
    "S3 away": 3,
    "S3 throttled": 3,
}
"""{fault: how often it is drawn where it can happen}."""

ONLY_IN = {"full disk": "folder", "MLflow locked": "folder", "S3 away": "s3", "S3 throttled": "s3"}
"""{fault: the storage in which alone it can happen}; SQLite, which can be locked, is where the storage is a folder."""


@dataclass(frozen=True)
class Run:
    """What is run."""

    kind: str  # one of `KINDS`
    workers: int  # of a training, or of each trial
    zero: int  # stage of ZeRO
    storage: str  # `folder` or `s3`

    @property
    def key(self):
        """Names the runs that have to end alike: wherever they are stored."""
        return f"{self.kind}-workers-{self.workers}-zero-{self.zero}"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, in one process of the command."""

    what: str  # one of `FAULTS`
    after: str  # the moment: `start`, `step N`, `trial N` or `end of training`
    delay_s: float  # so long after that moment
    lasts_s: float  # of outages and processes that are stopped for a time
    which: float  # from 0 to 1: which of the processes, files, ...
    how: float  # from 0 to 1: how it is damaged


@dataclass(frozen=True)
class Draw:
    """A run, and the faults that happen to it, one in each of its processes."""

    seed: int
    number: int
    run: Run
    faults: tuple[Fault, ...]


def draw(seed, number):
    """The draw of a number."""
    rng = random.Random(f"{seed} {number}")
    run = _run(rng)
    possible = {what: often for what, often in FAULTS.items() if ONLY_IN.get(what, run.storage) == run.storage}
    count = rng.choices([1, 2, 3], [5, 3, 1])[0]
    return Draw(seed, number, run, tuple(_fault(rng, run, _choice(rng, possible)) for _ in range(count)))


def _run(rng):
    kind = _choice(rng, KINDS)
    # Two trials of one worker run side by side on two CPUs.
    workers = rng.choices([1, 2], [3, 1])[0] if kind == "plain" else 1
    return Run(kind, workers, rng.choice([0, 1, 2]) if kind == "plain" else 1, rng.choices(["folder", "s3"], [2, 1])[0])


def _fault(rng, run, what):
    where = rng.choices(["start", "middle", "end of training"], [2, 7, 2])[0]
    if run.kind == "plain":
        after = f"step {rng.randrange(1, STEPS)}" if where == "middle" else where
        delay_s = rng.uniform(0, {"start": 15, "middle": 1}.get(where, 5))
    else:
        after = "start" if where == "start" else f"trial {rng.randrange(1, 3)}"
        delay_s = rng.uniform(0, 15 if where == "start" else 30)
    return Fault(what, after, round(delay_s, 2), round(rng.uniform(2, 25), 1), rng.random(), rng.random())


def _choice(rng, weights):
    return rng.choices(list(weights), list(weights.values()))[0]
