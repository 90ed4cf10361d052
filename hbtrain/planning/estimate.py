"""What a run will need, from its configuration and that of its backbone; no weights are read.

Every text counts with the token limit of its side, so memory, tokens and work are upper bounds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hbtrain.batching import shard_sizes
from hbtrain.config import Config
from hbtrain.config.encoder import EncoderConfig
from hbtrain.errors import ModelError
from hbtrain.planning.communication import embedding_messages, encoder_flops, loss_flops, model_messages
from hbtrain.planning.memory import States, Zero, activation_bytes, loss_bytes, model_states
from hbtrain.planning.shape import BackboneShape, distilbert_shape, sentence_transformer_shape, static_shape
from hbtrain.reporting.text import GIB, byte_size
from hbtrain.training.deepspeed_config import deepspeed_config

ASSUMED_FLOPS_PER_S = {"bf16": 312e12, "fp32": 19.5e12}  # peak of an A100, from which GPU-hours are estimated
ASSUMED_UTILISATION = 0.4  # the share of the peak that a training is assumed to reach


@dataclass(frozen=True)
class Estimate:
    """What a run needs."""

    workers: int
    parameters: int  # of the encoder, adapters included
    trained: int  # how many of them are trained
    states: States  # bytes of a worker for weights, gradients and optimizer
    activations: int  # bytes of a worker for the texts that have a graph at one time
    loss: int  # bytes of a worker for the gathered loss
    sent: int  # bytes that a worker sends in a step
    pairs: int  # of the whole run
    tokens: int  # of the whole run, at most
    flops: float  # operations of the whole run, all workers together, at most
    gpu_hours: float  # at the assumed rate, without communication; 0 if no GPU is used
    precision: str  # of the encoder
    zero_stage: int  # of DeepSpeed

    @property
    def memory(self) -> int:
        """Bytes on a worker's device, at most, without those of the frameworks."""
        s = self.states
        return s.standing + s.gradients + max(s.gathered + self.activations + self.loss, s.step)

    def tags(self) -> dict[str, str]:
        tags = {
            "estimate.workers": str(self.workers),
            "estimate.parameters": str(self.parameters),
            "estimate.trained_parameters": str(self.trained),
            "estimate.memory_gib_per_worker": f"{self.memory / GIB:.3g}",
            "estimate.sent_mib_per_step": f"{self.sent / 2**20:.3g}",
            "estimate.pairs": str(self.pairs),
            "estimate.tokens_at_most": str(self.tokens),
            "estimate.flops": f"{self.flops:.3g}",
        }
        if self.gpu_hours:
            tags["estimate.gpu_hours"] = f"{self.gpu_hours:.3g}"
        return tags

    def lines(self) -> list[str]:
        s = self.states
        parts = {
            "weights": s.parameters + s.gathered,
            "optimizer": s.masters + s.optimizer,
            "gradients": s.gradients,
            "their bucket": s.buckets,
            "activations": self.activations,
            "loss": self.loss,
        }
        sizes = ", ".join(f"{name} {byte_size(size)}" for name, size in parts.items() if size)
        host = f", and {byte_size(s.host)} offloaded" if s.host else ""
        first = f"a worker needs at most {byte_size(self.memory)} beside its libraries ({sizes}){host}"
        second = (
            f"{_short(self.parameters)} parameters; {_short(self.pairs)} pairs, {_short(self.tokens)} tokens at most"
        )
        if self.sent:
            second += f"; {byte_size(self.sent)} sent by a worker in a step"
        if self.gpu_hours:
            rate = ASSUMED_FLOPS_PER_S[self.precision] / 1e12
            second += f"; {self.gpu_hours:.2g} GPU-hours at {ASSUMED_UTILISATION:.0%} of {rate:g} TFLOP/s"
        return [first, second]


def estimate(config: Config, graph_tokens: int | None = None) -> Estimate | None:
    """What a run needs on the most workers that it may have; None if the backbone's sizes are not known.

    With `graph_tokens`, a rank has at most so many tokens, padding included, with a graph at one time, as they were
    counted; else as if every text were as long as its limit.

    Raises:
        ConfigError: the DeepSpeed configuration is wrong.
    """
    shape = backbone_shape(config.encoder)
    if shape is None:
        return None
    encoder, batching, training = config.encoder, config.batching, config.training
    workers, number_bytes = config.resources.max_workers, 2 if encoder.precision == "bf16" else 4
    shape, trained = _trained(shape, encoder)
    zero = Zero.of(deepspeed_config(config, workers).get("zero_optimization") or {})
    if not config.resources.use_gpu:  # main memory counts when it is written to, and most of a bucket never is
        zero = replace(zero, bucket=min(zero.bucket, trained))
    loss = config.loss
    queries, passages = 1 + int(loss.needs_translated_queries), 1 + loss.hard_negatives + loss.translations
    sides = 1 + queries + int(loss.hard_negatives > 0) + int(loss.translations > 0)
    per_pair = {encoder.max_query_tokens: queries}
    per_pair[encoder.max_passage_tokens] = per_pair.get(encoder.max_passage_tokens, 0) + passages
    tokens_per_pair = sum(length * count for length, count in per_pair.items())
    pairs, batch = max(shard_sizes(batching.global_batch_size, workers)), batching.global_batch_size
    chunks = min(training.chunks, pairs)
    if training.chunk_tokens is not None:
        chunks = min(pairs, -(-pairs * tokens_per_pair // training.chunk_tokens))
    candidates = batch * passages
    messages = model_messages(shape, trained, zero, number_bytes, chunks, sides)
    messages += embedding_messages(candidates, shape.dimension, batch if config.loss.symmetric else 0)
    flops = encoder_flops(shape, per_pair, encoder.gradient_checkpointing, chunks > 1) * batch
    flops += loss_flops(batch, candidates, shape.dimension) * (2 if config.loss.symmetric else 1)
    flops *= training.steps
    rate = ASSUMED_FLOPS_PER_S[encoder.precision] * ASSUMED_UTILISATION
    return Estimate(
        workers=workers,
        parameters=shape.parameters,
        trained=trained,
        states=model_states(
            shape, trained, workers, zero, number_bytes, _of_muon(shape, config), training.average is not None
        ),
        activations=activation_bytes(
            shape,
            -(-pairs // chunks) * tokens_per_pair if graph_tokens is None else graph_tokens,
            number_bytes,
            encoder.gradient_checkpointing,
            dropout=encoder.transformer.dropout > 0 if encoder.backbone == "transformer" else True,
            score_length=encoder.max_passage_tokens if encoder.attention == "eager" else 0,
        ),
        loss=loss_bytes(pairs, candidates, shape.dimension, loss.block_rows, workers, plain=not loss.beside_plain),
        sent=messages.sent(workers),
        pairs=batch * training.steps,
        tokens=batch * training.steps * tokens_per_pair,
        flops=float(flops),
        gpu_hours=flops / rate / 3600 if config.resources.use_gpu else 0.0,
        precision=encoder.precision,
        zero_stage=zero.stage,
    )


def _trained(shape: BackboneShape, encoder: EncoderConfig) -> tuple[BackboneShape, int]:
    """The shape with the adapters, if there are any, and how many parameters are trained."""
    if encoder.lora is None:
        return shape, shape.unfrozen_parameters(min(encoder.freeze_layers, shape.layers), encoder.freeze_embeddings)
    adapters = shape.lora_parameters(encoder.lora.rank)
    return replace(shape, other_parameters=shape.other_parameters + adapters), adapters


def _of_muon(shape: BackboneShape, config: Config) -> int:
    """Parameters in the matrices of layers that are trained, where Muon takes them."""
    if config.training.optimizer != "muon" or not shape.layers:
        return 0
    return shape.matrix_parameters * max(shape.layers - config.encoder.freeze_layers, 0) // shape.layers


def backbone_shape(config: EncoderConfig) -> BackboneShape | None:
    """The shape of a configuration's backbone; a vocabulary that is trained or trimmed counts with its largest size.

    None if the backbone is on the hub and not cached, or if the formula of its architecture is not known.
    """
    if config.backbone == "static":
        section = config.static
        return static_shape(_vocabulary_size(section.vocabulary, section.vocabulary_size), section.dimension)
    if config.backbone == "transformer":
        small = config.transformer
        vocabulary = _vocabulary_size(small.vocabulary, small.vocabulary_size)
        sizes = (small.layers, small.hidden_size, small.heads, small.intermediate_size)
        return distilbert_shape(vocabulary, small.max_positions, *sizes)
    from hbtrain.modeling.backbone import find_backbone

    try:
        name = find_backbone(config.backbone).name
    except ModelError:
        return None
    return sentence_transformer_shape(lambda file: _read(name, file))


def _vocabulary_size(file: str | None, trained: int) -> int:
    if file is None:
        return trained
    from hbtrain.modeling.vocabulary import load_vocabulary

    return len(load_vocabulary(file))


def _read(name: str, file: str) -> Any:
    """A JSON file of a model in a folder or in the local cache of the hub; None where there is none."""
    path: Path | str | None = Path(name) / file
    if not Path(name).is_dir():
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, file)
        path = found if isinstance(found, str) else None
    try:
        return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _short(count: float) -> str:
    """A number in words: 12.8 million."""
    for limit, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if count >= limit:
            return f"{count / limit:.3g} {word}"
    return f"{count:,.0f}"
