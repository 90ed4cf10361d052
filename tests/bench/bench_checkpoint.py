"""How long training stands still for a checkpoint: uploaded by Ray Train in the background, or waited for.

Both kinds take turns within one run; time is measured on rank 0, from the end of a step until the next can begin.
Prints one JSON line.

python tests/bench/bench_checkpoint.py --workers 2 --hidden 512 --layers 4 --repeats 4
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.cluster.session import connected
from hbtrain.config import from_tree, load_config, to_tree
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.encoder import Encoder
from tests.bench.measure import peak_mib, seconds, tell


class SilentBroker:
    """A broker whose `fail` nobody reads."""

    class fail:  # noqa: N801
        @staticmethod
        def remote(reason: str) -> None:
            raise RuntimeError(reason)


def report_and_wait(part: Any) -> None:
    """Ray Train's report as it is by default: returns when the part is stored."""
    import ray.train
    from ray.train import Checkpoint

    def upload(_: Checkpoint, __: str) -> Checkpoint:
        part.store()
        return Checkpoint.from_directory(str(part.to))

    ray.train.report(
        {"step": part.step},
        checkpoint=Checkpoint.from_directory(str(part.folder)),
        checkpoint_dir_name=part.to.name,
        delete_local_checkpoint_after_upload=False,
        checkpoint_upload_fn=upload,
    )


def on_worker(settings: dict[str, Any]) -> None:
    """Train, and save after every few steps in one way and the other in turn; rank 0 writes down the figures."""
    from ray.train.torch import get_device

    from hbtrain.modeling.gather import ProcessGroup
    from hbtrain.runs.worker_messages import CheckpointUploads
    from hbtrain.training.loop import Trainer
    from hbtrain.training.worker import CheckpointPart, Worker

    folder = Path(settings["folder"])
    ways = {"waited": report_and_wait, "background": CheckpointUploads(SilentBroker()).start}
    way = ["waited"]

    def upload(part: CheckpointPart) -> None:
        ways[way[0]](part)

    worker = Worker(
        ProcessGroup(),
        get_device(),
        folder / "initial",
        folder / "model",
        lambda _: None,
        upload,
        folder / "runs" / "ray",
    )
    trainer = Trainer(from_tree(settings["config"]), worker)
    trainer.module.train()
    figures: dict[str, list[float]] = {"step": [], **{name: [] for name in ways}}
    with trainer.delivery.steps(0, settings["steps"]) as works:
        for work in works:
            figures["step"].append(seconds(lambda work=work: trainer._step(work, works)))
            done = work.batch.step + 1
            if done % settings["every"] == 0:
                way[0] = list(ways)[done // settings["every"] % 2]
                figures[way[0]].append(seconds(lambda done=done: trainer.checkpoints.save(done)))
    if worker.group.rank == 0:
        torch.save(figures | {"peak_mib": peak_mib()}, folder / "figures.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--every", type=int, default=4, help="steps between checkpoints")
    parser.add_argument(
        "--repeats", type=int, default=4, help="checkpoints of each kind, after a first that is left out"
    )
    arguments = parser.parse_args()
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gpu = torch.cuda.is_available()
        config = load_config(
            "quickstart",
            {
                "data.cache": str(folder / "cache"),
                "batching.global_batch_size": arguments.batch,
                "encoder.backbone": "transformer",
                "encoder.transformer": {
                    "layers": arguments.layers,
                    "hidden_size": arguments.hidden,
                    "heads": arguments.hidden // 64,
                    "intermediate_size": 4 * arguments.hidden,
                },
                "resources.workers": arguments.workers,
                "resources.use_gpu": gpu,
                "evaluation.benchmarks": [],
            },
        )
        encoder = Encoder.build(config.encoder, ParallelCorpus.from_config(config).every_text, config.seed)
        encoder.save(folder / "initial")
        steps = 2 * (arguments.repeats + 1) * arguments.every
        settings = {"config": to_tree(config), "folder": name, "steps": steps, "every": arguments.every}
        with connected(config):
            TorchTrainer(
                on_worker,
                train_loop_config=settings,
                scaling_config=ScalingConfig(
                    num_workers=arguments.workers, use_gpu=gpu, resources_per_worker={"CPU": 1, "GPU": int(gpu)}
                ),
                run_config=RunConfig(name="ray", storage_path=str(folder / "runs")),
            ).fit()
        figures = torch.load(folder / "figures.pt")
        newest = max((folder / "runs" / "ray").glob("step-*"))
        size = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
        waited, background = (statistics.median(figures[way][1:]) for way in ("waited", "background"))
        tell(
            "checkpoint",
            workers=arguments.workers,
            parameters=sum(p.numel() for p in encoder.model.parameters()),
            checkpoint_mib=size / 2**20,
            step_s=statistics.median(figures["step"][1:]),
            waited_s=waited,
            background_s=background,
            ratio=background / waited,
            peak_mib_of_rank_0=figures["peak_mib"],
        )


if __name__ == "__main__":
    main()
