"""What dropout, precision and the kind of attention cost a pass of training on this machine's processor.

A BERT of multilingual-e5-small's shape with random weights, its embeddings frozen: forward and backward over one batch,
in turns. Prints one JSON line: seconds of each, and the ratio of each to dropout 0.1 in float32 with SDPA.

python tests/bench/bench_dropout.py --batch 16 --tokens 128 --repeats 5
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.modeling.loading import set_dropout
from tests.bench.measure import in_turns, peak_mib, tell

SHAPE = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    ids = torch.randint(4, 1000, (arguments.batch, arguments.tokens))
    mask = torch.ones_like(ids)
    sides = {}
    for dropout, precision, attention in product((0.1, 0.0), ("fp32", "bf16"), ("sdpa", "eager")):
        network = BertModel(BertConfig(vocab_size=1000, attn_implementation=attention, **SHAPE)).train()
        network.embeddings.requires_grad_(False)
        network.to(torch.bfloat16 if precision == "bf16" else torch.float32)
        set_dropout("BERT", network, dropout)

        def step(network: BertModel = network) -> None:
            network(input_ids=ids, attention_mask=mask).last_hidden_state.float().square().mean().backward()

        step()
        sides[f"{precision} {attention}, dropout {dropout:g}"] = step
    times = in_turns(sides, arguments.repeats)
    first = next(iter(times.values()))
    shape = f"{arguments.batch} x {arguments.tokens} tokens, {arguments.threads} threads"
    ratios = {name: round(first / time_s, 2) for name, time_s in times.items()}
    tell("dropout", shape=shape, times_as_fast=ratios, seconds=first, peak_mib=peak_mib())


if __name__ == "__main__":
    main()
