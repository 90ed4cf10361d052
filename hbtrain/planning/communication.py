"""Communication and computation of a step: bytes that a rank sends, floating-point operations.

In a ring, each rank sends (W - 1) / W of a message for a gather or a reduce-scatter, and twice that for an all-reduce
(Patarasuk & Yuan, 2009; the volumes of arXiv 1910.02054, section 7).

A matrix of N parameters costs 2N operations for each token forwards and 4N backwards (Kaplan et al., arXiv 2001.08361,
section 2.1): 6N, and 2N more for each time that the forward pass is run again.

In the formulas of this folder, `shape` is the backbone with its adapters, `trained` the number of its parameters that
are trained, `number_bytes` the bytes of a weight, gradient or activation (4 in fp32, 2 in bf16), `pairs` those of one
rank, `candidates` the passages and hard negatives of all ranks, and `dimension` that of an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

from hbtrain.planning.memory import FLOAT, Zero
from hbtrain.planning.shape import BackboneShape


@dataclass(frozen=True)
class Messages:
    """Bytes of the tensors that are reduced or gathered in a step."""

    all_reduce: int = 0  # tensors of which every rank gets the sum
    all_gather: int = 0  # tensors that are spread over ranks, and that every rank gets whole
    reduce_scatter: int = 0  # tensors of which every rank gets a part of the sum

    def __add__(self, other: Messages) -> Messages:
        return Messages(
            self.all_reduce + other.all_reduce,
            self.all_gather + other.all_gather,
            self.reduce_scatter + other.reduce_scatter,
        )

    def sent(self, world_size: int) -> int:
        """Bytes that one of `world_size` ranks sends in rings."""
        return (2 * self.all_reduce + self.all_gather + self.reduce_scatter) * (world_size - 1) // world_size


def model_messages(
    shape: BackboneShape, trained: int, zero: Zero, number_bytes: int, chunks: int = 1, batches: int = 2
) -> Messages:
    """Gradients and weights in a step, as DeepSpeed 0.19.8 moves them by default.

    Stages 1 and 2 all-reduce gradients in buckets for several ranks at once (`use_multi_rank_bucket_allreduce`), which
    is twice the reduce-scatter of the ZeRO paper, then gather the weights. From stage 2 on this happens for every chunk
    of a gradient cache. Stage 3 gathers weights for every use, or once for a forward pass and its backward pass
    (`Zero.keeps_gathered`); a forward pass without a graph always gathers for every use. Small weights, below
    `stage3_param_persistence_threshold`, are gathered once when the step is done, and counted here as the others are. A
    chunk has a forward pass (`batches`) for each side, and more where sides are cut by length.
    """
    gradients, held = number_bytes * trained, shape.parameters
    if zero.stage == 0:
        return Messages(all_reduce=gradients)
    if zero.stage == 1:
        return Messages(all_reduce=gradients, all_gather=gradients)
    if zero.stage == 2:
        return Messages(all_reduce=chunks * gradients, all_gather=gradients)
    gathered = batches * held if chunks > 1 else 0
    if zero.keeps_gathered(shape):
        gathered += held
    else:
        # The backward pass reads the embeddings once, for all its batches.
        gathered += 2 * batches * held - (batches - 1) * shape.embedding_parameters
    return Messages(all_gather=chunks * number_bytes * gathered, reduce_scatter=chunks * gradients)


def embedding_messages(candidates: int, dimension: int, queries: int = 0) -> Messages:
    """The loss: candidates (and queries where it is symmetric) gathered in float32, gradients reduce-scattered."""
    size = FLOAT * (candidates + queries) * dimension
    return Messages(all_gather=size, reduce_scatter=size)


def forward_flops(shape: BackboneShape, tokens: int, length: int) -> int:
    """Operations for `tokens` tokens in texts of `length` tokens: matrices and attention's two products; embeddings are
    free."""
    return tokens * (2 * shape.matrix_parameters + 4 * shape.layers * shape.hidden * length)


def encoder_flops(
    shape: BackboneShape, texts: dict[int, int], checkpointing: bool = False, cached: bool = False
) -> int:
    """Operations of the encoder in a step: 3 forward passes, 1 more for checkpointing, 1 more for a gradient cache.

    `texts` is {tokens of a text: how many such texts}.
    """
    forward = sum(forward_flops(shape, length * count, length) for length, count in texts.items())
    return forward * (3 + int(checkpointing) + int(cached))


def loss_flops(pairs: int, candidates: int, dimension: int) -> int:
    """Operations, in float32, for the scores of `pairs` queries with all candidates, and for the gradients of both."""
    return 6 * pairs * candidates * dimension
