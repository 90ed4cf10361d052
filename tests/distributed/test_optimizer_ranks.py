"""Steps of the optimizers on 1 and 2 gloo ranks, through DeepSpeed, against torch's optimizers in one plain process."""

import math
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import nn

from hbtrain.config import from_tree, to_tree
from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import TrainingError
from hbtrain.training.checkpoint_files import checkpoints_in
from hbtrain.training.export import load_for_training, trainable
from hbtrain.training.loop import Trainer
from hbtrain.training.verify import plain_loss
from tests.distributed.ranks import run_ranks
from tests.distributed.test_engine_ranks import run, worker

__all__ = ["run"]  # a fixture

STEPS, RATE, DECAY = 4, 0.003, 0.1
CLIPPING = 0.05  # far below the gradient's norm
SPOILT = 2  # the step whose gradient is not finite, in bf16
CASES = {
    "fp32 stage 0": (0, "fp32", "adamw"),
    "fp32 stage 1": (1, "fp32", "adamw"),
    "fp32 stage 2": (2, "fp32", "adamw"),
    "bf16 stage 0": (0, "bf16", "adamw"),
    "bf16 stage 1": (1, "bf16", "adamw"),
    "bf16 stage 2": (2, "bf16", "adamw"),
    "fp32 muon": (0, "fp32", "muon"),
    "bf16 muon": (0, "bf16", "muon"),
}
FIRST_MOMENT = ("exp_avg", "momentum_buffer")  # of AdamW, of Muon: sums of gradients after clipping


def settings(run, stage=0, precision="fp32", optimizer="adamw", **changes):
    return run(
        **{
            "encoder.precision": precision,
            "training.steps": STEPS,
            "training.optimizer": optimizer,
            "training.learning_rate": RATE,
            "training.weight_decay": DECAY,
            "training.gradient_clipping": CLIPPING,
            "training.deepspeed": {"zero_optimization": {"stage": stage, "reduce_bucket_size": 10_000}},
            **changes,
        }
    )


def by_torch(config, folder):
    """How far each weight has moved after the steps, the first moments' squared norm, the gradients' norms, and the
    weights before: in one process, with torch's own optimizers."""
    encoder = load_for_training(config, folder / "initial")
    module = trainable(encoder, config).train()
    corpus = ParallelCorpus.from_config(config)
    low = config.encoder.precision == "bf16"
    module = module.bfloat16() if low else module
    first = {name: p.detach().float().clone() for name, p in module.named_parameters()}
    copies = {name: nn.Parameter(weight.clone()) for name, weight in first.items()}
    muon = [n for n in copies if config.training.optimizer == "muon" and ".layer" in n and copies[n].ndim == 2]
    rest = [n for n in copies if n not in muon]
    groups = [
        {"params": [copies[n] for n in rest if copies[n].ndim > 1], "weight_decay": DECAY},
        {"params": [copies[n] for n in rest if copies[n].ndim == 1], "weight_decay": 0.0},
    ]
    optimizers = [torch.optim.AdamW(groups, betas=config.training.betas)]
    if muon:
        assert len(muon) == 6, "four of attention, two of the feed-forward part"
        optimizers.append(
            torch.optim.Muon([copies[n] for n in muon], weight_decay=DECAY, adjust_lr_fn="match_rms_adamw")
        )
    norms = []
    for step in range(STEPS):
        module.zero_grad()
        plain_loss(config, encoder, module, corpus, step).backward()
        gradients = {name: p.grad.double() for name, p in module.named_parameters()}
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in gradients.values())))
        for name, copy in copies.items():
            copy.grad = (gradients[name] * min(1.0, CLIPPING / norms[-1])).float()
        for optimizer in optimizers if not low or step != SPOILT else ():
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / STEPS)
            optimizer.step()
        with torch.no_grad():
            for name, p in module.named_parameters():
                p.copy_(copies[name])
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    squared = sum(float(state[kind].square().sum()) for state in states for kind in FIRST_MOMENT if kind in state)
    return {name: (copy - first[name]).detach() for name, copy in copies.items()}, squared, norms, first


class Spoilt(Trainer):
    """A trainer in which, in bf16, the gradient of a step is not finite."""

    def __init__(self, config, own):
        super().__init__(config, own)
        self._now, self._spoils = -1, config.encoder.precision == "bf16"
        next(p for p in self.module.parameters() if p.ndim > 1).register_hook(self._spoil)

    def backward(self, work):
        self._now = work.batch.step
        return super().backward(work)

    def _spoil(self, gradient):
        return gradient * float("inf") if self._spoils and self._now == SPOILT else gradient


def held(engine):
    """{name: float32 weight}, whole, and the square of the norm of the first moments that this rank has."""
    from deepspeed.utils import safe_get_full_fp32_param

    states = engine._optimizer.state.values()
    moments = [next(state[kind] for kind in FIRST_MOMENT if kind in state) for state in states]
    squared = float(sum(moment.double().square().sum() for moment in moments))
    names = {p: name for name, p in engine.module.named_parameters()}
    if engine.zero_stage > 0:
        return {name: safe_get_full_fp32_param(p).numpy().copy() for p, name in names.items()}, squared
    copies = list(chain(*(group["params"] for group in engine._optimizer.param_groups)))
    wrapper = engine.deepspeed.optimizer
    weights = copies if wrapper is engine._optimizer else list(chain(*wrapper.fp16_groups))
    return {names[w]: copy.detach().clone().numpy() for w, copy in zip(weights, copies, strict=True)}, squared


def by_hbtrain(trees, folder):
    """For each configuration what a rank holds after the steps, the norms, and the count of skipped steps."""
    found = []
    for tree in trees:
        trainer = Spoilt(from_tree(tree), worker(folder))
        trainer.module.train()
        norms = []
        for work in trainer.feed.steps(0, STEPS):
            trainer.backward(work)
            trainer.engine.step()
            norms.append(trainer.engine.gradient_norm)
        found.append((held(trainer.engine), norms, trainer.engine.skipped_steps))
    return found


@pytest.fixture(scope="module")
def trained(run):
    """{workers: {case: what each rank found}}, and the configurations."""
    configs = {name: settings(run, *case) for name, case in CASES.items()}
    folder = next(iter(configs.values()))[1]
    trees = [to_tree(config) for config, _ in configs.values()]
    found = {}
    for workers in (1, 2):
        ranks = run_ranks(by_hbtrain, workers, trees, str(folder))
        found[workers] = {name: [rank[i] for rank in ranks] for i, name in enumerate(CASES)}
    return found, {name: by_torch(*both) for name, both in configs.items()}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_of_torch(trained, case, workers):
    found, plain = trained
    want, squared, want_norms, first = plain[case]
    low = "bf16" in case
    ranks = found[workers][case]
    for (got, _), norms, skipped in ranks:
        assert got.keys() == want.keys()
        assert skipped == int(low)
        assert min(norms) > 10 * CLIPPING
        if low:
            assert norms[SPOILT] == math.inf
        assert norms == pytest.approx(
            [*want_norms[:SPOILT], norms[SPOILT], *want_norms[SPOILT + 1 :]] if low else want_norms,
            rel=0.05 if low else 1e-4,
        )
        moved = torch.cat([(torch.from_numpy(got[n]) - first[n]).flatten() for n in want])
        way = torch.cat([want[n].flatten() for n in want])
        assert float((moved - way).norm() / way.norm()) < (0.1 if low else 1e-2 if "muon" in case else 1e-5)
    parts = [squared for (_, squared), _, _ in ranks]
    total = sum(parts) if CASES[case][0] > 0 else parts[0]
    assert total == pytest.approx(squared, rel=0.05 if low else 1e-4), "clipping is not seen in AdamW's steps"


def test_ranks_hold_the_same(trained):
    found, _ = trained
    for case in CASES:
        ((first, _), *_), ((second, _), *_) = found[2][case]
        assert all((first[n] == second[n]).all() for n in first), case


def from_the_checkpoint_of_deepspeed(tree, folder, storage):
    """Takes two steps as DeepSpeed takes them in bf16, saves, and restores in new engines: what the old one holds, what
    the new one holds, and the new one's next gradient norm."""
    old = Trainer(from_tree(tree), worker(folder, None, storage))
    del old.engine.deepspeed.optimizer.step
    old.engine._optimizer._optimizer_step_pre_hooks.clear()
    for work in old.feed.steps(0, 2):
        old.backward(work)
        old.engine.deepspeed.step()
    old.checkpoints.save(2)
    new = Trainer(from_tree(tree), worker(folder, None, storage))
    assert new.checkpoints.restore() == 2
    restored = held(new.engine)
    for work in new.feed.steps(2, 3):
        new.backward(work)
        new.engine.step()
    return held(old.engine), restored, new.engine.gradient_norm, held(new.engine)


def test_a_run_in_bf16_that_deepspeed_began_goes_on(run, tmp_path):
    config, folder = settings(run, precision="bf16")
    ((before, restored, norm, after),) = run_ranks(
        from_the_checkpoint_of_deepspeed, 1, to_tree(config), str(folder), str(tmp_path)
    )
    assert all((restored[0][n] == before[0][n]).all() for n in before[0])
    assert restored[1] == before[1] > 0
    assert 10 * CLIPPING < norm < math.inf
    assert any((after[0][n] != before[0][n]).any() for n in before[0])


class Lost(Trainer):
    """A trainer in which a weight is not a number from a step on, so that the loss is none either."""

    def _step(self, work, works):
        if work.batch.step == SPOILT:
            with torch.no_grad():
                next(self.module.parameters()).fill_(math.nan)
        super()._step(work, works)


def stopped_by(trees, folder, storage):
    """The errors that end trainings whose loss is lost, and the checkpoints that they leave."""
    errors = []
    for i, tree in enumerate(trees):
        own = Path(storage) / str(i)
        with pytest.raises(TrainingError) as error:
            Lost(from_tree(tree), worker(folder, None, own)).run()
        errors.append((str(error.value), checkpoints_in(own)))
    return errors


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_loss_that_is_no_number_stops_the_run_before_it_is_saved(run, tmp_path, precision):
    config, folder = settings(run, precision=precision, **{"training.checkpoint_every": 1, "training.log_every": 50})
    ((error, left),) = run_ranks(stopped_by, 1, [to_tree(config)], str(folder), str(tmp_path))[0]
    assert error.startswith(f"the loss of step {SPOILT} is nan"), error
    assert [name[:13] for name in left] == ["step-00000002", "step-00000001"], left
    assert not (folder / "model").exists()
