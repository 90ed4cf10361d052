"""Whole training steps on 1, 2 and 3 gloo ranks, through DeepSpeed, against one plain process."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from hbtrain.batching import BatchPlan
from hbtrain.config import from_tree, load_config, override, to_tree
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.card import ModelCard
from hbtrain.modeling.embedding import EmbeddingModule
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.gather import ProcessGroup
from hbtrain.training.export import export
from hbtrain.training.loop import Trainer
from hbtrain.training.verify import trained_gradient
from hbtrain.training.worker import Worker
from tests.distributed.ranks import run_ranks

SMALL = {
    "encoder.backbone": "transformer",
    "encoder.transformer": {
        "layers": 1,
        "hidden_size": 16,
        "heads": 2,
        "intermediate_size": 32,
        "vocabulary_size": 300,
    },
    "encoder.max_passage_tokens": 24,
    "batching.global_batch_size": 7,
    "training.learning_rate": 0.01,
    "training.steps": 6,
    "training.log_every": 2,
    "training.checkpoint_every": None,
    "data.validation": None,
    "evaluation.benchmarks": [],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A configuration with a tiny transformer, and the folder its initial model lies in."""
    folder = tmp_path_factory.mktemp("run")

    def make(**overrides):
        config = load_config("quickstart", {**SMALL, "data.cache": str(folder / "cache"), **overrides})
        initial = folder / "initial"
        if not initial.exists():
            Encoder.build(config.encoder, ParallelCorpus.from_config(config).every_text, 0).save(initial)
        return config, folder

    return make


def worker(folder, events=None, checkpoints=None):
    def upload(part):
        part.store()

    checkpoints = Path(checkpoints or Path(folder) / "none")
    emit = (lambda event: None) if events is None else events.append
    model = Path(folder) / "model"
    return Worker(ProcessGroup(), torch.device("cpu"), Path(folder) / "initial", model, emit, upload, checkpoints)


def gradient_of_first_step(tree, folder):
    """{parameter: averaged gradient} of step 0."""
    return {name: g.numpy() for name, g in trained_gradient(from_tree(tree), worker(folder), 0).items()}


def plain_gradient(config, folder):
    """The same gradient by autograd over the full score matrix, in this process, without hbtrain's loss or verify."""
    corpus = ParallelCorpus.from_config(config)
    encoder = Encoder.load(str(Path(folder) / "initial"), config.encoder, device="cpu")
    module = EmbeddingModule(encoder.model)
    batch = BatchPlan.over(corpus, config).batch(0)
    source = corpus.sources[batch.source]
    (q, p), _ = module(
        [
            encoder.tokenize(source.texts("query", batch.rows, batch.query_languages), "query"),
            encoder.tokenize(source.texts("passage", batch.rows, batch.passage_languages), "passage"),
        ]
    )
    cross_entropy(q @ p.T / config.loss.temperature, torch.arange(len(batch))).backward()
    return {name: x.grad.flatten() for name, x in module.named_parameters() if x.grad is not None}


@pytest.mark.parametrize(("world_size", "stage"), [(1, 0), (2, 2), (3, 3)])
def test_gradient_equals_one_process(run, world_size, stage):
    config, folder = run(
        **{"resources.workers": world_size, "training.deepspeed": {"zero_optimization": {"stage": stage}}}
    )
    want = plain_gradient(config, folder)
    ranks = run_ranks(gradient_of_first_step, world_size, to_tree(config), str(folder))
    for got in ranks:
        names = sorted(want)
        assert sorted(got) == names
        whole_got = torch.cat([torch.from_numpy(got[name]) for name in names])
        whole_want = torch.cat([want[name] for name in names])
        ratio = (whole_got.norm() / whole_want.norm()).item()
        cosine = torch.cosine_similarity(whole_got, whole_want, dim=0).item()
        assert ratio == pytest.approx(1, abs=1e-5)
        assert cosine == pytest.approx(1, abs=1e-5)


def trained(tree, folder, checkpoints=None):
    """Events and final weights of a training."""
    events = []
    config = from_tree(tree)
    own = worker(folder, events, checkpoints)
    Trainer(config, own).run()
    own.group.all_reduce_sum(torch.zeros(1))  # rank 0 has saved the model when all have come here
    state = Encoder.load(str(own.final_model), device="cpu").model.state_dict()
    return (
        [(event.step, dict(event.metrics), event.note) for event in events],
        {k: v.float().numpy() for k, v in state.items()},
    )


def difference(a, b):
    return max(abs(a[name] - b[name]).max() for name in a)


def test_training_does_not_depend_on_the_number_of_workers(run):
    weights = []
    for world_size in (1, 2, 3):
        config, folder = run(**{"resources.workers": world_size})
        (events, final), *_ = run_ranks(trained, world_size, to_tree(config), str(folder))
        weights.append(final)
        losses = [m["train/loss"] for _, m, _ in events if "train/loss" in m]
        assert len(losses) == 3
        assert losses[-1] < losses[0]
    # AdamW turns rounding of tiny gradients into steps of some size: equal to well below the six steps of 0.01 taken.
    assert difference(weights[0], weights[1]) < 1e-4
    assert difference(weights[0], weights[2]) < 1e-4


def test_validation_keeps_the_best_and_stops_early(run):
    config, folder = run(
        **{
            "resources.workers": 2,
            "data.validation": "demo-heldout",
            "training.steps": 40,
            "training.validate_every": 1,
            "training.validation_batches": 2,
            "training.patience": 2,
            "training.learning_rate": 0.5,
        }
    )
    (events, _), *_ = run_ranks(trained, 2, to_tree(config), str(folder))
    losses = [m["validation/loss"] for _, m, _ in events if "validation/loss" in m]
    best = min(losses)
    assert len(losses) < 40, "a learning rate this high must make it worse at some time"
    assert losses.index(best) == len(losses) - 3, "two validations without improvement, then the end"
    assert "stopped early" in events[-1][2]


def test_bf16_trains(run):
    config, folder = run(**{"encoder.precision": "bf16", "resources.workers": 2})
    (events, weights), *_ = run_ranks(trained, 2, to_tree(config), str(folder))
    losses = [m["train/loss"] for _, m, _ in events if "train/loss" in m]
    assert losses[-1] < losses[0]
    assert all(abs(w).max() < 1e3 for w in weights.values())


def exported(tree, folder, share):
    """Trains, then exports to `trained` and, averaged with the weights before training, to `mean`; rank 0 tells what
    is in these and in `initial`."""
    trainer = Trainer(from_tree(tree), worker(folder))
    trainer.run()
    for name, of_export in (("trained", 0.0), ("mean", share)):
        config = override(trainer.config, {"encoder.average_with_initial": of_export})
        to = Path(folder) / name if trainer.group.rank == 0 else None
        export(trainer.engine, trainer.encoder, config, Path(folder) / "initial", to, ModelCard())
    if trainer.group.rank:
        return None
    loaded = [Encoder.load(str(Path(folder) / name)).model.state_dict() for name in ("initial", "trained", "mean")]
    return [{name: value.numpy() for name, value in state.items()} for state in loaded]


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_weights_before_training_are_averaged_with_gathered_ones(run, stage):
    zero = {"zero_optimization": {"stage": stage}}
    config, folder = run(**{"resources.workers": 2, "training.deepspeed": zero, "training.steps": 2})
    (initial, trained, mean), _ = run_ranks(exported, 2, to_tree(config), str(folder), 0.4)
    assert difference(initial, trained) > 1e-3
    assert difference(mean, {name: 0.4 * initial[name] + 0.6 * trained[name] for name in mean}) < 1e-6


class SpoiltTrainer(Trainer):
    """A trainer in which the gradient of some steps is not finite."""

    def __init__(self, config, own, spoilt):
        super().__init__(config, own)
        self._spoilt, self._now = spoilt, -1
        next(p for p in self.module.parameters() if p.ndim > 1).register_hook(self._spoil)

    def _step(self, work, works):
        self._now = work.batch.step
        super()._step(work, works)

    def _spoil(self, gradient):
        return gradient * float("inf") if self._now in self._spoilt else gradient


def events_of_spoilt(trees, folder, spoilt):
    """(step, skipped steps, note) of the events of each training, on one rank."""
    found = []
    for tree in trees:
        events = []
        SpoiltTrainer(from_tree(tree), worker(folder, events), spoilt).run()
        found.append([(event.step, event.metrics.get("train/skipped_steps"), event.note) for event in events])
    return found


def test_skipped_steps_are_counted_and_told(run):
    trees = []
    for stage in (0, 1):
        zero = {"zero_optimization": {"stage": stage, "reduce_bucket_size": 10_000}}
        config, folder = run(**{"encoder.precision": "bf16", "resources.workers": 1, "training.deepspeed": zero})
        trees.append(to_tree(config))
    told = [
        (2, 1.0, "gradients were not finite: 1 step skipped, 1 in all"),
        (4, 1.0, ""),
        (6, 3.0, "gradients were not finite: 2 steps skipped, 3 in all"),
    ]
    (found,) = run_ranks(events_of_spoilt, 1, trees, str(folder), (1, 4, 5))
    assert found == [told, told]
