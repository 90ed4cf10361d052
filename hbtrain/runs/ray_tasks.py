"""What a run does on the cluster besides training: building the first encoder, and scoring one."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbtrain.config import Config, from_tree
from hbtrain.evaluation.summary import Evaluation
from hbtrain.storage import RemotePath, as_local, place, pushed, put

if TYPE_CHECKING:
    from hbtrain.retrieval.collection_search import SearchOptions

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
    from hbtrain.evaluation.evaluate import evaluate
    from hbtrain.evaluation.rankers import rankers
    from hbtrain.evaluation.runs import RunWriter
    from hbtrain.modeling.card import add_scores, trained_languages
    from hbtrain.modeling.encoder import Encoder

    # The model saved has the backbone's own code, if the configuration lets it run.
    encoder = Encoder.load(str(model), trust_remote_code=config.encoder.trust_remote_code is not None)
    wanted, known = config.evaluation, trained_languages(model)
    benchmarks = load_benchmarks(wanted.benchmarks, candidates=wanted.candidates, cache=config.data.cache)
    writer = RunWriter(runs, config.name, wanted.run_depth) if runs is not None and wanted.run_depth else None
    ranker = rankers(wanted.index, _search_options(config), wanted.depth, wanted.run_depth)
    evaluations = [
        evaluate(encoder, b, wanted.batch_size, ranker=ranker(), trained_languages=known, runs=writer)
        for b in benchmarks
    ]
    add_scores(model, {key: score for e in evaluations for key, score in e.macro.items()})
    return evaluations


def _search_options(config: Config) -> SearchOptions:
    from hbtrain.retrieval.collection_search import SearchOptions
    from hbtrain.retrieval.encoding import Batching

    wanted = config.evaluation
    return SearchOptions(
        parameters=wanted.index_parameters,
        actors=wanted.actors,
        wait_s=config.resources.wait_s,
        cpus_per_actor=config.resources.cpus_per_worker,
        batching=Batching(batch_size=wanted.batch_size),
        cache=None if config.data.cache is None else Path(config.data.cache),
        mirror=None if wanted.embeddings is None else RemotePath.parse(wanted.embeddings),
    )
