"""The encoder: built or loaded, trained, saved as a sentence-transformers model.

Names are resolved when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hbtrain.modeling.backbone import check_backbone
    from hbtrain.modeling.card import ModelCard
    from hbtrain.modeling.embedding import EmbeddingModule
    from hbtrain.modeling.encoder import Encoder

__all__ = ["EmbeddingModule", "Encoder", "ModelCard", "check_backbone"]

_HOMES = {
    "EmbeddingModule": "hbtrain.modeling.embedding",
    "Encoder": "hbtrain.modeling.encoder",
    "ModelCard": "hbtrain.modeling.card",
    "check_backbone": "hbtrain.modeling.backbone",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
