"""Ray tasks of a run besides training: building the initial encoder, and evaluating an encoder."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hbtrain.config import Config, from_tree
from hbtrain.evaluation.summary import Evaluation
from hbtrain.modeling.devices import Device, evaluation_precision
from hbtrain.storage import as_local, place, pushed, put

CARD = "README.md"  # file of a model that holds its model card, into which scores are written


def build(tree: dict[str, Any], to: str) -> None:
    """Build the encoder that training starts from, and save it to the folder or URI `to`.

    It has no LoRA adapters: the workers add them, and they begin at zero.
    """
    from hbtrain.corpus import ParallelCorpus
    from hbtrain.modeling.encoder import Encoder
    from hbtrain.training.optimizers import layer_matrices

    config = from_tree(tree)
    encoder = config.encoder.model_copy(update={"lora": None})
    built = Encoder.build(encoder, ParallelCorpus.from_config(config).every_text, config.seed)
    if config.training.optimizer == "muon":
        layer_matrices(built.model)  # for its errors, before there are workers
    with pushed(place(to), replace=True) as folder:
        built.save(folder)


def score(tree: dict[str, Any], model: str, trec_runs: str | None = None) -> list[Evaluation]:
    """Evaluate a model on the configuration's benchmarks, and write the scores into its model card.

    Args:
        tree: the configuration, as `hbtrain.config.to_tree` gives it.
        model: folder or URI of the model.
        trec_runs: folder or URI for TREC run files, or None for none.
    """
    where = place(model)
    with as_local(where) as folder, pushed(place(trec_runs)) if trec_runs is not None else nullcontext() as runs:
        evaluations = _score(from_tree(tree), folder, runs)
        if not isinstance(where, Path) and (folder / CARD).exists():
            put(folder / CARD, where / CARD)
    return evaluations


def _score(config: Config, model: Path, runs: Path | None) -> list[Evaluation]:
    """`score` with folders on this machine."""
    from hbtrain.evaluation.benchmarks import load_benchmarks
    from hbtrain.evaluation.evaluate import evaluate_all
    from hbtrain.evaluation.judged import Judging
    from hbtrain.evaluation.rankers import search_options
    from hbtrain.modeling.card import add_scores, trained_languages
    from hbtrain.modeling.encoder import Encoder

    # A saved model brings the backbone's own Python code along, which runs only if the configuration allows it.
    options, cache = config.evaluation, config.data.cache
    judging = Judging.of(options)
    # As `run_task` asks of Ray: a task that leaves the work to actors has no GPU.
    device: Device = "cuda" if config.resources.use_gpu and not options.actors else "cpu"
    encoder = Encoder.load(
        str(model),
        device=device,
        trust_remote_code=config.encoder.trust_remote_code is not None,
        precision=evaluation_precision(options.precision, device),
    )
    benchmarks = load_benchmarks(
        options.benchmarks,
        candidates=options.candidates,
        cache=cache,
        judging=judging,
        catalogue=config.data.catalogue,
    )
    resources = config.resources
    search = search_options(
        options, cpus_per_actor=resources.cpus_per_worker, wait_s=resources.wait_s, cache=cache, devices=(device,)
    )
    known = trained_languages(model)
    evaluations = evaluate_all(
        encoder, benchmarks, options, search, trained_languages=known, trec_runs=runs, system=config.name
    )
    add_scores(model, {key: score for e in evaluations for key, score in e.macro.items()})
    return evaluations
