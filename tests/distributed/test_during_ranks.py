"""Evaluation during training, on one and two gloo ranks: scores are those of the exported model, training is as it is
without, and the best encoder is kept, whatever comes between."""

import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hbtrain.config import from_tree, override, to_tree
from hbtrain.corpus import ParallelCorpus
from hbtrain.evaluation.benchmarks import load_benchmark, parse_benchmark
from hbtrain.evaluation.during_training import Scorer
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.modeling.encoder import Encoder
from hbtrain.training.best import BEST
from hbtrain.training.checkpoint_files import checkpoints_in, step_of
from hbtrain.training.export import export, model_card
from hbtrain.training.loop import Trainer
from tests.distributed.ranks import run_ranks
from tests.distributed.test_engine_ranks import SMALL, run, worker

__all__ = ["run"]  # a fixture

STEPS, EVERY = 5, 2
LORA = {"encoder.lora": {"rank": 2, "alpha": 4, "dropout": 0.1}}
VARIANTS = {
    "fp32-2": (2, {"encoder.freeze_embeddings": True}),
    "fp32-3": (3, {"loss.learn_temperature": True}),
    "bf16-3": (3, {"encoder.precision": "bf16"}),
    "scored in bf16": (2, {"evaluation.precision": "bf16"}),
    "lora-0": (0, LORA),
    "lora-1": (1, LORA | {"encoder.attention": "eager"}),
}
ON_ONE = ("fp32-2", "bf16-3")  # those that are trained on one rank as well


def bits(weights):
    return {name: value.float().numpy().tobytes() for name, value in weights.items()}


class Watched:
    """Scores encoders as a run does; exports each, and looks whether training is left as it was."""

    def __init__(self, trainer, exported):
        self.trainer, self.exported, self.scored = trainer, exported, []
        self.phases = 0
        names = [parse_benchmark(text).name for text in trainer.config.evaluation.benchmarks]
        self.scorer = Scorer(trainer.config, names, trainer.worker.group, self.count)

    def count(self):
        self.phases += 1

    def __call__(self, encoder):
        trainer = self.trainer
        state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        modes = [module.training for module in trainer.module.modules()]
        scores = self.scorer(encoder)
        assert torch.equal(state[0], torch.get_rng_state())
        assert state[1:] == (random.getstate(), np.random.get_state()[1].tolist())
        assert modes == [module.training for module in trainer.module.modules()]
        assert any(modes)
        to = self.exported / f"{len(self.scored)}" if trainer.worker.group.rank == 0 else None
        card = model_card(trainer.config, trainer.corpus, trainer.plan.languages, 0)
        export(trainer.engine, trainer.encoder, trainer.config, trainer.worker.initial_model, to, card)
        self.scored.append(scores)
        return scores


def train_all(trees, folder, storage):
    """{variant: (weights without evaluations, with them, scores on this rank, [events with scores], signs of life)}."""
    results = {}
    for name, tree in trees.items():
        config = from_tree(tree)
        plain = override(config, {"evaluation.every": None, "evaluation.keep_best": None})
        without = Trainer(plain, worker(folder / home(name), None, storage / "none" / name))
        without.run()
        events = []
        trainer = Trainer(config, worker(folder / home(name), events, storage / "none" / name))
        watched = Watched(trainer, storage / "exported" / name)
        trainer.worker = replace(trainer.worker, evaluate=watched, final_model=storage / "model" / name)
        trainer.run()
        told = [event for event in events if any(key.startswith("eval/") for key in event.metrics)]
        weights = [bits(of.engine.trained_weights()) for of in (without, trainer)]
        results[name] = (*weights, watched.scored, told, watched.phases)
    return results


def home(name):
    return "dropout" if "fp32" in name else "."


def evaluate_all(folders):
    """{folder: macro scores}, as `hbtrain evaluate` computes them in a process that has trained nothing."""
    benchmark = load_benchmark(parse_benchmark("demo"))
    return {
        folder: evaluate(
            Encoder.load(str(folder), precision="bf16" if "scored in bf16" in str(folder) else None), benchmark, 128
        ).macro
        for folder in folders
    }


@pytest.fixture(scope="module")
def trees(run):
    made = {}
    for name, (stage, overrides) in VARIANTS.items():
        config, folder = run(
            **{
                "training.steps": STEPS,
                "training.deepspeed": {"zero_optimization": {"stage": stage}},
                "evaluation.benchmarks": ["demo"],
                "evaluation.every": EVERY,
                "evaluation.keep_best": "demo/multi/rank_distance",
                **overrides,
            }
        )
        made[name] = to_tree(config)
    config = override(config, {"encoder.transformer": {**SMALL["encoder.transformer"], "dropout": 0.1}})
    Encoder.build(config.encoder, ParallelCorpus.from_config(config).every_text, 0).save(folder / "dropout/initial")
    return made, Path(folder)


@pytest.fixture(scope="module")
def made(trees, tmp_path_factory):
    """{ranks: what they returned}, and their storages."""
    storage = tmp_path_factory.mktemp("during")
    trees, folder = trees
    few = {name: trees[name] for name in ON_ONE}
    return {
        size: run_ranks(train_all, size, jobs, folder, storage / str(size)) for size, jobs in ((1, few), (2, trees))
    }, storage


@pytest.mark.parametrize("size", [1, 2])
def test_scores_are_those_of_the_exported_models(made, size):
    ranks, storage = made
    folders = sorted((storage / str(size) / "exported").glob("*/*"))
    assert len(folders) == 3 * len(ranks[size][0])
    (wanted,) = run_ranks(evaluate_all, 1, folders, connect=False)
    for result in ranks[size]:
        for name, (_, _, scored, _, _) in result.items():
            for number, scores in enumerate(scored):
                assert scores == wanted[storage / str(size) / "exported" / name / str(number)], (name, number)
    different = {str(scores) for scores in wanted.values()}
    assert len(different) > len(folders) / 2, "training moves the scores"


@pytest.mark.parametrize("size", [1, 2])
def test_the_weights_are_those_of_a_run_without_evaluations(made, size):
    for name, (without, evaluated, *_) in made[0][size][0].items():
        assert without == evaluated, name
        assert without, name


@pytest.mark.parametrize("size", [1, 2])
def test_scores_are_told_at_their_steps_and_all_ranks_give_signs_of_life(made, size):
    ranks, _ = made
    for name, (_, _, scored, told, _) in ranks[size][0].items():
        assert [event.step for event in told] == [2, 4, 5], name
        for scores, event in zip(scored, told, strict=True):
            assert event.metrics["eval/demo/multi/map"] == scores["demo/multi/map"]
            assert event.metrics["system/evaluation_s"] > 0
    assert len({tuple(phases for *_, phases in result.values()) for result in ranks[size]}) == 1


@pytest.mark.parametrize("size", [1, 2])
def test_the_model_is_that_of_the_best_step(made, size):
    ranks, storage = made
    for name, (_, _, scored, _, _) in ranks[size][0].items():
        distances = [scores["demo/multi/rank_distance"] for scores in scored]
        best = distances.index(min(distances))
        model, exported = storage / str(size) / "model" / name, storage / str(size) / "exported" / name / str(best)
        assert (model / "model.safetensors").read_bytes() == (exported / "model.safetensors").read_bytes(), name
        found = json.loads((model / BEST).read_text())
        assert found == {"step": (2, 4, 5)[best], "metric": "demo/multi/rank_distance", "value": min(distances)}


def train_scripted(jobs):
    """{name: notes} of {name: (configuration, folder of the first model, storage, {step: score}, ...)}."""
    results = {}
    for name, (tree, folder, storage, scores, until) in jobs.items():
        config, events, steps = from_tree(tree), [], iter(sorted(scores))
        own = replace(worker(folder, events, storage / "ray"), final_model=storage / "model")
        own = replace(own, evaluate=lambda _, s=scores, i=steps: {"demo/multi/map": s[next(i)]})
        Trainer(config, own).run(until)
        results[name] = [(event.step, event.note) for event in events if event.note]
    return results


def model_step(storage):
    """The step of the encoder that a run exported, by its own words and by its card."""
    (steps,) = set(re.findall(r"(?m)^.*\bsteps\b.*?(\d+)", (storage / "model" / "README.md").read_text()))
    assert int(steps) == json.loads((storage / "model" / BEST).read_text())["step"]
    return int(steps)


FALLING = {2: 0.5, 4: 0.4, 6: 0.4}


@pytest.fixture(scope="module")
def kept(run, tmp_path_factory):
    """Runs on two ranks whose second step is the best, then the same, cut off after the third step, on one rank."""
    root = tmp_path_factory.mktemp("kept")
    config, folder = run(
        **{
            "training.checkpoint_every": 3,
            "training.learning_rate": 2e-5,
            "training.deepspeed": {"zero_optimization": {"stage": 1}},
            "evaluation.benchmarks": ["demo"],
            "evaluation.every": 2,
            "evaluation.keep_best": "demo/multi/map",
        }
    )
    tree, patient = to_tree(config), to_tree(override(config, {"training.patience": 1}))
    told = run_ranks(
        train_scripted,
        2,
        {
            "whole": (tree, folder, root / "whole", FALLING, None),
            "impatient": (patient, folder, root / "impatient", FALLING, None),
            "rising": (tree, folder, root / "rising", {2: 0.1, 4: 0.2, 6: 0.3}, None),
        },
    )[0]
    jobs = {}
    for name in ("resumed", "lost", "other"):
        shutil.copytree(root / "whole", root / name)
        for checkpoint in checkpoints_in(root / name / "ray"):
            if step_of(checkpoint) > 3:
                shutil.rmtree(root / name / "ray" / checkpoint)
        jobs[name] = tree, folder, root / name, {4: 0.4, 6: 0.4}, None
    shutil.rmtree(root / "lost" / "model")
    shutil.rmtree(root / "other" / "model")
    shutil.copytree(root / "rising" / "model", root / "other" / "model")
    before = (root / "whole" / "model" / "model.safetensors").read_bytes()
    return told | run_ranks(train_scripted, 1, jobs)[0], root, before


def test_the_best_encoder_is_exported_and_patience_follows_it(kept):
    told, root, _ = kept
    assert model_step(root / "whole") == 2
    assert model_step(root / "rising") == 6
    assert (2, "the best encoder so far by demo/multi/map") in told["whole"]
    assert told["impatient"][-1] == (4, "stopped early: no better demo/multi/map than 0.5000")
    assert model_step(root / "impatient") == 2


def test_a_resumed_run_keeps_the_best_encoder_on_another_number_of_ranks(kept):
    told, root, before = kept
    assert told["resumed"][0] == (3, "goes on from the checkpoint of step 3 on 1 worker")
    assert not [note for _, note in told["resumed"] if "best encoder" in note]
    assert model_step(root / "resumed") == 2
    assert (root / "resumed" / "model" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["lost", "other"])
def test_without_the_best_encoder_the_next_one_counts_as_the_best(kept, name):
    told, root, _ = kept
    note = f"the best encoder so far of step 2 is not in {root / name / 'model'}: the next one counts as the best"
    assert told[name][1] == (3, note)
    assert model_step(root / name) == 4, "of equal ones the first"
