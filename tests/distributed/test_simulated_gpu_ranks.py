"""On a simulated GPU: no device is mixed, results are those of the CPU, and a step stays within its budget."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hbtrain.batching import BatchPlan
from hbtrain.config import EvaluationConfig, from_tree, to_tree
from hbtrain.corpus import ParallelCorpus
from hbtrain.evaluation.benchmarks import load_benchmarks
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.rankers import SearchRanker, ranker_of
from hbtrain.modeling.gather import ProcessGroup
from hbtrain.retrieval import top
from hbtrain.retrieval.collection_search import SearchOptions
from hbtrain.retrieval.mining import Miner, MiningOptions
from hbtrain.retrieval.top import DevicePool, top_scores
from hbtrain.training import feed
from hbtrain.training.delivery import Delivery
from hbtrain.training.export import load_for_training, trainable
from hbtrain.training.feed import Feed
from hbtrain.training.frozen_models import FrozenModels
from hbtrain.training.gradients import Gradients
from hbtrain.training.loop import Trainer
from hbtrain.training.meter import Meter
from hbtrain.training.stopwatch import Stopwatch, TimedGroup
from tests.distributed.ranks import run_ranks
from tests.distributed.verify_matrix import build_initial, config, worker, write_source
from tests.simulated_gpu import Counting, DeviceTensor, SimulatedGPU
from tests.unit.retrieval_samples import unit
from tests.unit.test_gradients import PlainEngine

SECTION = {"layers": 2, "hidden_size": 16, "heads": 2, "intermediate_size": 32, "vocabulary_size": 300, "dropout": 0.0}
OPTIONS = {
    "one side": {"loss.symmetric": False},
    "without negatives": {"loss.hard_negatives": 0},
    "learned temperature": {"loss.learn_temperature": True},
    "dimensions": {"loss.matryoshka_dimensions": [4, 8]},
    "scores of rows": {
        "loss.guide": "scores",
        "loss.teacher": "scores",
        "loss.terms": {"teacher_kl": 1.0, "teacher_margin": 1.0},
        "loss.hardness": 2.0,
        "loss.hardness_of": "in_batch",
    },
    "several positives and queries": {
        "loss.translations": 1,
        "loss.positives": "translations",
        "loss.terms": {"jensen_shannon": 1.0, "reversed": 0.4, "bridge": 0.2},
        "loss.learn_temperature": True,
        "training.chunks": 2,
    },
    "chunks": {"training.chunks": 3, "loss.learn_temperature": True},
    "a budget of tokens": {"training.chunk_tokens": 100},
    "adapters": {"encoder.lora": {"rank": 4, "alpha": 8}},
    "packed": {"encoder.attention": "packed", "training.chunks": 2},
    "static": {"encoder.backbone": "static", "encoder.gradient_checkpointing": False},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    write_source(folder)
    for backbone in ("static", "transformer"):
        (folder / backbone).mkdir()
        build_initial(folder / backbone, settings(folder, 1, **{"encoder.backbone": backbone}))
    return folder


def settings(folder, workers, **changes):
    return config(folder, workers, 0, 1, "fp32", False, **{"encoder.transformer": SECTION, **changes})


class Step:
    """One rank's training without DeepSpeed, which knows no simulated GPU."""

    def __init__(self, config, folder, device, gpu=None):
        encoder = load_for_training(config, Path(folder) / config.encoder.backbone / "initial")
        module = trainable(encoder, config).train()
        corpus = ParallelCorpus.from_config(config)
        self.config, self.device = config, device
        self.module = module if gpu is None else gpu.moved(module)
        stopwatch = Stopwatch(device)
        self.group = TimedGroup(ProcessGroup(), stopwatch)
        self.gradients = Gradients(PlainEngine(self.module), self.group, config, stopwatch)
        rank, world_size = self.group.rank, self.group.world_size
        plan = BatchPlan.over(corpus, config)
        own = Feed(plan, corpus, encoder, config, rank, world_size, device=device)
        if config.loss.guide is not None or config.loss.teacher is not None:
            own.frozen = FrozenModels(config, self.group, device)
            own.frozen.prepare(plan, corpus, range(1))
        self.delivery = Delivery(own, device, None, stopwatch)
        self.meter = Meter(self.group, stopwatch, device)

    def backward(self, work):
        self.meter.add(work, self.gradients.backward(work))


def results(step):
    """{name: array} of the gradient and the loss of a step, and of the validation's loss."""
    work = step.delivery.work(0)
    step.backward(work)
    step.meter.check(True)
    found = {name: p.grad for name, p in step.module.named_parameters() if p.grad is not None}
    with torch.no_grad():
        found["validation"] = step.gradients.loss(work).total
    found["loss"] = torch.tensor(step.meter.read()["train/loss"])
    return found


def on_both(trees, folder):
    """For each configuration the names and the largest difference of what the simulated GPU and the CPU give.

    The GPU embeds a side in batches of so few tokens that it takes several, and ranks must agree on how many.
    """
    gpu, found = SimulatedGPU(), []
    feed.PASS_TOKENS = 60
    for tree in trees:
        on_cpu = results(Step(from_tree(tree), folder, torch.device("cpu")))
        with gpu:
            on_gpu = results(Step(from_tree(tree), folder, gpu.device, gpu))
            assert all(isinstance(x, DeviceTensor) for name, x in on_gpu.items() if name != "loss")
            differences = [float((on_gpu[name].cpu() - x).abs().max()) for name, x in on_cpu.items()]
        found.append((len(differences), on_gpu.keys() == on_cpu.keys(), max(differences)))
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_a_step_of_training_is_that_of_the_cpu_with_every_option_of_the_loss(folder, workers):
    trees = [to_tree(settings(folder, workers, **changes)) for changes in OPTIONS.values()]
    for rank in run_ranks(on_both, workers, trees, str(folder)):
        for option, (count, same_names, difference) in zip(OPTIONS, rank, strict=True):
            assert count > 2, option
            assert same_names, option
            assert difference < 1e-5, option


def search_mine_and_evaluate(tree, folder):
    """What the simulated GPU and the CPU give, in pairs, and where encoding waits."""
    gpu = SimulatedGPU()
    top.CHUNK_COLUMNS = 50
    config = from_tree(tree)
    rng = np.random.default_rng(0)
    p_ND, q_BD = unit(rng, 170, 8), unit(rng, 20, 8)
    p_ND[90:100] = p_ND[:10]  # ties
    spans = [slice(0, 120), slice(130, 170)]
    benchmark = load_benchmarks(("demo",))[0]

    def computed(device, name):
        corpus = ParallelCorpus.from_config(config)
        encoder = load_for_training(config, Path(folder) / "transformer" / "initial")
        if device.type != "cpu":
            encoder.model = gpu.moved(encoder.model)
        gpu.clear()
        batches = []
        vectors = encoder.encode(list(corpus.every_text()), "passage", 8, batches.append)
        waits = dict(gpu.waits)
        options = SearchOptions(devices=(name,), cache=Path(folder) / name)
        miner = Miner(encoder, corpus, MiningOptions(languages="both"), options)
        return {
            "vectors": vectors,
            "batches": len(batches),
            "waits": waits,
            "top": top_scores(q_BD, torch.from_numpy(p_ND).to(device), spans, 12),
            "parts": DevicePool(p_ND, device, part_bytes=50 * 8 * 4).best(q_BD, spans, 12),
            "mined": [row for source in corpus.sources.values() for row in miner.rows(source)],
            "exact": evaluate(encoder, benchmark, ranker=ranker_of(EvaluationConfig(), options)).metrics,
            "searched": evaluate(encoder, benchmark, ranker=SearchRanker(options)).metrics,
        }

    on_cpu = computed(torch.device("cpu"), "cpu")
    with gpu:
        on_gpu = computed(gpu.device, "simulated")
    return on_cpu, on_gpu


def test_encoding_searching_mining_and_evaluating_are_those_of_the_cpu(folder, cache):
    ((on_cpu, on_gpu),) = run_ranks(search_mine_and_evaluate, 1, to_tree(settings(folder, 1)), str(folder))
    np.testing.assert_allclose(on_gpu["vectors"], on_cpu["vectors"], atol=1e-6)
    for kind in ("top", "parts"):
        np.testing.assert_array_equal(on_gpu[kind].places, on_cpu["top"].places)
        np.testing.assert_array_equal(on_gpu[kind].scores, on_cpu["top"].scores)
    assert [row[:2] for row in on_gpu["mined"]] == [row[:2] for row in on_cpu["mined"]]
    for one, other in zip(on_gpu["mined"], on_cpu["mined"], strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
    assert any(row.negatives for row in on_gpu["mined"])
    for kind in ("exact", "searched"):
        assert on_gpu[kind] == pytest.approx(on_cpu[kind], abs=0.02)
    waits = {why: times for (_, why), times in on_gpu["waits"].items()}
    assert waits.pop("to the CPU") == 1, "once for all batches of a window of texts"
    assert 1 < on_gpu["batches"] >= sum(waits.values()), "transformers asks of each batch whether there is padding"


def counts_of_encoding(tree, folder):
    """Batches, kernels and waits of encoding 2,400 short texts on the simulated GPU, as evaluations do."""
    gpu = SimulatedGPU()
    texts = [f"text {number} " + "word " * (number % 40) for number in range(2400)]
    with gpu:
        encoder = load_for_training(from_tree(tree), Path(folder) / "transformer" / "initial")
        encoder.model = gpu.moved(encoder.model)
        gpu.clear()
        batches = []
        encoder.encode(texts, "passage", progress=batches.append)
    return len(batches), gpu.kernels.total(), dict(gpu.waits)


def test_encoding_has_few_passes_and_one_wait_a_window(folder):
    ((batches, kernels, waits),) = run_ranks(counts_of_encoding, 1, to_tree(settings(folder, 1)), str(folder))
    assert batches == 3, "one for each 1,024 short texts: tokens limit a batch on a GPU, not texts"
    assert kernels <= 90 * batches
    to_cpu = [times for (_, why), times in waits.items() if why == "to the CPU"]
    assert to_cpu == [batches]
    assert sum(waits.values()) <= 2 * batches, "transformers asks of each batch whether there is padding"


COLLIDING = {"data.sources": None, "loss.hard_negatives": 2, "batching.global_batch_size": 13}
BUDGETS = {
    "one chunk": ({}, 1, 2, 502, 2),
    "both sides": ({"loss.symmetric": True}, 1, 2, 533, 2),
    "three sides, of which some are the same": (COLLIDING, 1, 3, 800, 3),
    "chunks": ({"training.chunks": 4}, 1, 16, 2690, 16),
    "a budget of tokens": ({"training.chunk_tokens": 3000}, 2, 8, 1352, 8),
    "packed": ({"encoder.attention": "packed"}, 1, 1, 285, 0),
    "packed chunks": ({"encoder.attention": "packed", "training.chunks": 4}, 1, 8, 1586, 0),
    "static": ({"encoder.backbone": "static"}, 1, 1, 84, 0),
}
"""{name: (changes, ranks, passes, kernels, waits)} of the forward and backward pass of a two-layer network with 100
pairs, as measured and 4 % more.

A pass of a batch through the network takes some 230 kernels with its backward pass, whatever its size, and waits once,
where transformers asks whether there is padding. A packed one waits for nothing, and holds the texts of all sides; it
takes some more kernels here, where attention has none of its own. The loss takes 20 to 50 kernels. Nothing else waits:
neither the loss, nor the ranks' agreement on chunks, nor the copies of the next step's work.
"""
OPTIMIZER_BUDGETS = {
    ("fp32", 0): (12, 0),
    ("fp32", 1): (80, 3),
    ("fp32", 2): (80, 3),
    ("fp32", 3): (121, 1),
    ("bf16", 0): (23, 0),
    ("bf16", 1): (82, 3),
    ("bf16", 2): (82, 3),
    ("bf16", 3): (122, 1),
}
"""{(precision, ZeRO stage): (kernels, waits)} of the optimizer's step on 36 parameters.

Stage 0, the default, looks at all of them together: an operation on a list of tensors counts as one kernel here, and on
a GPU is one for some 30 tensors or 20 million numbers. The other stages are as measured and 4 % more.
"""


def of_the_demo(folder, **changes):
    usual = {
        "data.sources": ["demo"],
        "encoder.transformer": {**SECTION, "dropout": 0.1},
        "encoder.gradient_checkpointing": False,
        "loss.symmetric": False,
        "loss.hard_negatives": 0,
        "loss.block_rows": 1024,
        "batching.global_batch_size": 100,
    }
    chosen = {key: value for key, value in {**usual, **changes}.items() if value is not None}
    return to_tree(settings(folder, 1, **chosen))


def counts_of_a_step(trees, folder):
    """For each configuration what a step costs, without the optimizer's, with the copies of the next step's work:
    passes of the encoder, kernels and waits of the simulated GPU."""
    gpu, found = SimulatedGPU(), []
    for tree in trees:
        with gpu:
            step, passes = Step(from_tree(tree), folder, gpu.device, gpu), []
            step.module.model.register_forward_pre_hook(lambda *_, passes=passes: passes.append(1))
            with step.delivery.steps(0, 2) as works:
                work = next(works)
                gpu.clear()
                step.backward(work)
                works.fetch()
                next(works)
        found.append((len(passes), gpu.kernels.total(), gpu.waits.total(), dict(gpu.waits)))
    return found


@pytest.mark.parametrize("ranks", [1, 2])
def test_passes_kernels_and_waits_of_a_step(folder, ranks):
    budgets = {name: case for name, case in BUDGETS.items() if case[1] == ranks}
    trees = [of_the_demo(folder, **changes) for changes, *_ in budgets.values()]
    for found in run_ranks(counts_of_a_step, ranks, trees, str(folder)):
        for (name, (_, _, passes, kernels, waits)), got in zip(budgets.items(), found, strict=True):
            assert got[0] == passes, (name, got)
            assert got[1] <= kernels, (name, got)
            assert got[2] <= waits, (name, got)
            assert {place.split(":")[0] for place, _ in got[3]} <= {"embedding.py"}, (name, got)


def counts_of_the_optimizer(trees, folder):
    """For each configuration the parameters, kernels and waits of a step of DeepSpeed and AdamW, the third one."""
    found = []
    for tree in trees:
        trainer = Trainer(from_tree(tree), worker(Path(folder) / "transformer"))
        trainer.module.train()
        for step in range(3):
            trainer.backward(trainer.feed.work(step))
            with Counting() as counted:
                trainer.engine.step()
        found.append((len(list(trainer.module.parameters())), counted.kernels, counted.waits))
    return found


def test_kernels_and_waits_of_the_optimizer(folder):
    trees = []
    for precision, stage in OPTIMIZER_BUDGETS:
        zero = {"zero_optimization": {"stage": stage, "reduce_bucket_size": 100_000}}
        trees.append(of_the_demo(folder, **{"encoder.precision": precision, "training.deepspeed": zero}))
    (found,) = run_ranks(counts_of_the_optimizer, 1, trees, str(folder))
    for (case, budget), (parameters, kernels, waits) in zip(OPTIMIZER_BUDGETS.items(), found, strict=True):
        assert parameters == 36
        assert kernels <= budget[0], case
        assert waits <= budget[1], case


STEP_BUDGETS = {("fp32", 1): (386, 2), ("bf16", 1): (424, 2), ("fp32", 2): (394, 2), ("bf16", 2): (433, 2)}
"""{(precision, workers): (kernels, waits)} of a whole step by the default of `training.deepspeed`, with two passes.

As measured and 4 % more: some 160 in each pass through two layers and back, 30 to 40 in the loss, 12 or 23 in the
optimizer, none of which grows with the number of parameters. A pass waits once, see above, and nothing else does.
"""


def counts_of_whole_steps(trees, folder):
    """For each configuration the kernels and waits of the third step of training, all of it, and its passes."""
    found = []
    for tree in trees:
        trainer = Trainer(from_tree(tree), worker(Path(folder) / "transformer"))
        trainer.module.train()
        with trainer.delivery.steps(0, 3) as works:
            for work in works:
                with Counting() as counted:
                    trainer._step(work, works)
        passes = sum(len(chunk.batches) for chunk in work.chunks)
        found.append((counted.kernels, counted.waits, passes))
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_kernels_and_waits_of_a_whole_step(folder, workers):
    cases = [case for case in STEP_BUDGETS if case[1] == workers]
    trees = []
    for precision, _ in cases:
        changes = {
            "encoder.precision": precision,
            "training.deepspeed": None,
            "batching.global_batch_size": 8 * workers,
        }
        trees.append(of_the_demo(folder, **{**changes, "resources.workers": workers}))
    for found in run_ranks(counts_of_whole_steps, workers, trees, str(folder)):
        for case, (kernels, waits, passes) in zip(cases, found, strict=True):
            assert passes == 2
            assert kernels <= STEP_BUDGETS[case][0], case
            assert waits <= STEP_BUDGETS[case][1], case
