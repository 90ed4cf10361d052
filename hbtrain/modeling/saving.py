"""Writing a model's folder, whole or not at all; the digest of a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbtrain.errors import MAKE_ROOM, StorageError, is_full
from hbtrain.storage.files import make_folder, remove_leftovers, whole

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def replace_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Make `path` a folder with what `write(folder)` writes; a model that was there is replaced.

    What killed processes have left half written of it is deleted. One process at a time may write it.

    Raises:
        StorageError: `path` cannot be written, or is something else than a model.
    """
    if path.exists() and not _may_be_replaced(path):
        raise StorageError(f"{path} exists and holds no model; choose another folder, or empty that one")
    try:
        make_folder(path.parent)
        remove_leftovers(path.parent, path.name)
        with whole(path, replaces_folder=True) as unfinished:
            unfinished.mkdir()
            write(unfinished)
    except Exception as error:
        if not (isinstance(error, OSError) or is_full(error)):  # safetensors and tokenizers have errors of their own
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise StorageError(
            f"cannot write a model to {path}: {reason}" + (f"; {MAKE_ROOM}" if is_full(error) else "")
        ) from error


def _may_be_replaced(path: Path) -> bool:
    if not path.is_dir():
        return False
    return (path / "modules.json").is_file() or (path / "config.json").is_file() or not any(path.iterdir())


def model_digest(model: SentenceTransformer) -> str:
    """Hex digest of the modules, their settings, the similarity, the tokenizer, and the weights with their precision.

    Folder, device and prompts do not enter it. It reads all weights: some seconds for a billion parameters.
    """
    import torch

    digest = hashlib.sha256()
    settings: list[Any] = [model.truncate_dim, getattr(model, "max_seq_length", None)]
    if model.similarity_fn_name != "cosine":  # vectors are not made unit ones then
        settings.append(model.similarity_fn_name)
    for name, module in model.named_children():
        own: dict[str, Any] = getattr(module, "get_config_dict", dict)()
        settings.append([name, type(module).__qualname__, own])
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(tokenizer_state(getattr(model, "tokenizer", None)).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()


def tokenizer_state(tokenizer: Any) -> str:
    """Everything that decides how a tokenizer cuts texts, but for its limit and padding, as JSON."""
    fast = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(fast, "to_str"):
        return json.dumps(getattr(tokenizer, "get_vocab", dict)(), sort_keys=True)
    state = json.loads(fast.to_str())
    # These two change with every text that is tokenized; a transformer's limit is among the settings.
    state.pop("truncation", None)
    state.pop("padding", None)
    return json.dumps(state, sort_keys=True)
