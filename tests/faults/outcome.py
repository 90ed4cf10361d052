"""What a run ends with, by which it is compared with the same run that was never hurt: weights, figures and scores."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tests.distributed.ranks import run_ranks
from tests.distributed.test_engine_ranks import worker

COMPARED = ("train/loss", "train/learning_rate", "train/gradient_norm", "train/padding_share", "eval/")
"""Figures that follow from the configuration alone; others tell how fast it went."""


@dataclass
class Outcome:
    """The end of a run, or of all runs of a sweep."""

    weights: dict  # {model and tensor: array}
    figures: dict  # {run: {figure: {step: value}}}, as MLflow has them
    scores: dict  # {file: content} of all metrics.json and of a sweep's outcome

    @classmethod
    def of(cls, runs, uri):
        """Of what is below folder `runs`, with figures from the MLflow that `uri` names."""
        runs = Path(runs)
        weights = {
            f"{file.parents[1].relative_to(runs)} {name}": array
            for file in sorted(runs.rglob("model/model.safetensors"))
            if file.parents[1].name.startswith("quickstart")
            for name, array in load_file(file).items()
        }
        files = [*runs.rglob("results/metrics.json"), *runs.rglob("results-steps/*.json"), *runs.rglob("outcome.json")]
        scores = {str(file.relative_to(runs)): _read(file) for file in sorted(files) if "artifacts" not in file.parts}
        return cls(weights, figures_of(uri), scores)

    def differences(self, other):
        """How another outcome differs from this one, in words; empty if in nothing."""
        return [*_weights_differ(self.weights, other.weights), *_figures_differ(self.figures, other.figures)] + [
            f"scores in {name} differ" if name in self.scores.keys() & other.scores.keys() else f"only one has {name}"
            for name in sorted(self.scores.keys() | other.scores.keys())
            if self.scores.get(name) != other.scores.get(name)
        ]


def figures_of(uri):
    """{run: {figure: {step: value}}} of all runs of all experiments; where a step was done twice, as it was last."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    figures = {}
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            names = [name for name in run.data.metrics if name.startswith(COMPARED)]
            # The runs of a population may share their names.
            label = f"{run.info.run_name} {run.data.params.get('batching.alpha', '')} {run.info.status}"
            figures[label] = {
                name: {point.step: point.value for point in client.get_metric_history(run.info.run_id, name)}
                for name in names
            }
    return figures


def weights_without_ray(run, workers, to):
    """{tensor: array} of the model that ranks train from the first model of folder `run`, never hurt, without Ray."""
    run_ranks(_train_again, workers, str(run), str(to))
    return load_file(Path(to) / "model" / "model.safetensors")


def _train_again(run, to):
    from hbtrain.config import load_config
    from hbtrain.training.loop import train_worker

    own = replace(worker(run, checkpoints=Path(to) / "checkpoints"), final_model=Path(to) / "model")
    train_worker(load_config(f"{run}/config.yaml"), own)


def _read(file):
    """A file of JSON without what tells the time, or the names of runs of MLflow."""
    return _without_times(json.loads(file.read_text()))


def _without_times(tree):
    if isinstance(tree, dict):
        return {k: _without_times(v) for k, v in tree.items() if not k.endswith(("_s", "run_id", "seconds"))}
    return [_without_times(one) for one in tree] if isinstance(tree, list) else tree


def _weights_differ(mine, others):
    if mine.keys() != others.keys():
        return [f"models {', '.join(sorted(mine.keys() ^ others.keys()))} are not in both"]
    furthest = {name: float(np.abs(mine[name] - others[name]).max()) for name in mine}
    return [f"weights {name} differ by {by:.1e}" for name, by in furthest.items() if by != 0]


def _figures_differ(mine, others):
    if mine.keys() != others.keys():
        return [f"MLflow runs {', '.join(sorted(mine.keys() ^ others.keys()))} are not in both"]
    found = []
    for run in mine:
        for name in sorted(mine[run].keys() | others[run].keys()):
            one, two = mine[run].get(name, {}), others[run].get(name, {})
            steps = [step for step in sorted(one.keys() | two.keys()) if one.get(step) != two.get(step)]
            if steps:
                pairs = ", ".join(f"{step}: {one.get(step)} and {two.get(step)}" for step in steps[:3])
                found.append(f"{name} of {run} differs at {len(steps)} steps ({pairs})")
    return found
