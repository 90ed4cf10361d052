"""Encoding against `SentenceTransformer.encode`: the same model, texts of mixed lengths and languages, one process.

Theirs is given each batch size of `--their-batches` and counts with its best. Prints one JSON line: passages/s and
tokens/s, padding not counted, and the ratio of speeds.

python tests/bench/bench_encoding.py --texts 2000 --layers 6 --hidden 384
python tests/bench/bench_encoding.py --device cuda --precision bf16 --texts 20000 --layers 24 --hidden 1024
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.config.encoder import EncoderConfig, TransformerConfig
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling import Encoder
from hbtrain.modeling.features import token_counts
from hbtrain.retrieval.encoding import Batching
from tests.bench.measure import in_turns, tell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a folder or a hub name; by default random weights of the sizes below")
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--median-words", type=float, default=40, help="of a text; lengths are log-normal")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--batch-tokens", type=int, help="ours; by default that of the device")
    parser.add_argument("--their-batches", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--processor-time", action="store_true", help="measure that, for a machine that is busy")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    texts = mixed_texts(arguments.texts, arguments.median_words, arguments.seed)
    encoder = encoder_of(arguments, texts)
    tokens = token_lengths(encoder, texts)
    batching = Batching(batch_tokens=arguments.batch_tokens)

    def ours() -> np.ndarray:
        return encoder.encode(texts, "passage", batch_size=batching.batch_size, batch_tokens=batching.batch_tokens)

    def theirs(batch_size: int) -> np.ndarray:
        return encoder.model.encode(texts, prompt_name="passage", batch_size=batch_size, show_progress_bar=False)

    vectors = ours()
    difference = float(np.abs(vectors - theirs(arguments.their_batches[0])).max())
    sides = {f"theirs-{size}": lambda size=size: theirs(size) for size in arguments.their_batches}
    times = in_turns(
        {"ours": ours, **sides}, arguments.repeats, time.process_time if arguments.processor_time else time.perf_counter
    )
    our_s = times.pop("ours")
    tell(
        "encoding",
        **{key: value for key, value in vars(arguments).items() if key not in ("repeats", "their_batches")},
        threads=torch.get_num_threads(),
        tokens=int(tokens.sum()),
        median_tokens=float(np.median(tokens)),
        longest_tokens=int(tokens.max()),
        passages_per_s=len(texts) / our_s,
        tokens_per_s=float(tokens.sum()) / our_s,
        **{f"{name}_passages_per_s": len(texts) / seconds for name, seconds in times.items()},
        speed_by_theirs=min(times.values()) / our_s,
        largest_difference=difference,
    )


def mixed_texts(count: int, median_words: float, seed: int) -> list[str]:
    """Words of the demo corpus, each text in one of its languages, in lengths as passages have them."""
    corpus = ParallelCorpus.open(["demo"])
    words: dict[str, list[str]] = {}
    for source in corpus.sources.values():
        for _, language, text in source.passages():
            words.setdefault(language, []).extend(text.split() or [text])
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(median_words), 0.8, count), 1, 1000).astype(int)
    languages = rng.choice(sorted(words), count)
    return [" ".join(rng.choice(words[x], n)) for x, n in zip(languages, lengths, strict=True)]


def encoder_of(arguments: argparse.Namespace, texts: list[str]) -> Encoder:
    if arguments.model:
        encoder = Encoder.load(arguments.model, device=arguments.device)
        encoder.model.prompts["passage"] = encoder.prefixes["passage"]
    else:
        sizes = TransformerConfig(
            layers=arguments.layers,
            hidden_size=arguments.hidden,
            heads=max(1, arguments.hidden // 64),
            intermediate_size=4 * arguments.hidden,
        )
        config = EncoderConfig(backbone="transformer", transformer=sizes, max_passage_tokens=512)
        encoder = Encoder.build(config, lambda: texts, arguments.seed)
    encoder.model.to(arguments.device, torch.bfloat16 if arguments.precision == "bf16" else torch.float32)
    return encoder


def token_lengths(encoder: Encoder, texts: list[str]) -> np.ndarray:
    """Tokens of each text as the model reads it."""
    blocks = [encoder.tokenize(texts[i : i + 500], "passage") for i in range(0, len(texts), 500)]
    return np.concatenate([token_counts(block).numpy() for block in blocks])


if __name__ == "__main__":
    main()
