"""What the files of a published model say before any of them is loaded: whether they are safe and whole, and whether
they are of a model that makes embeddings. Needs no torch, and runs before workers start.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from hbtrain.errors import ModelError
from hbtrain.storage import inside

_PICKLES = ("pytorch_model*.bin", "adapter_model*.bin")
_SAFE = ("*.safetensors", "*.safetensors.index.json")
_WEIGHTS = ("model*.safetensors", "adapter_model*.safetensors", *_PICKLES)
_TOKENIZERS = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "merges.txt", "*preprocessor_config.json")
"""Names of files that make a tokenizer, of every kind that transformers and sentence-transformers read."""
_POINTER = b"version https://git-lfs"
_SETTINGS = "config_sentence_transformers.json"
_SIMILARITIES = (None, "cosine", "dot", "euclidean", "manhattan")
_CLASSIFIER = "ForSequenceClassification"
_INDEX = "model.safetensors.index.json"


ADAPTER = "adapter_config.json"
CONVERT = "with sentence_transformers: SentenceTransformer('{name}').save('FOLDER')"


def check_encoder_files(name: str, is_sentence_transformer: bool) -> None:
    """Raise ModelError if the model's files are unsafe, not whole, without a tokenizer, or of a model that makes no
    embeddings.

    Args:
        name: a folder, or a name on the hub.
        is_sentence_transformer: whether a `modules.json` says what its parts are.
    """
    check_weights(name, is_sentence_transformer)
    if is_sentence_transformer:
        _check_kind(name)
    else:
        _check_architecture(name)
    _check_tokenizers(name, is_sentence_transformer)


def is_cross_encoder(name: str, is_sentence_transformer: bool) -> bool:
    """Whether the model scores pairs of texts: a cross-encoder of sentence-transformers, or a classifier.

    Raises:
        ModelError: its settings cannot be read.
    """
    if is_sentence_transformer:
        return _read_settings(name, _SETTINGS).get("model_type") == "CrossEncoder"
    architectures = _read_settings(name, "config.json").get("architectures") or ()
    return any(str(kind).endswith(_CLASSIFIER) for kind in architectures)


def check_cross_encoder_files(name: str, is_sentence_transformer: bool) -> None:
    """Raise ModelError if a cross-encoder's files are unsafe, not whole, or without a tokenizer."""
    check_weights(name, is_sentence_transformer)
    _check_tokenizers(name, is_sentence_transformer)


def _check_tokenizers(name: str, is_sentence_transformer: bool) -> None:
    files = list(_files(name))
    for folder in _tokenizer_folders(name, is_sentence_transformer):
        here = [file for file in files if file.parent == folder]
        if here and not any(file.match(pattern) for file in here for pattern in _TOKENIZERS):
            raise ModelError(
                f"model '{name}' has no tokenizer: there is no tokenizer.json, nor a vocabulary, beside its "
                "config.json; copy the tokenizer files there from where the model comes from"
            )


def check_weights(name: str, is_sentence_transformer: bool, convert: str = CONVERT) -> None:
    """Raise ModelError if a part of the model has its weights in a pickle and not in safetensors, or not whole.

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
        unsafe = pickles and not any(file.match(pattern) for file in here for pattern in _SAFE)
        loaded = [file for file in here if unsafe or file not in pickles]
        _check_whole(name, loaded)
        if unsafe:
            raise ModelError(
                f"model '{name}' has weights in {pickles[0]}, a pickle, which can run code when it is opened; "
                "hbtrain reads safetensors only: convert it where you trust it, "
                f"{convert.format(name=name)}, and give that folder"
            )


def read_json(name: str, file: str) -> Any:
    """The content of a JSON file of a model in a folder or on the hub; None if there is no such file.

    Raises:
        ModelError: the file cannot be fetched, or is not JSON.
    """
    try:
        path = inside(Path(name), file)
    except ValueError as error:
        raise ModelError(f"model '{name}': {error}; download the model again") from error
    if not Path(name).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            path = Path(hf_hub_download(name, file))
        except EntryNotFoundError:
            return None
        except Exception as error:  # of the HTTP client beneath
            raise ModelError(f"model '{name}': its {file} cannot be fetched: {error}".splitlines()[0]) from error
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"model '{name}': its {file} cannot be read: {error}".splitlines()[0]) from error


def _read_settings(name: str, file: str) -> dict[str, Any]:
    """The content of a JSON file of settings; empty if there is no such file."""
    content = read_json(name, file)
    if not isinstance(content, dict | None):
        raise ModelError(f"model '{name}': its {file} is no JSON object, as settings are; download the model again")
    return content or {}


def is_adapter(name: str, where: str, called: str) -> ModelError:
    """The error of a model, `called` so in a message, whose files are those of an adapter; they are in `where`."""
    base = _read_settings(where, ADAPTER).get("base_model_name_or_path") or "BASE"
    return ModelError(
        f"{called} '{name}' is an adapter ({ADAPTER}), which needs its base model '{base}': merge both, "
        f"peft.PeftModel.from_pretrained(transformers.AutoModel.from_pretrained('{base}'), '{name}')"
        ".merge_and_unload().save_pretrained('FOLDER'), save the base model's tokenizer there too, and give FOLDER"
    )


def _check_kind(name: str) -> None:
    said = _read_settings(name, _SETTINGS)
    if (similarity := said.get("similarity_fn_name")) not in _SIMILARITIES:
        raise ModelError(
            f"model '{name}': similarity_fn_name = {similarity!r} in its {_SETTINGS} is none that "
            "sentence-transformers knows: cosine, dot, euclidean, manhattan"
        )
    kind = said.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise ModelError(
            f"model '{name}' is a {kind} of sentence-transformers, which does not make one vector of a text; give a "
            "SentenceTransformer, or a backbone without its head"
        )


def _check_architecture(name: str) -> None:
    config = _read_settings(name, "config.json")
    classifies = any(str(kind).endswith(_CLASSIFIER) for kind in config.get("architectures") or ())
    if classifies and (len(config.get("id2label") or ()) == 1 or "sentence_transformers" in config):
        raise ModelError(
            f"model '{name}' is a cross-encoder ({config['architectures'][0]} with one score): it scores pairs of "
            "texts and makes no embeddings; give a model that embeds each text by itself"
        )


def _check_whole(name: str, files: Sequence[PurePosixPath]) -> None:
    """Check the files that would be loaded, as far as they are on this machine."""
    names = {file.name for file in files}
    for file in files:
        path = _on_disk(name, file)
        if path is None:
            continue
        if any(file.match(pattern) for pattern in (*_WEIGHTS, *_TOKENIZERS, "*.json")):
            with path.open("rb") as stream:
                start = stream.read(len(_POINTER))
            if start == _POINTER:
                raise ModelError(
                    f"model '{name}': {path} is a pointer of git-lfs, not the file itself; run `git lfs pull` in the "
                    "model's folder, or download the model again"
                )
        if file.name == _INDEX:
            shards = set(_read_settings(name, str(file)).get("weight_map", {}).values())
            if Path(name).is_dir() and (missing := sorted(shards - names)):
                raise ModelError(
                    f"model '{name}': {len(missing)} of the {len(shards)} files of its weights are missing "
                    f"({missing[0]}); download the model again"
                )
        elif file.suffix == ".safetensors" and any(file.match(pattern) for pattern in _WEIGHTS):
            _check_safetensors(name, path)


def _check_safetensors(name: str, path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):  # reads the table of contents, and compares it with the file's size
            pass
    except SafetensorError as error:
        raise ModelError(
            f"model '{name}' cannot be loaded: {path} is cut off or damaged ({error}); fetch it again"
        ) from error


def _on_disk(name: str, file: PurePosixPath) -> Path | None:
    if Path(name).is_dir():
        return Path(name) / file
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, str(file))
    return Path(cached) if isinstance(cached, str) else None


def _tokenizer_folders(name: str, is_sentence_transformer: bool) -> list[PurePosixPath]:
    if not is_sentence_transformer:
        return [PurePosixPath(".")]
    tokenizing = (".Transformer", ".StaticEmbedding")
    modules = [module for module in _modules(name) if str(module.get("type", "")).endswith(tokenizing)]
    return [PurePosixPath(str(module.get("path", ""))) for module in modules]


def _module_folders(name: str, files: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """The folders, inside the model's folder, from which its modules are loaded."""
    modules = _modules(name)
    if any(str(module.get("type", "")).endswith(".Router") for module in modules):
        return sorted({file.parent for file in files})  # its parts are in folders that only itself knows of
    return [PurePosixPath(str(module.get("path", ""))) for module in modules]


def _modules(name: str) -> list[dict[str, Any]]:
    modules = read_json(name, "modules.json")
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelError(f"model '{name}': its modules.json is no list of modules; download the model again")
    for path in [str(module.get("path", "")) for module in modules]:
        try:
            inside(Path(name), f"{path}/{_SETTINGS}" if path else _SETTINGS)
        except ValueError as error:
            raise ModelError(f"model '{name}': its modules.json: {error}; do not use this model") from error
    return modules


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
