"""Stages about training: pairs/s against sentence-transformers, the optimizer's step, the largest batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial

import torch

from hbtrain.batching import BatchPlan
from hbtrain.config import Config
from hbtrain.modeling.gather import ProcessGroup
from hbtrain.planning.communication import encoder_flops
from hbtrain.planning.estimate import backbone_shape
from hbtrain.training.loop import Trainer
from tests.bench.gpu.campaign import LeftOut, Line, reason_of
from tests.bench.gpu.machine import has_flash_attention
from tests.bench.gpu.samples import QUERY_SHARE, model_folder, read_pairs, source_file, training_config
from tests.bench.gpu.settings import Settings
from tests.bench.pace import PROFILED, Pace, profile_figures
from tests.bench.trainers import alone, silent_worker, train_ours, train_theirs

WARM_UP = 3
OPTIMIZER_STEPS = 8


def worker_of(settings: Settings, **options: object) -> object:
    return silent_worker(ProcessGroup(), settings.device, model_folder(settings), settings.folder, **options)


def config_of(settings: Settings, tokens: int, batch: int, **changes: object) -> Config:
    """The recipe's training; a batch whose graph would be too large is cut into chunks."""
    cut = {"training.chunk_tokens": settings.sizes.graph_tokens} if batch * tokens > settings.sizes.graph_tokens else {}
    source = source_file(settings, tokens, 2 * max(settings.sizes.batches))
    return training_config(settings, source, batch, **cut, **changes)


def rates(settings: Settings, config: Config, tokens: int, batch: int, seconds: float) -> Line:
    """Pairs/s, and the share of the device's peak that the encoder's work without padding comes to."""
    lengths = {round(QUERY_SHARE * tokens): 1, tokens - round(QUERY_SHARE * tokens): 1}
    flops = encoder_flops(backbone_shape(config.encoder), lengths) * batch / seconds
    peak = settings.peak_tflops
    return {"pairs_per_s": batch / seconds, "share_of_peak": None if peak is None else flops / (peak * 1e12)}


def ours(settings: Settings, tokens: int, batch: int, **changes: object) -> Line:
    """Pairs/s of hbtrain, with kernels, waits and memory on a GPU."""
    config = config_of(settings, tokens, batch, **changes)
    pace = Pace(settings.device, settings.sizes.target_s, profiled=settings.device.type == "cuda")
    train_ours(config, partial(worker_of, settings), pace)
    return rates(settings, config, tokens, batch, pace.seconds) | pace.figures


def theirs(settings: Settings, tokens: int, batch: int) -> Line:
    """Pairs/s of sentence-transformers' trainer: float32 weights under autocast to bf16, its cached loss where ours has
    chunks."""
    from sentence_transformers import SentenceTransformer

    config = config_of(settings, tokens, batch)
    pace = Pace(settings.device, settings.sizes.target_s, profiled=settings.device.type == "cuda")
    with alone():
        train_theirs(
            SentenceTransformer(str(model_folder(settings)), device=str(settings.device)),
            read_pairs(source_file(settings, tokens, 2 * max(settings.sizes.batches))),
            batch=batch,
            after_step=pace,
            device=settings.device,
            folder=settings.folder,
            chunk=None if config.training.chunk_tokens is None else max(1, settings.sizes.graph_tokens // tokens),
            bf16=True,
            max_grad_norm=1.0,
        )
    return rates(settings, config, tokens, batch, pace.seconds) | pace.figures


def step(batch: int, settings: Settings) -> Iterator[Line]:
    """One batch size at every length: hbtrain, sentence-transformers, and how many times as fast the first is."""
    for tokens in settings.sizes.tokens:
        case = f"{batch} pairs of {tokens} tokens"
        own = ours(settings, tokens, batch)
        yield {"case": f"{case}, hbtrain"} | own
        other = theirs(settings, tokens, batch)
        yield {"case": f"{case}, sentence-transformers"} | other
        yield {"case": f"{case}, ratio", "times_their_pairs_per_s": own["pairs_per_s"] / other["pairs_per_s"]}


def variants(named: Mapping[str, Mapping[str, object]], settings: Settings) -> Iterator[Line]:
    """Changes of the configuration at the middle batch and the first length, against the recipe as it is. One that
    cannot be measured is a line with its reason."""
    tokens, batch = settings.sizes.tokens[0], sorted(settings.sizes.batches)[len(settings.sizes.batches) // 2]
    case = f"{batch} pairs of {tokens} tokens"
    left_out = {name: reason for name, changes in named.items() if (reason := why_left_out(settings, changes))}
    yield from ({"case": f"{case}, {name}", "left_out": reason} for name, reason in left_out.items())
    if len(left_out) == len(named):
        return
    plain = ours(settings, tokens, batch)
    yield {"case": f"{case}, as the recipe has it"} | plain
    for name, changes in named.items():
        if name in left_out:
            continue
        try:
            found = ours(settings, tokens, batch, **changes)
        except Exception as error:
            yield {"case": f"{case}, {name}", "failed": reason_of(error)}
        else:
            yield {"case": f"{case}, {name}", "times_as_fast": found["pairs_per_s"] / plain["pairs_per_s"]} | found


def why_left_out(settings: Settings, changes: Mapping[str, object]) -> str | None:
    """Why such a configuration is not measured on this machine; None where it is."""
    if changes.get("encoder.attention") == "flash_attention_2" and not has_flash_attention():
        return "the package flash-attn is not installed, or there is no GPU"
    if changes.get("encoder.compile") and settings.device.type == "cpu":
        return "on a CPU a C++ compiler takes minutes for it"
    return None


def optimizer(settings: Settings) -> Iterator[Line]:
    """The optimizer's step alone, by precision and ZeRO stage."""
    tokens, batch = settings.sizes.tokens[0], min(settings.sizes.batches)
    for precision, stage in [*(("bf16", stage) for stage in settings.sizes.zero_stages), ("fp32", 0)]:
        changes = {"encoder.precision": precision, "training.deepspeed": {"zero_optimization": {"stage": stage}}}
        trainer = Trainer(config_of(settings, tokens, batch, **changes), worker_of(settings))
        trainer.module.train()
        times, figures = [], {}
        steps = WARM_UP + OPTIMIZER_STEPS
        for work in trainer.feed.steps(0, steps + PROFILED):
            trainer.backward(work)
            settings.wait()
            counted = work.batch.step >= steps and settings.device.type == "cuda"
            profile = torch.profiler.profile() if counted else None
            if profile is not None:
                profile.start()
            start = time.perf_counter()
            trainer.engine.step()
            settings.wait()
            if profile is not None:
                profile.stop()
                figures = profile_figures(profile, 1, settings.device)
            elif work.batch.step >= WARM_UP:
                times.append(time.perf_counter() - start)
        yield {"case": f"{precision}, ZeRO {stage}", "step_ms": sorted(times)[len(times) // 2] * 1000} | figures


def largest(settings: Settings) -> Iterator[Line]:
    """Batches with a gradient cache, a step each; then the largest, a power of two, whose whole graph fits."""
    tokens, rows = settings.sizes.tokens[0], max(settings.sizes.largest)
    source = source_file(settings, tokens, rows)
    cached = {"training.chunk_tokens": settings.sizes.graph_tokens}
    trainer = Trainer(training_config(settings, source, rows, **cached), worker_of(settings))
    trainer.module.train()
    for batch in settings.sizes.largest:
        config = training_config(settings, source, batch, **cached)
        yield {"case": f"gradient cache, {batch} pairs of {tokens} tokens"} | one_step(trainer, config, tokens)
    if settings.device.type == "cpu":
        raise LeftOut("a whole graph is not tried: a CPU has no memory of its own to fill")
    fits = {"largest_batch": 0}
    for batch in (2**n for n in range(7, int(rows).bit_length())):
        try:
            fits = {"largest_batch": batch, **one_step(trainer, training_config(settings, source, batch), tokens)}
        except torch.OutOfMemoryError:
            break
    yield {"case": f"whole graph, pairs of {tokens} tokens"} | fits


def one_step(trainer: Trainer, config: Config, tokens: int) -> Line:
    """Figures of a step with other batches than the trainer's own; preparing them does not count."""
    device = trainer.worker.device
    trainer.config = config
    (work,) = trainer._feed(config, BatchPlan.over(trainer.corpus, config), trainer.corpus).steps(0, 1)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    trainer.backward(work)
    trainer.engine.step()
    if device.type == "cpu":
        return {"pairs_per_s": len(work.batch) / (time.perf_counter() - start)}
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return {"pairs_per_s": len(work.batch) / seconds, "peak_gib": torch.cuda.max_memory_allocated() / 2**30}
