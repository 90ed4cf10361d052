"""Checks of a whole configuration before any worker starts, and the download of its inputs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hbtrain.batching import BatchPlan, shard_sizes
from hbtrain.batching.switching import Switcher
from hbtrain.config import Config
from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.data_sets import fetch_all
from hbtrain.corpus.parallel import fetch_sources
from hbtrain.errors import ConfigError
from hbtrain.evaluation.benchmarks import Benchmark, load_benchmarks
from hbtrain.evaluation.during_training import Selection, select
from hbtrain.evaluation.judged import Judging
from hbtrain.evaluation.rankers import check_search
from hbtrain.events import NullObserver, Observer
from hbtrain.formats import inputs
from hbtrain.modeling.backbone import check_backbone
from hbtrain.modeling.compiling import check_compiling
from hbtrain.runs.objective_checks import check_data_for_loss, check_frozen_models
from hbtrain.runs.run_inputs import named_data_sets
from hbtrain.storage import check_writable, is_remote, place
from hbtrain.training.deepspeed_config import deepspeed_config, zero_stage
from hbtrain.training.gradient_cosine import cosine_plans
from hbtrain.training.validation import validation_plan


@dataclass(frozen=True)
class Checked:
    """What the checks have opened, for use by the run."""

    corpus: ParallelCorpus
    plan: BatchPlan
    benchmarks: tuple[Benchmark, ...]
    during: Selection  # the benchmarks that are evaluated during training

    @cached_property
    def batch_plan(self) -> str:
        """The fingerprint of the first 16 batches."""
        return self.plan.fingerprint(0, 16)

    @property
    def data_sets(self) -> dict[str, dict[str, Any]]:
        """{`sources/mmarco` or `benchmarks/xquad-r`: where its data come from} of all data sets of the catalogue,
        without the digests of single files."""
        found = {f"sources/{x.name}": x.data_set for x in self.corpus.sources.values()}
        found |= {f"benchmarks/{x.name}": x.data for x in self.benchmarks}
        return {name: {x: about[x] for x in about if x != "files"} for name, about in found.items() if about}


def check_storage(config: Config) -> None:
    """Raise StorageError unless runs can be written into `storage`; called before anything else is done."""
    check_writable(place(config.storage), "storage")


def preflight(config: Config, observer: Observer | None = None) -> Checked:
    """Check a configuration as a whole, sources and benchmarks included; starts no process.

    Inputs that are elsewhere are fetched, of which `observer` is told, after all that can be checked without them.

    Raises:
        HbtrainError: the first thing that is wrong, in one line.
    """
    shard_sizes(config.batching.global_batch_size, config.resources.max_workers)
    for workers in range(config.resources.min_workers, config.resources.max_workers + 1):
        deepspeed_config(config, workers)
    check_backbone(config.encoder)
    check_frozen_models(config)
    _check_attention(config)
    check_compiling(config, zero_stage(config))
    if config.resources.address is None and "RAY_ADDRESS" not in os.environ:
        _check_cores(config)
    fetch_inputs(config, observer or NullObserver())
    benchmarks = _benchmarks(config)
    during = select(config, benchmarks)
    corpus = ParallelCorpus.from_config(config)
    plan = BatchPlan.over(corpus, config)
    check_data_for_loss(config, corpus, plan, (observer or NullObserver()).phase)
    Switcher.from_config(config)  # for its errors; workers read the lexicons again
    data = config.data
    if data.validation is not None:
        validation_plan(config, ParallelCorpus.open([data.validation], data.cache, data.catalogue))
    if config.training.gradient_cosine_every is not None:
        cosine_plans(config, corpus, plan)
    return Checked(corpus, plan, benchmarks, during)


def _benchmarks(config: Config) -> tuple[Benchmark, ...]:
    wanted = config.evaluation
    if not wanted.benchmarks:
        if wanted.in_domain is not None:
            raise ConfigError(f"evaluation.in_domain = {wanted.in_domain!r}, but evaluation.benchmarks is empty")
        return ()
    check_search(wanted)
    return load_benchmarks(
        wanted.benchmarks,
        candidates=wanted.candidates,
        cache=config.data.cache,
        in_domain=wanted.in_domain,
        judging=Judging.of(wanted),
        catalogue=config.data.catalogue,
    )


def _check_attention(config: Config) -> None:
    """Flash attention has kernels for GPUs and numbers of 16 bits only; elsewhere it fails in the first step."""
    if config.encoder.attention != "flash_attention_2":
        return
    for key, value, needed in (
        ("encoder.precision", config.encoder.precision, "bf16"),
        ("resources.use_gpu", config.resources.use_gpu, True),
    ):
        if value != needed:
            raise ConfigError(
                f"encoder.attention = 'flash_attention_2' needs {key} = {needed!r}, and it is {value!r}: change one of "
                "them; 'sdpa' works everywhere, and 'packed' computes no padding there"
            )


def _check_cores(config: Config) -> None:
    resources = config.resources
    cores = len(os.sched_getaffinity(0))
    if resources.min_workers * resources.cpus_per_worker > cores:
        raise ConfigError(
            f"resources.workers = {resources.workers} with {resources.cpus_per_worker:g} CPU each is more than this "
            f"machine's {cores}; lower one of them, or give a cluster's address in resources.address"
        )


def fetch_inputs(config: Config, observer: Observer) -> None:
    """Fetch data sets, and copy remote sources, lexicons and benchmarks into the cache, as far as they are not there.

    Raises:
        DataError: a data set, source, lexicon or benchmark is missing, or access to it is refused.
        StorageError: the cache cannot be written.
    """
    data = config.data
    sources, benchmarks = named_data_sets(config)
    to_prepare = [one for one in sources if not one.is_prepared(data.cache)]
    fetch_all([*to_prepare, *benchmarks], data.cache, observer.phase)
    fetch_sources([*data.sources, *([] if data.validation is None else [data.validation])], data, observer.phase)
    lexicons = config.batching.switching.lexicons.values() if "switched" in config.batching.kinds else ()
    for lexicon in lexicons:
        if is_remote(lexicon):
            inputs.local_copy(lexicon, data.cache, observer.phase)
    for text in config.evaluation.benchmarks:
        path = text.partition("=")[2]
        if is_remote(path):
            inputs.local_copy(path, data.cache, observer.phase)
