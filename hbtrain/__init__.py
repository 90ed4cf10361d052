"""hbtrain: distributed training of multilingual retrievers on hybrid batches.

The public names are loaded when they are first used, so that `import hbtrain` costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "BatchPlan": "hbtrain.batching",
    "Benchmark": "hbtrain.evaluation.benchmarks",
    "Comparison": "hbtrain.comparison.result",
    "Config": "hbtrain.config",
    "Encoder": "hbtrain.modeling.encoder",
    "Evaluations": "hbtrain.evaluation.model_evaluation",
    "GlobalBatch": "hbtrain.batching",
    "HbtrainError": "hbtrain.errors",
    "ParallelCorpus": "hbtrain.corpus",
    "PrintingObserver": "hbtrain.events",
    "Searcher": "hbtrain.retrieval.passage_index",
    "compare": "hbtrain.comparison.compare",
    "evaluate": "hbtrain.evaluation.model_evaluation:evaluate_model",
    "load_benchmark": "hbtrain.evaluation.benchmarks",
    "load_config": "hbtrain.config",
    "override": "hbtrain.config",
    "save_comparison": "hbtrain.comparison.save",
    "search": "hbtrain.retrieval.passage_index",
    "train": "hbtrain.runs.run",
}
"""{public name: its module, and after a colon what it is called there, if that is something else}."""

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - the names are strings


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, _, called = _HOMES[name].partition(":")
        return getattr(import_module(module), called or name)
    raise AttributeError(f"module 'hbtrain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
