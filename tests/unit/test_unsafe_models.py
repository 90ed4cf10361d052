"""Models that could run code when they are loaded."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertModel

from hbtrain.cli.main import app
from hbtrain.config import absolute_paths, load_config
from hbtrain.errors import ConfigError, ModelError
from hbtrain.modeling import Encoder, check_backbone
from hbtrain.modeling.model_files import check_weights
from tests.unit.tiny_models import TEXTS, encoder_config, save_bert, save_labse

CODE = """
from pathlib import Path
from transformers import BertConfig, BertModel

Path(__file__).with_name("ran").touch()
(Path("{folder}") / "ran").touch()


class StrangeConfig(BertConfig):
    model_type = "strange"


class StrangeModel(BertModel):
    config_class = StrangeConfig
"""


def pickled(folder: Path) -> None:
    """Turn the weights in `folder` into what models of old have."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def save_strange(folder: Path) -> Path:
    """A model that brings its own code, which leaves a file `ran` when it runs."""
    save_bert(folder)
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "strange_code.StrangeConfig", "AutoModel": "strange_code.StrangeModel"}
    changes = {"model_type": "strange", "auto_map": auto_map, "architectures": ["StrangeModel"]}
    (folder / "config.json").write_text(json.dumps(config | changes))
    (folder / "strange_code.py").write_text(CODE.format(folder=folder))
    return folder


def test_a_pickle_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    pickled(save_bert(tmp_path))
    BertModel.from_pretrained(tmp_path)  # as transformers itself would
    config = encoder_config(str(tmp_path))
    for load in (
        lambda: check_backbone(config),
        lambda: Encoder.build(config, lambda: [], 0),
        lambda: Encoder.load(str(tmp_path), device="cpu"),
    ):
        with pytest.raises(ModelError, match=r"pytorch_model\.bin, a pickle.*safetensors only: convert it") as error:
            load()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["", "2_Dense"])
def test_no_part_of_a_sentence_transformer_may_be_a_pickle(tmp_path: Path, part: str) -> None:
    path = save_labse(tmp_path)
    modules = {module["path"] for module in json.loads((path / "modules.json").read_text())}
    assert part in modules
    check_backbone(encoder_config(str(path)))
    pickled(path / part)
    with pytest.raises(ModelError, match=rf"{part}/?pytorch_model\.bin"):
        Encoder.load(str(path), device="cpu")


def test_a_pickle_beside_safetensors_is_left_alone(tmp_path: Path) -> None:
    save_bert(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    (tmp_path / "checkpoint-500").mkdir()
    torch.save({}, tmp_path / "checkpoint-500" / "pytorch_model.bin")
    Encoder.build(encoder_config(str(tmp_path)), lambda: [], 0)


def test_on_the_hub_the_list_of_files_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["config.json", "pytorch_model-00001-of-00002.bin", "onnx/model.onnx", "x/model.safetensors"]
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_: files)
    with pytest.raises(ModelError, match="pytorch_model-00001-of-00002"):
        check_weights("someone/some-model", False)
    files.append("model.safetensors.index.json")
    check_weights("someone/some-model", False)


def test_code_of_a_model_runs_only_if_it_is_named(tmp_path: Path) -> None:
    path = str(save_strange(tmp_path / "strange"))
    ran = tmp_path / "strange" / "ran"
    for load in (
        lambda: Encoder.build(encoder_config(path), lambda: [], 0),
        lambda: Encoder.load(path, device="cpu"),
    ):
        with pytest.raises(ModelError, match=r"Python code of its own.*encoder\.trust_remote_code") as error:
            load()
        assert path in str(error.value)
        assert "\n" not in str(error.value)
        assert not ran.exists()
    encoder = Encoder.build(encoder_config(path, trust_remote_code=path), lambda: [], 0)
    assert ran.exists()
    assert type(encoder.model[0].model).__name__ == "StrangeModel"
    encoder.save(tmp_path / "saved")
    assert Encoder.load(str(tmp_path / "saved"), device="cpu", trust_remote_code=True).encode(TEXTS, "query").shape


def test_the_name_must_be_the_backbones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = {"encoder.backbone": "someone/model", "encoder.trust_remote_code": "someone/other"}
    with pytest.raises(ConfigError, match=r"'someone/other', but backbone = 'someone/model'"):
        load_config("quickstart", overrides)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    overrides = {"encoder.backbone": "model", "encoder.trust_remote_code": "model"}
    encoder = absolute_paths(load_config("quickstart", overrides)).encoder
    assert encoder.trust_remote_code == encoder.backbone == str(tmp_path / "model")


@pytest.mark.parametrize("command", ["evaluate", "search"])
def test_the_command_line_runs_no_code_unless_it_is_named(tmp_path: Path, command: str) -> None:
    path = str(save_strange(tmp_path / "strange"))
    rest = ["--benchmark", "demo", "--output", str(tmp_path / "out")] if command == "evaluate" else ["hello"]
    with pytest.raises(ModelError, match="--trust-remote-code"):
        app([command, path, *rest], exit_on_error=False, result_action="return_value")
    assert not (tmp_path / "strange" / "ran").exists()
    with pytest.raises(ConfigError, match=r"--trust-remote-code other: must be the model"):
        app([command, path, *rest, "--trust-remote-code", "other"], result_action="return_value")
