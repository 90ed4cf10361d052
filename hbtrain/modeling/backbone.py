"""Finding a backbone, in a folder or on the hub; needs no torch, and runs before workers start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hbtrain.errors import ModelError
from hbtrain.modeling.model_files import ADAPTER, check_encoder_files, is_adapter
from hbtrain.storage import expand_home, is_remote, local_copy, place

if TYPE_CHECKING:
    from hbtrain.config.encoder import EncoderConfig


BUILT_BACKBONES = ("static", "transformer")  # backbones that start from random weights

_HUB_TIMEOUT_S = 5.0
_MODEL_FILES = (("modules.json", True), ("config.json", False))
"""Files by which a model is known, and whether it is one of sentence-transformers."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained model that exists."""

    name: str  # the absolute path of a folder, or a name on the hub with its organisation
    is_sentence_transformer: bool  # whether it has a `modules.json`, which defines its pooling


def check_backbone(config: EncoderConfig) -> None:
    """Raise ModelError if `config.backbone` or its vocabulary is not there, unsafe or unfit. No weights are downloaded.

    A name on the hub is looked up in the local cache and, unless offline, on the hub.
    """
    if config.backbone in BUILT_BACKBONES:
        section = config.static if config.backbone == "static" else config.transformer
        if section.vocabulary is not None:
            from hbtrain.modeling.vocabulary import load_vocabulary

            load_vocabulary(section.vocabulary)
    else:
        backbone = find_backbone(config.backbone)
        check_encoder_files(backbone.name, backbone.is_sentence_transformer)


def find_backbone(name: str, called: str = "encoder.backbone") -> Backbone:
    """The pretrained model that `name` means: a folder if there is one, else a name on the hub.

    A folder in remote storage is copied into the cache.

    Args:
        name: a folder, its URI, or a name on the hub.
        called: what messages call it: a key of recipes, or the argument of a command.

    Raises:
        DataError: a URI of remote storage that cannot be fetched.
        ModelError: a folder that holds no model, or a hub name that is neither cached nor reachable.
    """
    if is_remote(name):
        return _find_folder(name, local_copy(place(name)), called)
    path = expand_home(name)
    if path.exists() or _looks_like_path(name):
        return _find_folder(name, path, called)
    # sentence-transformers reads a bare name as one of its own organisation's first ("LaBSE").
    candidates = [name] if "/" in name else [f"sentence-transformers/{name}", name]
    for candidate in candidates:
        if (found := _find_on_hub(candidate, called)) is not None:
            return found
    raise ModelError(
        f"{called} '{name}' is no folder and no model on the Hugging Face hub; "
        "give `static`, `transformer`, a model's folder or a hub name such as sentence-transformers/LaBSE"
    )


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def _find_folder(name: str, path: Path, called: str) -> Backbone:
    if not path.exists():
        raise ModelError(f"{called} '{name}' does not exist; give a model's folder or a hub name")
    for file, is_sentence_transformer in _MODEL_FILES:
        if (path / file).is_file():
            return Backbone(str(path.absolute()), is_sentence_transformer)
    if (path / ADAPTER).is_file():
        raise is_adapter(name, str(path.absolute()), called)
    raise ModelError(f"{called} '{name}' holds no model: it has neither modules.json nor config.json")


def _find_on_hub(name: str, called: str) -> Backbone | None:
    """The model in the local cache or on the hub; None if the hub says that there is none."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        for file, is_sentence_transformer in _MODEL_FILES:
            # A cached "does not exist" is no string either.
            if isinstance(try_to_load_from_cache(name, file), str):
                return Backbone(name, is_sentence_transformer)
    except HFValidationError:
        return None
    for file, is_sentence_transformer in _MODEL_FILES:
        if _exists_on_hub(name, file, called):
            return Backbone(name, is_sentence_transformer)
    if _exists_on_hub(name, ADAPTER, called):
        raise is_adapter(name, name, called)
    return None


def _exists_on_hub(name: str, file: str, called: str) -> bool:
    from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
    )

    missing = f"{called} '{name}' is no folder, not in the local cache"
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
