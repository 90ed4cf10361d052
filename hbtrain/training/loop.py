"""The training loop of one worker: batches, embedding, loss over all ranks, optimizer step, checkpoints, validation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hbtrain.batching import BatchPlan
from hbtrain.batching.switching import Switcher
from hbtrain.config import Config
from hbtrain.corpus import ParallelCorpus
from hbtrain.events import Event
from hbtrain.reporting.text import counted
from hbtrain.training.checkpoint import Checkpoints
from hbtrain.training.engine import Engine
from hbtrain.training.export import export, load_on_rank, model_card, trainable
from hbtrain.training.feed import Feed, Work, agree_on_chunks
from hbtrain.training.gradients import Gradients
from hbtrain.training.meter import Meter
from hbtrain.training.stopwatch import Stopwatch, TimedGroup, time_deepspeed
from hbtrain.training.validation import Patience, mean_over_ranks, validation_plan
from hbtrain.training.worker import Worker


def train_worker(config: Config, worker: Worker, until: int | None = None) -> None:
    """Train on this rank, from the last complete checkpoint if there is one; collective.

    At the end rank 0 has saved the trained encoder to `worker.final_model`: with a validation source the encoder of
    lowest validation loss, else that of the last step.

    Args:
        config: the run's configuration.
        worker: what this rank is given.
        until: the step to stop at, with a checkpoint; None: the last step.
    """
    Trainer(config, worker).run(until)


class Trainer:
    """One rank's training."""

    def __init__(self, config: Config, worker: Worker) -> None:
        self.config = config
        self.worker = worker
        worker.on_phase("loading")
        self.encoder = load_on_rank(config, worker)
        self.corpus = ParallelCorpus.from_config(config)
        self.plan = BatchPlan.over(self.corpus, config)
        self.stopwatch = Stopwatch(worker.device, worker.on_phase)
        self.group = TimedGroup(worker.group, self.stopwatch)
        self.switcher = Switcher.from_config(config)
        self.feed = self._feed(self.plan, self.corpus)
        self.validation = self._validation_feed()
        self.module = trainable(self.encoder, config)
        self.engine = Engine(self.module, config, worker.device)
        time_deepspeed(self.stopwatch)
        self.gradients = Gradients(self.engine, self.group, config, self.stopwatch)
        self.patience = Patience(config.training.patience)
        self.meter = Meter(worker.group, self.stopwatch, worker.device)
        self.checkpoints = Checkpoints(self.engine, worker, self.patience, config.training.keep_checkpoints)

    def run(self, until: int | None = None) -> None:
        """Train the remaining steps, up to `until` if given."""
        training = self.config.training
        stop = training.steps if until is None else until
        self.worker.on_phase("restore")
        start = self.checkpoints.restore()
        self._skipped = self.engine.skipped_steps
        done, stopped = start, self.patience.exhausted
        self.module.train()
        self.meter.start()
        self.worker.on_phase("data", start)
        for work in self.stopwatch.each(self.feed.steps(start, stop if not stopped else start), "data"):
            self._step(work)
            done = work.batch.step + 1
            last = done == training.steps
            if done % training.log_every == 0 or done == stop:
                self._log(done)
            if (
                self.validation is not None
                and training.validate_every
                and (done % training.validate_every == 0 or last)
            ):
                with self.stopwatch.phase("validation", whole=True):
                    stopped = self._validate(done)
            if self._is_checkpoint_due(done, stop, stopped):
                with self.stopwatch.phase("checkpoint", whole=True):
                    self.meter.check(self.engine.is_finite())
                    self.checkpoints.save(done)
            if stopped:
                if not self.meter.is_read:
                    self._log(done)
                self._emit(Event(done, {}, f"stopped early: no better validation loss than {self.patience.best:.4f}"))
                break
            self.worker.on_phase("data", done)
        if self.validation is None or not training.validate_every or not math.isfinite(self.patience.best):
            self.meter.check(self.engine.is_finite())
            self._export(done)

    def _is_checkpoint_due(self, done: int, stop: int, stopped: bool) -> bool:
        """Whether to save a checkpoint after `done` steps; always where training stops before its last step."""
        every, steps = self.config.training.checkpoint_every, self.config.training.steps
        if stop < steps and (done == stop or stopped):
            return True
        return every is not None and (done % every == 0 or done == steps or stopped)

    def _step(self, work: Work) -> None:
        loss = self.backward(work)
        with self.stopwatch.phase("step"):
            self.engine.step()
        self.meter.add(work, loss)

    def backward(self, work: Work) -> Tensor:
        """Accumulate the gradient of a step in the engine; returns this rank's part of the loss; collective."""
        return self.gradients.backward(self._ready(work))

    def _ready(self, work: Work) -> Work:
        """The work on this rank's device, in chunks that all ranks agree on; collective."""
        if self.config.training.chunk_tokens is not None:
            work = agree_on_chunks(work, self.group, self.worker.device)
        return work.to(self.worker.device)

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
        self._emit(Event(step, figures, note, self.meter.pairs, self.meter.tokens))

    def _skipped_steps(self, figures: dict[str, float]) -> str:
        """Add the skipped steps of the run so far to `figures`; returns a note if there are new ones."""
        so_far = self.engine.skipped_steps
        new, self._skipped = so_far - self._skipped, so_far
        figures["train/skipped_steps"] = float(so_far)
        if new <= 0:
            return ""
        return f"gradients were not finite: {counted(new, 'step')} skipped, {so_far} in all"

    def _validate(self, step: int) -> bool:
        """Validate, and save the encoder if its loss is the lowest so far; True if training is to stop early."""
        assert self.validation is not None
        self.module.eval()
        with torch.no_grad():
            works = self.validation.steps(0, self.config.training.validation_batches)
            losses = [self.gradients.loss(self._ready(work)) for work in works]
        self.module.train()
        loss = mean_over_ranks(losses, self.worker.group)
        self._emit(Event(step, {"validation/loss": loss}))
        if self.patience.improved(loss):
            self._export(step)
        return self.patience.exhausted

    def _validation_feed(self) -> Feed | None:
        if self.config.data.validation is None:
            return None
        corpus = ParallelCorpus.open([self.config.data.validation], self.config.data.cache)
        return self._feed(validation_plan(self.config, corpus), corpus)

    def _feed(self, plan: BatchPlan, corpus: ParallelCorpus) -> Feed:
        group = self.group
        return Feed(plan, corpus, self.encoder, self.config, group.rank, group.world_size, self.switcher)

    def _export(self, step: int) -> None:
        worker = self.worker
        worker.on_phase("export")
        to = None
        if worker.group.rank == 0:
            worker.check_lease()
            to = worker.final_model
        card = model_card(self.config, self.corpus, self.plan.languages, step)
        export(self.engine, self.encoder, self.config, worker.initial_model, to, card)

    def _emit(self, event: Event) -> None:
        if self.worker.group.rank == 0:
            self.worker.emit(event)
