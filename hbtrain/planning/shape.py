"""The sizes of a backbone, from its configuration alone; no weights are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

BERT_LIKE = ("bert", "camembert", "roberta", "xlm-roberta")  # encoders with segment embeddings and a pooler

DECODERS = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class BackboneShape:
    """The sizes of a backbone on which memory, communication and work depend."""

    dimension: int  # of an embedding
    embedding_parameters: int  # parameters of the embeddings of tokens, positions and segments
    layer_parameters: int = 0  # parameters of one layer
    # those of normalisation outside the layers, pooler, and dense layers after the transformer
    other_parameters: int = 0
    layers: int = 0  # how many; 0 for a static encoder
    hidden: int = 0  # width of the residual stream
    heads: int = 0
    intermediate: int = 0  # width of the feed-forward part
    gated: bool = False  # whether that part multiplies two projections (SwiGLU)
    linear: tuple[tuple[int, int], ...] = ()  # (inputs, outputs) of each matrix of one layer

    @property
    def parameters(self) -> int:
        return self.embedding_parameters + self.layers * self.layer_parameters + self.other_parameters

    @property
    def matrix_parameters(self) -> int:
        """Parameters of the matrices with which every token is multiplied; embeddings are only looked up."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear)

    def lora_parameters(self, rank: int) -> int:
        """Parameters of adapters on every matrix of every layer."""
        return self.layers * rank * sum(inputs + outputs for inputs, outputs in self.linear)

    def unfrozen_parameters(self, frozen_layers: int, frozen_embeddings: bool) -> int:
        """Parameters that are trained if the lowest layers, or the embeddings, are frozen."""
        frozen = frozen_layers * self.layer_parameters + (self.embedding_parameters if frozen_embeddings else 0)
        return self.parameters - frozen


def static_shape(vocabulary: int, dimension: int) -> BackboneShape:
    """The shape of a bag of token vectors: `encoder.backbone: static`."""
    return BackboneShape(dimension, vocabulary * dimension)


def distilbert_shape(vocabulary: int, positions: int, layers: int, hidden: int, heads: int, intermediate: int) -> (
    BackboneShape
):  # fmt: skip
    """The shape of BERT without pooler and segments: `encoder.backbone: transformer`."""
    embeddings = (vocabulary + positions) * hidden
    return _encoder(embeddings, 2 * hidden, layers, hidden, heads, intermediate)


def transformers_shape(config: Mapping[str, Any]) -> BackboneShape | None:
    """The shape of a Hugging Face model, from its `config.json`; None if there is no formula for its architecture."""
    kind = config.get("model_type")
    try:
        if kind == "distilbert":
            return distilbert_shape(
                config["vocab_size"],
                config["max_position_embeddings"],
                config["n_layers"],
                config["dim"],
                config["n_heads"],
                config["hidden_dim"],
            )
        if kind in BERT_LIKE:
            hidden = config["hidden_size"]
            rows = config["vocab_size"] + config["max_position_embeddings"] + config["type_vocab_size"]
            sizes = (config["num_hidden_layers"], hidden, config["num_attention_heads"], config["intermediate_size"])
            return _encoder(rows * hidden, 2 * hidden + hidden * hidden + hidden, *sizes)
        if kind in DECODERS:
            return _decoder(config)
    except KeyError:  # a configuration that leaves a size to its class's default
        pass
    return None


def sentence_transformer_shape(read: Callable[[str], Any]) -> BackboneShape | None:
    """The shape of a model, from its files; None if they are missing, or if there is no formula for its architecture.

    `read` gives the content of a JSON file by its path in the model's folder, None if there is no such file.
    """
    modules = read("modules.json") or [{"type": "Transformer", "path": ""}]
    shape: BackboneShape | None = None
    for module in modules:
        kind = module["type"].rpartition(".")[2]
        folder = f"{module['path']}/" if module["path"] else ""
        if kind == "Transformer":
            shape = transformers_shape(read(f"{folder}config.json") or {})
        elif kind == "Dense" and shape is not None:
            dense = read(f"{folder}config.json") or {}
            inputs, outputs = dense.get("in_features"), dense.get("out_features")
            if inputs is None or outputs is None:
                return None
            more = inputs * outputs + (outputs if dense.get("bias", True) else 0)
            shape = replace(shape, dimension=outputs, other_parameters=shape.other_parameters + more)
    return shape


def _encoder(embeddings: int, other: int, layers: int, hidden: int, heads: int, intermediate: int) -> BackboneShape:
    linear = ((hidden, hidden),) * 4 + ((hidden, intermediate), (intermediate, hidden))
    biases = 4 * hidden + intermediate + hidden
    layer = sum(inputs * outputs for inputs, outputs in linear) + biases + 4 * hidden  # two normalisations
    return BackboneShape(hidden, embeddings, layer, other, layers, hidden, heads, intermediate, False, linear)


def _decoder(config: Mapping[str, Any]) -> BackboneShape:
    kind, hidden, heads = config["model_type"], config["hidden_size"], config["num_attention_heads"]
    intermediate = config["intermediate_size"]
    width = config.get("head_dim") or hidden // heads
    queries, keys = heads * width, (config.get("num_key_value_heads") or heads) * width
    attention = ((hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden))
    linear = (*attention, (hidden, intermediate), (hidden, intermediate), (intermediate, hidden))
    layer = sum(inputs * outputs for inputs, outputs in linear) + 2 * hidden
    layer += {"qwen2": queries + 2 * keys, "qwen3": 2 * width}.get(kind, 0)
    embeddings = config["vocab_size"] * hidden
    layers = config["num_hidden_layers"]
    return BackboneShape(hidden, embeddings, layer, hidden, layers, hidden, heads, intermediate, True, linear)
