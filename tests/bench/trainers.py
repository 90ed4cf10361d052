"""hbtrain's training and sentence-transformers' trainer, each as its users run it, until a `Pace` has seen enough.

Both tokenize, batch and copy as they do by themselves; neither logs, validates or saves anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from hbtrain.config import Config
from hbtrain.modeling.gather import Group
from hbtrain.training.loop import Trainer
from hbtrain.training.worker import Worker

Pairs = Sequence[tuple[str, str]]
AfterStep = Callable[[int], bool]


class Enough(Exception):  # noqa: N818
    """Ends a training."""


def silent_worker(group: Group, device: torch.device, model: Path, folder: Path, **options: object) -> Worker:
    """A worker that trains the model in a folder, and keeps and tells nothing."""
    options = {"emit": lambda _: None, "upload": lambda part: part.store(), **options}
    return Worker(group, device, model, folder / "trained", checkpoints=folder / "checkpoints", **options)


def train_ours(config: Config, worker: Callable[..., Worker], after_step: AfterStep) -> None:
    """Train until `after_step`, called with the steps done, says so. `worker` makes a worker with an `on_phase`."""

    def on_phase(phase: str, step: int | None = None) -> None:
        if phase == "data" and step and after_step(step):
            raise Enough

    try:
        Trainer(config, worker(on_phase=on_phase)).run()
    except Enough:
        return
    raise AssertionError("the training came to its end before enough was measured")


def train_theirs(
    model: object,
    pairs: Pairs,
    *,
    batch: int,
    after_step: AfterStep,
    device: torch.device,
    folder: Path,
    temperature: float = 0.05,
    chunk: int | None = None,
    bf16: bool = False,
    before_step: Callable[[], object] = lambda: None,
    several: bool = False,
    max_grad_norm: float = 0.0,
) -> None:
    """Train a SentenceTransformer with its trainer until `after_step` says so.

    Args:
        model: a SentenceTransformer; it is changed.
        pairs: queries and passages, gone through again and again in random order.
        batch: pairs of a step of this rank.
        after_step: called with the steps done.
        device: where it computes.
        folder: for what the trainer writes.
        temperature: of the loss.
        chunk: pairs of a chunk of its cached loss; None: its plain loss.
        bf16: whether it computes under autocast.
        before_step: called before each step of the optimizer.
        several: whether there are other ranks, whose passages are gathered.
        max_grad_norm: by which gradients are clipped; 0: they are not.
    """
    import datasets
    from sentence_transformers import SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer import losses
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **_):
            before_step()

        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = after_step(state.global_step)

    datasets.disable_progress_bars()
    scale = 1 / temperature
    if chunk is None:
        loss = losses.MultipleNegativesRankingLoss(model, scale, gather_across_devices=several)
    else:
        loss = losses.CachedMultipleNegativesRankingLoss(
            model, scale, mini_batch_size=chunk, gather_across_devices=several
        )
    queries, passages = zip(*pairs, strict=True)
    arguments = Arguments(
        output_dir=str(folder / "theirs"),
        per_device_train_batch_size=batch,
        max_steps=100_000,
        learning_rate=1e-5,
        max_grad_norm=max_grad_norm,
        use_cpu=device.type == "cpu",
        bf16=bf16,
        ddp_backend="gloo" if several else None,
        dataloader_drop_last=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    data = datasets.Dataset.from_dict({"query": queries, "passage": passages})
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=data, loss=loss, callbacks=[Watch()]
    )
    trainer.train()


@contextmanager
def alone() -> Iterator[None]:
    """While the body runs, this process does not look like a rank, for which their trainer would wrap the model for
    several; what it has found out stays, so that this holds for all their later trainers, too."""
    before = {name: os.environ.pop(name, None) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    try:
        yield
    finally:
        os.environ |= {name: value for name, value in before.items() if value is not None}
