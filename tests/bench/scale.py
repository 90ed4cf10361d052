"""One training step on a cluster that is not there: memory, communication and time by stated assumptions."""

from __future__ import annotations

from dataclasses import dataclass

from hbtrain.planning.communication import embedding_messages, encoder_flops, loss_flops, model_messages
from hbtrain.planning.memory import States, Zero, activation_bytes, loss_bytes, model_states
from hbtrain.planning.shape import BackboneShape


@dataclass(frozen=True)
class Hardware:
    """What is assumed of the machines; none of it is measured here.

    Attributes:
        flops_per_s: a GPU's peak for the encoder's matrices.
        utilisation: the share of it that the encoder reaches.
        loss_flops_per_s: a GPU's rate for float32 matrix products, where the loss is computed.
        ranks_per_node: GPUs of a machine.
        node_bytes_per_s: that a GPU sends to others of its machine.
        network_bytes_per_s: that a GPU sends to other machines; the slowest link sets a ring's pace.
    """

    flops_per_s: float = 989e12
    utilisation: float = 0.4
    loss_flops_per_s: float = 50e12
    ranks_per_node: int = 8
    node_bytes_per_s: float = 300e9
    network_bytes_per_s: float = 40e9

    def bytes_per_s(self, world_size: int) -> float:
        """Of a ring over all ranks."""
        return self.node_bytes_per_s if world_size <= self.ranks_per_node else self.network_bytes_per_s


@dataclass(frozen=True)
class Workload:
    """A rank's part of a step.

    Attributes:
        pairs_per_rank: queries, each with its passage.
        query_tokens: of a query, padding included.
        passage_tokens: of a passage.
        number_bytes: of a weight: 2 in bf16, 4 in fp32.
        chunks: of the gradient cache.
        checkpointing: encoder.gradient_checkpointing.
        block_rows: loss.block_rows.
    """

    pairs_per_rank: int = 128
    query_tokens: int = 64
    passage_tokens: int = 256
    number_bytes: int = 2
    chunks: int = 1
    checkpointing: bool = False
    block_rows: int = 512


@dataclass(frozen=True)
class Step:
    """What one step takes on one rank.

    Attributes:
        states: weights, gradients, optimizer.
        activations: bytes of the graph.
        loss: bytes of the gathered loss.
        model_sent: bytes sent for gradients and weights.
        embeddings_sent: bytes sent for the loss.
        encoder_s: computing the encoder.
        loss_s: computing the loss.
        model_s: communicating gradients and weights, nothing overlapped.
        embeddings_s: communicating embeddings.
    """

    states: States
    activations: int
    loss: int
    model_sent: int
    embeddings_sent: int
    encoder_s: float
    loss_s: float
    model_s: float
    embeddings_s: float

    @property
    def memory(self) -> int:
        """Bytes at the most: gradients complete and the graph not yet gone, or the optimizer stepping."""
        s = self.states
        return s.standing + s.gradients + max(s.gathered + self.activations + self.loss, s.step)

    @property
    def seconds(self) -> float:
        """One after the other."""
        return self.encoder_s + self.loss_s + self.model_s + self.embeddings_s

    @property
    def loss_share(self) -> float:
        """Time of the gathered loss, communication included, against the encoder's."""
        return (self.loss_s + self.embeddings_s) / self.encoder_s


def simulate(shape: BackboneShape, world_size: int, zero: Zero, work: Workload, hardware: Hardware) -> Step:
    """One step of `world_size` ranks."""
    pairs, batch = work.pairs_per_rank, work.pairs_per_rank * world_size
    tokens = pairs * (work.query_tokens + work.passage_tokens)
    texts = {work.query_tokens: pairs, work.passage_tokens: pairs}
    if work.query_tokens == work.passage_tokens:
        texts = {work.query_tokens: 2 * pairs}
    model = model_messages(shape, shape.parameters, zero, work.number_bytes, work.chunks).sent(world_size)
    embeddings = embedding_messages(batch, shape.dimension).sent(world_size)
    rate = hardware.bytes_per_s(world_size)
    flops = encoder_flops(shape, texts, work.checkpointing, work.chunks > 1)
    return Step(
        states=model_states(shape, shape.parameters, world_size, zero, work.number_bytes),
        activations=activation_bytes(shape, -(-tokens // work.chunks), work.number_bytes, work.checkpointing),
        loss=loss_bytes(pairs, batch, shape.dimension, work.block_rows, world_size),
        model_sent=model,
        embeddings_sent=embeddings,
        encoder_s=flops / (hardware.flops_per_s * hardware.utilisation),
        loss_s=loss_flops(pairs, batch, shape.dimension) / hardware.loss_flops_per_s,
        model_s=model / rate,
        embeddings_s=embeddings / rate,
    )


def largest_batch(shape: BackboneShape, share: float, work: Workload, hardware: Hardware) -> int:
    """Pairs of a global batch up to which the gathered loss costs at most `share` of the encoder's time.

    Each rank's loss grows with all candidates, its encoder with its own pairs: per pair, the loss computes 6 B D
    operations, and b pairs wait for 8 B D bytes (float32 gathered once, reduce-scattered once) over the network.
    """
    per_pair = encoder_flops(shape, {work.query_tokens: 1}, work.checkpointing, work.chunks > 1)
    per_pair += encoder_flops(shape, {work.passage_tokens: 1}, work.checkpointing, work.chunks > 1)
    encoder_s = per_pair / (hardware.flops_per_s * hardware.utilisation)
    computing_s = loss_flops(1, 1, shape.dimension) / hardware.loss_flops_per_s
    network_s = embedding_messages(1, shape.dimension).sent(2) * 2 / hardware.network_bytes_per_s / work.pairs_per_rank
    return int(share * encoder_s / (computing_s + network_s))
