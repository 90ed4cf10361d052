"""Training steps of a large backbone on one GPU, in bf16. Prints JSON lines.

For each global batch: tokens/s, model FLOP utilisation and memory with the gradient cache; the largest batch that fits
with the whole graph; and sentence-transformers' cached loss on the same model, token ids and batch.

python tests/bench/bench_gpu.py --batches 1024 8192 32768 --chunk 128 --peak-tflops 989
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.config import Config, load_config
from hbtrain.modeling.embedding import EmbeddingModule
from hbtrain.modeling.gather import ProcessGroup
from hbtrain.modeling.loss import Sizes
from hbtrain.training.chunks import chunked
from hbtrain.training.engine import Engine
from hbtrain.training.feed import Work
from hbtrain.training.gradients import Gradients
from hbtrain.training.stopwatch import Stopwatch
from tests.bench.measure import seconds, tell

SHAPES = {
    "xlmr-large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "vocab_size": 250_002},
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 500},
}


def build_model(shape: str, tokens: int) -> object:
    """An XLM-R with random weights and mean pooling; no tokenizer, for it is given token ids."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import XLMRobertaConfig, XLMRobertaModel

    sizes = SHAPES[shape]
    config = XLMRobertaConfig(
        **sizes,
        intermediate_size=4 * sizes["hidden_size"],
        max_position_embeddings=tokens + 8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return SentenceTransformer(
        modules=[Tokens(XLMRobertaModel(config, add_pooling_layer=False)), Pooling(sizes["hidden_size"], "mean")]
    )


class Tokens(torch.nn.Module):
    """A transformer that is called with features, as sentence-transformers' own module is."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.auto_model = model

    def forward(self, features: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
        states = self.auto_model(features["input_ids"], features["attention_mask"]).last_hidden_state
        return features | {"token_embeddings": states}


def features(rows: int, tokens: int, vocabulary: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, vocabulary, (rows, tokens), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def work_of(arguments: argparse.Namespace, batch: int, chunks: int) -> Work:
    vocabulary = SHAPES[arguments.shape]["vocab_size"]
    sides = [features(batch, arguments.tokens, vocabulary, seed) for seed in (1, 2)]
    count = 2 * batch * arguments.tokens
    sizes = Sizes([batch], [0])
    return Work(SimpleNamespace(step=0), sides=sides, sizes=sizes, chunks=chunked(sides, chunks, 1), ids=None,
                tokens=count, computed_tokens=count)  # fmt: skip


def config_of() -> Config:
    return load_config(
        "quickstart",
        {
            "encoder.precision": "bf16",
            "resources.workers": 1,
            "training.deepspeed": {"zero_optimization": {"stage": 1}},
        },
    )


def step_of(engine: Engine, gradients: Gradients, work: Work, device: torch.device) -> None:
    gradients.backward(work.to(device))
    engine.step()
    _wait(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(step: object, device: torch.device, repeats: int) -> tuple[float, float]:
    """Median seconds of a step, and GiB at the peak (GPU only)."""
    step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = sorted(seconds(step) for _ in range(repeats))
    gib = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return times[len(times) // 2], gib


def their_step(model: object, sides: list, chunk: int, device: torch.device) -> object:
    """A step with sentence-transformers' cached loss under autocast, AdamW on float32 weights, as its trainer does."""
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    loss = CachedMultipleNegativesRankingLoss(model, 20.0, mini_batch_size=chunk)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    batches = [{name: x.to(device) for name, x in side.items()} for side in sides]

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            value = loss([dict(batch) for batch in batches], None)
        value.backward()
        optimizer.step()
        _wait(device)

    return step


def flops_of_a_token(parameters: int, embeddings: int, shape: dict, tokens: int) -> float:
    """Forward and backward: 6 for every weight that multiplies, 12 for attention's two products of each layer."""
    return 6.0 * (parameters - embeddings) + 12.0 * shape["num_hidden_layers"] * shape["hidden_size"] * tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try the script")
    parser.add_argument("--shape", choices=SHAPES, default="xlmr-large")
    parser.add_argument("--batches", type=int, nargs="+", default=[1024, 8192, 32768])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--chunk", type=int, default=128, help="pairs that are embedded at one time")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--theirs-up-to", type=int, default=8192, help="the largest batch for sentence-transformers")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="of the device in bf16, dense")
    arguments = parser.parse_args()
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29511", RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    device = torch.device(arguments.device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=0, world_size=1)
    torch.manual_seed(0)
    model = build_model(arguments.shape, arguments.tokens)
    shape = SHAPES[arguments.shape]
    weights = sum(p.numel() for p in model.parameters())
    embeddings = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding))
    flops = flops_of_a_token(weights, embeddings, shape, arguments.tokens)
    their_seconds = {}
    theirs = build_model(arguments.shape, arguments.tokens).to(device)
    for batch in (b for b in arguments.batches if b <= arguments.theirs_up_to):
        sides = list(work_of(arguments, batch, 1).sides)
        their_seconds[batch], _ = timed(their_step(theirs, sides, arguments.chunk, device), device, arguments.repeats)
    del theirs
    engine = Engine(EmbeddingModule(model), config := config_of(), device)
    gradients = Gradients(engine, ProcessGroup(), config, Stopwatch(device))
    for batch in arguments.batches:
        work = work_of(arguments, batch, -(-batch // arguments.chunk))
        our_seconds, gib = timed(lambda w=work: step_of(engine, gradients, w, device), device, arguments.repeats)
        tell(
            "gpu-step",
            shape=arguments.shape,
            precision="bf16",
            batch=batch,
            tokens=arguments.tokens,
            chunk=arguments.chunk,
            seconds=our_seconds,
            tokens_per_s=work.tokens / our_seconds,
            flop_utilisation=work.tokens * flops / our_seconds / (arguments.peak_tflops * 1e12),
            peak_gib=gib,
            speed_by_theirs=their_seconds[batch] / our_seconds if batch in their_seconds else None,
        )
    if device.type == "cuda":
        tell("gpu-largest-plain-batch", shape=arguments.shape, batch=largest(engine, gradients, arguments, device))
    dist.destroy_process_group()


def largest(engine: Engine, gradients: Gradients, arguments: argparse.Namespace, device: torch.device) -> int:
    """The largest batch, a power of two, whose whole graph fits into the GPU's memory."""
    batch = 32
    while True:
        try:
            step_of(engine, gradients, work_of(arguments, 2 * batch, 1), device)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            return batch
        batch *= 2


if __name__ == "__main__":
    main()
