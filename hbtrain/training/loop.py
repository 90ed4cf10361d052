"""The training loop of one worker: batches, loss over ranks, optimizer step, checkpoints, validation, evaluation."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from hbtrain.batching import BatchPlan
from hbtrain.batching.switching import Switcher
from hbtrain.config import Config
from hbtrain.corpus import ParallelCorpus
from hbtrain.events import Event
from hbtrain.modeling.compiling import as_written
from hbtrain.reporting.text import counted
from hbtrain.training.average import MovingAverage
from hbtrain.training.best import BEST, VALIDATION_LOSS, Patience, best_text
from hbtrain.training.checkpoint import Checkpoints
from hbtrain.training.delivery import Ahead, Delivery, group_of_hosts
from hbtrain.training.engine import Engine
from hbtrain.training.export import as_exported, export, load_on_rank, model_card, torch_linear, trainable
from hbtrain.training.feed import Feed, Work
from hbtrain.training.frozen_models import FrozenModels
from hbtrain.training.gradient_cosine import METRIC as GRADIENT_COSINE
from hbtrain.training.gradient_cosine import GradientCosine, cosine_plans
from hbtrain.training.gradients import Gradients
from hbtrain.training.meter import Meter
from hbtrain.training.stopping import StopVote
from hbtrain.training.stopwatch import Stopwatch, TimedGroup, time_deepspeed
from hbtrain.training.validation import mean_over_ranks, validation_plan
from hbtrain.training.worker import Worker


def train_worker(config: Config, worker: Worker, until: int | None = None) -> bool:
    """Train on this rank, from the last complete checkpoint if there is one; collective.

    At the end rank 0 has saved the trained encoder to `worker.final_model`: the best by `evaluation.keep_best`; without
    that, but with a validation source, the one of lowest validation loss; else that of the last step. Where
    `worker.is_stop_requested` stopped training before, there is a checkpoint, and maybe no such encoder.

    Args:
        config: the run's configuration.
        worker: what this rank is given.
        until: the step to stop at, with a checkpoint; None: the last step.

    Returns:
        Whether training came to its end; False where it was stopped because of a request.
    """
    return Trainer(config, worker).run(until)


class Trainer:
    """One rank's training."""

    def __init__(self, config: Config, worker: Worker) -> None:
        self.config = config
        self.plain = config.model_copy(update={"loss": config.loss.plain})  # of batches that are not trained on
        self.worker = worker
        worker.on_phase("loading")
        self.encoder = load_on_rank(config, worker)
        self.corpus = ParallelCorpus.from_config(config)
        self.plan = BatchPlan.over(self.corpus, config)
        self.stopwatch = Stopwatch(worker.device, worker.on_phase)
        self.group = TimedGroup(worker.group, self.stopwatch)
        self.switcher = Switcher.from_config(config)
        self.feed = self._feed(config, self.plan, self.corpus)
        self._hosts = group_of_hosts(self.feed, worker.device, 2 * config.training.step_timeout_s)
        self.delivery = self._delivery(self.feed)
        self.validation = self._validation()
        self.module = trainable(self.encoder, config)
        self.engine = Engine(self.module, config, worker.device)
        time_deepspeed(self.stopwatch)
        self.gradients = Gradients(self.engine, self.group, config, self.stopwatch)
        self.plain_gradients = Gradients(self.engine, self.group, self.plain, self.stopwatch)
        self.cosine = self._cosine()
        self.patience = Patience(config.training.patience, config.evaluation.keep_best or VALIDATION_LOSS)
        self.meter = Meter(worker.group, self.stopwatch, worker.device)
        self.vote = StopVote(self.group, worker.device, worker.is_stop_requested, config.training.log_every)
        decay = config.training.average
        self.average = None if decay is None else MovingAverage(self.engine, decay)
        self.checkpoints = Checkpoints(
            self.engine, worker, self.patience, config.training.keep_checkpoints, self.average
        )

    def run(self, until: int | None = None) -> bool:
        """Train the remaining steps, up to `until` if given; returns whether it came so far (see `train_worker`)."""
        training = self.config.training
        stop = training.steps if until is None else until
        self.worker.on_phase("restore")
        start = self.checkpoints.restore()
        self._skipped = self.engine.skipped_steps
        done, stopped = start, self.patience.exhausted
        if start < stop and not stopped:
            self.prepare(range(start, training.steps))
        self.module.train()
        self.meter.start()
        self.worker.on_phase("data", start)
        self.vote.begin(start)
        with self.delivery.steps(start, start if stopped else stop) as works:
            for work in self.stopwatch.each(works, "data"):
                self._step(work, works)
                done = work.batch.step + 1
                asked = done < stop and self.vote.is_stop(done)
                self._after_step(done, stop, asked)
                if asked:
                    return False
                if self.patience.exhausted:
                    if not self.meter.is_read:
                        self._log(done)
                    self._emit(Event(done, {}, self.patience.reason, kind="early stop"))
                    break
                self.worker.on_phase("data", done)
        if self.patience.best is None:
            self.meter.check(self.engine.is_finite())
            with self._averaged():
                self._export(done)
        return True

    def prepare(self, steps: range) -> None:
        """Have the guide and the teacher, where there are any, ready for the batches of these steps; collective."""
        if self.config.loss.guide is None and self.config.loss.teacher is None:
            return
        worker = self.worker

        def tell(note: str) -> None:
            self._emit(Event(steps.start, {}, note))

        frozen = FrozenModels(self.config, worker.group, worker.device, worker.on_phase, tell)
        frozen.prepare(self.plan, self.corpus, steps, self.encoder.dimension)
        self.feed.frozen = frozen

    def _after_step(self, done: int, stop: int, asked: bool) -> None:
        """What is due after `done` steps: figures, validation, evaluation, a checkpoint."""
        training = self.config.training
        if done % training.log_every == 0 or done == stop or asked:
            self._log(done)
        if self.cosine is not None and done % (training.gradient_cosine_every or 1) == 0:
            with self.stopwatch.phase("gradient_cosine", whole=True):
                cosine = self.cosine.at(done)
            if math.isfinite(cosine):
                self._emit(Event(done, {GRADIENT_COSINE: cosine}))
        if self._is_validation_due(done):
            with self.stopwatch.phase("validation", whole=True), self._averaged():
                self._validate(done)
        if self._is_evaluation_due(done, stop):
            with self.stopwatch.phase("evaluation", whole=True), self._averaged():
                self._evaluate(done)
        if asked or self._is_checkpoint_due(done, stop, self.patience.exhausted):
            with self.stopwatch.phase("checkpoint", whole=True):
                self.meter.check(self.engine.is_finite())
                self.checkpoints.save(done)

    def _is_checkpoint_due(self, done: int, stop: int, stopped: bool) -> bool:
        """Whether to save a checkpoint after `done` steps; always where training stops before its last step."""
        every, steps = self.config.training.checkpoint_every, self.config.training.steps
        if stop < steps and (done == stop or stopped):
            return True
        return every is not None and (done % every == 0 or done == steps or stopped)

    def _step(self, work: Work, works: Ahead) -> None:
        loss = self.gradients.backward(work)
        with self.stopwatch.phase("data"):  # here, as the optimizer's step may wait for the device
            works.fetch()
        with self.stopwatch.phase("step"):
            self.engine.step()
            if self.average is not None:
                self.average.update(work.batch.step + 1)
        self.meter.add(work, loss)

    def _averaged(self) -> AbstractContextManager[None]:
        """While the body runs, the weights are those that are judged and saved: the moving average, if there is one."""
        return nullcontext() if self.average is None else self.average.in_place()

    def backward(self, work: Work) -> Tensor:
        """Accumulate in the engine the gradient of what `feed` gave; returns this rank's part of the loss.

        Collective.
        """
        return self.gradients.backward(self.delivery.now(work)).total

    def _log(self, step: int) -> None:
        self.worker.on_phase("log")
        figures = self.meter.read()
        figures |= {
            "train/learning_rate": self.engine.learning_rate,
            "train/gradient_norm": self.engine.gradient_norm,
            "train/workers": float(self.worker.group.world_size),
        }
        note = ""
        if self.config.encoder.precision == "bf16":
            note = self._skipped_steps(figures)
        kind = "skipped" if note else ""
        self._emit(Event(step, figures, note, self.meter.pairs, self.meter.tokens, kind))

    def _skipped_steps(self, figures: dict[str, float]) -> str:
        """Add the skipped steps of the run so far to `figures`; returns a note if there are new ones."""
        so_far = self.engine.skipped_steps
        new, self._skipped = so_far - self._skipped, so_far
        figures["train/skipped_steps"] = float(so_far)
        if new <= 0:
            return ""
        return f"gradients were not finite: {counted(new, 'step')} skipped, {so_far} in all"

    def _cosine(self) -> GradientCosine | None:
        if self.config.training.gradient_cosine_every is None:
            return None
        plans = cosine_plans(self.config, self.corpus, self.plan)
        both = [self._delivery(self._feed(self.plain, plan, self.corpus)) for plan in plans]
        return GradientCosine(self.module, both, self.group, self.plain, self.stopwatch)

    def _is_validation_due(self, done: int) -> bool:
        every = self.config.training.validate_every
        return self.validation is not None and every is not None and self._is_nth_or_last(done, every)

    def _validate(self, step: int) -> None:
        """Validate; where the loss decides, save the encoder if it is the lowest so far."""
        assert self.validation is not None
        self.module.eval()
        with torch.no_grad(), self.validation.steps(0, self.config.training.validation_batches) as works:
            losses = [self.plain_gradients.loss(work).total for work in works]
        self.module.train()
        loss = mean_over_ranks(losses, self.worker.group)
        self._emit(Event(step, {VALIDATION_LOSS: loss}))
        if self.patience.metric == VALIDATION_LOSS and self.patience.improved(loss, step):
            self._export(step)

    def _is_evaluation_due(self, done: int, stop: int) -> bool:
        """Whether to evaluate on benchmarks. The encoder that is exported at the end is evaluated after training; where
        that may be an earlier one, chosen by validation, the last step's own is evaluated here as well."""
        evaluation = self.config.evaluation
        if self.worker.evaluate is None or evaluation.every is None:
            return False
        if evaluation.keep_best is not None:
            return self._is_nth_or_last(done, evaluation.every)
        if self.config.training.validate_every is not None:
            return done % evaluation.every == 0 or done == stop or self.patience.exhausted
        return done % evaluation.every == 0 and done < stop

    def _evaluate(self, step: int) -> None:
        """Evaluate on benchmarks; where a score decides, save the encoder if it is the best so far."""
        assert self.worker.evaluate is not None
        began_s = time.perf_counter()
        self.meter.check(self.engine.is_finite())
        worker = self.worker
        encoder = as_exported(self.engine, self.encoder, self.config, worker.initial_model, worker.device)
        with torch_linear(), as_written(encoder.model):
            scores = self.worker.evaluate(encoder)
        del encoder  # it may be a copy
        metrics = {f"eval/{name}": score for name, score in scores.items()}
        metrics["system/evaluation_s"] = time.perf_counter() - began_s
        chosen_by = self.config.evaluation.keep_best
        improved = chosen_by is not None and self.patience.improved(scores[chosen_by], step)
        self._emit(Event(step, metrics, f"the best encoder so far by {chosen_by}" if improved else ""))
        if improved:
            self._export(step)

    def _is_nth_or_last(self, done: int, every: int) -> bool:
        return done % every == 0 or done == self.config.training.steps

    def _validation(self) -> Delivery | None:
        data = self.config.data
        if data.validation is None:
            return None
        corpus = ParallelCorpus.open([data.validation], data.cache, data.catalogue)
        return self._delivery(self._feed(self.plain, validation_plan(self.config, corpus), corpus))

    def _feed(self, config: Config, plan: BatchPlan, corpus: ParallelCorpus) -> Feed:
        rank, world_size = self.group.rank, self.group.world_size
        return Feed(plan, corpus, self.encoder, config, rank, world_size, self.switcher, self.worker.device)

    def _delivery(self, feed: Feed) -> Delivery:
        return Delivery(feed, self.worker.device, self._hosts, self.stopwatch)

    def _export(self, step: int) -> None:
        worker = self.worker
        worker.on_phase("export")
        to = None
        if worker.group.rank == 0:
            worker.check_lease()
            to = worker.final_model
        card = model_card(self.config, self.corpus, self.plan.languages, step)
        best, metric = self.patience.best, self.patience.metric
        more = {} if best is None else {BEST: best_text(best, metric)}
        export(self.engine, self.encoder, self.config, worker.initial_model, to, card, more)

    def _emit(self, event: Event) -> None:
        if self.worker.group.rank == 0:
            self.worker.emit(event)
