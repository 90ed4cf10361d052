"""The pairs and tokens that training reports, against the texts themselves, on two gloo ranks."""

from pathlib import Path

from hbtrain.batching import BatchPlan
from hbtrain.config import from_tree, to_tree
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.encoder import Encoder
from hbtrain.training.loop import Trainer
from tests.distributed.backbones import configure, worker
from tests.distributed.ranks import run_ranks


def reported(tree, folder, checkpoints=None):
    """(pairs, tokens) of every event that tells of any."""
    events = []
    Trainer(from_tree(tree), worker(folder, events=events, checkpoints=checkpoints)).run()
    return [(event.pairs, event.tokens) for event in events if event.pairs]


def tokens_of(config, folder, steps):
    """Tokens of the texts of `steps`, each tokenized by itself, so that there is no padding to count."""
    corpus = ParallelCorpus.from_config(config)
    encoder = Encoder.load(str(Path(folder) / "initial"), config.encoder, device="cpu")
    plan = BatchPlan.over(corpus, config)
    total = 0
    for step in steps:
        batch = plan.batch(step)
        source = corpus.sources[batch.source]
        for side, languages in (("query", batch.query_languages), ("passage", batch.passage_languages)):
            texts = source.texts(side, batch.rows, languages)
            total += sum(encoder.tokenize([text], side)["input_ids"].numel() for text in texts)
    return total


def test_every_step_is_reported_once_with_its_tokens(tmp_path):
    config = configure(tmp_path, "transformer", **{"training.log_every": 3})
    told, _ = run_ranks(reported, 2, to_tree(config), str(tmp_path))
    assert [pairs for pairs, _ in told] == [21, 7]
    assert told[0][1] == tokens_of(config, tmp_path, range(3))
    assert told[1][1] == tokens_of(config, tmp_path, [3])


def test_steps_before_an_early_end_are_reported(tmp_path):
    overrides = {
        "training.steps": 40,
        "training.log_every": 7,
        "training.learning_rate": 0.5,
        "training.validate_every": 1,
        "training.validation_batches": 2,
        "training.patience": 2,
        "data.validation": "demo-heldout",
    }
    config = configure(tmp_path, "transformer", **overrides)
    told, _ = run_ranks(reported, 2, to_tree(config), str(tmp_path))
    steps, rest = divmod(sum(pairs for pairs, _ in told), 7)
    assert rest == 0
    assert steps < 40, "a learning rate this high must end it early"
    assert sum(tokens for _, tokens in told) == tokens_of(config, tmp_path, range(steps))
