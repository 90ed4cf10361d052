"""Floating-point operations of a step.

A matrix of N parameters costs 2N operations a token forwards and 4N backwards (Kaplan et al., arXiv 2001.08361,
section 2.1): 6N, and 2N more for each time that the forward pass is run again.
"""

from __future__ import annotations

from hbtrain.planning.shape import BackboneShape


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
