"""Stages that show what is right on the device: gradients, dropout, checkpoints, exact scores."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from hbtrain.config import Config
from hbtrain.modeling.gather import ProcessGroup
from hbtrain.retrieval.top import top_scores
from hbtrain.training.loop import Trainer
from hbtrain.training.verify import compare, plain_gradient, trained_gradient
from hbtrain.training.worker import Worker
from tests.bench.gpu.campaign import Line
from tests.bench.gpu.settings import Settings
from tests.bench.trainers import silent_worker
from tests.distributed.verify_matrix import build_initial, config, write_source

CHUNKS = (1, 4)
TRANSFORMER = {"layers": 2, "hidden_size": 128, "heads": 2, "intermediate_size": 256, "vocabulary_size": 300}
"""Heads of 64 dimensions, as real backbones have them: attention has other kernels for smaller ones."""
CHECKPOINT_STEPS = 3


def small(settings: Settings, stage: int, chunks: int, precision: str, **changes: object) -> Config:
    """A small transformer with dropout over rows that collide, with hard negatives and a symmetric loss."""
    folder = settings.folder / "small"
    if not folder.exists():
        folder.mkdir()
        write_source(folder)
    changes = {"encoder.transformer": {**TRANSFORMER, "dropout": 0.1}, **changes}
    made = config(folder, 1, stage, chunks, precision, False, **changes)
    if not (folder / "initial").exists():
        build_initial(folder, made)
    return made


def small_worker(settings: Settings, **options: object) -> Worker:
    folder = settings.folder / "small"
    return silent_worker(ProcessGroup(), settings.device, folder / "initial", folder, **options)


def gradients(settings: Settings) -> Iterator[Line]:
    """The gradient of every ZeRO stage, precision and number of chunks against a plain process on the same device, and
    the plain one in fp32 against that of a CPU."""
    plain = {}
    for precision in ("fp32", "bf16"):
        made = small(settings, 0, 1, precision)
        plain[precision] = plain_gradient(made, settings.folder / "small" / "initial", 0, settings.device)
        for stage in settings.sizes.zero_stages:
            worst: Line = {"norm_off": 0.0, "cosine_off": 0.0, "right": True}
            for chunks in CHUNKS:
                got = trained_gradient(small(settings, stage, chunks, precision), small_worker(settings), 0)
                found = compare(got, plain[precision], made.encoder.precision)
                worst["norm_off"] = max(worst["norm_off"], abs(found.norm_ratio - 1))
                worst["cosine_off"] = max(worst["cosine_off"], abs(found.cosine - 1))
                worst["right"] &= found.holds
            yield {"case": f"{precision}, ZeRO {stage}, chunks {' and '.join(map(str, CHUNKS))}"} | worst
    on_cpu = plain_gradient(small(settings, 0, 1, "fp32"), settings.folder / "small/initial", 0, torch.device("cpu"))
    found = compare(plain["fp32"], on_cpu, "fp32")
    off = {"norm_off": abs(found.norm_ratio - 1), "cosine_off": abs(found.cosine - 1), "right": found.holds}
    yield {"case": "plain, fp32, against a CPU"} | off


class Recorder:
    """An engine that keeps the vectors which it gave."""

    def __init__(self, engine: object) -> None:
        self.vectors: list[torch.Tensor] = []
        self._engine = engine

    def __call__(self, *inputs: object) -> object:
        found = self._engine(*inputs)
        self.vectors += [x.detach().clone() for x in found[0]]
        return found

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)


def dropout(settings: Settings) -> Iterator[Line]:
    """Whether both passes of the gradient cache draw the same dropout: equal to the last bit; and that it does draw."""
    for precision in ("fp32", "bf16"):
        for checkpointing in (False, True):
            changes = {"encoder.gradient_checkpointing": checkpointing}
            trainer = Trainer(small(settings, 0, 4, precision, **changes), small_worker(settings))
            trainer.module.train()
            trainer.gradients._engine = recorder = Recorder(trainer.engine)
            for work in trainer.feed.steps(0, 1):
                trainer.backward(work)
            count = len(recorder.vectors) // 2
            first, second = recorder.vectors[:count], recorder.vectors[count:]
            off = max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))
            trainer.module.eval()
            (without, *_), _ = trainer.engine(trainer.delivery.now(work).chunks[0].batches)
            yield {
                "case": f"{precision}{', gradient checkpointing' if checkpointing else ''}",
                "passes_equal_to_the_last_bit": all(map(torch.equal, first, second)),
                "largest_difference": off,
                "drops": not torch.equal(without, first[0]),
            }


def checkpoints(settings: Settings) -> Iterator[Line]:
    """A checkpoint of this device is read by a process that sees no GPU: the same weights to the last bit."""
    for stage in settings.sizes.zero_stages[:2]:
        folder = settings.folder / f"read-{stage}"
        changes = {
            "training.checkpoint_every": CHECKPOINT_STEPS,
            "training.steps": 2 * CHECKPOINT_STEPS,
            "training.warmup_steps": 0,
        }
        made = small(settings, stage, 1, "bf16", **changes)
        trainer = Trainer(made, _reading(settings, folder))
        trainer.run(until=CHECKPOINT_STEPS)
        torch.save(trainer.engine.trained_weights(), folder / "weights.pt")
        if settings.device.type == "cpu":
            equal, step = read_back(made, _reading(settings, folder), folder)
        else:
            equal, step = _in_a_process_without_gpu(settings, stage)
        yield {"case": f"bf16, ZeRO {stage}", "weights_equal_to_the_last_bit": equal, "step": step}


def _reading(settings: Settings, folder: Path) -> Worker:
    folder.mkdir(exist_ok=True)
    return silent_worker(ProcessGroup(), settings.device, settings.folder / "small" / "initial", folder)


def read_back(made: Config, worker: Worker, folder: Path) -> tuple[bool, int]:
    """Whether the weights of a checkpoint are those that were saved beside it, and its step."""
    trainer = Trainer(made, worker)
    step = trainer.checkpoints.restore()
    expected, found = torch.load(folder / "weights.pt"), trainer.engine.trained_weights()
    return expected.keys() == found.keys() and all(torch.equal(x, expected[name]) for name, x in found.items()), step


def _in_a_process_without_gpu(settings: Settings, stage: int) -> tuple[bool, int]:
    code = f"from tests.bench.gpu.exactness import read_on_cpu; read_on_cpu({str(settings.folder)!r}, {stage})"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        raise RuntimeError(f"the checkpoint could not be read: {done.stderr.strip().splitlines()[-1]}")
    equal, step = done.stdout.split()[-2:]
    return equal == "True", int(step)


def read_on_cpu(folder: str, stage: int) -> None:
    """Print what `read_back` finds, in a process that has no GPU."""
    settings = Settings("cpu", None, Path(folder), None)
    settings.prepare_process()
    place = settings.folder / f"read-{stage}"
    print(*read_back(small(settings, stage, 1, "bf16"), _reading(settings, place), place))


def scores(settings: Settings) -> Iterator[Line]:
    """The lists of `top_scores` against float64, with full float32 in the process and where it asked for TF32, which
    must be the same; beside them what a plain product is off by."""
    sizes, depth = settings.sizes, 10
    rng = np.random.default_rng(0)
    queries, candidates = min(sizes.queries, 512), min(sizes.candidates, 100_000)
    q_BD, p_ND = (rng.standard_normal((n, sizes.dimension), np.float32) for n in (queries, candidates))
    q_BD, p_ND = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q_BD, p_ND))
    on_device = torch.from_numpy(p_ND).to(settings.device)
    exact = torch.from_numpy(q_BD).double().to(settings.device) @ on_device.double().T
    best = exact.topk(depth, dim=1)
    found = {}
    before = torch.get_float32_matmul_precision()
    search = partial(top_scores, q_BD, on_device, [slice(0, candidates)], depth)
    for name in ("highest", "high"):
        torch.set_float32_matmul_precision(name)
        try:
            found[name] = search()
            product = torch.from_numpy(q_BD).to(settings.device) @ on_device.T
        finally:
            torch.set_float32_matmul_precision(before)
        yield {
            "case": "full float32" if name == "highest" else "TF32 was asked for",
            "largest_error": float(np.abs(found[name].scores - best.values.cpu().numpy()).max()),
            "places_as_in_float64": float((found[name].places == best.indices.cpu().numpy()).mean()),
            "error_of_a_plain_product": float((product.double() - exact).abs().max()),
        }
    same = all(map(np.array_equal, found["highest"], found["high"]))
    yield {"case": "both", "equal_to_the_last_bit": same}
