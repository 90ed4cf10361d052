"""A sweep over merges: the same models merged with one weight after another, each merge evaluated on benchmarks.

Nothing is trained, and no merge is kept as a model: a point is a folder of results as `hbtrain evaluate` writes it, and
an MLflow run under the sweep's. The same command goes on with the points that are not there yet.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbtrain.comparison.runs import MERGES_FILE as STATE
from hbtrain.comparison.runs import POINTS
from hbtrain.config import Config, override
from hbtrain.errors import ConfigError, StorageError
from hbtrain.modeling.merging import Method, Models, in_words, merge_weights
from hbtrain.reporting.text import counted, say
from hbtrain.runs.run_inputs import checked_inputs
from hbtrain.storage import Place, RemoteError, pushed, write_text
from hbtrain.storage.lease import leased
from hbtrain.sweeps.merge_summary import MergePoint, MergeSummary
from hbtrain.sweeps.points import Point, scores_of, title_of
from hbtrain.tracking.tracker import UNDELIVERED, Tracker
from hbtrain.tracking.uris import tracking_uri

if TYPE_CHECKING:
    from hbtrain.config import EvaluationConfig
    from hbtrain.evaluation.benchmark import Benchmark
    from hbtrain.modeling.encoder import Encoder

DEFAULT = ("0", "0.25", "0.5", "0.75", "1")


@dataclass(frozen=True)
class Merges:
    """What is to be merged, and how it is judged."""

    models: tuple[str, ...]
    base: str | None
    method: Method
    points: tuple[MergePoint, ...]
    evaluation: EvaluationConfig
    languages: tuple[str, ...] | None  # of the benchmarks; None: all that they have
    catalogue: tuple[str, ...] = ()
    tracking_uri: str | None = None
    experiment: str | None = None

    @property
    def config(self) -> Config:
        """A configuration with the benchmarks and where runs are tracked."""
        changes: dict[str, Any] = {
            "evaluation.benchmarks": self.evaluation.benchmarks,
            "data.catalogue": self.catalogue,
            "tracking.uri": self.tracking_uri,
        }
        return override(Config(), changes | ({"tracking.experiment": self.experiment} if self.experiment else {}))

    def in_words(self, weights: Sequence[float]) -> str:
        """What a point is, by the last parts of the models' names where these differ."""
        given = [*self.models, *([] if self.base is None else [self.base])]
        short = [Path(name).name for name in given]
        names = short if len(set(short)) == len(short) else given
        return in_words(self.method, names[: len(self.models)], weights, None if self.base is None else names[-1])

    @property
    def ends(self) -> dict[float, str]:
        """{number of a point: the model that it is}, where a number stands for all weights."""
        if self.base is not None:
            return {0.0: self.base} | ({1.0: self.models[0]} if len(self.models) == 1 else {})
        return {0.0: self.models[1], 1.0: self.models[0]} if len(self.models) == 2 else {}


def merge_points(method: Method, models: int, given: Sequence[str] | None, has_base: bool) -> tuple[MergePoint, ...]:
    """The points of a sweep.

    Args:
        method: how models are merged.
        models: how many, without the base.
        given: a text for each point: a number for each model, with commas. One number alone is the weight of the first
            of two models, and with `task-arithmetic` that of each model. None is a default for two models.
        has_base: whether there is a base.

    Raises:
        ConfigError: texts, models or base that the method does not take, or a point that is there twice.
    """
    merge_weights(method, models, None, has_base)
    alone = method == "task-arithmetic" or models == 2
    if given is None and not alone:
        raise ConfigError(f"--weights: needed for {models} models, a number for each in every point: 0.2,0.3,0.5 1,0,0")
    found: dict[tuple[float, ...], MergePoint] = {}
    for text in given or DEFAULT:
        numbers, number = _numbers(text), None
        if len(numbers) == 1 and alone:
            number = numbers[0]
            numbers = (number,) * models if method == "task-arithmetic" else (number, 1 - number)
        elif len(numbers) != models:
            either = f"one number, or {models}" if alone else f"{models} numbers"
            raise ConfigError(f"--weights {text}: a point of these models is {either} with commas between them")
        weights = merge_weights(method, models, numbers, has_base)
        if method != "task-arithmetic" and models == 2:
            number = weights[0]
        if weights in found:
            raise ConfigError(f"--weights: {text} and {found[weights].label} are the same point; give each once")
        label = ",".join(f"{x:.12g}" for x in ((number,) if number is not None else weights))
        found[weights] = MergePoint(label, weights, number)
    return tuple(found.values())


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise ConfigError(f"--weights {text}: must be a number, or one for each model with commas: 0.5, or 0.2,0.3,0.5")
    return tuple(number + 0.0 for number in numbers)  # -0 is 0


def sweep_merges(wanted: Merges, to: Place, benchmarks: Sequence[Benchmark], device: str, command: str) -> None:
    """Evaluate the points that are not there yet, and write the summary of all that are.

    Args:
        wanted: the merges.
        to: the sweep's folder.
        benchmarks: those of `wanted.evaluation`, loaded.
        device: where texts are embedded.
        command: what a new MLflow run shows as its source.

    Raises:
        ConfigError: `to` is one of the models, or holds points that were made otherwise.
        ModelError: a model is not there, or they are not alike.
        StorageError: `to` cannot be written, or another process works there.
        TrackingError: MLflow cannot be used.
    """
    config = wanted.config
    tracking_uri(config)  # raises if there is none
    models = Models.load(wanted.models, wanted.base, to if isinstance(to, Path) else None)
    made_of = _made_of(wanted, models, config)
    state = _State.read(to)
    state.check(made_of, to)
    with _written(to), leased(to) as lease:
        state = replace(_State.read(to), made_of=made_of)
        tracker = _begin(wanted, config, state.mlflow_run_id, to, command)
        for label in state.runs:
            tracker.adopt(_undelivered(to, label))
        state = replace(state, mlflow_run_id=tracker.run_id)
        state.write(to)
        with tracker.ending(say):
            summary = MergeSummary(wanted.method, wanted.models, wanted.base, wanted.ends)
            known = {point: _scores_in(to / POINTS / point.label) for point in wanted.points}
            count = sum(scores is not None for scores in known.values())
            say(f"sweep {to.name}: {counted(len(known), 'merge')}, {count} evaluated before")
            evaluator = _Evaluator(wanted, models, benchmarks, device)
            for point, before in known.items():
                scores = evaluator.evaluate(point, to / POINTS / point.label) if before is None else before
                lease.check()
                if point.label not in state.runs:
                    run = _record(wanted, config, point, scores, to, tracker.run_id)
                    state = replace(state, runs={**state.runs, point.label: run})
                    state.write(to)
                summary = summary.plus(point, scores, to / POINTS / point.label)
            with pushed(to) as files:
                names = [file.relative_to(files).parts[0] for file in summary.save(files)]
            for name in dict.fromkeys(names):
                tracker.artifact(to / name, name if name == "report" else None)
            tracker.describe(summary.markdown())
    summary.show(to, tracker.run_id)


@contextmanager
def _written(to: Place) -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        raise StorageError(f"{to}: {error.strerror}; the same command goes on") from error


@dataclass(frozen=True)
class _State:
    """The content of `STATE`: what all points have in common, and the ids of MLflow runs."""

    made_of: Mapping[str, str]  # {what all points have in common: its value}; empty before the first
    mlflow_run_id: str | None
    runs: Mapping[str, str]  # {label of a point: id of its MLflow run}

    @classmethod
    def read(cls, folder: Place) -> _State:
        try:
            found = json.loads((folder / STATE).read_text(encoding="utf-8"))
            return cls(dict(found["made_of"]), found["mlflow_run_id"], dict(found["runs"]))
        except (FileNotFoundError, NotADirectoryError):
            return cls({}, None, {})
        except RemoteError as error:
            raise StorageError(f"--output {folder}: {error.strerror}") from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StorageError(f"--output {folder}: {STATE} is damaged ({error}); give another folder") from error

    def write(self, folder: Place) -> None:
        content = {"made_of": self.made_of, "mlflow_run_id": self.mlflow_run_id, "runs": self.runs}
        try:
            write_text(folder / STATE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        except OSError as error:
            raise StorageError(f"--output {folder} cannot be written: {error.strerror or error}") from error

    def check(self, made_of: Mapping[str, str], folder: Place) -> None:
        """Raise ConfigError unless the points in the folder were made in the same way."""
        for name in {**made_of, **self.made_of} if self.made_of else ():  # in this order: models before their content
            before, now = self.made_of.get(name, "none"), made_of.get(name, "none")
            if before != now:
                how = f"{name} is another now" if name.startswith("content of") else f"{name} was {before}, not {now}"
                raise ConfigError(f"--output {folder}: its points are of other merges: {how}; give another folder")


def _made_of(wanted: Merges, models: Models, config: Config) -> dict[str, str]:
    """{what the points have in common: its value}, in the words of the command."""
    names = [*models.names, *([] if models.base is None else [models.base])]
    evaluation = wanted.evaluation
    return {
        "MODELS": " ".join(models.names),
        "--method": wanted.method,
        "--base": str(models.base),
        "--benchmark": " ".join(evaluation.benchmarks),
        "--languages": " ".join(wanted.languages or ["all"]),
        "--candidates": evaluation.candidates,
        "--precision": str(evaluation.precision),
        **{f"content of {name}": encoder.digest() for name, encoder in zip(names, models.encoders, strict=True)},
        **{f"content of {name}": digest for name, digest in checked_inputs([config], None, "", True).digests.items()},
    }


def _begin(wanted: Merges, config: Config, run_id: str | None, to: Place, command: str) -> Tracker:
    """The tracker of the sweep's MLflow run, which goes on after an interruption."""
    parameters = {"models": wanted.models, "base": wanted.base, "method": wanted.method}
    tracker = Tracker(config, run_id, to.name, command=command, parameters=parameters, outbox=to / UNDELIVERED)
    tracker.tags({"weights": " ".join(point.label for point in wanted.points)})
    return tracker


def _undelivered(to: Place, label: str) -> Place:
    """The file of what MLflow did not get of a point."""
    return to / f"{label}.{UNDELIVERED}"


def _record(
    wanted: Merges, config: Config, point: MergePoint, scores: Mapping[str, float], to: Place, parent: str
) -> str:
    """Store a point in an MLflow run of its own, under the sweep's; returns its id."""
    own = override(config, {"tracking.parent_run_id": parent, "tracking.run_name": f"merge {point.label}"})
    weights = {f"weight.{number}": weight for number, weight in enumerate(point.weights, 1)}
    single = {} if point.number is None else {"weight": point.number}
    parameters = {"models": wanted.models, "base": wanted.base, "method": wanted.method, **single, **weights}
    words, file = wanted.in_words(point.weights), _undelivered(to, point.label)
    tracker = Tracker(own, None, point.label, command=f"merge: {words}", parameters=parameters, outbox=file)
    with tracker.ending(say):
        tracker.artifact(to / POINTS / point.label, "results")
        tracker.scores({key: value for key, value in scores.items() if key.count("/") == 2}, 0)
    return tracker.run_id


class _Evaluator:
    """Evaluates merges one after the other, in the same encoder."""

    def __init__(self, wanted: Merges, models: Models, benchmarks: Sequence[Benchmark], device: str) -> None:
        self._wanted, self._models, self._benchmarks, self._device = wanted, models, benchmarks, device
        self._encoder: Encoder | None = None

    def evaluate(self, point: MergePoint, to: Place) -> dict[str, float]:
        """Merge, evaluate, and write the results into the folder `to`; returns {name of a score: score}."""
        from hbtrain.evaluation.evaluate import evaluate_all
        from hbtrain.evaluation.results import save_evaluation
        from hbtrain.modeling.devices import evaluation_precision
        from hbtrain.modeling.encoder import Encoder

        wanted, models = self._wanted, self._models
        if self._encoder is None:
            precision = evaluation_precision(wanted.evaluation.precision, self._device)
            self._encoder = Encoder.load(models.folders[0], device=self._device, precision=precision)
        encoder = self._encoder
        encoder.model.load_state_dict(models.merged(wanted.method, point.weights))
        words = wanted.in_words(point.weights)
        found = evaluate_all(
            encoder, self._benchmarks, wanted.evaluation, trained_languages=models.languages, system=words
        )
        with pushed(to) as folder:
            save_evaluation(found, folder, words, prompts=encoder.prefixes)
        scores = {key: value for evaluation in found for key, value in evaluation.macro.items()}
        own, name = Point({}, [scores]), self._benchmarks[0].name
        known = (f"{title_of(score)} {own.shown(f'{name}/{score}')}" for score in scores_of(name, [own]))
        say(f"{point.label}  {name}: {', '.join(known)}")
        return scores


def _scores_in(folder: Place) -> dict[str, float] | None:
    """The scores of a point that was evaluated before; None if it was not, or not to the end."""
    try:
        found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return {str(key): float(value) for key, value in found.items()}
    except RemoteError:
        raise
    except (OSError, ValueError, TypeError, AttributeError):
        return None
