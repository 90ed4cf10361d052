"""The loss alone, forward and backward, against the full score matrix. Prints one JSON line.

python tests/bench/bench_loss.py --pairs 16384 --dim 768
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy, normalize

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.config.loss import LossConfig
from hbtrain.modeling.gather import SingleProcess
from hbtrain.modeling.loss import batch_loss
from hbtrain.modeling.loss_inputs import Embedded, Sizes
from tests.bench.measure import in_turns, memory_mib, seconds, tell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    q, p = (normalize(torch.randn(arguments.pairs, arguments.dim, device=device), dim=1) for _ in range(2))
    q.requires_grad_(), p.requires_grad_()
    config = LossConfig()
    empty = q.new_zeros(0, arguments.dim)

    def clear() -> None:
        q.grad = p.grad = None

    def blocks() -> float:
        clear()
        loss = batch_loss(Embedded(q, p, empty), Sizes([len(q)], [0]), SingleProcess(), config, None).total
        loss.backward()
        return loss.item()

    def matrix() -> float:
        clear()
        loss = cross_entropy(q @ p.T / config.temperature, torch.arange(len(q), device=device))
        loss.backward()
        return loss.item()

    def memory_of(work: Callable[[], float]) -> float:
        """MiB above what was there before, gradients of the inputs included."""
        clear()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            work()
            return (torch.cuda.max_memory_allocated() - before) / 2**20
        return memory_mib(work)

    small = batch_loss(Embedded(q[:8], p[:8], empty), Sizes([8], [0]), SingleProcess(), config, None).total
    small.backward()  # libraries are loaded before memory is measured
    blocks_mib = memory_of(blocks)
    blocks_gradient = q.grad.clone()
    matrix_mib = memory_of(matrix)
    difference = (q.grad - blocks_gradient).abs().max().item() / q.grad.abs().max().item()
    seconds(blocks)
    times = in_turns({"blocks": blocks, "matrix": matrix}, arguments.repeats)
    tell(
        "loss",
        pairs=arguments.pairs,
        dim=arguments.dim,
        block_rows=config.block_rows,
        blocks_mib=blocks_mib,
        matrix_mib=matrix_mib,
        seconds=times["blocks"],
        ratio_of_time=times["blocks"] / times["matrix"],
        largest_difference=difference,
    )


if __name__ == "__main__":
    main()
