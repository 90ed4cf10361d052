"""What a run does on the cluster besides training: building the first encoder, and scoring one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hbtrain.config import from_tree
from hbtrain.evaluation.summary import Evaluation


def build(tree: dict[str, Any], to: str) -> None:
    """Build the encoder that training starts from. Adapters are added by the workers; they begin at zero."""
    from hbtrain.corpus import ParallelCorpus
    from hbtrain.modeling.encoder import Encoder

    config = from_tree(tree)
    encoder = config.encoder.model_copy(update={"lora": None})
    Encoder.build(encoder, ParallelCorpus.from_config(config).every_text, config.seed).save(Path(to))


def score(tree: dict[str, Any], model: str) -> list[Evaluation]:
    """Evaluate the model in a folder on the configuration's benchmarks, and write the scores into its card."""
    from hbtrain.evaluation.benchmark import load_benchmarks
    from hbtrain.evaluation.evaluate import evaluate
    from hbtrain.modeling.card import add_scores, trained_languages
    from hbtrain.modeling.encoder import Encoder

    config = from_tree(tree)
    # The model saved has the backbone's own code, if the configuration lets it run.
    encoder = Encoder.load(model, trust_remote_code=config.encoder.trust_remote_code is not None)
    wanted, known = config.evaluation, trained_languages(Path(model))
    benchmarks = load_benchmarks(wanted.benchmarks, candidates=wanted.candidates, cache=config.data.cache)
    evaluations = [evaluate(encoder, b, wanted.batch_size, trained_languages=known) for b in benchmarks]
    add_scores(Path(model), {key: score for e in evaluations for key, score in e.macro.items()})
    return evaluations
