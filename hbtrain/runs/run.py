"""A whole run: checks, building the initial encoder, training, evaluation before and after, tracking."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hbtrain.cluster.session import connected, run_task
from hbtrain.config import Config, absolute_paths, load_config, override, to_tree, without_passwords
from hbtrain.corpus.data_sets import provenance
from hbtrain.errors import MAKE_ROOM, DataError, StorageError, TrainingError, is_full
from hbtrain.evaluation.out_of_domain import domain_metrics, domain_scores
from hbtrain.evaluation.query_tables import save_query_tables
from hbtrain.evaluation.rankers import Side
from hbtrain.evaluation.results import save_evaluation
from hbtrain.evaluation.summary import Evaluation
from hbtrain.evaluation.tables import scores_markdown
from hbtrain.events import NullObserver, Observer, SafeObserver
from hbtrain.planning.estimate import Estimate, estimate
from hbtrain.runs.outcome import Outcome
from hbtrain.runs.preflight import Checked, check_storage, preflight
from hbtrain.runs.ray_tasks import CARD, build, score
from hbtrain.runs.ray_train import fit
from hbtrain.runs.recorder import Recorder
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.run_inputs import ACCEPT, RunInputs, checked_inputs, data_inputs
from hbtrain.runs.segments import (
    Segment,
    check_not_beyond,
    check_until,
    finished_segment,
    record_scores,
)
from hbtrain.runs.usage import Usage
from hbtrain.storage import Place, clear_leftovers, is_whole, pushed
from hbtrain.storage.lease import leased
from hbtrain.tracking.data_inputs import DataInput
from hbtrain.tracking.past_runs import CONTINUES, STOPPED_AT
from hbtrain.tracking.tracker import Tracker, check_registration
from hbtrain.tracking.uris import tracking_uri

CHANGED_INPUTS = "changed_inputs"
"""MLflow tag: the inputs that had other content when the run was last continued than before."""


def train(
    recipe: Config | str | Path,
    observer: Observer | None = None,
    until: int | None = None,
    accept_changed_inputs: bool = False,
    command: str | None = None,
    **overrides: Any,
) -> Outcome:
    """Train and evaluate by a recipe: `hbtrain.train("quickstart", training__steps=100)`.

    The unfinished run of the same configuration goes on, if there is one; `observer` is told what happens.

    A recipe is the name of a shipped one, a YAML file, or a configuration. `overrides` are values in place of its own:
    a dotted key with `__` for each dot, or as it is in `**{"training.steps": 100}`.

    With `until`, one segment of the run is done: training stops after that many steps, and the encoder of that step is
    evaluated. A later call goes on from there. A segment that was done before, the last one included, is not repeated:
    the outcome then has its scores, and no evaluations.

    A run goes on with the contents that it began with (see `hbtrain.runs.run_inputs`), or with others if
    `accept_changed_inputs`. MLflow shows `command`, the command line, as the source of a new run.

    Raises:
        HbtrainError: what is wrong with the input (before any worker starts), or why training stopped.
    """
    observer = SafeObserver(observer or NullObserver())
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    if isinstance(recipe, Config):
        config = override(recipe, changes)
    else:
        config = load_config(recipe, changes)
        command = command or _command(recipe, changes)
    config = absolute_paths(config)
    tracking_uri(config)  # raises where none can be used
    if until is not None:
        check_until(config, until)
        done = finished_segment(config, until)
        if done is not None:
            _inputs(config, done.folder, accept_changed_inputs)
            return _outcome_of(config, done)
    observer.phase("checking the configuration and the sources")
    check_storage(config)
    check_registration(config)
    checked = preflight(config, observer)
    needs = estimate(config)
    for line in [*([] if needs is None else needs.lines()), *checked.during.lines]:
        observer.phase(line)
    current = RunFolder.current(config)
    check_not_beyond(current, until or config.training.steps)
    inputs = _inputs(config, current, accept_changed_inputs)
    if not accept_changed_inputs:
        _check_plan(current, checked.batch_plan)
    with leased(current.path) as lease:
        folder = RunFolder(current.path, lease)
        if folder.is_finished:
            raise StorageError(f"run {folder.name} has just ended in another process; the same command begins another")
        clear_leftovers(folder.path)
        folder.write_config(config)
        tracker = _tracker(config, folder, command)
        recorder = Recorder(folder, tracker, observer, config)
        with recorder.running():
            return _recorded(folder, config, checked, inputs, needs, tracker, recorder, until)


def _command(recipe: str | Path, overrides: Mapping[str, Any]) -> str:
    """The command line that trains the same."""
    flags = [
        word
        for key, value in overrides.items()
        for word in (f"--{key}", *map(_word, value if isinstance(value, list | tuple) else [value]))
    ]
    return shlex.join(["hbtrain", "train", str(recipe), *map(without_passwords, flags)])


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _inputs(config: Config, folder: RunFolder, accept: bool) -> RunInputs:
    """The inputs of `config`. Raises DataError if the run in `folder` began with others, and `accept` is false."""
    before = folder.state.inputs if folder.initial_model.exists() else None  # without it, nothing was made of them
    return checked_inputs([config], before, f"run {folder.name}", accept)


def _check_plan(folder: RunFolder, now: str) -> None:
    """Raise DataError if a run goes on whose batches, of the same inputs, were others when it began."""
    before = folder.state.batch_plan if folder.initial_model.exists() else None
    if before not in (None, now):
        raise DataError(
            f"run {folder.name} began with other batches than this version of hbtrain draws; go on with the version "
            f"that it began with, begin another by a name of its own (--name NAME), or let this one go on with other "
            f"batches ({ACCEPT})"
        )


def _recorded(
    folder: RunFolder,
    config: Config,
    checked: Checked,
    inputs: RunInputs,
    needs: Estimate | None,
    tracker: Tracker,
    observer: Recorder,
    until: int | None,
) -> Outcome:
    """`train`, of which everything is recorded."""
    observer.phase(f"run {folder.name}")
    if needs is not None:
        tracker.tags(needs.tags())
    if inputs.changed:
        observer.phase(f"goes on with other content: {inputs.changed}")
        tracker.tags({CHANGED_INPUTS: inputs.changed})
    folder.update(inputs=inputs.digests, batch_plan=checked.batch_plan)
    data = data_inputs(config, checked.corpus, checked.benchmarks, inputs.digests)
    tracker.inputs(data)
    if checked.data_sets:
        folder.update(data_sets=checked.data_sets)
        tracker.tags({f"data_set.{name}": provenance(about) for name, about in checked.data_sets.items()})
    is_last = until is None or until == config.training.steps
    with tracker.ending(observer.phase):
        try:
            # Ray shows its arguments in logs and on its dashboard, and the URI may hold a password.
            outcome = _run(override(config, {"tracking.uri": None}), checked, folder, data, tracker, observer, until)
            if not is_last:
                tracker.tags({STOPPED_AT: outcome.step})
                folder.update(stopped_at=outcome.step)
        except TrainingError:
            with suppress(OSError):
                folder.check_lease()  # where it is lost, that is why
            raise
        except OSError as error:
            if not is_full(error):
                raise
            path = error.filename or folder.path
            raise StorageError(f"cannot write {path}: {error.strerror}; {MAKE_ROOM}") from error
    metrics = folder.results / "metrics.json" if config.evaluation.benchmarks else None
    scores = record_scores(folder, until or outcome.step, metrics, config)
    if is_last:
        folder.update(finished=True)
    else:
        observer.stopped()
    return replace(outcome, scores=scores)


def _tracker(config: Config, folder: RunFolder, command: str | None) -> Tracker:
    """The run's MLflow run, new or continued; also delivers what other runs could not deliver.

    A trial leaves that to its sweep: were each trial to look into the folders of all, requests would grow with the
    square of their number.
    """
    state = folder.state
    tracker = Tracker(config, state.mlflow_run_id, folder.name, command, outbox=folder.undelivered)
    for file in folder.undelivered_of_others() if config.tracking.parent_run_id is None else []:
        tracker.adopt(file)
    folder.update(mlflow_run_id=tracker.run_id)
    if state.continues is not None:
        tracker.tags({CONTINUES: state.continues})
    if state.stopped_at is not None:
        tracker.untag(STOPPED_AT)
    return tracker


def _outcome_of(config: Config, done: Segment) -> Outcome:
    """The outcome of a segment that was done earlier."""
    run_id, in_domain = str(done.folder.state.mlflow_run_id), config.evaluation.in_domain
    return Outcome(done.folder, run_id, tracking_uri(config), (), (), in_domain, done.step, done.scores)


def _run(
    config: Config,
    checked: Checked,
    folder: RunFolder,
    data: Sequence[DataInput],
    tracker: Tracker,
    observer: Observer,
    until: int | None,
) -> Outcome:
    benchmarks = config.evaluation.benchmarks
    fewest, most = config.resources.min_workers, config.resources.max_workers
    workers = str(most) if fewest == most else f"{fewest} to {most}"
    tracker.artifact(folder.config)
    observer.phase("starting Ray")
    with connected(config, observer.phase) as hardware:
        tracker.tags(hardware | {"world_size": workers.replace(" to ", "-"), "batch_plan": checked.batch_plan})
        if not (folder.initial_model / "modules.json").exists() or not is_whole(folder.initial_model):
            observer.phase(f"building the {config.encoder.backbone} encoder")
            run_task(config, build, to_tree(config), str(folder.initial_model))
        before: Sequence[Evaluation] = ()
        if benchmarks and config.evaluation.before and folder.state.stopped_at is None:
            observer.phase("evaluating before training")
            before = _score(config, folder.initial_model)
            _save_scores(before, config, folder.results_before, "results-before", tracker, step=0)
        noun = "worker" if workers == "1" else "workers"
        up_to = "" if until is None else f" up to step {until}"
        observer.phase(f"training {config.training.steps} steps{up_to} on {workers} {noun}")
        if config.training.checkpoint_every is None and (config.resources.address or os.environ.get("RAY_ADDRESS")):
            observer.phase("no checkpoints are taken, so a death costs all steps: see training.checkpoint_every")
        usage = Usage(folder, gpus_per_worker=int(config.resources.use_gpu))
        steps = fit(config, folder, tracker, observer, usage, until, checked.during.names)
        after: Sequence[Evaluation] = ()
        figures: dict[str, list[list[Any]]] = {}
        if benchmarks:
            observer.phase("evaluating the trained model")
            clear_leftovers(folder.path)
            after = _score(config, folder.model, folder.results / "runs")
            figures = _save_scores(after, config, folder.results, "results", tracker, step=steps)
        tracker.describe(scores_markdown(before, after))
    if config.tracking.log_model and (until is None or until == config.training.steps):
        _log_model(config, folder, steps, data, figures, tracker)
    return Outcome(folder, tracker.run_id, tracker.uri, tuple(before), tuple(after), config.evaluation.in_domain, steps)


def _score(config: Config, model: Place, trec_runs: Place | None = None) -> list[Evaluation]:
    arguments = to_tree(config), str(model), None if trec_runs is None else str(trec_runs)
    evaluations: list[Evaluation] = run_task(config, score, *arguments, starts_actors=config.evaluation.actors > 0)
    return evaluations


def _save_scores(
    evaluations: Sequence[Evaluation], config: Config, to: Place, name: str, tracker: Tracker, step: int
) -> dict[str, list[list[Any]]]:
    """Write the scores to `to` and tell them MLflow; gives {benchmark: its figures there} (see `Tracker.scores`)."""
    prompts: dict[Side, str] = {"query": config.encoder.query_prefix, "passage": config.encoder.passage_prefix}
    in_domain = config.evaluation.in_domain
    share = config.encoder.average_with_initial if step else 0.0  # step 0: the model before training itself
    with pushed(to) as files:
        save_evaluation(evaluations, files, prompts=prompts, in_domain=in_domain, average_with_initial=share)
        tables = save_query_tables(evaluations, files)
    tracker.artifact(to, name)
    tracker.tables([f"{name}/{table}" for table in tables])
    tracker.tags({f"{name}.precision": evaluations[0].precision})
    figures = {evaluation.benchmark: tracker.scores(evaluation.macro, step) for evaluation in evaluations}
    tracker.scores(domain_metrics(domain_scores(evaluations, in_domain)), step)
    return figures


def _log_model(
    config: Config,
    folder: RunFolder,
    step: int,
    data: Sequence[DataInput],
    figures: Mapping[str, list[list[Any]]],
    tracker: Tracker,
) -> None:
    """Give MLflow the trained model with its scores, and its card where artifacts are looked at; register it."""
    digests = {one.name: one.digest for one in data if one.context == "evaluation"}
    tracker.artifact(folder.model / CARD, "model")
    scores = [[*figure, name, digests[name]] for name, found in figures.items() for figure in found]
    tracker.model(folder.model, step, scores)
    if config.tracking.register is not None:
        tracker.register(config.tracking.register)
