"""`hbtrain export` with the libraries of the extra, and up to them, where stand-ins compute what they were given."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from hbtrain.errors import ConfigError, ModelError
from hbtrain.modeling import Encoder, exporting
from hbtrain.modeling.exporting import FILES, check_packages, export_model
from tests.unit.tiny_models import TEXTS, encoder_config, save_bert, save_decoder, save_labse, save_xlm_roberta


@pytest.fixture
def runtimes(monkeypatch):
    """torch.onnx, ONNX Runtime, OpenVINO and nncf; gives what was asked of them."""
    seen = SimpleNamespace(exported=[], written={}, noise=0.0, quantized=[])

    def kind(file):
        return str(file).rpartition(".")[2]

    def write(module, kwargs, f, **how):
        seen.exported.append(how)
        seen.written[kind(f)] = module
        with open(f, "w") as stream:  # noqa: PTH123
            stream.write("a graph")

    def runner(file, target):
        module = seen.written[kind(file)]

        def run(given):
            with torch.no_grad():
                vectors = module(**{name: torch.from_numpy(value) for name, value in given.items()})
            return (vectors + seen.noise * torch.randn(vectors.shape)).numpy()

        return run

    def quantize(source, to, **_):
        to.write_text("a smaller graph")
        seen.quantized.append("onnx")

    def compress(model, **_):
        seen.quantized.append("openvino")
        return model

    def save(model, path, **_):
        for end in ("xml", "bin"):
            with open(path.replace("xml", end), "w") as stream:  # noqa: PTH123
                stream.write("a model")
        seen.written[kind(path)] = model

    stand_ins = {
        "onnxruntime": SimpleNamespace(),
        "onnxruntime.quantization": SimpleNamespace(
            QuantType=SimpleNamespace(QUInt8="uint8"), quantize_dynamic=quantize
        ),
        "openvino": SimpleNamespace(convert_model=lambda file: seen.written[kind(file)], save_model=save),
        "nncf": SimpleNamespace(compress_weights=compress, CompressWeightsMode=SimpleNamespace(INT8_ASYM=1)),
    }
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(exporting, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.onnx, "export", write)
    monkeypatch.setattr(exporting, "_runner", runner)
    return seen


@pytest.mark.parametrize(("int8", "least"), [(False, 0.9999), (True, 0.999)])
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_the_libraries_embed_as_the_model_does(tmp_path, target, int8, least):
    encoder = Encoder.load(str(save_bert(tmp_path / "model")))
    exported, cosine = export_model(encoder, tmp_path / "out", target, int8=int8)
    assert cosine > least
    x_ND, y_ND = (one.encode(TEXTS, "query") for one in (encoder, exported))
    assert (x_ND * y_ND).sum(axis=1) == pytest.approx(
        np.linalg.norm(x_ND, axis=1) * np.linalg.norm(y_ND, axis=1), abs=1 - least
    )


@pytest.mark.parametrize("save", [save_bert, save_xlm_roberta, save_decoder, save_labse])
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_what_was_exported_embeds_as_the_model_does(runtimes, tmp_path, save, target):
    encoder = Encoder.load(str(save(tmp_path / "model")))
    exported, cosine = export_model(encoder, tmp_path / "out", target)
    assert cosine > 0.9999
    for side in ("query", "passage"):
        np.testing.assert_allclose(exported.encode(TEXTS, side), encoder.encode(TEXTS, side), atol=1e-5)
    [how] = runtimes.exported
    assert how["input_names"][:2] == ["input_ids", "attention_mask"]
    assert set(how["dynamic_shapes"]) == set(how["input_names"])
    kept = {str(x.relative_to(tmp_path / "out")) for x in (tmp_path / "out").rglob("*") if x.is_file()}
    assert FILES[target] in kept
    assert "tokenizer.json" in kept
    assert not {"model.safetensors", *(set(FILES.values()) - {FILES[target]})} & kept
    assert ("2_Dense/model.safetensors" in kept) == (save is save_labse)
    assert not runtimes.quantized


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_weights_in_bytes(runtimes, tmp_path, target):
    encoder = Encoder.load(str(save_bert(tmp_path / "model")))
    export_model(encoder, tmp_path / "out", target, int8=True)
    assert runtimes.quantized == [target]
    files = sorted(x.name for x in (tmp_path / "out" / FILES[target]).parent.iterdir())
    assert files == {"onnx": ["model.onnx"], "openvino": ["openvino_model.bin", "openvino_model.xml"]}[target]


def test_an_export_that_gives_other_vectors_is_an_error(runtimes, tmp_path):
    encoder = Encoder.load(str(save_bert(tmp_path / "model")))
    runtimes.noise = 2.0
    with pytest.raises(ModelError, match=r"gives other vectors \(cosine -?0\.\d+\); do not use"):
        export_model(encoder, tmp_path / "out", "onnx")
    assert export_model(encoder, tmp_path / "out", "onnx", int8=True)[1] < 0.999


def test_what_torch_cannot_export_is_one_line(runtimes, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise NotImplementedError("no operator for this\nand ten lines more")

    monkeypatch.setattr(torch.onnx, "export", fail)
    encoder = Encoder.load(str(save_bert(tmp_path / "model")))
    with pytest.raises(ModelError, match=r"^torch cannot export BertModel: no operator for this$"):
        export_model(encoder, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(ConfigError, match=r"^--to onnx needs onnxruntime; .* pip install 'hbtrain\[export\]'$"):
        check_packages("onnx")
    check_packages("openvino")


@pytest.fixture
def model(tmp_path):
    Encoder.build(encoder_config("transformer"), lambda: TEXTS, 0).save(tmp_path / "run" / "model")
    return tmp_path / "run"


def test_the_command_tells_what_an_export_costs(hbtrain, runtimes, model, tmp_path):
    runtimes.noise = 0.05
    flags = ("--to", "onnx", "--quantize", "int8", "--output", tmp_path / "out")
    code, out, err = hbtrain("export", model, *flags, "--benchmark", "demo", "--languages", "en", "de")
    assert code == 0, err
    assert "demo" in out
    assert "mAP monolingual" in out
    assert "change" in out
    assert "cosine of its vectors with the model's: 0.9" in out
    assert f"exported {tmp_path / 'out'}" in out
    assert SentenceTransformer(str(model / "model"), device="cpu").get_embedding_dimension() == 16


def test_refusals_of_the_command_are_one_line(hbtrain, runtimes, model, tmp_path, monkeypatch):
    flags = ("--to", "onnx", "--output", tmp_path / "out")
    assert "--languages: is for --benchmark" in hbtrain("export", model, *flags, "--languages", "en")[2]
    Encoder.build(encoder_config("static"), lambda: TEXTS, 0).save(tmp_path / "static")
    code, _, err = hbtrain("export", tmp_path / "static", *flags)
    assert code == 2
    assert "error: the model has no transformer to export" in err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    assert "holds no model" in hbtrain("export", model, "--to", "onnx", "--output", tmp_path / "other")[2]
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    code, _, err = hbtrain("export", model, *flags)
    assert code == 2
    assert "error: --to onnx needs onnx, onnxscript, onnxruntime" in err
