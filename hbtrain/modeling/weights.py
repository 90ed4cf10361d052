"""Weights come as safetensors only: opening a pickle (`pytorch_model.bin`) can run code. Found out without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from hbtrain.errors import ModelError

_PICKLES = ("pytorch_model*.bin", "adapter_model*.bin")
_SAFE = ("*.safetensors", "*.safetensors.index.json")


CONVERT = "with sentence_transformers: SentenceTransformer('{name}').save('FOLDER')"


def check_weights(name: str, is_sentence_transformer: bool, convert: str = CONVERT) -> None:
    """Raise ModelError if a part of the model has its weights in a pickle and not in safetensors.

    Args:
        name: a folder, or a name on the hub.
        is_sentence_transformer: whether a `modules.json` says what its parts are.
        convert: how to make safetensors of it.
    """
    files = list(_files(name))
    folders = _module_folders(name, files) if is_sentence_transformer else [PurePosixPath(".")]
    for folder in folders:
        here = [file for file in files if file.parent == folder]
        pickles = [file for file in here if any(file.match(pattern) for pattern in _PICKLES)]
        if pickles and not any(file.match(pattern) for file in here for pattern in _SAFE):
            raise ModelError(
                f"model '{name}' has weights in {pickles[0]}, a pickle, which can run code when it is opened; "
                "hbtrain reads safetensors only: convert it where you trust it, "
                f"{convert.format(name=name)}, and give that folder"
            )


def _module_folders(name: str, files: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """Folders, inside the model's, that its parts are loaded from."""
    modules = _modules(name)
    if any(str(module.get("type", "")).endswith(".Router") for module in modules):
        return sorted({file.parent for file in files})  # its parts are in folders that only itself knows of
    return [PurePosixPath(str(module.get("path", ""))) for module in modules]


def _modules(name: str) -> list[dict[str, Any]]:
    try:
        if Path(name).is_dir():
            text = (Path(name) / "modules.json").read_text(encoding="utf-8")
        else:
            from huggingface_hub import hf_hub_download

            text = Path(hf_hub_download(name, "modules.json")).read_text(encoding="utf-8")
        modules = json.loads(text)
        return [module for module in modules if isinstance(module, dict)]
    except Exception as error:  # among them those of the HTTP client beneath
        raise ModelError(f"model '{name}': its modules.json cannot be read: {error}".splitlines()[0]) from error


def _files(name: str) -> Iterable[PurePosixPath]:
    """Every file of the model, relative to its folder; of a model on the hub those in the cache if it is offline."""
    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import HfApi, snapshot_download

        try:
            return [PurePosixPath(file) for file in HfApi().list_repo_files(name)]
        except Exception:  # offline, in a way that differs from one HTTP client to the next
            try:
                folder = Path(snapshot_download(name, local_files_only=True))
            except Exception as error:
                raise ModelError(
                    f"model '{name}' is not in the local cache, and the Hugging Face hub cannot be reached; "
                    "download it beforehand, or give a model's folder"
                ) from error
    return [PurePosixPath(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file()]
