"""The cosine between gradients of two kinds of batches on gloo ranks, against plain autograd in one process."""

import pytest
import torch

from hbtrain.config import from_tree, override, to_tree
from hbtrain.corpus import ParallelCorpus
from hbtrain.training.export import load_for_training, trainable
from hbtrain.training.loop import Trainer
from hbtrain.training.verify import plain_loss
from tests.distributed.backbones import configure, weights, worker
from tests.distributed.ranks import run_ranks

TRANSFORMER = {
    "layers": 1,
    "hidden_size": 16,
    "heads": 2,
    "intermediate_size": 24,
    "vocabulary_size": 200,
    "dropout": 0.3,
}
STEPS = 3


def train(trees, folder):
    """What each training tells as {step: cosine}, and the state of the random numbers at its end."""
    found = []
    for number, tree in enumerate(trees):
        events = []
        own = worker(folder, f"model-{number}", events=events)
        Trainer(from_tree(tree), own).run()
        own.group.all_reduce_sum(torch.zeros(1))  # rank 0 has saved the model when all have come here
        name = "train/gradient_cosine"
        told = {event.step: event.metrics[name] for event in events if name in event.metrics}
        found.append((told, torch.get_rng_state().tolist()))
    return found


def plain_cosine(config, folder, step):
    """The cosine at the weights in `folder`, of whole batches of runs with one kind only, without dropout."""
    found = []
    for mode in ("monolingual", "cross-lingual"):
        one = override(config, {"batching.mode": mode, "batching.mixture": None})
        encoder = load_for_training(one, folder)
        module = trainable(encoder, one).eval()
        loss = plain_loss(one, encoder, module, ParallelCorpus.from_config(one), step)
        trained = [p for p in module.parameters() if p.requires_grad]
        grads = torch.autograd.grad(loss, trained, allow_unused=True)
        found.append(torch.cat([g.flatten().double() for g in grads if g is not None]))
    return torch.cosine_similarity(*found, dim=0).item()


@pytest.mark.parametrize(
    ("world_size", "setups"),
    [
        (1, [{"batching.mixture": {"multi": 1}}, {"stage": 2, "training.chunks": 2}]),
        (
            2,
            [
                {"batching.mode": "monolingual"},
                {"stage": 1, "training.chunks": 3, "loss.symmetric": True},
                {"stage": 2, "encoder.precision": "bf16"},
                {"stage": 2},
            ],
        ),
    ],
)
def test_it_is_the_cosine_of_whole_gradients_and_leaves_training_alone(tmp_path, world_size, setups):
    base = {"encoder.transformer": TRANSFORMER, "resources.workers": world_size, "training.steps": STEPS}
    configs = [configure(tmp_path, "transformer", **base | setup) for setup in setups]
    pairs = [override(c, {"training.gradient_cosine_every": every}) for c in configs for every in (None, 1)]
    first, *others = run_ranks(train, world_size, [to_tree(config) for config in pairs], str(tmp_path))
    assert not any(told for rank in others for told, _ in rank)  # rank 0 tells
    for number, config in enumerate(configs):
        (nothing, random), (told, random_after) = first[2 * number : 2 * number + 2]
        assert not nothing
        assert random == random_after
        without, with_it = (weights(tmp_path / f"model-{2 * number + i}") for i in (0, 1))
        assert all(torch.equal(weight, with_it[name]) for name, weight in without.items())
        assert list(told) == [1, 2, 3]
        want = plain_cosine(config, tmp_path / f"model-{2 * number}", STEPS)
        assert abs(want) < 0.99
        assert told[STEPS] == pytest.approx(want, abs=2e-2 if config.encoder.precision == "bf16" else 1e-5)
