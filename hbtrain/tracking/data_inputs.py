"""The data of a run as MLflow's dataset inputs: sources, the source of validation, benchmarks.

MLflow shows them on a run's page with name, digest, schema and where they come from, and finds the runs that used one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from hbtrain.config import without_passwords
from hbtrain.corpus.data_sets import repositories

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

Context = Literal["training", "validation", "evaluation"]
"""What data are used for, as MLflow writes it."""
CONTEXT = "mlflow.data.context"  # MLflow's tag of an input: what it is used for
DIGEST_LENGTH = 16  # characters of a digest that are kept, of MLflow's 36 at most
MOST_COLUMNS = 1000  # of a schema, which MLflow lets be a megabyte


@dataclass(frozen=True)
class DataInput:
    """One source or benchmark that a run reads."""

    name: str  # as hbtrain calls it in tables and keys
    digest: str  # of its content, in hexadecimal digits
    context: Context
    location: str  # a path, a URI, or the name of a data set, as the configuration says
    columns: tuple[str, ...]  # of its texts, such as `query.de`
    profile: Mapping[str, Any]  # facts about it, as JSON values; MLflow shows `num_rows`
    data_set: Mapping[str, Any] | None = None  # if it is one of the catalogue: `hbtrain.corpus.data_sets.about`

    def to_json(self) -> dict[str, Any]:
        """The arguments of an MLflow dataset, and `context`: what `dataset_input` takes."""
        kind, source = _source(self.location, self.data_set)
        columns = [{"type": "string", "name": name, "required": False} for name in self.columns[:MOST_COLUMNS]]
        return {
            "name": self.name[:500],
            "digest": self.digest[:DIGEST_LENGTH],
            "source_type": kind,
            "source": json.dumps(source),
            "schema": json.dumps({"mlflow_colspec": columns}),
            "profile": json.dumps(dict(self.profile), ensure_ascii=False),
            "context": self.context,
        }


def dataset_input(content: Mapping[str, Any]) -> DatasetInput:
    """MLflow's own object, from what `DataInput.to_json` gave."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    fields = {name: value for name, value in content.items() if name != "context"}
    return DatasetInput(Dataset(**fields), tags=[InputTag(CONTEXT, content["context"])])


def _source(location: str, data_set: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """Type and content of a source as MLflow's own classes of sources write them."""
    found = repositories(data_set) if data_set is not None else {}
    if found:
        (path, revision), *_ = found.items()
        return "hugging_face", {"path": path, "revision": revision}
    if data_set is not None:
        return "http", {"url": without_passwords(next(iter(data_set["sources"])))}
    scheme = urlsplit(location).scheme
    if scheme in ("http", "https"):
        return "http", {"url": without_passwords(location)}
    return ("s3" if scheme == "s3" else "local"), {"uri": without_passwords(location)}
