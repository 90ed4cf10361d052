"""Weights come as safetensors only: opening a pickle (`pytorch_model.bin`) can run code. Found out without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from hbtrain.errors import ModelError
from hbtrain.modeling.backbone import Backbone

_PICKLES = ("pytorch_model*.bin", "adapter_model*.bin")
_SAFE = ("*.safetensors", "*.safetensors.index.json")


def check_weights(backbone: Backbone) -> None:
    """Raise ModelError if a part of the model has its weights in a pickle and not in safetensors."""
    files = list(_files(backbone))
    for folder in _loaded_folders(backbone, files):
        here = [file for file in files if file.parent == folder]
        pickles = [file for file in here if any(file.match(pattern) for pattern in _PICKLES)]
        if pickles and not any(file.match(pattern) for file in here for pattern in _SAFE):
            raise ModelError(
                f"model '{backbone.name}' has weights in {pickles[0]}, a pickle, which can run code when it is opened; "
                "hbtrain reads safetensors only: convert it where you trust it, with sentence_transformers: "
                f"SentenceTransformer('{backbone.name}').save('FOLDER'), and give that folder"
            )


def _loaded_folders(backbone: Backbone, files: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """Folders, inside the model's, that its parts are loaded from."""
    root = PurePosixPath(".")
    if not backbone.is_sentence_transformer:
        return [root]
    modules = _modules(backbone)
    if any(str(module.get("type", "")).endswith(".Router") for module in modules):
        return sorted({file.parent for file in files})  # its parts are in folders that only itself knows of
    return [root / str(module.get("path", "")) for module in modules]


def _modules(backbone: Backbone) -> list[dict[str, Any]]:
    try:
        if Path(backbone.name).is_dir():
            text = (Path(backbone.name) / "modules.json").read_text(encoding="utf-8")
        else:
            from huggingface_hub import hf_hub_download

            text = Path(hf_hub_download(backbone.name, "modules.json")).read_text(encoding="utf-8")
        modules = json.loads(text)
        return [module for module in modules if isinstance(module, dict)]
    except Exception as error:  # among them those of the HTTP client beneath
        raise ModelError(f"model '{backbone.name}': its modules.json cannot be read: {error}".splitlines()[0]) from error


def _files(backbone: Backbone) -> Iterable[PurePosixPath]:
    """Every file of the model, relative to its folder; of a model on the hub those in the cache if it is offline."""
    folder = Path(backbone.name)
    if not folder.is_dir():
        from huggingface_hub import HfApi, snapshot_download

        try:
            return [PurePosixPath(file) for file in HfApi().list_repo_files(backbone.name)]
        except Exception:  # offline, in a way that differs from one HTTP client to the next
            folder = Path(snapshot_download(backbone.name, local_files_only=True))
    return [PurePosixPath(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file()]
