"""The moving average on two gloo ranks, through DeepSpeed: what it is by an independent sum, that it is what is judged
and exported while training goes on as without it, and that a resumed run has it, on any number of ranks."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hbtrain.config import from_tree, override, to_tree
from hbtrain.modeling.encoder import Encoder
from hbtrain.training.checkpoint_files import checkpoints_in
from hbtrain.training.export import average_with, load_for_training
from hbtrain.training.loop import Trainer
from tests.distributed.ranks import run_ranks
from tests.distributed.test_engine_ranks import run, worker

__all__ = ["run"]  # a fixture

STEPS, DECAY, SHARE = 5, 0.6, 0.25
VARIANTS = {
    "fp32-0": (0, {}),
    "initial-1": (1, {"encoder.average_with_initial": SHARE}),
    "offload-2": (2, {}),
    "fp32-3": (3, {}),
    **{f"bf16-{stage}": (stage, {"encoder.precision": "bf16"}) for stage in (0, 1, 3)},
    "lora-3": (3, {"encoder.lora": {"rank": 2, "alpha": 4}, "loss.learn_temperature": True}),
}
ON_ONE, ON_THREE = ("fp32-0", "offload-2", "bf16-1", "lora-3"), ("offload-2", "fp32-3")
"""Those that go on on another number of ranks than the two that began."""


class Watched(Trainer):
    """A trainer that keeps the weights after each step, and what is there when encoders are validated and restored."""

    def __init__(self, config, own):
        super().__init__(config, replace(own, evaluate=self.evaluate))
        self.way, self.evaluated, self.validated = [], [], []
        self.restored = None

    def _step(self, work, works):
        super()._step(work, works)
        self.way.append(self.weights())

    def weights(self):
        state = self.engine.trained_weights(everywhere=True)
        return {name: value.double().numpy() for name, value in state.items() if value.is_floating_point()}

    def computing(self):
        """The weights with which the module computes, whole."""
        import deepspeed

        found = {}
        for name, value in self.module.named_parameters():
            with deepspeed.zero.GatheredParameters([value]):
                if value.requires_grad:
                    found[name] = value.detach().double().numpy().copy()
        return found

    def evaluate(self, encoder):
        self.evaluated.append({k: v.double().numpy().copy() for k, v in encoder.model.state_dict().items()})
        return {"demo/multi/map": 0.1 * len(self.evaluated)}

    def _validate(self, step):
        self.validated.append(self.computing())
        super()._validate(step)

    def _after_step(self, done, stop, asked):
        if len(self.way) == 1 and self.average is not None:
            with self.average.in_place():  # after a resumed run's first step: it tells of what was restored
                self.restored = self.weights()
        super()._after_step(done, stop, asked)


def train_all(jobs, folder):
    """{name: what was seen, on rank 0} of {name: (configuration, storage)}."""
    results = {}
    for name, (tree, storage) in jobs.items():
        own = replace(worker(folder, None, Path(storage) / "ray"), final_model=Path(storage) / "model")
        trainer = Watched(from_tree(tree), own)
        trainer.run()
        results[name] = trainer.way, trainer.evaluated, trainer.validated, trainer.restored
    return results


@pytest.fixture(scope="module")
def trees(run):
    made = {}
    for name, (stage, overrides) in VARIANTS.items():
        offload = {"offload_optimizer": {"device": "cpu"}} if "offload" in name else {}
        config, folder = run(
            **{
                "training.steps": STEPS,
                "training.average": DECAY,
                "training.checkpoint_every": 3,
                "training.deepspeed": {"zero_optimization": {"stage": stage, **offload}},
                "data.validation": "demo-heldout",
                "training.validate_every": 2,
                "training.validation_batches": 1,
                "evaluation.benchmarks": ["demo"],
                "evaluation.every": 2,
                "evaluation.keep_best": "demo/multi/map",
                **overrides,
            }
        )
        made[name] = to_tree(config)
    return made, Path(folder)


@pytest.fixture(scope="module")
def on_two(trees, tmp_path_factory):
    """The runs on two ranks, and one of each precision and stage without the average and what looks at it."""
    made, folder = trees
    storage = tmp_path_factory.mktemp("two [old]")
    jobs = {name: (tree, str(storage / name)) for name, tree in made.items()}
    off = {"training.average": None, "training.validate_every": None, "evaluation.every": None}
    for name in ("fp32-0", "fp32-3", "bf16-1", "bf16-3"):
        plain = override(from_tree(made[name]), {**off, "evaluation.keep_best": None})
        jobs[f"plain-{name}"] = to_tree(plain), str(storage / f"plain-{name}")
    return run_ranks(train_all, 2, jobs, folder)[0], storage


def cut_off(storage, to):
    """A copy of a run's storage as a kill after its checkpoint of step 3 would have left it."""
    shutil.copytree(storage, to)
    for name in checkpoints_in(to / "ray"):
        if not name.startswith("step-00000003"):
            shutil.rmtree(to / "ray" / name)
    return str(to)


@pytest.fixture(scope="module")
def resumed(trees, on_two, tmp_path_factory):
    """{(number of ranks, variant): what was seen} of the runs that go on from the checkpoints of two ranks."""
    made, folder = trees
    found = {}
    for size, names in ((1, ON_ONE), (2, VARIANTS), (3, ON_THREE)):
        storage = tmp_path_factory.mktemp(f"on-{size}")
        jobs = {name: (made[name], cut_off(on_two[1] / name, storage / name)) for name in names}
        found |= {
            (size, name): (*seen, storage / name) for name, seen in run_ranks(train_all, size, jobs, folder)[0].items()
        }
    return found


def averaged(way, step):
    """{parameter: the average after `step`}, by the definition, in float64."""
    factors = [DECAY ** (step - s) for s in range(1, step + 1)]
    return {
        name: sum(f * weights[name] for f, weights in zip(factors, way[:step], strict=True)) / sum(factors)
        for name in way[0]
    }


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max(np.abs(a[name] - b[name]).max() for name in a)


def exported(storage):
    state = Encoder.load(str(storage / "model"), device="cpu").model.state_dict()
    return {name: value.double().numpy() for name, value in state.items()}


def as_saved(tree, folder, weights):
    """The state of the model that has these trained weights, adapters merged, or its mean with the weights before."""
    from hbtrain.modeling.adapters import merged
    from hbtrain.training.export import trainable

    config = override(from_tree(tree), {"encoder.precision": "fp32"})
    encoder = load_for_training(config, folder / "initial")
    state = {name: torch.from_numpy(value) for name, value in weights.items()}
    trainable(encoder, config).load_state_dict(state, strict=False)
    if share := config.encoder.average_with_initial:
        average_with(encoder, load_for_training(config, folder / "initial"), share)
    return {name: value.double().numpy() for name, value in merged(encoder.model).state_dict().items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_average_is_what_is_exported_evaluated_and_validated(trees, on_two, name):
    """First the average, then its mean with the weights before training."""
    made, folder = trees
    way, evaluated, validated, _ = on_two[0][name]
    moved = largest_difference(averaged(way, STEPS), way[-1])
    assert moved > 1e-3, "the average is not the last weights"
    for state, step in zip([*evaluated, exported(on_two[1] / name)], (2, 4, STEPS, STEPS), strict=True):
        wanted = as_saved(made[name], folder, averaged(way, step))
        assert state.keys() == wanted.keys()
        assert largest_difference(state, wanted) < 1e-6, step
    rounding = 2**-8 if "bf16" in name else 0.0
    for state, step in zip(validated, (2, 4, STEPS), strict=True):
        wanted = averaged(way, step)
        for key, value in state.items():
            assert np.all(np.abs(value - wanted[key]) <= rounding * np.abs(wanted[key]) + 1e-6), (key, step)


@pytest.mark.parametrize("name", ["fp32-0", "fp32-3", "bf16-1", "bf16-3"])
def test_training_is_that_of_a_run_without_average_bit_for_bit(on_two, name):
    way, plain = on_two[0][name][0], on_two[0][f"plain-{name}"][0]
    for here, there in zip(way, plain, strict=True):
        for key, value in there.items():
            own = torch.from_numpy(here[key]).bfloat16() if "bf16" in name else torch.from_numpy(here[key])
            assert torch.equal(own.double(), torch.from_numpy(value)), key


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_number_of_ranks_goes_on_to_the_last_bit(on_two, resumed, name):
    way, _, _, restored, storage = resumed[2, name]
    whole = on_two[0][name][0]
    assert len(way) == STEPS - 3
    assert largest_difference(way[-1], whole[-1]) == 0
    assert largest_difference(exported(storage), exported(on_two[1] / name)) == 0
    assert largest_difference(restored, averaged(whole, 4)) < 1e-6


@pytest.mark.parametrize(("size", "name"), [*((1, name) for name in ON_ONE), *((3, name) for name in ON_THREE)])
def test_another_number_of_ranks_goes_on_with_the_average(on_two, resumed, size, name):
    """What it is then must follow from the steps before and after the change: no number of it is lost or misplaced."""
    whole, (way, _, _, restored, _) = on_two[0][name][0], resumed[size, name]
    assert largest_difference(restored, averaged([*whole[:3], *way], 4)) < 1e-6
