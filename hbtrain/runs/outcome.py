"""The outcome of a run: where everything is, and how the model scores; a notebook shows it as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hbtrain.config import without_passwords
from hbtrain.evaluation.summary import Evaluation
from hbtrain.evaluation.tables import changes_table, scores_table
from hbtrain.reporting.html import html_page
from hbtrain.reporting.metric_names import RANK_DISTANCE, SETTINGS, score_title, shown
from hbtrain.reporting.table import Table, table_of
from hbtrain.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Outcome:
    """The results of a run."""

    folder: RunFolder  # the run's folder
    run_id: str  # id of the MLflow run
    tracking_uri: str  # MLflow tracking URI of that run
    # evaluations of the model before training, one for each benchmark; empty if not asked for
    before: tuple[Evaluation, ...]
    after: tuple[Evaluation, ...]  # evaluations of the trained model, one for each benchmark
    in_domain: str | None = None  # the benchmark, or domain of one, that MRR on the others is compared with
    step: int = 0  # the step at which training ended
    # {`<benchmark>/<setting>/<metric>`: score} of the trained model, as in `metrics.json`
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """Folder or URI of the trained model, which sentence-transformers loads."""
        return str(self.folder.model)

    @property
    def initial_model(self) -> str:
        """Folder or URI of the model before training."""
        return str(self.folder.initial_model)

    def __fspath__(self) -> str:
        """The run's folder or URI, so that `hbtrain.compare` takes the outcome itself."""
        return str(self.folder.path)

    def _repr_html_(self) -> str:
        before = {evaluation.benchmark: evaluation for evaluation in self.before}
        tables = [
            scores_table(one) if one.benchmark not in before else changes_table(before[one.benchmark], one)
            for one in self.after
        ]
        if not self.after and self.scores:
            tables = [self._score_table()]
        uri = without_passwords(self.tracking_uri)
        notes = [f"model: {self.model}", f"MLflow: run {self.run_id} in {uri}, {self.step} steps"]
        return html_page(tables, notes, self.folder.name)

    def _score_table(self) -> Table:
        """The main scores of a run whose evaluations are not at hand, as it was finished before."""
        keys = [key.split("/") for key in self.scores if key.endswith(("/map", f"/{RANK_DISTANCE}"))]
        rows = [
            (benchmark, score_title(metric, setting), shown(self.scores[f"{benchmark}/{setting}/{metric}"], metric))
            for benchmark, setting, metric in (key for key in keys if len(key) == 3 and key[1] in SETTINGS)
        ]
        return table_of("", ("benchmark", "score", ""), rows, labels=2)
