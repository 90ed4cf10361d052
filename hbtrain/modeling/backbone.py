"""Finding a backbone, and checking that its weights are safe to load; needs no torch, and runs before workers start."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from hbtrain.errors import ModelError
from hbtrain.storage import expand_home, is_remote, local_copy, place

if TYPE_CHECKING:
    from hbtrain.config.schema import EncoderConfig


BUILT_BACKBONES = ("static", "transformer")
"""Backbones that start from random weights."""

_HUB_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Backbone:
    """A pretrained model that exists."""

    name: str
    """The absolute path of a folder, or a name on the hub with its organisation."""
    is_sentence_transformer: bool
    """Whether it has a `modules.json`, which defines its pooling."""


def check_backbone(config: EncoderConfig) -> None:
    """Raise ModelError if `config.backbone` or its vocabulary is not there or is unsafe. No weights are downloaded.

    A name on the hub is looked up in the local cache and, unless offline, on the hub.
    """
    if config.backbone in BUILT_BACKBONES:
        section = config.static if config.backbone == "static" else config.transformer
        if section.vocabulary is not None:
            from hbtrain.modeling.vocabulary import load_vocabulary

            load_vocabulary(section.vocabulary)
    else:
        backbone = find_backbone(config.backbone)
        check_weights(backbone.name, backbone.is_sentence_transformer)


def find_backbone(name: str) -> Backbone:
    """The pretrained model that `name` means: a folder if there is one, else a name on the hub.

    A folder in remote storage is copied into the cache.

    Raises:
        DataError: a URI of remote storage that cannot be fetched.
        ModelError: a folder that holds no model, or a hub name that is neither cached nor reachable.
    """
    if is_remote(name):
        return _find_folder(name, local_copy(place(name)))
    path = expand_home(name)
    if path.exists() or _looks_like_path(name):
        return _find_folder(name, path)
    # sentence-transformers reads a bare name as one of its own organisation's first ("LaBSE").
    candidates = [name] if "/" in name else [f"sentence-transformers/{name}", name]
    for candidate in candidates:
        if (found := _find_on_hub(candidate)) is not None:
            return found
    raise ModelError(
        f"encoder.backbone '{name}' is no folder and no model on the Hugging Face hub; "
        "give `static`, `transformer`, a model's folder or a hub name such as sentence-transformers/LaBSE"
    )


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def _find_folder(name: str, path: Path) -> Backbone:
    if not path.exists():
        raise ModelError(f"encoder.backbone '{name}' does not exist; give a model's folder or a hub name")
    for file, is_sentence_transformer in (("modules.json", True), ("config.json", False)):
        if (path / file).is_file():
            return Backbone(str(path.absolute()), is_sentence_transformer)
    raise ModelError(f"encoder.backbone '{name}' holds no model: it has neither modules.json nor config.json")


def _find_on_hub(name: str) -> Backbone | None:
    """The model in the local cache or on the hub; None if the hub says that there is none."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        for file, is_sentence_transformer in (("modules.json", True), ("config.json", False)):
            # A cached "does not exist" is no string either.
            if isinstance(try_to_load_from_cache(name, file), str):
                return Backbone(name, is_sentence_transformer)
    except HFValidationError:
        return None
    for file, is_sentence_transformer in (("modules.json", True), ("config.json", False)):
        if _exists_on_hub(name, file):
            return Backbone(name, is_sentence_transformer)
    return None


def _exists_on_hub(name: str, file: str) -> bool:
    from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
    )

    missing = f"encoder.backbone '{name}' is no folder, not in the local cache"
    remedy = "download it beforehand, or give a model's folder"
    try:
        get_hf_file_metadata(hf_hub_url(name, file), timeout=_HUB_TIMEOUT_S, token=get_token())
    except GatedRepoError as error:
        raise ModelError(f"{missing}, and gated on the hub; ask for access there, then run `hf auth login`") from error
    except (RepositoryNotFoundError, RemoteEntryNotFoundError):
        return False
    except OfflineModeIsEnabled as error:
        raise ModelError(f"{missing}, and HF_HUB_OFFLINE is set; {remedy}") from error
    except Exception as error:  # of the HTTP client beneath, which is another from one version to the next
        raise ModelError(f"{missing}, and the Hugging Face hub cannot be reached; {remedy}") from error
    return True


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
    """The folders, inside the model's folder, from which its modules are loaded."""
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
