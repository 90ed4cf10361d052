"""What two gloo ranks really hold and tell each other in a step, against the formulas of hbtrain.planning."""

from collections import Counter

import pytest
import torch

from hbtrain.config import from_tree, to_tree
from hbtrain.planning.communication import embedding_messages, model_messages
from hbtrain.planning.memory import Zero, model_states
from tests.bench.simulate_scale import GATHERING_ANEW, TINY
from tests.distributed.backbones import configure, worker
from tests.distributed.ranks import run_ranks

PAIRS = 8
BUCKET = 10_000
# Every weight is spread, however small, so that a tiny model does what a large one does.
ANEW = {**GATHERING_ANEW, "stage3_prefetch_bucket_size": 0}
CASES = {
    "fp32 stage 0": ("fp32", {"stage": 0}, 1),
    "fp32 stage 1": ("fp32", {"stage": 1}, 1),
    "fp32 stage 1 chunks": ("fp32", {"stage": 1}, 2),
    "fp32 stage 2": ("fp32", {"stage": 2}, 1),
    "fp32 stage 2 chunks": ("fp32", {"stage": 2}, 2),
    "fp32 stage 3": ("fp32", {"stage": 3}, 1),
    "fp32 stage 3 chunks": ("fp32", {"stage": 3}, 3),
    "fp32 stage 3 anew": ("fp32", ANEW, 1),
    "fp32 stage 3 anew chunks": ("fp32", ANEW, 2),
    "bf16 stage 0": ("bf16", {"stage": 0}, 1),
    "bf16 stage 1": ("bf16", {"stage": 1}, 1),
    "bf16 stage 2": ("bf16", {"stage": 2}, 1),
    "bf16 stage 3": ("bf16", {"stage": 3}, 1),
}


def size(x):
    """Bytes of a tensor, or of all tensors in lists, tuples and dictionaries."""
    if isinstance(x, torch.Tensor):
        return x.numel() * x.element_size()
    if isinstance(x, dict):
        x = list(x.values())
    return sum(map(size, x)) if isinstance(x, list | tuple) else 0


class CountingGroup:
    """A group that counts the bytes of what is gathered and summed."""

    def __init__(self, group, count):
        self.rank, self.world_size = group.rank, group.world_size
        self._group, self._count = group, count

    def all_gather(self, x):
        gathered = self._group.all_gather(x)
        self._count["all_gather"] += size(gathered)
        return gathered

    def reduce_scatter_sum(self, x):
        self._count["reduce_scatter"] += size(x)
        return self._group.reduce_scatter_sum(x)


def count_deepspeed(count, buckets, zero):
    """Count the whole messages of DeepSpeed's collectives; norms, flags and checks of a few bytes are left out.

    `buckets` gets the sizes of the buckets for gradients as they stand when something is communicated.
    """
    from deepspeed.comm import comm

    def counted(name, collective):
        def call(*arguments, **options):
            tensors = [x for x in [*arguments, *options.values()] if isinstance(x, torch.Tensor)]
            whole = max(map(size, tensors))
            if whole > 8 and tensors[0].is_floating_point():
                count[name] += whole
                buckets.append(sum(size(bucket.buffer) for bucket in getattr(zero, "ipg_buckets", {}).values()))
            return collective(*arguments, **options)

        return call

    for name in ("all_reduce", "all_gather_into_tensor", "reduce_scatter_tensor", "reduce", "all_gather"):
        setattr(comm.cdb, name, counted(name, getattr(comm.cdb, name)))


def held(trainer):
    """Bytes of this rank's model states by kind, from DeepSpeed's own attributes."""
    engine = trainer.engine
    zero = engine.deepspeed.optimizer
    masters = next(
        (
            getattr(zero, name)
            for name in ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups", "fp32_groups")
            if hasattr(zero, name)
        ),
        [],
    )
    return {
        "parameters": size([getattr(p, "ds_tensor", p.data) for p in trainer.module.parameters()]),
        "masters": size(masters),
        "optimizer": size([[s["exp_avg"], s["exp_avg_sq"]] for s in engine._optimizer.state.values()]),
    }


def gradients(trainer):
    """Bytes of this rank's averaged gradients before the optimizer's step."""
    zero = trainer.engine.deepspeed.optimizer
    if trainer.engine.zero_stage == 3:
        return size(zero.grad_partitions_flat_buffer)
    if trainer.engine.zero_stage > 0:
        return size(zero.averaged_gradients)
    return size([p.grad for p in trainer.module.parameters()])


def note_copies(optimizer, sizes):
    """Append the bytes of gradients that torch's AdamW sees to `sizes` whenever DeepSpeed has it take a step."""
    take_step = optimizer.step

    def step(*arguments):
        sizes.append(size([p.grad for group in optimizer.param_groups for p in group["params"]]))
        return take_step(*arguments)

    optimizer.step = step


def measure(trees, folder):
    """For each configuration what a rank holds, and the messages of its third step; DeepSpeed knows the model then."""
    from hbtrain.training.loop import Trainer

    found = []
    for tree in trees:
        trainer = Trainer(from_tree(tree), worker(folder))
        trainer.module.train()
        of_model, of_loss, buckets, copies = Counter(), Counter(), [], []
        note_copies(trainer.engine._optimizer, copies)
        trainer.gradients._group = CountingGroup(trainer.group, of_loss)
        count_deepspeed(of_model, buckets, trainer.engine.deepspeed.optimizer)
        for step in range(3):
            of_model.clear()
            of_loss.clear()
            trainer.backward(trainer.feed.work(step))
            averaged = gradients(trainer)
            trainer.engine.step()
        sizes = {**held(trainer), "gradients": averaged, "buckets": max(buckets), "step": max(copies)}
        found.append({**sizes, "model": dict(of_model), "loss": dict(of_loss)})
    return found


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """{case: what each rank found}; one pair of processes measures all."""
    folder = tmp_path_factory.mktemp("scale")
    small = {"layers": 2, "hidden_size": 64, "heads": 2, "intermediate_size": 128, "vocabulary_size": 1500}
    trees = []
    for precision, zero, chunks in CASES.values():
        more = {"reduce_bucket_size": BUCKET, "stage3_param_persistence_threshold": 0}
        overrides = {
            "encoder.transformer": small,
            "encoder.precision": precision,
            "batching.global_batch_size": PAIRS,
            "training.chunks": chunks,
            "training.deepspeed": {"zero_optimization": {**zero, **more}},
        }
        trees.append(to_tree(configure(folder, "transformer", **overrides)))
    ranks = run_ranks(measure, 2, trees, str(folder))
    return {case: [rank[i] for rank in ranks] for i, case in enumerate(CASES)}


@pytest.mark.parametrize("case", CASES)
def test_bytes_that_a_rank_holds(measured, case):
    precision, section, _ = CASES[case]
    zero = Zero.of({**section, "reduce_bucket_size": BUCKET})
    want = model_states(TINY, TINY.parameters, 2, zero, 2 if precision == "bf16" else 4)
    for got in measured[case]:
        for kind in ("parameters", "masters", "optimizer", "buckets"):
            assert got[kind] == getattr(want, kind), kind
        # When stage 1 has averaged, a rank keeps its part, as stage 2 does from the beginning.
        part = want.gradients // (2 if zero.stage == 1 else 1)
        assert got["gradients"] == part


@pytest.mark.parametrize("case", [case for case, (precision, *_) in CASES.items() if precision == "bf16"])
def test_bytes_of_the_float32_copies_of_gradients_while_bf16_steps(measured, case):
    want = model_states(TINY, TINY.parameters, 2, Zero.of(CASES[case][1]), 2)
    for got in measured[case]:
        assert 0.98 * want.step <= got["step"] <= want.step
        if want.step == 4 * TINY.parameters:
            assert got["step"] == want.step, "without ZeRO, of every weight"


@pytest.mark.parametrize("case", CASES)
def test_bytes_that_ranks_tell_each_other(measured, case):
    precision, section, chunks = CASES[case]
    want = model_messages(TINY, TINY.parameters, Zero.of(section), 2 if precision == "bf16" else 4, chunks)
    loss = embedding_messages(PAIRS, TINY.dimension)
    for got in measured[case]:
        assert got["model"].get("all_reduce", 0) == want.all_reduce
        assert got["model"].get("all_gather_into_tensor", 0) == want.all_gather
        assert got["model"].get("reduce_scatter_tensor", 0) == want.reduce_scatter
        assert not {"reduce", "all_gather"} & set(got["model"]), "no collective that the formula does not know"
        assert got["loss"] == {"all_gather": loss.all_gather, "reduce_scatter": loss.reduce_scatter}
