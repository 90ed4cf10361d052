"""A whole run: checks, building the initial encoder, training, evaluation before and after, tracking."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from hbtrain.cluster.session import connected, run_task
from hbtrain.config import Config, absolute_paths, override, to_tree
from hbtrain.corpus.data_sets import provenance
from hbtrain.errors import MAKE_ROOM, StorageError, TrainingError, is_full
from hbtrain.evaluation.out_of_domain import domain_metrics, domain_scores
from hbtrain.evaluation.rankers import Side
from hbtrain.evaluation.results import save_evaluation
from hbtrain.evaluation.summary import Evaluation
from hbtrain.evaluation.tables import scores_markdown
from hbtrain.events import NullObserver, Observer, SafeObserver
from hbtrain.planning.estimate import Estimate, estimate
from hbtrain.runs.preflight import Checked, check_storage, preflight
from hbtrain.runs.ray_tasks import build, score
from hbtrain.runs.ray_train import fit
from hbtrain.runs.recorder import Recorder
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.run_inputs import RunInputs, checked_inputs
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
from hbtrain.tracking.past_runs import CONTINUES, STOPPED_AT
from hbtrain.tracking.tracker import Tracker
from hbtrain.tracking.uris import tracking_uri

CHANGED_INPUTS = "changed_inputs"
"""MLflow tag: the inputs that had other content when the run was last continued than before."""


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


def train(
    config: Config, observer: Observer | None = None, until: int | None = None, accept_changed_inputs: bool = False
) -> Outcome:
    """Train and evaluate as `config` says; goes on with the unfinished run of the same configuration, if there is one.

    With `until`, one segment of the run is done: training stops after that many steps, and the encoder of that step is
    evaluated. A later call goes on from there. A segment that was done before, the last one included, is not repeated:
    the outcome then has its scores, and no evaluations.

    A run goes on with the contents that it began with (see `hbtrain.runs.run_inputs`), or with others if
    `accept_changed_inputs`.

    Raises:
        HbtrainError: what is wrong with the input (before any worker starts), or why training stopped.
    """
    observer = SafeObserver(observer or NullObserver())
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
    checked = preflight(config, observer)
    needs = estimate(config)
    for line in [*([] if needs is None else needs.lines()), *checked.during.lines]:
        observer.phase(line)
    current = RunFolder.current(config)
    check_not_beyond(current, until or config.training.steps)
    inputs = _inputs(config, current, accept_changed_inputs)
    with leased(current.path) as lease:
        folder = RunFolder(current.path, lease)
        if folder.is_finished:
            raise StorageError(f"run {folder.name} has just ended in another process; the same command begins another")
        clear_leftovers(folder.path)
        folder.write_config(config)
        return _train_in(folder, config, checked, inputs, needs, observer, until)


def _inputs(config: Config, folder: RunFolder, accept: bool) -> RunInputs:
    """The inputs of `config`. Raises DataError if the run in `folder` began with others, and `accept` is false."""
    before = folder.state.inputs if folder.initial_model.exists() else None  # without it, nothing was made of them
    return checked_inputs([config], before, f"run {folder.name}", accept)


def _train_in(
    folder: RunFolder,
    config: Config,
    checked: Checked,
    inputs: RunInputs,
    needs: Estimate | None,
    observer: Observer,
    until: int | None,
) -> Outcome:
    """`train` in the run's folder, whose lease this process holds."""
    tracker = _tracker(config, folder)
    recorder = Recorder(folder, tracker, observer, config)
    with recorder.running():
        return _recorded(folder, config, checked, inputs, needs, tracker, recorder, until)


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
    if checked.data_sets:
        folder.update(data_sets=checked.data_sets)
        tracker.tags({f"data_set.{name}": provenance(about) for name, about in checked.data_sets.items()})
    is_last = until is None or until == config.training.steps
    with tracker.ending(observer.phase):
        try:
            # Ray shows its arguments in logs and on its dashboard, and the URI may hold a password.
            outcome = _run(override(config, {"tracking.uri": None}), checked, folder, tracker, observer, until)
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


def _tracker(config: Config, folder: RunFolder) -> Tracker:
    """The run's MLflow run, new or continued; also delivers what other runs could not deliver.

    A trial leaves that to its sweep: were each trial to look into the folders of all, requests would grow with the
    square of their number.
    """
    state = folder.state
    tracker = Tracker(config, state.mlflow_run_id, folder.name, outbox=folder.undelivered)
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
    config: Config, checked: Checked, folder: RunFolder, tracker: Tracker, observer: Observer, until: int | None
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
        if benchmarks:
            observer.phase("evaluating the trained model")
            clear_leftovers(folder.path)
            after = _score(config, folder.model, folder.results / "runs")
            _save_scores(after, config, folder.results, "results", tracker, step=steps)
        tracker.describe(scores_markdown(before, after))
    if config.tracking.log_model and (until is None or until == config.training.steps):
        tracker.artifact(folder.model, "model")
    return Outcome(folder, tracker.run_id, tracker.uri, tuple(before), tuple(after), config.evaluation.in_domain, steps)


def _score(config: Config, model: Place, trec_runs: Place | None = None) -> list[Evaluation]:
    arguments = to_tree(config), str(model), None if trec_runs is None else str(trec_runs)
    evaluations: list[Evaluation] = run_task(config, score, *arguments, starts_actors=config.evaluation.actors > 0)
    return evaluations


def _save_scores(
    evaluations: Sequence[Evaluation], config: Config, to: Place, name: str, tracker: Tracker, step: int
) -> None:
    prompts: dict[Side, str] = {"query": config.encoder.query_prefix, "passage": config.encoder.passage_prefix}
    in_domain = config.evaluation.in_domain
    share = config.encoder.average_with_initial if step else 0.0  # step 0: the model before training itself
    with pushed(to) as files:
        save_evaluation(evaluations, files, prompts=prompts, in_domain=in_domain, average_with_initial=share)
    tracker.artifact(to, name)
    tracker.tags({f"{name}.precision": evaluations[0].precision})
    for evaluation in evaluations:
        tracker.scores(evaluation.macro, step)
    tracker.scores(domain_metrics(domain_scores(evaluations, in_domain)), step)
