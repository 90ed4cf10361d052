"""What a run does on the cluster besides training: building the first encoder, and scoring one."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hbtrain.config import Config, from_tree
from hbtrain.evaluation.summary import Evaluation
from hbtrain.storage import as_local, place, pushed, put

CARD = "README.md"
"""A model's file that scores are written into."""


def build(tree: dict[str, Any], to: str) -> None:
    """Build the encoder that training starts from, in the place `to`.

    Adapters are added by the workers; they begin at zero.
    """
    from hbtrain.corpus import ParallelCorpus
    from hbtrain.modeling.encoder import Encoder

    config = from_tree(tree)
    encoder = config.encoder.model_copy(update={"lora": None})
    built = Encoder.build(encoder, ParallelCorpus.from_config(config).every_text, config.seed)
    with pushed(place(to), replace=True) as folder:
        built.save(folder)


def score(tree: dict[str, Any], model: str, runs: str | None = None) -> list[Evaluation]:
    """Evaluate the model in the place `model` on the configuration's benchmarks, and write the scores into its card.

    Run files go to the place `runs`, if there is one.
    """
    where = place(model)
    with as_local(where) as folder, pushed(place(runs)) if runs is not None else nullcontext() as run_files:
        evaluations = _score(from_tree(tree), folder, run_files)
        if not isinstance(where, Path) and (folder / CARD).exists():
            put(folder / CARD, where / CARD)
    return evaluations


def _score(config: Config, model: Path, runs: Path | None) -> list[Evaluation]:
    """`score` of folders on this machine."""
    from hbtrain.evaluation.benchmarks import load_benchmarks
    from hbtrain.evaluation.evaluate import evaluate_all
    from hbtrain.evaluation.rankers import search_options
    from hbtrain.modeling.card import add_scores, trained_languages
    from hbtrain.modeling.encoder import Encoder

    # The model saved has the backbone's own code, if the configuration lets it run.
    encoder = Encoder.load(str(model), trust_remote_code=config.encoder.trust_remote_code is not None)
    options, cache = config.evaluation, config.data.cache
    benchmarks = load_benchmarks(options.benchmarks, candidates=options.candidates, cache=cache)
    resources = config.resources
    search = search_options(options, cpus_per_actor=resources.cpus_per_worker, wait_s=resources.wait_s, cache=cache)
    known = trained_languages(model)
    evaluations = evaluate_all(
        encoder, benchmarks, options, search, trained_languages=known, trec_runs=runs, system=config.name
    )
    add_scores(model, {key: score for e in evaluations for key, score in e.macro.items()})
    return evaluations
