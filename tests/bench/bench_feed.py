"""Feeding a small transformer: what preparing a step costs, and how long training waits for it. Prints JSON lines.

- tokens: processor time of tokenizing and padding a step's texts, against sentence-transformers' own preprocessing.
- padding: share of computed tokens that is padding, by the number of batches that a side is cut into.
- wait: share of the time that training waits for data while a device computes (a sleep, which takes no processor), with
  and without a thread that prepares steps ahead; the device takes 2, 1 and 0.5 times as long as preparing does.
- training: the same with real steps of the small model on this processor.

python tests/bench/bench_feed.py --source demo
python tests/bench/bench_feed.py --source a.jsonl.gz b.jsonl.gz --vocabulary vocab.txt.gz --batch 256
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.batching import BatchPlan
from hbtrain.config import Config, load_config
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.embedding import EmbeddingModule
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.gather import SingleProcess
from hbtrain.training.chunks import chunked, padded_tokens
from hbtrain.training.feed import Feed, Work
from hbtrain.training.gradients import Gradients
from hbtrain.training.stopwatch import Stopwatch
from tests.bench.measure import tell


class PlainEngine:
    """What `Gradients` asks of an engine, with autograd and plain descent."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def __call__(self, batches: list[dict[str, torch.Tensor]]) -> object:
        return self.module(batches)

    def backward(self, loss: torch.Tensor, last: bool = True) -> None:
        loss.backward()
        with torch.no_grad():
            for parameter in self.module.parameters():
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-1e-4)
                    parameter.grad = None


def config_of(arguments: argparse.Namespace) -> Config:
    return load_config(
        "quickstart",
        {
            "data.sources": arguments.source,
            "batching.global_batch_size": arguments.batch,
            "encoder.backbone": "transformer",
            "encoder.transformer.vocabulary": arguments.vocabulary,
            "encoder.transformer.trim": False,
            "resources.workers": 1,
        },
    )


def processor_s(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def tokens(feed: Feed, plan: BatchPlan, corpus: ParallelCorpus, encoder: Encoder, steps: range) -> None:
    ours = theirs = whole = 0.0
    pairs = real = 0
    for step in steps:
        batch = plan.batch(step)
        source = corpus.sources[batch.source]
        sides = (
            ("query", source.texts("query", batch.rows, batch.query_languages)),
            ("passage", source.texts("passage", batch.rows, batch.passage_languages)),
        )
        for side, texts in sides:
            options = {"prompt": encoder.prefixes[side], "max_length": encoder.max_tokens[side]}
            ours += processor_s(lambda side=side, texts=texts: encoder.tokenize(texts, side))
            theirs += processor_s(lambda texts=texts, options=options: encoder.model.preprocess(texts, **options))
        whole += processor_s(lambda step=step: feed.work(step))
        work = feed.work(step)
        pairs, real = pairs + len(batch), real + work.tokens
    tell(
        "feed tokens",
        steps=len(steps),
        tokenizing_by_theirs=ours / theirs,
        tokenizing_share_of_preparing=ours / whole,
        pairs_per_processor_s=pairs / whole,
        tokens_per_processor_s=real / whole,
    )


def padding(works: list[Work]) -> None:
    real = sum(work.tokens for work in works)
    shares = {}
    for buckets in (1, 2, 4, 8, 16):
        computed = sum(padded_tokens(chunk) for work in works for chunk in chunked(work.sides, 1, buckets))
        shares[f"buckets_{buckets}"] = 1 - real / computed
    chunks = [chunk for work in works for chunk in chunked(work.sides, 8, 1)]
    tell("feed padding", steps=len(works), **shares, chunks_8=1 - real / sum(map(padded_tokens, chunks)))


def waited(works: Iterable[Work], compute: Callable[[Work], object]) -> float:
    """The share of the time, after the first step, that `compute` waits for the next work."""
    stopwatch = Stopwatch(torch.device("cpu"))
    for place, work in enumerate(stopwatch.each(works, "data")):
        if place == 0:
            stopwatch.read()
        compute(work)
    seconds = stopwatch.read()
    return seconds["data"] / sum(seconds.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", nargs="+", default=["demo"])
    parser.add_argument("--vocabulary", help="a WordPiece vocabulary; by default one is trained on the sources")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=24)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = config_of(arguments)
    corpus = ParallelCorpus.from_config(config)
    plan, encoder = BatchPlan.over(corpus, config), Encoder.build(config.encoder, corpus.every_text, 0)
    feed, steps = Feed(plan, corpus, encoder, config, 0, 1), arguments.steps
    works = [feed.work(step) for step in range(steps)]
    tokens(feed, plan, corpus, encoder, range(steps))
    padding(works)
    start = time.perf_counter()
    for step in range(steps):
        feed.work(step)
    prepare_s = (time.perf_counter() - start) / steps
    for by_preparing in (2.0, 1.0, 0.5):
        device_s = by_preparing * prepare_s
        alone = waited(map(feed.work, range(steps)), lambda _, device_s=device_s: time.sleep(device_s))
        ahead = waited(feed.steps(0, steps), lambda _, device_s=device_s: time.sleep(device_s))
        tell("feed wait", device_by_preparing=by_preparing, wait_share=ahead, wait_share_without_thread=alone)
    gradients = Gradients(
        PlainEngine(EmbeddingModule(encoder.model)), SingleProcess(), config, Stopwatch(torch.device("cpu"))
    )
    few = min(steps, 8)
    tell(
        "feed training",
        steps=few,
        wait_share=waited(feed.steps(0, few), gradients.backward),
        wait_share_without_thread=waited(map(feed.work, range(few)), gradients.backward),
    )


if __name__ == "__main__":
    main()
