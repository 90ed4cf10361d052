"""What the ranks tell each other in one step: messages of collectives, and the bytes that one rank sends for them.

A ring moves (W - 1) / W of a message out of each rank for a gather or a reduce-scatter, and twice that for an
all-reduce (Patarasuk & Yuan, 2009; the volumes of arXiv 1910.02054, section 7).

Floating-point operations of a step.

A matrix of N parameters costs 2N operations a token forwards and 4N backwards (Kaplan et al., arXiv 2001.08361,
section 2.1): 6N, and 2N more for each time that the forward pass is run again.
"""

from __future__ import annotations

from dataclasses import dataclass

from hbtrain.planning.memory import FLOAT, Zero
from hbtrain.planning.shape import BackboneShape


@dataclass(frozen=True)
class Messages:
    """Bytes of all messages of one kind in a step, each counted whole: the tensor that is reduced or gathered.

    Attributes:
        all_reduce: sums that every rank gets.
        all_gather: parts that every rank gets.
        reduce_scatter: sums of which each rank gets a part.
    """

    all_reduce: int = 0
    all_gather: int = 0
    reduce_scatter: int = 0

    def __add__(self, other: Messages) -> Messages:
        return Messages(
            self.all_reduce + other.all_reduce,
            self.all_gather + other.all_gather,
            self.reduce_scatter + other.reduce_scatter,
        )

    def sent(self, world_size: int) -> int:
        """Bytes that one rank sends in rings of `world_size` ranks."""
        return (2 * self.all_reduce + self.all_gather + self.reduce_scatter) * (world_size - 1) // world_size


def model_messages(
    shape: BackboneShape, trained: int, zero: Zero, number_bytes: int, chunks: int = 1, batches: int = 2
) -> Messages:
    """Gradients and weights in a step, as DeepSpeed 0.19.8 moves them by default.

    Stages 1 and 2 all-reduce gradients in buckets for several ranks at once (`use_multi_rank_bucket_allreduce`), which
    is twice the reduce-scatter of the ZeRO paper, then gather the weights. From stage 2 on this happens for every chunk
    of a gradient cache. Stage 3 gathers weights for every use, or once for a forward pass and its backward pass
    (`Zero.keeps_gathered`); a forward pass without a graph always gathers for every use. Small weights, below
    `stage3_param_persistence_threshold`, are gathered once when the step is done, and counted here as the others are.

    Args:
        shape: the backbone, adapters included.
        trained: parameters that are trained.
        zero: the stage.
        number_bytes: of a weight and of a gradient.
        chunks: parts of the gradient cache.
        batches: forward passes of one chunk: a side each, more where sides are cut by length.
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
    """The loss: candidates (and queries where it is symmetric) gathered in float32, their gradients all-reduced.

    Args:
        candidates: passages and hard negatives of all ranks.
        dimension: of an embedding.
        queries: of all ranks, where `loss.symmetric`; else 0.
    """
    size = FLOAT * (candidates + queries) * dimension
    return Messages(all_reduce=size, all_gather=size)


def forward_flops(shape: BackboneShape, tokens: int, length: int) -> int:
    """Of `tokens` tokens in texts of `length`: matrices, and attention's two products. Embeddings cost nothing."""
    return tokens * (2 * shape.matrix_parameters + 4 * shape.layers * shape.hidden * length)


def encoder_flops(
    shape: BackboneShape, texts: dict[int, int], checkpointing: bool = False, cached: bool = False
) -> int:
    """Of a step's encoder: three times the forward pass, once more with checkpointing, once more with a gradient cache.

    Args:
        shape: the backbone.
        texts: {tokens of a text: how many such texts}.
        checkpointing: encoder.gradient_checkpointing.
        cached: training.chunks above 1, or training.chunk_tokens.
    """
    forward = sum(forward_flops(shape, length * count, length) for length, count in texts.items())
    return forward * (3 + int(checkpointing) + int(cached))


def loss_flops(pairs: int, candidates: int, dimension: int) -> int:
    """Of one rank's rows against all candidates: scores, and the gradients of both sides; in float32."""
    return 6 * pairs * candidates * dimension
