from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from hbtrain.config.encoder import EncoderConfig, StaticConfig
from hbtrain.errors import ModelError
from hbtrain.modeling.backbone import Backbone, check_backbone, find_backbone


def test_built_backbones_need_nothing() -> None:
    check_backbone(EncoderConfig(backbone="static"))
    check_backbone(EncoderConfig(backbone="transformer"))


def test_a_missing_vocabulary_is_found_out_early() -> None:
    with pytest.raises(ModelError, match="no-such-vocabulary"):
        check_backbone(EncoderConfig(backbone="static", static=StaticConfig(vocabulary="no-such-vocabulary.txt")))


@pytest.mark.parametrize(("file", "own_pooling"), [("modules.json", True), ("config.json", False)])
def test_a_folder_is_a_model_by_its_files(tmp_path: Path, file: str, own_pooling: bool) -> None:
    with pytest.raises(ModelError, match=r"neither modules\.json nor config\.json"):
        check_backbone(EncoderConfig(backbone=str(tmp_path)))
    (tmp_path / file).write_text("{}")
    assert find_backbone(str(tmp_path)) == Backbone(str(tmp_path), own_pooling)


@pytest.mark.parametrize("name", ["./model", "/no/such/model", "~/no-such-model", "runs/demo/model"])
def test_a_path_is_not_looked_up_on_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        check_backbone(EncoderConfig(backbone=name))


def test_a_cached_model_is_found_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--sentence-transformers--LaBSE" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "modules.json").write_text("[]")
    refs = tmp_path / "models--sentence-transformers--LaBSE" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    expected = Backbone("sentence-transformers/LaBSE", True)
    assert find_backbone("sentence-transformers/LaBSE") == find_backbone("LaBSE") == expected


def test_a_hub_name_that_cannot_be_had_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        check_backbone(EncoderConfig(backbone="nobody/no-such-model"))


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)  # the tests' sockets are closed
    with pytest.raises(ModelError, match="cannot be reached"):
        check_backbone(EncoderConfig(backbone="nobody/no-such-model"))


def test_a_hub_that_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def not_found(url: str, **_: object) -> None:
        asked.append(url)
        raise huggingface_hub.errors.RepositoryNotFoundError.__new__(huggingface_hub.errors.RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", not_found)
    with pytest.raises(ModelError, match="no model on the Hugging Face hub"):
        check_backbone(EncoderConfig(backbone="no-such-model"))
    assert len(asked) == 6  # three files under sentence-transformers/ and under the bare name


def test_a_name_that_cannot_be_a_repository() -> None:
    with pytest.raises(ModelError, match="no model on the Hugging Face hub"):
        check_backbone(EncoderConfig(backbone="not a name"))


def test_checking_is_light() -> None:
    code = (
        "import sys; from hbtrain.config.encoder import EncoderConfig; import hbtrain.modeling as m\n"
        "try: m.check_backbone(EncoderConfig(backbone='nobody/nothing'))\n"
        "except Exception as error: assert type(error).__name__ == 'ModelError', error\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'tokenizers', 'peft'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    environment = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
