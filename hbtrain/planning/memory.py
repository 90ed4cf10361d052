"""Memory of one rank, in bytes: model states by ZeRO stage, activations, the gathered loss.

What DeepSpeed 0.19.8 holds was measured (`tests/distributed/test_scale_ranks.py`) and differs from the ZeRO paper's
table (arXiv 1910.02054) in three things: stages 1 to 3 keep a float32 copy of the trained weights even where the model
is float32; a bucket for gradients is allocated whole, however small the model is; and ZeRO-3 keeps a weight that it has
gathered until the step's last use of it, as long as uses lie less than `stage3_max_reuse_distance` weights apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hbtrain.planning.shape import BackboneShape

FLOAT = 4  # bytes of a float32 number

AVERAGED_AT_ONCE = 500_000_000  # the most numbers that DeepSpeed, without ZeRO, copies into one tensor to average them


@dataclass(frozen=True)
class Zero:
    """The ZeRO settings of a DeepSpeed configuration."""

    stage: int = 0  # 0 to 3
    # whether optimizer states, float32 weights and averaged gradients are in the machine's memory
    offload_optimizer: bool = False
    offload_parameters: bool = False  # whether, in stage 3, the rank's part of the weights is there as well
    bucket: int = 500_000_000  # numbers in a bucket of gradients
    buckets: int = 1  # how many buckets there are
    # stage 3 keeps a gathered weight if its next use is at most so many numbers away
    reuse_distance: int = 1_000_000_000

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Zero:
        """From the section `zero_optimization` of a DeepSpeed configuration, with DeepSpeed's defaults."""
        stage = int(section.get("stage", 0))
        on_cpu = {
            key: (section.get(key) or {}).get("device") == "cpu" for key in ("offload_optimizer", "offload_param")
        }
        contiguous = section.get("contiguous_gradients", True)
        two = stage in (1, 2) and section.get("overlap_comm")
        return cls(
            stage=stage,
            offload_optimizer=on_cpu["offload_optimizer"],
            offload_parameters=on_cpu["offload_param"],
            bucket=_number(section.get("reduce_bucket_size"), cls.bucket),
            buckets=0 if stage == 0 or not contiguous else 2 if two else 1,
            reuse_distance=_number(section.get("stage3_max_reuse_distance"), cls.reuse_distance),
        )

    def keeps_gathered(self, shape: BackboneShape) -> bool:
        """Whether stage 3 gathers each weight only once in a step, and holds all of them until the last use.

        Between two uses lie all parameters (from one forward pass to the next), or at most twice the layers (from a
        forward pass to its backward pass).
        """
        uses_apart = max(shape.parameters, 2 * (shape.parameters - shape.embedding_parameters))
        return self.stage == 3 and uses_apart <= self.reuse_distance


@dataclass(frozen=True)
class States:
    """Bytes of one rank that do not depend on the batch."""

    parameters: int  # weights with which the model computes; in stage 3 the rank's part of them
    masters: int  # float32 copies of the trained weights
    optimizer: int  # the two moments of AdamW, the one of Muon; the moving average of the weights
    gradients: int  # at the end of the backward pass, when they are largest
    buckets: int  # gradients that are being sent to other ranks
    gathered: int  # weights of other ranks that stage 3 holds at one time
    # copies of gradients after the backward pass: one tensor of them while stage 0 averages, float32 copies while the
    # optimizer steps in bf16
    step: int
    host: int  # everything that was offloaded to the machine's memory

    @property
    def standing(self) -> int:
        """Bytes that are on the device all the time."""
        return self.parameters + self.masters + self.optimizer + self.buckets


def model_states(
    shape: BackboneShape,
    trained: int,
    world_size: int,
    zero: Zero,
    number_bytes: int,
    of_muon: int = 0,
    averages: bool = False,
) -> States:
    """Bytes of one rank for weights, gradients and the optimizer: Muon for `of_muon` parameters, AdamW for the rest.

    `averages`: whether there is a moving average of the weights.
    """
    held = shape.parameters
    own_trained = -(-trained // world_size)
    own_held = -(-held // world_size)
    if zero.stage == 0:
        masters = FLOAT * trained if number_bytes < FLOAT else 0
        step = max(masters, number_bytes * min(trained, AVERAGED_AT_ONCE))
        moments = FLOAT * ((2 + averages) * trained - of_muon)
        return States(number_bytes * held, masters, moments, number_bytes * trained, 0, 0, step, 0)
    masters, optimizer = FLOAT * own_trained, (2 + averages) * FLOAT * own_trained
    step = masters if number_bytes < FLOAT else 0
    parameters = number_bytes * (own_held if zero.stage == 3 else held)
    averaged = number_bytes * own_trained
    # Stage 1 reduces when the backward pass is over, and so has every gradient by then.
    gradients = number_bytes * trained if zero.stage == 1 else averaged
    largest_layer = max(shape.layer_parameters, shape.embedding_parameters)
    gathered = (held if zero.keeps_gathered(shape) else min(held, largest_layer)) if zero.stage == 3 else 0
    host = 0
    if zero.offload_optimizer:
        host = masters + optimizer + averaged + step
        masters = optimizer = step = 0
        gradients -= averaged
    if zero.offload_parameters:
        host, parameters = host + parameters, 0
    buckets = zero.buckets * zero.bucket * number_bytes
    return States(parameters, masters, optimizer, gradients, buckets, number_bytes * gathered, step, host)


def activation_bytes(
    shape: BackboneShape,
    tokens: int,
    number_bytes: int,
    checkpointing: bool = False,
    dropout: bool = True,
    score_length: int = 0,
) -> int:
    """Bytes that the graph of `tokens` tokens, padding included, keeps for the backward pass.

    Per layer and token, for a width h and a feed-forward width f: inputs of the matrices, of attention and of the two
    normalisations, 8h + 2f numbers, and two dropout masks of h bytes (Korthikanti et al., arXiv 2205.05198, section
    4.1: 34h bytes at f = 4h in 16 bits). With checkpointing a layer's input, and one layer at a time (section 5).
    `score_length` is that of a text if attention keeps its scores (`attention: eager`), else 0.
    """
    feed_forward = (4 if shape.gated else 2) * shape.intermediate
    per_token = number_bytes * (8 * shape.hidden + feed_forward) + (2 * shape.hidden if dropout else 0)
    per_token += shape.heads * score_length * (2 * number_bytes + (1 if dropout else 0))
    if not checkpointing:
        return tokens * shape.layers * per_token
    return tokens * (shape.layers * shape.hidden * number_bytes + per_token)


def loss_bytes(
    pairs: int, candidates: int, dimension: int, block_rows: int, world_size: int, *, plain: bool = True
) -> int:
    """Bytes of the gathered loss on one rank, in float32, besides its own embeddings.

    These are the candidates of all ranks (if there are others), their gradient, the gradient of the rank's queries, and
    one block of scores (`loss.block_rows`), or where the loss is not `plain` up to four, as measured; never pairs x
    candidates.
    """
    rows = min(block_rows, pairs)
    gathered = candidates * dimension if world_size > 1 else 0
    gradients = (candidates + pairs) * dimension
    blocks = 1 if plain else 4
    return FLOAT * (gathered + gradients + blocks * rows * candidates + rows * dimension)


def _number(value: object, default: int) -> int:
    return default if value in (None, "auto") else int(float(str(value)))
