"""Feeding a small transformer: what preparing a step costs, and how long training waits for it. Prints JSON lines.

- tokens: processor time of tokenizing and padding a step's texts, against sentence-transformers' own preprocessing.
- rate: pairs prepared in a second by a core, and by several, of which the tokenizer's own threads use all but one;
  beside it the pairs that an H200 takes, by the arithmetic of docs/scale.md.
- padding: share of computed tokens that is padding, by the number of batches that a side is cut into.
- wait: share of the time that training waits for data while a device computes (a sleep, which takes no processor), with
  and without a thread that prepares steps ahead; the device takes 2, 1 and 0.5 times as long as preparing does.
- training: the same with real steps of the small model on this processor.

python tests/bench/bench_feed.py --source demo
python tests/bench/bench_feed.py --source a.jsonl.gz b.jsonl.gz --vocabulary vocab.txt.gz --batch 256
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.batching import BatchPlan
from hbtrain.config import Config, load_config
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.embedding import EmbeddingModule
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.features import token_counts
from hbtrain.modeling.gather import SingleProcess
from hbtrain.planning.communication import encoder_flops
from hbtrain.planning.shape import transformers_shape
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


DEVICE_FLOPS = 0.4 * 989e12  # an H200's in bf16, of which an encoder reaches 40 %
SHAPES = {
    "e5-small": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536},
    "xlmr-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}


def rate(feed: Feed, works: list[Work]) -> None:
    """One thread tokenizes, and then as many as there are cores; they take turns step by step, as others use them."""
    spent = {"false": [0.0, 0.0, 0.0], "true": [0.0, 0.0, 0.0]}
    for step in range(len(works)):
        for parallel, sums in spent.items():
            os.environ["TOKENIZERS_PARALLELISM"] = parallel  # read by the tokenizer at every call
            before = time.perf_counter(), time.process_time(), time.thread_time()
            feed.work(step)
            after = time.perf_counter(), time.process_time(), time.thread_time()
            sums[:] = [x + b - a for x, a, b in zip(sums, before, after, strict=True)]
    pairs = sum(len(work.batch) for work in works)
    (one_s, processor_s, _), (all_s, _, serial_s) = spent.values()
    tokens_B = torch.cat([token_counts(side) for work in works for side in work.sides if side is not None])
    tell(
        "feed rate",
        pairs=pairs,
        tokens_of_a_pair=int(tokens_B.sum()) / pairs,
        pairs_per_s_of_one_core=pairs / processor_s,
        threads=os.cpu_count(),
        time_with_threads_by_time_without=all_s / one_s,
        share_that_is_not_in_threads=serial_s / processor_s,
        **{f"pairs_per_s_of_{n}_cores": pairs / (serial_s + (processor_s - serial_s) / n) for n in (2, 4, 8, 16)},
        **{f"pairs_per_s_of_{name}_on_h200": device_rate(shape, works) for name, shape in SHAPES.items()},
    )


def device_rate(shape: dict[str, int], works: list[Work]) -> float:
    """Pairs in a second that an encoder is trained on, in texts of the length that each side has in the mean."""
    same = {"model_type": "xlm-roberta", "vocab_size": 250_002, "max_position_embeddings": 514, "type_vocab_size": 1}
    sizes = transformers_shape(same | shape)
    texts, pairs = Counter[int](), 0
    for work in works:
        pairs += len(work.batch)
        for side in work.sides:
            if side is not None:
                texts[int(token_counts(side).float().mean())] += len(work.batch)
    return pairs * DEVICE_FLOPS / encoder_flops(sizes, texts)


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
    rate(feed, works)
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
