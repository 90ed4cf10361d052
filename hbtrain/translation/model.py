"""Finds a Hugging Face translation model and checks that it has the languages, without loading its weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbtrain.errors import ModelError
from hbtrain.modeling.backbone import check_weights, find_backbone
from hbtrain.storage.files import file_digest
from hbtrain.translation.prompting import prompting_of

CONVERT = (
    "with transformers: AutoModelForSeq2SeqLM.from_pretrained('{name}').save_pretrained('FOLDER') and "
    "AutoTokenizer.from_pretrained('{name}').save_pretrained('FOLDER')"
)


@dataclass(frozen=True)
class TranslationModel:
    """What is known of a model before it is loaded."""

    name: str  # an absolute folder, or a name on the hub
    revision: str | None  # its commit on the hub; None for a folder
    digest: str  # of the folder's files; for a model on the hub, its commit
    family: str  # NLLB, M2M100, MADLAD or Marian
    max_tokens: int  # the longest input that it reads


def find_translation_model(name: str, source: str, targets: list[str]) -> TranslationModel:
    """The model in a folder or on the hub, which must translate from `source` into all `targets` (ISO 639-1 codes).

    Raises:
        ModelError: there is no such model, its weights are no safetensors, its family is unknown, or it does not
            translate one of the languages.
    """
    try:
        found = find_backbone(name).name
    except ModelError as error:
        # The message names a key of recipes; here the model comes from a flag.
        raise ModelError(str(error).replace("encoder.backbone '", "--model '").partition("; ")[0] + _REMEDY) from error
    check_weights(found, False, CONVERT)
    config, tokenizer = load_tokenizer(found, None)
    prompting = prompting_of(config.model_type, tokenizer, source, targets, name)
    revision = getattr(config, "_commit_hash", None)
    folder = Path(found)
    if not folder.is_dir() and revision is None:
        raise ModelError(f"--model {name}: its commit on the hub is unknown; download it, and give the folder")
    digest = folder_digest(folder) if folder.is_dir() else str(revision)
    return TranslationModel(found, revision, digest, prompting.family, _max_tokens(config, tokenizer))


_REMEDY = "; give a translation model's folder, or a hub name such as facebook/nllb-200-distilled-600M"


def load_tokenizer(name: str, revision: str | None) -> tuple[Any, Any]:
    """The configuration and the tokenizer of a model. Raises ModelError if they cannot be loaded."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
        return config, AutoTokenizer.from_pretrained(name, revision=revision)
    except Exception as error:  # broken files lead to errors of any type
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ModelError(f"--model {name}: its configuration or tokenizer cannot be loaded: {reason}") from error


def folder_digest(folder: Path) -> str:
    """Hex SHA-256 of the names and contents of the files in a model's folder, without *.md and hidden files."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix != ".md" and not path.name.startswith("."):
            digest.update(f"{path.name}\0{file_digest(path)}\n".encode())
    return digest.hexdigest()


def _max_tokens(config: Any, tokenizer: Any) -> int:
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    return min(int(limit) for limit in limits if limit is not None)
