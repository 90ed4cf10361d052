"""Tokenizers without weights: they give the token features that an encoder would get, for audits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from hbtrain.errors import ModelError
from hbtrain.modeling.backbone import BUILT_BACKBONES, Backbone, find_backbone
from hbtrain.modeling.model_files import read_json
from hbtrain.modeling.packing import FLASH, PACKED, PROVEN

if TYPE_CHECKING:
    from torch import Tensor

    from hbtrain.config.encoder import EncoderConfig
    from hbtrain.modeling.features import Features

Side = Literal["query", "passage"]


class Tokenizes(Protocol):
    """Makes token features of texts: an encoder, or its tokenizer without weights."""

    @property
    def packs(self) -> bool:
        """Whether batches are packed by `pack` before they are embedded."""

    def pack(self, batches: Sequence[Features]) -> list[Features]:
        """The texts of padded batches in packed ones (see `Encoder.pack`)."""

    def tokenize(self, texts: Sequence[str], side: Side) -> dict[str, Tensor]:
        """Token features of prefix + text, cut to the side's token limit (see `Encoder.tokenize`)."""


def tokenizer_of(config: EncoderConfig, texts: Callable[[], Iterable[str]], on_gpus: bool = False) -> Tokenizes:
    """A tokenizer that cuts texts into tokens as the configuration's encoder does, without the encoder's weights.

    It packs them where the encoder would, in training on GPUs if `on_gpus`.
    A vocabulary that the encoder would trim is used whole, which gives the same tokens for the texts of the sources.
    One that it would train is trained here as well, on `texts()`.

    Raises:
        ModelError: the backbone or the vocabulary is not there.
    """
    from hbtrain.modeling.encoder import Encoder

    packs = on_gpus and config.attention == "auto" and config.precision == "bf16"
    if config.backbone in BUILT_BACKBONES:
        packs = packs and config.backbone == "transformer"
        return Encoder.build(_smallest(config, {"attention": PACKED} if packs else {}), texts, seed=0)
    backbone = find_backbone(config.backbone)
    folder = _transformer_folder(backbone)
    if folder is None:  # a table of token vectors, say: its tokenizer comes with it
        return Encoder.load(config.backbone, config, device="cpu")
    return _Pretrained(backbone, folder, config, packs)


class _Pretrained:
    """The tokenizer of a pretrained transformer."""

    def __init__(self, backbone: Backbone, folder: str, config: EncoderConfig, packs: bool) -> None:
        import torch
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        from hbtrain.modeling.fitting import fit_tokenizer, usable_positions

        trusted = {"trust_remote_code": config.trust_remote_code is not None}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(backbone.name, subfolder=folder, **trusted)
            shape = AutoConfig.from_pretrained(backbone.name, subfolder=folder, **trusted)
            with torch.device("meta"):
                network = AutoModel.from_config(shape, **trusted)
        except Exception as error:  # tokenizers have errors of their own
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ModelError(
                f"the tokenizer of encoder.backbone '{config.backbone}' cannot be loaded: {reason}"
            ) from error
        fit_tokenizer(config.backbone, self._tokenizer, network)
        own = _length_limit(backbone, folder, self._tokenizer.model_max_length, usable_positions(network))
        proven = type(network).__name__ in PROVEN
        self._packs = config.attention == PACKED or (proven and (packs or config.attention == FLASH))
        self._prefixes = {"query": config.query_prefix, "passage": config.passage_prefix}
        self._limits = {"query": min(config.max_query_tokens, own), "passage": min(config.max_passage_tokens, own)}

    @property
    def packs(self) -> bool:
        return self._packs

    def pack(self, batches: Sequence[Features]) -> list[Features]:
        from hbtrain.modeling.packing import packed

        return [packed(batches)]

    def tokenize(self, texts: Sequence[str], side: Side) -> dict[str, Tensor]:
        features = self._tokenizer(
            [self._prefixes[side] + text for text in texts],
            truncation=True,
            max_length=self._limits[side],
            padding=True,
            return_tensors="pt",
        )
        return {name: features[name] for name in ("input_ids", "attention_mask")}


def _smallest(config: EncoderConfig, changes: dict[str, object]) -> EncoderConfig:
    """The configuration, with `changes`, of an encoder with the same tokens and the smallest possible network."""
    small = {"layers": 1, "hidden_size": 1, "heads": 1, "intermediate_size": 1, "trim": False}
    return config.model_copy(
        update={
            "lora": None,
            "freeze_layers": 0,
            "gradient_checkpointing": False,
            "static": config.static.model_copy(update={"dimension": 1, "trim": False}),
            "transformer": config.transformer.model_copy(update=small),
            **changes,
        }
    )


def _transformer_folder(backbone: Backbone) -> str | None:
    """The folder of the transformer and its tokenizer inside the model's folder; None if it has no transformer."""
    if not backbone.is_sentence_transformer:
        return ""
    first = (read_json(backbone.name, "modules.json") or [{"type": "", "path": ""}])[0]
    return str(first["path"]) if first["type"].endswith("Transformer") else None


def _length_limit(backbone: Backbone, folder: str, of_tokenizer: int, of_network: int | None) -> int:
    """The most tokens of a text that the backbone reads."""
    prefix = f"{folder}/" if folder else ""
    limits = [
        of_tokenizer,
        of_network,
        (read_json(backbone.name, f"{prefix}sentence_bert_config.json") or {}).get("max_seq_length"),
        (read_json(backbone.name, f"{prefix}config.json") or {}).get("max_position_embeddings"),
    ]
    return min(limit for limit in limits if limit is not None)
