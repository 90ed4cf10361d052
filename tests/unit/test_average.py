"""The saved model as a mean of the weights before training and the trained ones."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from hbtrain.config import load_config
from hbtrain.errors import ConfigError
from hbtrain.modeling.card import ModelCard
from hbtrain.modeling.encoder import Encoder
from hbtrain.training.export import as_exported, export, load_for_training, trainable
from tests.unit.tiny_models import TEXTS, save_labse

LORA = {"rank": 2, "alpha": 4}


def files_of(folder):
    """{name: float32 array} of all weights in a folder, as they lie on disk."""
    found = {}
    for file in sorted(folder.rglob("*.safetensors")):
        found |= {f"{file.relative_to(folder)} {name}": array for name, array in load_file(file).items()}
    return found


@pytest.fixture
def run(tmp_path):
    """Gives the files before training, as trained, and as exported with a share; leaves the trained encoder behind."""

    def make(share, **encoder):
        settings = {f"encoder.{key}": value for key, value in encoder.items()}
        backbone = str(save_labse(tmp_path / "labse"))
        config = load_config("quickstart", {"encoder.backbone": backbone, "evaluation.benchmarks": [], **settings})
        plain = config.encoder.model_copy(update={"lora": None, "precision": "fp32"})
        Encoder.build(plain, lambda: [], 0).save(tmp_path / "initial")
        own = load_for_training(config, tmp_path / "initial")
        module = trainable(own, config)
        torch.manual_seed(1)
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data += torch.randn_like(parameter) / 10
        weights = {n: p for n, p in module.state_dict(keep_vars=True).items() if getattr(p, "requires_grad", True)}
        trained = {n: p.detach() for n, p in weights.items()}
        engine = SimpleNamespace(zero_stage=0, trained_weights=lambda everywhere=False: trained)
        before = {n: p.detach().clone() for n, p in weights.items()}
        for name, of_run in (("trained", 0.0), ("mean", share)):
            again = load_config(
                "quickstart",
                {"encoder.backbone": backbone, "evaluation.benchmarks": [], **settings}
                | {"encoder.average_with_initial": of_run},
            )
            export(engine, own, again, tmp_path / "initial", tmp_path / name, ModelCard(average_with_initial=of_run))
        evaluated = as_exported(engine, own, again, tmp_path / "initial", torch.device("cpu")).model.state_dict()
        saved = Encoder.load(str(tmp_path / "mean")).model.state_dict()
        assert evaluated.keys() == saved.keys()
        assert all(torch.equal(evaluated[name], weight) for name, weight in saved.items())
        assert all(torch.equal(before[n], p) for n, p in weights.items())  # training goes on with its own weights
        return [files_of(tmp_path / name) for name in ("initial", "trained", "mean")]

    return make


@pytest.mark.parametrize(
    "encoder",
    [{}, {"lora": LORA}, {"precision": "bf16"}, {"freeze_embeddings": True, "freeze_layers": 1}],
    ids=["plain", "lora", "bf16", "frozen"],
)
def test_every_weight_is_the_mean_of_both(run, encoder):
    initial, trained, mean = run(0.3, **encoder)
    assert initial.keys() == trained.keys() == mean.keys()
    changed = {name for name in initial if not np.array_equal(initial[name], trained[name])}
    assert changed
    for name, weight in mean.items():
        assert weight.dtype == np.float32
        if name in changed:
            want = 0.3 * initial[name].astype(np.float64) + 0.7 * trained[name].astype(np.float64)
            np.testing.assert_allclose(weight, want, rtol=0, atol=1e-6)
        else:
            np.testing.assert_array_equal(weight, initial[name])


def test_the_mean_is_what_is_loaded_and_its_card_says_so(run, tmp_path):
    run(0.25)
    vectors = [Encoder.load(str(tmp_path / name)).encode(TEXTS, "query") for name in ("initial", "trained", "mean")]
    distances = [np.abs(vectors[2] - other).max() for other in vectors[:2]]
    assert min(distances) > 1e-4
    readme = (tmp_path / "mean" / "README.md").read_text(encoding="utf-8")
    assert "| weights | 0.25 × those before training + 0.75 × the trained ones |" in readme
    assert "before training" not in (tmp_path / "trained" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("share", [1, 1.5, -0.1, "half"])
def test_a_share_that_cannot_be_is_refused(share):
    with pytest.raises(ConfigError, match=r"encoder\.average_with_initial"):
        load_config("quickstart", {"encoder.average_with_initial": share})
