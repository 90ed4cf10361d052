"""A training step with each objective of the loss against the plain step. Prints a JSON line for each.

A step is preparing the batch (vectors of guide and teacher are read from the store), its gradient, and AdamW; one rank,
no dropout. Pairs have one hard negative each, and some share their passage. Objectives take turns with the plain step,
on the same batches; ratios are medians of those of one batch, of processor time.

python tests/bench/bench_objectives.py
python tests/bench/bench_objectives.py --pairs 128 --layers 6 --hidden 384 --only guide several
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.batching import BatchPlan
from hbtrain.config import Config, load_config
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.embedding import EmbeddingModule
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.gather import SingleProcess
from hbtrain.training.feed import Feed
from hbtrain.training.frozen_models import FrozenModels
from hbtrain.training.gradients import Gradients
from hbtrain.training.stopwatch import Stopwatch
from tests.bench.bench_encoding import mixed_texts
from tests.bench.bench_step import build_plain, save_as_transformer
from tests.bench.measure import tell

ROWS = 600
WORDS = (8, 40)  # of a query and of a passage, medians of log-normal lengths
LANGUAGES = ("en", "de", "fr")
MODEL = "a model"  # stands for its folder
OBJECTIVES: dict[str, dict[str, object]] = {
    "guide, a model": {"guide": MODEL, "guide_margin": 0.05},
    "guide, scores of rows": {"guide": "scores", "guide_margin": 0.05},
    "teacher_kl, a model": {"teacher": MODEL, "terms": {"teacher_kl": 1.0}},
    "teacher_kl, scores of rows": {"teacher": "scores", "terms": {"teacher_kl": 1.0}},
    "teacher_margin, a model": {"teacher": MODEL, "terms": {"teacher_margin": 1.0}},
    "teacher_cosine": {"teacher": MODEL, "terms": {"teacher_cosine": 1.0}},
    "several positives of the batch, out": {"positives": "translations"},
    "several positives of the batch, in": {"positives": "translations", "positives_form": "in"},
    "several positives, one more passage a pair": {"positives": "translations", "translations": 1},
    "hardness": {"hardness": 5.0},
    "jensen_shannon, one more query a pair": {"terms": {"jensen_shannon": 1.0}},
    "reversed and bridge, one more query a pair": {"terms": {"reversed": 0.4, "bridge": 0.2}},
}


class PlainEngine:
    """What `Gradients` asks of an engine, with autograd alone."""

    def __init__(self, module: EmbeddingModule) -> None:
        self.module = module

    def __call__(self, batches: list[dict[str, torch.Tensor]]) -> object:
        return self.module(batches)

    def backward(self, loss: torch.Tensor, last: bool = True) -> None:
        loss.backward()


def write_source(path: Path) -> None:
    """Rows in three languages; every fourth shares its passage with the one before; with scores."""
    queries, passages = (mixed_texts(len(LANGUAGES) * ROWS, words, seed) for seed, words in enumerate(WORDS))

    def texts(of: list[str], row: int) -> dict[str, str]:
        return {x: of[len(LANGUAGES) * row + i] for i, x in enumerate(LANGUAGES)}

    rows = []
    for i in range(ROWS):
        passage = i - (i % 4 == 1)
        negative = texts(passages, (i + 7) % ROWS)
        rows.append(
            {
                "id": str(i),
                "query": texts(queries, i),
                "passage": texts(passages, passage),
                "passage_id": f"p{passage}",
                "negatives": [negative],
                "scores": [0.8, 0.5 + i % 5 / 10],
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def settings(folder: Path, arguments: argparse.Namespace, objective: dict[str, object]) -> Config:
    loss = {f"loss.{key}": str(folder / "frozen") if x == MODEL else x for key, x in objective.items()}
    return load_config(
        "quickstart",
        {
            "data.sources": [str(folder / "source.jsonl")],
            "data.validation": None,
            "data.cache": str(folder / "cache"),
            "batching.global_batch_size": arguments.pairs,
            "encoder.backbone": str(folder / "initial"),
            "training.validate_every": None,
            "training.steps": 1000,
            "loss.temperature": 0.05,
            "loss.hard_negatives": 1,
            **loss,
        },
    )


def stepper(
    folder: Path, arguments: argparse.Namespace, objective: dict[str, object]
) -> Callable[[int], tuple[float, float]]:
    """step -> (its processor time, seconds in the loss)."""
    config = settings(folder, arguments, objective)
    corpus, encoder = ParallelCorpus.from_config(config), Encoder.load(config.encoder.backbone)
    plan = BatchPlan.over(corpus, config)
    feed = Feed(plan, corpus, encoder, config, 0, 1)
    if config.loss.guide is not None or config.loss.teacher is not None:
        feed.frozen = FrozenModels(config, SingleProcess(), torch.device("cpu"))
        feed.frozen.prepare(plan, corpus, range(arguments.steps + 1), encoder.dimension)
    module = EmbeddingModule(encoder.model).train()
    stopwatch = Stopwatch(torch.device("cpu"))
    gradients = Gradients(PlainEngine(module), SingleProcess(), config, stopwatch)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5, fused=True)

    def step(number: int) -> tuple[float, float]:
        stopwatch.read()
        begin = time.process_time()
        gradients.backward(feed.work(number))
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - begin, stopwatch.read()["loss"]

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8, help="measured, after one that warms up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", help="objectives whose names begin so; by default all")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_source(folder / "source.jsonl")
        texts = list(ParallelCorpus.open([str(folder / "source.jsonl")], str(folder / "cache")).every_text())
        build_plain(folder / "plain", texts, arguments)
        for to in ("initial", "frozen"):
            save_as_transformer(folder / "plain", folder / to)
        for objective, keys in OBJECTIVES.items():
            if arguments.only and not objective.startswith(tuple(arguments.only)):
                continue
            sides = {"plain": stepper(folder, arguments, {}), "own": stepper(folder, arguments, keys)}
            times: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
            for number in range(arguments.steps + 1):
                for side, step in sides.items():
                    times[side].append(step(number))
            pairs = list(zip(times["own"][1:], times["plain"][1:], strict=True))
            tell(
                "objective",
                objective=objective,
                pairs=arguments.pairs,
                model=f"{arguments.layers} x {arguments.hidden}",
                plain_processor_s=statistics.median(plain[0] for _, plain in pairs),
                ratio=statistics.median(own[0] / plain[0] for own, plain in pairs),
                loss_share=statistics.median(own[1] / own[0] for own, _ in pairs),
            )


if __name__ == "__main__":
    main()
