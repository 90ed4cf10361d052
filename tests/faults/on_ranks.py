"""Random faults of trainings on gloo ranks, without Ray: seconds a draw, and a kill may come in any phase of a step."""

import json
import os
import random
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from safetensors.numpy import load_file

from hbtrain.config import load_config, to_tree
from tests.distributed.ranks import run_ranks
from tests.distributed.test_engine_ranks import worker
from tests.faults.outcome import COMPARED, Outcome
from tests.faults.random_faults import UNHURT_PROCESSES, damaged

STEPS = 12
PHASES = 18 * STEPS
"""Some more than a rank begins: beyond them a fault comes too late."""
FAULTS = {"kill worker": 4, "full disk": 1, "damaged file": 2}
OVERRIDES = {
    "training.steps": STEPS,
    "training.checkpoint_every": 3,
    "training.log_every": 3,
    "batching.global_batch_size": 16,
    "encoder.static": {"dimension": 8, "vocabulary_size": 300},
    "data.validation": None,
    "evaluation.benchmarks": [],
}


def happen_on_ranks(seed, number, references):
    """Carry out a draw; the line that tells how it went, as that of `random_faults.happen`.

    In folder `references` the runs that were not hurt are kept, with the corpus and the model that all start from.
    """
    rng = random.Random(f"ranks {seed} {number}")
    workers, zero = rng.choice([1, 2]), rng.choice([0, 1, 2])
    whats = rng.choices(list(FAULTS), list(FAULTS.values()), k=rng.choice([1, 2, 3, 4]))
    faults = [(what, rng.randrange(PHASES), rng.randrange(workers), rng.random(), rng.random()) for what in whats]
    began = time.monotonic()
    tree = _tree(references, zero)
    reference = Path(references) / f"workers-{workers}-zero-{zero}"
    if not reference.exists():
        assert _attempt(tree, references, reference, workers, None)["exit_code"] == 0
    with tempfile.TemporaryDirectory(prefix="hbtrain-fault-") as folder:
        processes, unhurt = [], 0
        while not processes or (processes[-1]["exit_code"] != 0 and unhurt < UNHURT_PROCESSES):
            fault = faults.pop(0) if faults else None
            unhurt += fault is None
            processes.append(_attempt(tree, references, Path(folder), workers, fault))
        ended = processes[-1]["exit_code"] == 0
        wrong = _outcome(reference).differences(_outcome(Path(folder))) if ended else ["it does not end"]
    return {
        "seed": seed,
        "number": number,
        "run": {"kind": "ranks", "workers": workers, "zero": zero, "storage": "folder"},
        "processes": processes,
        "as_unhurt": not wrong,
        "wrong": wrong,
        "seconds": round(time.monotonic() - began),
    }


def _tree(folder, zero):
    """The configuration; makes the model that training starts from, once."""
    from hbtrain.corpus import ParallelCorpus
    from hbtrain.modeling.encoder import Encoder

    stage = {"training.deepspeed": {"zero_optimization": {"stage": zero}}}
    config = load_config("quickstart", {**OVERRIDES, **stage, "data.cache": f"{folder}/cache"})
    initial = Path(folder) / "initial"
    if not initial.exists():
        Encoder.build(config.encoder, ParallelCorpus.from_config(config).every_text, 0).save(initial)
    return to_tree(config)


def _attempt(tree, home, folder, workers, fault):
    """Train in a folder, from its last checkpoint, with a fault or None; what was seen. The model is in `home`."""
    folder.mkdir(exist_ok=True)
    seen = {"fault": fault and fault[0], "when": f"in phase {fault[1]}" if fault else None, "hit": None, "exit_code": 0}
    try:
        run_ranks(_train, workers, tree, home, folder, fault)
    except AssertionError as error:
        lines = str(error).strip().splitlines()
        seen |= {"exit_code": 1, "said": lines[-1:], "hit": f"rank {fault[2]} of {workers}" if fault else None}
    if fault and fault[0] == "damaged file" and seen["exit_code"]:
        seen["hit"] = _damage(folder / "checkpoints", fault)
    return seen


def _train(tree, home, own, fault):
    """What each rank does."""
    from hbtrain.config import from_tree
    from hbtrain.training.loop import train_worker

    rank, begun = int(os.environ["RANK"]), 0
    what, phase, victim, _, _ = fault or ("", -1, -1, 0, 0)

    def on_phase(*_):
        nonlocal begun
        begun += 1
        if rank == victim and begun > phase and what != "full disk":
            os.kill(os.getpid(), signal.SIGKILL)

    def emit(event):
        with (own / "events").open("a") as file:
            file.write(json.dumps([event.step, dict(event.metrics)]) + "\n")

    def upload(part):
        if rank == victim and begun > phase and what == "full disk":
            raise OSError(28, "No space left on device", str(part.to))
        part.store()

    train_worker(
        from_tree(tree),
        replace(
            worker(home, checkpoints=own / "checkpoints"),
            final_model=own / "model",
            emit=emit,
            upload=upload,
            on_phase=on_phase,
        ),
    )


def _damage(checkpoints, fault):
    """Change, cut off or delete a file of a checkpoint; which, or None where there is none."""
    files = sorted(file for file in checkpoints.rglob("*") if file.is_file())
    if not files:
        return None
    file = files[int(fault[3] * len(files))]
    how, content = damaged(file.read_bytes(), fault[4])
    file.unlink() if content is None else file.write_bytes(content)
    return f"{how} {file.relative_to(checkpoints)}"


def _outcome(folder):
    figures = {}
    for line in (folder / "events").read_text().splitlines():
        step, metrics = json.loads(line)
        for name, value in metrics.items():
            if name.startswith(COMPARED):
                figures.setdefault(name, {})[step] = value
    return Outcome(load_file(folder / "model" / "model.safetensors"), {"training": figures}, {})
