"""Tokenizers without weights: they give the token features that an encoder would get, for audits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from hbtrain.errors import ModelError
from hbtrain.modeling.backbone import BUILT_BACKBONES, Backbone, find_backbone

if TYPE_CHECKING:
    from torch import Tensor

    from hbtrain.config.schema import EncoderConfig

Side = Literal["query", "passage"]


class Tokenizes(Protocol):
    """Makes token features of texts: an encoder, or its tokenizer without weights."""

    def tokenize(self, texts: Sequence[str], side: Side) -> dict[str, Tensor]:
        """Token features of prefix + text, cut to the side's token limit (see `Encoder.tokenize`)."""


def tokenizer_of(config: EncoderConfig, texts: Callable[[], Iterable[str]]) -> Tokenizes:
    """A tokenizer that cuts texts into tokens as the configuration's encoder does, without the encoder's weights.

    A vocabulary that the encoder would trim is used whole, which gives the same tokens for the texts of the sources.
    One that it would train is trained here as well, on `texts()`.

    Raises:
        ModelError: the backbone or the vocabulary is not there.
    """
    from hbtrain.modeling.encoder import Encoder

    if config.backbone in BUILT_BACKBONES:
        return Encoder.build(_smallest(config), texts, seed=0)
    backbone = find_backbone(config.backbone)
    folder = _transformer_folder(backbone)
    if folder is None:  # a table of token vectors, say: its tokenizer comes with it
        return Encoder.load(config.backbone, config, device="cpu")
    return _Pretrained(backbone, folder, config)


class _Pretrained:
    """The tokenizer of a pretrained transformer."""

    def __init__(self, backbone: Backbone, folder: str, config: EncoderConfig) -> None:
        from transformers import AutoTokenizer

        trusted = {"trust_remote_code": config.trust_remote_code is not None}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(backbone.name, subfolder=folder, **trusted)
        except (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"the tokenizer of encoder.backbone '{config.backbone}' cannot be loaded: {reason}"
            ) from error
        if len(self._tokenizer) <= len(self._tokenizer.all_special_ids):  # made up where there are no files
            raise ModelError(f"encoder.backbone '{config.backbone}' has no tokenizer: its files are missing")
        own = _length_limit(backbone, folder, self._tokenizer.model_max_length)
        self._prefixes = {"query": config.query_prefix, "passage": config.passage_prefix}
        self._limits = {"query": min(config.max_query_tokens, own), "passage": min(config.max_passage_tokens, own)}

    def tokenize(self, texts: Sequence[str], side: Side) -> dict[str, Tensor]:
        features = self._tokenizer(
            [self._prefixes[side] + text for text in texts],
            truncation=True,
            max_length=self._limits[side],
            padding=True,
            return_tensors="pt",
        )
        return {name: features[name] for name in ("input_ids", "attention_mask")}


def _smallest(config: EncoderConfig) -> EncoderConfig:
    """The configuration of an encoder with the same tokens and the smallest possible network."""
    small = {"layers": 1, "hidden_size": 1, "heads": 1, "intermediate_size": 1, "trim": False}
    return config.model_copy(
        update={
            "lora": None,
            "freeze_layers": 0,
            "gradient_checkpointing": False,
            "static": config.static.model_copy(update={"dimension": 1, "trim": False}),
            "transformer": config.transformer.model_copy(update=small),
        }
    )


def _transformer_folder(backbone: Backbone) -> str | None:
    """The folder of the transformer and its tokenizer inside the model's folder; None if it has no transformer."""
    if not backbone.is_sentence_transformer:
        return ""
    first = (_read(backbone.name, "modules.json") or [{"type": "", "path": ""}])[0]
    return str(first["path"]) if first["type"].endswith("Transformer") else None


def _length_limit(backbone: Backbone, folder: str, of_tokenizer: int) -> int:
    """The most tokens of a text that the backbone reads."""
    prefix = f"{folder}/" if folder else ""
    limits = [
        of_tokenizer,
        (_read(backbone.name, f"{prefix}sentence_bert_config.json") or {}).get("max_seq_length"),
        (_read(backbone.name, f"{prefix}config.json") or {}).get("max_position_embeddings"),
    ]
    return min(limit for limit in limits if limit is not None)


def _read(name: str, file: str) -> Any:
    """The content of a JSON file of a model in a folder or on the hub; None if there is no such file."""
    from transformers.utils import cached_file

    path = (
        Path(name) / file
        if Path(name).is_dir()
        else cached_file(name, file, _raise_exceptions_for_missing_entries=False)
    )
    if path is None or not Path(path).is_file():
        return None
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} of encoder.backbone '{name}' is not JSON: {error}") from error
