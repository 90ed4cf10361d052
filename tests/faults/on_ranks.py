"""Random faults of trainings on gloo ranks, without Ray: seconds a draw, and a kill may come in any phase of a step.

They are stored in a folder, or in a bucket; those in a bucket are made of segments, as the trials of a search are.
"""

import contextlib
import json
import os
import random
import signal
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch.distributed as dist
from safetensors.numpy import load, load_file

from hbtrain.config import load_config, to_tree
from hbtrain.storage import clear_leftovers, place
from tests import s3
from tests.distributed.ranks import run_ranks
from tests.distributed.test_engine_ranks import worker
from tests.faults.gate import Gate
from tests.faults.outcome import COMPARED, Outcome
from tests.faults.random_faults import UNHURT_PROCESSES, damaged

STEPS = 12
PHASES = 18 * STEPS
"""About as many as a rank begins: beyond them a fault comes too late."""
FAULTS = {
    "folder": {"kill worker": 4, "SIGTERM": 1, "full disk": 1, "damaged file": 2},
    "s3": {"kill worker": 3, "SIGTERM": 1, "damaged file": 2, "S3 away": 2, "S3 throttled": 2},
}
"""{storage: {fault: how often it is drawn}}."""
SEGMENTS = [(), (4,), (6,), (5, 9), (3, 6, 9)]
"""Steps at which a training in a bucket stops, and then goes on."""
OVERRIDES = {
    "training.steps": STEPS,
    "training.checkpoint_every": 3,
    "training.log_every": 3,
    "batching.global_batch_size": 16,
    "encoder.static": {"dimension": 8, "vocabulary_size": 300},
    "evaluation.benchmarks": [],
}
WITH_BEST = {"data.validation": "demo-heldout", "training.validate_every": 2, "training.learning_rate": 1.0}
"""With these the best encoder by validation loss is what is saved; at this rate it is seldom the last one."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, in one attempt."""

    what: str  # one of `FAULTS`
    phase: int  # in which phase of the victim it happens
    victim: int  # the rank
    which: float  # from 0 to 1: which file, or how long the storage is away
    how: float  # from 0 to 1: how a file is damaged


@dataclass(frozen=True)
class Home:
    """Where a training is: a folder, and where it is stored in a bucket that as well."""

    folder: Path  # of what is told, and without a bucket of checkpoints and model
    bucket: s3.Bucket | None = None
    gate: Gate | None = None  # in front of the bucket

    @property
    def storage(self):
        return str(self.folder) if self.bucket is None else f"{self.bucket.uri}/run"

    def files(self):
        """Names of all files of checkpoints."""
        if self.bucket is not None:
            return self.bucket.keys("run/checkpoints/")
        found = (self.folder / "checkpoints").rglob("*")
        return sorted(str(file.relative_to(self.folder)) for file in found if file.is_file())

    def damage(self, fault):
        """Change, cut off or delete a file of a checkpoint; which, or None where there is none."""
        names = self.files()
        if not names:
            return None
        name = names[int(fault.which * len(names))]
        file = self.folder / name
        how, content = damaged(file.read_bytes() if self.bucket is None else self.bucket.get(name), fault.how)
        if self.bucket is not None:
            self.bucket.delete(name) if content is None else self.bucket.put(name, content)
        elif content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        return f"{how} {name.partition('checkpoints/')[2]}"

    def outcome(self):
        """How the training ended."""
        figures = {}
        for line in (self.folder / "events").read_text().splitlines():
            step, metrics = json.loads(line)
            for name, value in metrics.items():
                if name.startswith(COMPARED):
                    figures.setdefault(name, {})[step] = value
        name = "model/model.safetensors"
        weights = load_file(self.folder / name) if self.bucket is None else load(self.bucket.get(f"run/{name}"))
        return Outcome(weights, {"training": figures}, {})


def happen_on_ranks(seed, number, references, storage="folder"):
    """Carry out a draw; the line that tells how it went, as that of `random_faults.happen`.

    In folder `references` the runs that were not hurt are kept, with the corpus and the model that all start from.
    """
    rng = random.Random(f"ranks {seed} {number}" if storage == "folder" else f"ranks {storage} {seed} {number}")
    workers, zero, best = rng.choice([1, 2]), rng.choice([0, 1, 2]), rng.choice([True, False])
    known = FAULTS[storage]
    whats = rng.choices(list(known), list(known.values()), k=rng.choice([1, 2, 3, 4]))
    faults = [Fault(what, rng.randrange(PHASES), rng.randrange(workers), rng.random(), rng.random()) for what in whats]
    stops = () if storage == "folder" else rng.choice(SEGMENTS)
    began = time.monotonic()
    tree = _tree(references, zero, best)
    stopping = "".join(f"-{stop}" for stop in stops)
    unhurt = Home(Path(references) / f"workers-{workers}-zero-{zero}-{'best' if best else 'last'}{stopping}")
    if not unhurt.folder.exists():
        assert _attempt(tree, references, unhurt, workers, stops, None)["exit_code"] == 0
    with _home(storage) as home:
        processes = _attempts(tree, references, home, workers, stops, faults)
        ended = processes[-1]["exit_code"] == 0
        wrong = unhurt.outcome().differences(home.outcome()) if ended else ["it does not end"]
    return {
        "seed": seed,
        "number": number,
        "run": {"kind": "ranks", "workers": workers, "zero": zero, "storage": storage, "best": best, "stops": stops},
        "processes": processes,
        "as_unhurt": not wrong,
        "wrong": wrong,
        "seconds": round(time.monotonic() - began),
    }


@contextlib.contextmanager
def _home(storage):
    """A new place for a training; its ranks find the bucket by this process's environment."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hbtrain-fault-")))
        if storage == "folder":
            yield Home(folder)
            return
        endpoint = stack.enter_context(s3.server())
        gate = Gate(int(endpoint.rsplit(":", 1)[1]))
        stack.callback(gate.close)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in s3.environment(gate.address).items():
            patch.setenv(name, value)
        yield Home(folder, s3.Bucket(endpoint), gate)


def _attempts(tree, models, home, workers, stops, faults):
    """What was seen of each attempt, until one ends, or more fail without a fault than may."""
    seen, unhurt = [], 0
    while not seen or (seen[-1]["exit_code"] != 0 and unhurt < UNHURT_PROCESSES):
        fault = faults.pop(0) if faults else None
        unhurt += fault is None
        seen.append(_attempt(tree, models, home, workers, stops, fault))
    return seen


def _tree(folder, zero, best):
    """The configuration; makes the model that training starts from, once."""
    from hbtrain.corpus import ParallelCorpus
    from hbtrain.modeling.encoder import Encoder

    stage = {"training.deepspeed": {"zero_optimization": {"stage": zero}}}
    validation = WITH_BEST if best else {"data.validation": None}
    config = load_config("quickstart", {**OVERRIDES, **stage, **validation, "data.cache": f"{folder}/cache"})
    initial = Path(folder) / "initial"
    if not initial.exists():
        Encoder.build(config.encoder, ParallelCorpus.from_config(config).every_text, 0).save(initial)
    return to_tree(config)


def _attempt(tree, models, home, workers, stops, fault):
    """Train from the last checkpoint, with a fault or None; what was seen. The first model is in folder `models`."""
    home.folder.mkdir(exist_ok=True)
    begun = home.folder / "begun"  # made by the victim when the time of an outage has come
    begun.unlink(missing_ok=True)
    seen = {"fault": fault and fault.what, "when": f"in phase {fault.phase}" if fault else None}
    seen |= {"hit": None, "exit_code": 0}
    with _outage(home, begun, fault):
        try:
            if not all(run_ranks(_train, workers, tree, models, home.folder, home.storage, stops, fault)):
                seen |= {"exit_code": 143, "hit": "all ranks"}
        except AssertionError as error:  # a rank's end
            lines = str(error).strip().splitlines()
            seen |= {"exit_code": 1, "said": lines[-1:], "hit": f"rank {fault.victim} of {workers}" if fault else None}
    if fault and fault.what == "damaged file" and seen["exit_code"]:
        seen["hit"] = home.damage(fault)
    if fault and fault.what.startswith("S3 "):
        seen["hit"] = f"for {_lasts_s(fault):.1f} s" if begun.exists() else None
    return seen


def _lasts_s(fault):
    return 1 + 9 * fault.which


@contextlib.contextmanager
def _outage(home, begun, fault):
    """While the block runs, the storage is away or overloaded for a time once `begun` is there."""
    over = threading.Event()

    def watch():
        while not over.wait(0.02):
            if begun.exists():
                with home.gate.being(fault.what.split()[1]):
                    over.wait(_lasts_s(fault))
                return

    thread = threading.Thread(target=watch, daemon=True)
    if fault and fault.what.startswith("S3 "):
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.is_alive():
            thread.join()


def _train(tree, models, folder, storage, stops, fault):
    """What each rank does; whether training came to its end."""
    from hbtrain.config import from_tree
    from hbtrain.training import stopping
    from hbtrain.training.loop import train_worker

    stopping.VOTE_EVERY_S = 0.0  # at every step

    rank, begun = int(os.environ["RANK"]), 0

    def is_hurt(*whats):
        return fault is not None and rank == fault.victim and begun > fault.phase and fault.what in whats

    def on_phase(*_):
        nonlocal begun
        begun += 1
        if is_hurt("kill worker", "damaged file"):
            os.kill(os.getpid(), signal.SIGKILL)
        if is_hurt("S3 away", "S3 throttled"):
            (folder / "begun").touch()

    def emit(event):
        with (folder / "events").open("a") as file:
            file.write(json.dumps([event.step, dict(event.metrics)]) + "\n")

    def upload(part):
        if is_hurt("full disk"):
            raise OSError(28, "No space left on device", str(part.to))
        part.store()

    here = place(storage)
    if rank == 0:
        clear_leftovers(here)
    dist.barrier()
    done = folder / "stopped-at"  # the last of `stops` that was come to
    for stop in [*stops, None]:
        stopped = int(done.read_text()) if done.exists() else 0
        if stop is not None and stop <= stopped:
            continue
        own = replace(
            worker(models),
            checkpoints=here / "checkpoints",
            final_model=here / "model",
            emit=emit,
            upload=upload,
            on_phase=on_phase,
            is_stop_requested=lambda: is_hurt("SIGTERM"),
            protected_step=stopped or None,
        )
        if not train_worker(from_tree(tree), own, stop):
            return False
        dist.barrier()
        if rank == 0 and stop is not None:
            done.write_text(str(stop))
        dist.barrier()
    return True
