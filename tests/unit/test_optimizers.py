"""The optimizers by themselves: Muon and AdamW as one, against torch's two given the same gradients."""

import copy

import pytest
import torch
from torch import nn

from hbtrain.config import load_config, override
from hbtrain.errors import ConfigError, ModelError
from hbtrain.modeling.embedding import EmbeddingModule
from hbtrain.modeling.encoder import Encoder
from hbtrain.training.deepspeed_config import deepspeed_config
from hbtrain.training.optimizers import MuonWithAdamW, build_optimizer, total_norm
from tests.unit.tiny_models import save_labse

SHAPES = [(6, 4), (4, 9), (5,), (30, 4)]  # two matrices of layers, a bias, an embedding table


def parameters():
    generator = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def two(own):
    muon = torch.optim.Muon(own[:2], 0.02, 0.1, adjust_lr_fn="match_rms_adamw")
    return muon, torch.optim.AdamW(own[2:], 0.02, weight_decay=0.1, fused=True)


def set_gradients(own, step, factor=1.0):
    generator = torch.Generator().manual_seed(100 + step)
    for p in own:
        p.grad = torch.randn(p.shape, generator=generator) * factor


def test_both_step_as_one_and_go_on_from_a_checkpoint_bit_for_bit():
    plain, own = parameters(), parameters()
    optimizers, one = two(plain), MuonWithAdamW(*two(own))
    for step in range(6):
        if step == 3:  # a new process: new optimizers, and the old state
            state = copy.deepcopy(one.state_dict())
            one = MuonWithAdamW(*two(own))
            one.load_state_dict(state)
        for group in [*one.param_groups, *optimizers[0].param_groups, *optimizers[1].param_groups]:
            group["lr"] = 0.02 / (1 + step)
        set_gradients(plain, step)
        set_gradients(own, step)
        one.step()
        for optimizer in optimizers:
            optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(own, plain, strict=True)), step


def test_gradients_are_divided_and_a_step_that_is_not_finite_leaves_all_as_it_was():
    plain, own = parameters(), parameters()
    optimizers, one = two(plain), MuonWithAdamW(*two(own))
    for step in range(3):
        set_gradients(plain, step)
        set_gradients(own, step, factor=8.0)
        one.grad_scale, one.found_inf = torch.tensor(8.0), torch.zeros(())
        one.step()
        for optimizer in optimizers:
            optimizer.step()
        before = copy.deepcopy(one.state_dict()["state"])
        own[0].grad[0, 0] = float("nan")
        one.found_inf = torch.ones(())
        one.step()
        after = one.state_dict()["state"]
        assert all(torch.equal(after[i][key], before[i][key]) for i in before for key in before[i])
        assert all(torch.equal(a, b) for a, b in zip(own, plain, strict=True))


def test_the_norm_is_in_float32_whatever_the_gradients_are_in():
    gradients = [torch.full((300, 300), 0.01).bfloat16(), torch.ones(7).bfloat16()]
    want = torch.cat([g.double().flatten() for g in gradients]).norm()
    assert float(total_norm(gradients)) == pytest.approx(float(want), rel=1e-4)
    assert total_norm(gradients).dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training.deepspeed": {"zero_optimization": {"stage": 2}}}, "ZeRO cuts them up: leave zero_optimization out"),
        ({"encoder.lora": {"rank": 2, "alpha": 4}}, "encoder.lora trains adapters"),
        ({"encoder.backbone": "static"}, "encoder.backbone static has none"),
    ],
)
def test_where_muon_cannot_be_is_said_in_one_line(changes, words):
    usual = {"training.optimizer": "muon", "encoder.backbone": "transformer", "training.deepspeed": None}
    config = load_config("quickstart", usual)
    assert deepspeed_config(config, 1)
    with pytest.raises(ConfigError, match=words) as error:
        deepspeed_config(override(config, changes), 1)
    assert "\n" not in str(error.value)


def test_muon_is_for_the_matrices_of_layers_alone_and_must_have_some(tmp_path):
    config = override(load_config("quickstart"), {"training.optimizer": "muon", "training.weight_decay": 0.3})
    model = Encoder.load(str(save_labse(tmp_path / "labse")), device="cpu").model
    muon, *others = build_optimizer(EmbeddingModule(model, 0.05), config.training).param_groups
    names = {p: name for name, p in model.named_parameters()}
    of_muon = {names[p] for p in muon["params"]}
    layers = {name for name, p in model.named_parameters() if ".layer." in name and p.ndim == 2}
    assert of_muon == layers
    assert any("pooler" in names.get(p, "") for p in others[0]["params"])
    assert [group["weight_decay"] for group in (muon, *others)] == [0.3, 0.3, 0.0]
    assert sum(len(group["params"]) for group in (muon, *others)) == len(names) + 1, "the temperature too"
    for name, p in model.named_parameters():
        p.requires_grad_(".layer." not in name)
    with pytest.raises(ModelError, match="none that are trained; set training.optimizer to 'adamw'"):
        build_optimizer(EmbeddingModule(model), config.training)
