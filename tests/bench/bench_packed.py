"""Packed batches against padded ones, and compiled layers against written ones: encoding, and a step of training.

Texts have mixed lengths. A step embeds the queries and passages of a batch as a rank does in training (on CPUs padded
in batches of similar length, packed in one), and back-propagates a sum; the optimizer is left out, as it is the same
for all. All sides take turns. Prints a JSON line for encoding and one for training: seconds of each side, how many
times as fast as the padded one it is, what a graph keeps in memory, and how much of the padded one's tokens is padding.

python tests/bench/bench_packed.py --texts 500 --pairs 32
python tests/bench/bench_packed.py --model /path/to/e5-small --compile
python tests/bench/bench_packed.py --device cuda --precision bf16 --layers 12 --hidden 768 --pairs 512 --compile
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.config.encoder import EncoderConfig, TransformerConfig
from hbtrain.modeling.compiling import compile_layers
from hbtrain.modeling.embedding import EmbeddingModule
from hbtrain.modeling.encoder import Encoder
from hbtrain.training.chunks import Chunk, chunked, padded_tokens, real_tokens, with_packed_batches
from hbtrain.training.feed import BUCKET_ROWS, MOST_BUCKETS
from tests.bench.bench_encoding import mixed_texts
from tests.bench.measure import in_turns, tell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a folder or a hub name; by default random weights of the sizes below")
    parser.add_argument("--texts", type=int, default=300, help="to encode")
    parser.add_argument("--pairs", type=int, default=32, help="of a step")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--median-words", type=float, default=40, help="of a text; lengths are log-normal")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true", help="compiled layers as well; the first step takes minutes")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    texts = mixed_texts(max(arguments.texts, 2 * arguments.pairs), arguments.median_words, seed=0)
    encoders = encoders_of(arguments, texts)
    shown = {key: value for key, value in vars(arguments).items() if key not in ("repeats", "compile")}
    shown["threads"] = torch.get_num_threads()

    encode = {name: lambda x=x: x.encode(texts[: arguments.texts], "passage") for name, x in encoders.items()}
    expected = encode["padded"]()
    difference = max(float(abs(side() - expected).max()) for side in encode.values())
    tell("packed encoding", **shown, **compared(encode, arguments.repeats), largest_difference=difference)

    chunks = {name: chunk_of(encoder, texts, arguments.pairs) for name, encoder in encoders.items()}
    steps = {name: step_of(encoder, chunks[name], arguments.device) for name, encoder in encoders.items()}
    for step in steps.values():
        step()
    padding = 1 - real_tokens(chunks["padded"]) / padded_tokens(chunks["padded"])
    kept = {f"{name}_kept_mib": kept_mib(step) for name, step in steps.items()}
    tell("packed step", **shown, **compared(steps, arguments.repeats), **kept, padding=padding)


def compared(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Times of the sides, and their ratios to the first."""
    times = in_turns(sides, repeats)
    ratios = {f"{name}_times_as_fast": times["padded"] / seconds for name, seconds in times.items()}
    return {f"{name}_s": seconds for name, seconds in times.items()} | ratios


def kept_mib(step: Callable[[], None]) -> float:
    """What the graph of a step keeps for its backward pass, weights included, in MiB."""
    sizes = {}

    def seen(x: torch.Tensor) -> torch.Tensor:
        sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda x: x):
        step()
    return sum(sizes.values()) / 2**20


def encoders_of(arguments: argparse.Namespace, texts: list[str]) -> dict[str, Encoder]:
    """The same encoder, padded, packed and, if wished, both compiled."""
    sizes = TransformerConfig(
        layers=arguments.layers,
        hidden_size=arguments.hidden,
        heads=max(1, arguments.hidden // 64),
        intermediate_size=4 * arguments.hidden,
    )
    settings = {"transformer": sizes, "max_query_tokens": 512, "max_passage_tokens": 512}
    encoders = {}
    with tempfile.TemporaryDirectory() as folder:
        backbone = arguments.model
        if backbone is None:
            backbone = folder
            Encoder.build(EncoderConfig(backbone="transformer", **settings), lambda: texts, 0).save(Path(folder))
        settings |= {"backbone": backbone, "precision": arguments.precision, "dropout": 0.0}
        for name, attention in (("padded", "sdpa"), ("packed", "packed")):
            for compiles in (False, True)[: 1 + arguments.compile]:
                encoder = Encoder.load(
                    backbone, EncoderConfig(attention=attention, compile=compiles, **settings), arguments.device
                )
                if compiles:
                    compile_layers(encoder.model)
                encoders[name + "_compiled" * compiles] = encoder
    return encoders


def chunk_of(encoder: Encoder, texts: list[str], pairs: int) -> Chunk:
    """The batches of a step of a rank on a CPU without gradient cache, see `hbtrain.training.feed`."""
    sides = [encoder.tokenize(texts[:pairs], "query"), encoder.tokenize(texts[pairs : 2 * pairs], "passage")]
    if encoder.packs:
        return with_packed_batches(chunked(sides, 1, 1, packs=True)[0], 1, encoder.pack)
    return chunked(sides, 1, min(MOST_BUCKETS, max(1, pairs // BUCKET_ROWS)))[0]


def step_of(encoder: Encoder, chunk: Chunk, device: str) -> Callable[[], None]:
    module = EmbeddingModule(encoder.model).train()
    batches = chunk.to(torch.device(device)).batches

    def step() -> None:
        vectors, _ = module(batches)
        torch.stack([(x * x.detach().roll(1, 0)).sum() for x in vectors]).sum().backward()
        module.zero_grad()
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    return step


if __name__ == "__main__":
    main()
