"""Compiled layers: new shapes compile nothing new, vectors and gradients stay, copies and saved models are plain."""

import copy
import random
import shutil

import pytest
import torch
from pydantic import ValidationError

from hbtrain.config import load_config
from hbtrain.errors import ConfigError, ModelError
from hbtrain.modeling import compiling
from hbtrain.modeling.compiling import as_written, check_compiling, compile_layers, is_compiled
from hbtrain.modeling.embedding import EmbeddingModule
from hbtrain.modeling.encoder import Encoder
from tests.unit.tiny_models import TEXTS, encoder_config, save_xlm_roberta


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """An encoder whose layers are compiled, by attention and backend, and the same as it is written."""

    def make(attention, backend, **changes):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        monkeypatch.setattr(compiling, "BACKEND", backend)
        folder = str(save_xlm_roberta(tmp_path / "model"))
        config = encoder_config(folder, attention=attention, max_query_tokens=40, **changes)
        encoders = [Encoder.load(folder, config) for _ in range(2)]
        compile_layers(encoders[0].model)
        return encoders

    yield make
    torch._dynamo.reset()


def batches_of(encoder, texts):
    batches = [encoder.tokenize(texts, "query")]
    return encoder.pack(batches) if encoder.packs else batches


def step(encoder, texts, seed=0):
    """The vectors without a graph and with one, and the gradients, as in a gradient cache."""
    module, batches = EmbeddingModule(encoder.model).train(), batches_of(encoder, texts)
    torch.manual_seed(seed)
    with torch.no_grad():
        before = module(batches)[0][0]
    torch.manual_seed(seed)
    vectors = module(batches)[0][0]
    (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum().backward()
    gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return before, vectors.detach(), gradients


@pytest.mark.parametrize("attention", ["auto", "packed"])
def test_thirty_shapes_compile_a_layer_four_times_at_most(compiled, attention):
    encoder, _ = compiled(attention, "eager")
    rng = random.Random(1)
    shapes = set()
    for _ in range(30):
        texts = [" ".join(["hello"] * rng.randint(1, 30)) for _ in range(rng.randint(1, 12))]
        shapes.add(tuple(batches_of(encoder, texts)[0]["attention_mask"].shape))
        step(encoder, texts)
    assert len(shapes) > 20
    assert 2 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}])
def test_vectors_and_gradients_are_those_of_the_written_layers(compiled, changes):
    encoder, plain = compiled("packed", "aot_eager", dropout=0.0, **changes)
    found, expected = step(encoder, TEXTS), step(plain, TEXTS)
    for x, y in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)
    assert found[2].keys() == expected[2].keys()
    for name, gradient in expected[2].items():
        torch.testing.assert_close(found[2][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_dropout_is_drawn_the_same_with_and_without_a_graph(compiled):
    encoder, _ = compiled("packed", "aot_eager", dropout=0.3)
    before, with_graph, _ = step(encoder, TEXTS, seed=3)
    assert torch.equal(before, with_graph)
    assert not torch.allclose(before, step(encoder, TEXTS, seed=4)[0], atol=0.01)


def test_copies_and_saved_models_are_plain_and_what_is_as_written_runs_uncompiled(compiled, tmp_path):
    encoder, plain = compiled("auto", "eager")
    assert is_compiled(encoder.model)
    assert not is_compiled(copy.deepcopy(encoder.model))
    encoder.save(tmp_path / "saved")
    saved = Encoder.load(str(tmp_path / "saved"))
    assert list(saved.model.state_dict()) == list(plain.model.state_dict())
    assert encoder.digest() == plain.digest()
    with as_written(encoder.model):
        found = encoder.encode(TEXTS, "query")
        assert not torch._dynamo.utils.counters["stats"]
    assert (found == plain.encode(TEXTS, "query")).all()
    encoder.encode(TEXTS, "query")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_what_cannot_be_compiled_is_refused_before_anything_starts(monkeypatch):
    with pytest.raises(ValidationError, match="a static backbone has no layers to compile"):
        encoder_config("static", compile=True)
    settings = {"encoder.backbone": "transformer", "encoder.compile": True}
    config = load_config("quickstart", settings)
    check_compiling(config, zero_stage=2)
    with pytest.raises(ConfigError, match=r"^encoder.compile does not go with ZeRO stage 3"):
        check_compiling(config, zero_stage=3)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler where a CPU computes.*\(g\+\+, clang\+\+\)"):
        check_compiling(config, zero_stage=0)
    check_compiling(load_config("quickstart", {**settings, "resources.use_gpu": True}), zero_stage=0)
    check_compiling(load_config("quickstart", {"encoder.backbone": "transformer"}), zero_stage=3)
    static = Encoder.build(encoder_config("static"), lambda: TEXTS, 0)
    with pytest.raises(ModelError, match="the first module of this backbone is StaticEmbedding"):
        compiling.check_layers(static.model)
