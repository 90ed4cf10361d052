"""Results in mteb's form: `results/<model>/<revision>/<task>.json` and `model_meta.json`, as mteb's cache has them.

`mteb.ResultCache(folder)` loads them, and its leaderboard's repository takes them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hbtrain
from hbtrain.errors import DataError, StorageError
from hbtrain.evaluation.mteb_scores import MtebScores, TaskScores, mteb_version
from hbtrain.evaluation.summary import Evaluation
from hbtrain.storage.files import make_folder, whole

if TYPE_CHECKING:
    from hbtrain.modeling.encoder import Encoder

DIGITS = 6  # to which mteb rounds scores in files
LOCAL = "hbtrain"  # what stands for the organisation in the name of a model that is on this machine


def save_mteb_results(
    scores: MtebScores, evaluations: Sequence[Evaluation], encoder: Encoder, model: str, folder: Path
) -> list[Path]:
    """Write what mteb would report of a model, and return the files of tasks.

    Subsets that a file has already are kept, or replaced by those of `scores`, so that languages may be evaluated one
    after another.

    Args:
        scores: those of the model.
        evaluations: say how long each benchmark took.
        encoder: the model.
        model: its name on the hub, or its folder.
        folder: mteb's cache.

    Raises:
        DataError: a file that is there is none of mteb's, or of other data or another version of mteb.
        StorageError: the folder cannot be written.
    """
    meta = model_meta(encoder, model)
    own = folder / "results" / meta["name"].replace("/", "__").replace(" ", "_") / meta["revision"]
    seconds = {evaluation.benchmark: evaluation.seconds for evaluation in evaluations}
    written = {}
    for name, found in scores.found.items():
        path = own / f"{name}.json"
        written[path] = _with_others(path, _result(found, seconds.get(found.task.benchmark)))
    try:
        for path, content in ({own / "model_meta.json": meta} | written if written else {}).items():
            make_folder(own)
            with whole(path) as unfinished:
                unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write mteb's results to {own}: {error.strerror or error}; choose a folder that can be written"
        ) from error
    return list(written)


def model_meta(encoder: Encoder, model: str) -> dict[str, Any]:
    """What mteb says of a model, as far as it is known here.

    A model on this machine is named after its folder and the one above it. The revision is a digest of weights, their
    precision, and prompts.
    """
    there = Path(model)
    on_hub = model.count("/") <= 1 and not there.exists()
    name = f"{LOCAL}/{'-'.join(part for part in there.parts[-2:] if part != there.anchor)}"
    if on_hub:  # a name without an organisation is one of sentence-transformers' own
        name = model if "/" in model else f"sentence-transformers/{model}"
    limit = getattr(encoder.model, "max_seq_length", None)
    prompts = {side: prompt for side, prompt in encoder.prefixes.items() if prompt}
    names = {"query": "query", "passage": "document"}
    return {
        "loader": None,
        "loader_kwargs": {"model_prompts": {names[side]: prompt for side, prompt in prompts.items()}},
        "name": name,
        "revision": hashlib.sha256(f"{encoder.digest()} {sorted(prompts.items())}".encode()).hexdigest()[:40],
        "release_date": None,
        "languages": None,
        "n_parameters": sum(parameter.numel() for parameter in encoder.model.parameters()),
        "memory_usage_mb": None,
        "max_tokens": limit if isinstance(limit, int) else None,
        "embed_dim": encoder.dimension,
        "license": None,
        "open_weights": None,
        "public_training_code": None,
        "public_training_data": None,
        "framework": ["Sentence Transformers", "PyTorch"],
        "similarity_fn_name": encoder.similarity,
        "use_instructions": bool(prompts),
        "training_datasets": None,
        "output_dtypes": encoder.precision.split(", "),
    }


def _result(found: TaskScores, seconds: float | None) -> dict[str, Any]:
    task = found.task
    rows = [
        {name: round(score, DIGITS) for name, score in scores.items()}
        | {"hf_subset": subset, "languages": task.subsets[subset].languages, "mteb_version": mteb_version()}
        for subset, scores in found.subsets.items()
    ]
    return {
        "dataset_revision": task.revision,
        "task_name": task.name,
        "mteb_version": mteb_version(),
        "scores": {task.split: rows},
        "evaluation_time": seconds,
        "kg_co2_emissions": None,
        "date": time.time(),
        "evaluated_by": f"hbtrain {hbtrain.__version__}",  # mteb reads over it
    }


def _with_others(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    """The result, with the subsets of an earlier one that it does not have, and the time of both."""
    if not path.exists():
        return result
    try:
        before: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        [(split, rows)] = before["scores"].items()
        same = all(before[key] == result[key] for key in ("task_name", "dataset_revision", "mteb_version"))
        mine = {row["hf_subset"] for row in result["scores"][split]}
        others = [row for row in rows if row["hf_subset"] not in mine]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        same = False
    if not same:
        raise DataError(
            f"{path} is no result of the same task, data and version of mteb; move it away, or give another folder"
        )
    if not others:
        return result
    seconds = [one["evaluation_time"] for one in (before, result)]
    scores = {split: sorted([*others, *result["scores"][split]], key=lambda row: str(row["hf_subset"]))}
    return result | {"scores": scores, "evaluation_time": None if None in seconds else sum(seconds)}
