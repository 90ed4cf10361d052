"""Ray Train and MLflow against the bare loop on the same ranks: time of a training step. Prints one JSON line.

The bare loop is `train_worker` on processes as torchrun would start them, its events thrown away. Runs take turns.

python tests/bench/bench_overhead.py --workers 2 --batch 96 --steps 40
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.config import from_tree, load_config, override, to_tree
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.gather import ProcessGroup
from hbtrain.runs.run import train
from hbtrain.training.loop import train_worker
from hbtrain.training.worker import Worker
from tests.bench.measure import tell
from tests.distributed.ranks import run_ranks


class Throughput:
    """An observer that keeps pairs/s, without the first window."""

    def __init__(self) -> None:
        self.windows: list[float] = []

    def phase(self, text: str) -> None:
        pass

    def event(self, event: object) -> None:
        if "train/pairs_per_s" in event.metrics:
            self.windows.append(event.metrics["train/pairs_per_s"])

    @property
    def typical_and_best(self) -> tuple[float, float]:
        return statistics.median(self.windows[1:]), max(self.windows[1:])


def bare(tree: dict, folder: str, threads: int) -> tuple[float, float] | None:
    torch.set_num_threads(threads)
    watch = Throughput()
    path = Path(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    worker = Worker(
        ProcessGroup(), device, path / "initial", path / "model", watch.event, lambda _: None, path / "checkpoints"
    )
    train_worker(from_tree(tree), worker)
    return watch.typical_and_best if worker.group.rank == 0 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = load_config(
            "quickstart",
            {
                "storage": str(folder / "runs"),
                "data.validation": None,
                "data.cache": str(folder / "cache"),
                "batching.global_batch_size": arguments.batch,
                "encoder.backbone": "transformer",
                "encoder.transformer": {"layers": 4, "hidden_size": 256, "heads": 4, "intermediate_size": 1024},
                "training.steps": arguments.steps,
                "training.log_every": 5,
                "training.validate_every": None,
                "training.checkpoint_every": None,
                "evaluation.benchmarks": [],
                "tracking.log_model": False,
                "resources.workers": arguments.workers,
                "resources.use_gpu": torch.cuda.is_available(),
            },
        )
        Encoder.build(config.encoder, ParallelCorpus.from_config(config).every_text, config.seed).save(
            folder / "initial"
        )
        with_ray, without = [], []
        for i in range(arguments.repeats):
            # One thread a worker, as Ray sets it for one CPU a worker.
            without.append(run_ranks(bare, arguments.workers, to_tree(config), str(folder), 1, timeout_s=600)[0])
            watch = Throughput()
            train(override(config, {"name": f"turn-{i}"}), watch)
            with_ray.append(watch.typical_and_best)
        ray_s, bare_s = (arguments.batch / statistics.median(t for t, _ in x) for x in (with_ray, without))
        ray_best_s, bare_best_s = (arguments.batch / max(b for _, b in x) for x in (with_ray, without))
        tell(
            "overhead",
            workers=arguments.workers,
            batch=arguments.batch,
            ray_step_s=ray_s,
            bare_step_s=bare_s,
            overhead=ray_s / bare_s - 1,
            # Of the best window of five steps on each side: what is left when nothing else runs on the machine.
            overhead_of_best=ray_best_s / bare_best_s - 1,
        )


if __name__ == "__main__":
    main()
