"""What of a run goes to the hub: the files of its model, and a card with its results, data, batch plan and licence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yaml import YAMLError

from hbtrain.corpus.data_sets import repositories
from hbtrain.errors import StorageError
from hbtrain.evaluation.tables import COLUMNS
from hbtrain.modeling.card import RUN, published
from hbtrain.reporting.metric_names import SETTINGS, metric_title
from hbtrain.runs.run_folder import RunFolder, RunState
from hbtrain.storage import Place, is_whole, local_copy, place

CARD = "README.md"
TASK = "information-retrieval"  # as sentence-transformers calls it in its own cards


@dataclass(frozen=True)
class Publication:
    """A run's model as it goes to the hub."""

    run: str  # name of its folder
    files: Mapping[str, Path | bytes]  # {path in the repository: file, or content of what is made for it}
    card: str  # the text of README.md, which is among the files

    def sizes(self) -> dict[str, int]:
        """{path in the repository: bytes}."""
        return {
            path: content.stat().st_size if isinstance(content, Path) else len(content)
            for path, content in self.files.items()
        }

    def is_same(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a card with this metadata is of the same run."""
        return bool(metadata.get(RUN) == self.run)


def publication(run: str, repository: str, licence: str | None = None) -> Publication:
    """What of a run goes to a repository of the hub.

    Args:
        run: its folder, or an s3:// URI, which is copied into the cache.
        repository: `ORG/NAME`.
        licence: of the model, as the hub writes it; None: the card claims none.

    Raises:
        StorageError: there is no such run, it is not finished, or its files cannot be read.
        DataError: remote storage cannot be read.
    """
    folder = RunFolder(place(run))
    state = folder.state
    if not (folder.model / "modules.json").exists() or not is_whole(folder.model):
        raise StorageError(
            f"{run} is no run with a trained model; give a run's folder, such as runs/quickstart-1a2b3c4d"
        )
    if not state.finished:
        raise StorageError(f"{run} is not finished, so not all of its results are there; the same training goes on")
    model = local_copy(folder.model)
    try:
        text = (model / CARD).read_text(encoding="utf-8")
        metrics, about = (_read_json(folder.results / name) for name in ("metrics.json", "about.json"))
        card = published(
            text,
            repository,
            run=folder.name,
            results=list(eval_results(metrics, about)),
            data=data_licences(state),
            batch_plan=state.batch_plan,
            licence=licence,
        )
    except (OSError, ValueError, YAMLError) as error:
        raise StorageError(f"cannot read the card and results of {run}: {error}") from error
    files = sorted(path.relative_to(model) for path in model.rglob("*") if path.is_file())
    visible = [path for path in files if not any(part.startswith(".") for part in path.parts)]
    own: dict[str, Path | bytes] = {str(path): model / path for path in visible if str(path) != CARD}
    return Publication(folder.name, {CARD: card.encode(), **own}, card)


def data_licences(state: RunState) -> dict[str, str]:
    """{source: its licence, as its publisher writes it} of the catalogue's data sets that a run was trained on."""
    known = {
        name.removeprefix("sources/"): about
        for name, about in (state.data_sets or {}).items()
        if name.startswith("sources/")
    }
    return {name: str(about.get("licence") or "unknown") for name, about in known.items()}


def eval_results(metrics: Mapping[str, float], about: Mapping[str, Any]) -> Iterator[Any]:
    """The scores of a run as `huggingface_hub.EvalResult`, of which model-index is made.

    Those over all languages, of the metrics that tables show. A setting is the configuration of a data set.
    """
    from huggingface_hub import EvalResult

    for key, value in metrics.items():
        benchmark, _, rest = key.partition("/")
        setting, _, metric = rest.partition("/")
        if setting not in SETTINGS or metric not in COLUMNS:
            continue
        data = about.get("benchmarks", {}).get(benchmark, {}).get("data", {"sources": {}})
        name, revision = next(iter(repositories(data).items()), (benchmark, None))
        yield EvalResult(
            task_type=TASK,
            task_name="Information Retrieval",
            dataset_type=name,
            dataset_name=f"{benchmark}, {SETTINGS[setting]}",
            dataset_config=setting,
            dataset_revision=revision,
            metric_type=metric,
            metric_name=metric_title(metric),
            metric_value=value,
        )


def _read_json(file: Place) -> dict[str, Any]:
    """Empty where there is no such file, as for a run without benchmarks."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found
