"""Models whose files are not whole, do not fit their network, or are of something that makes no embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel

from hbtrain.errors import ModelError
from hbtrain.modeling import Encoder, check_backbone
from hbtrain.modeling.backbone import find_backbone
from tests.unit.tiny_models import TEXTS, encoder_config, save_bert, save_decoder, save_labse

WEIGHTS = "model.safetensors"


def refused(path: Path, words: str, *, before_loading: bool = True) -> None:
    """Check that the model is refused in one line, wherever it is wanted."""
    ways: list[Callable[[], object]] = [
        lambda: Encoder.load(str(path), device="cpu"),
        lambda: Encoder.build(encoder_config(str(path)), lambda: [], 0),
    ]
    if before_loading:
        ways.append(lambda: check_backbone(encoder_config(str(path))))
    for way in ways:
        with pytest.raises(ModelError, match=words) as error:
            way()
        assert path.name in str(error.value)
        assert "\n" not in str(error.value)


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(path / WEIGHTS)), path / WEIGHTS, {"format": "pt"})


def change_config(path: Path, **changes: object) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize("size", [0, 5, 300, -100])
def test_weights_that_are_cut_off_are_refused_by_their_file(tmp_path: Path, size: int) -> None:
    path = save_bert(tmp_path / "short")
    content = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(content[:size])
    refused(path, r"short/model\.safetensors is cut off or damaged")


@pytest.mark.parametrize("file", [WEIGHTS, "tokenizer.json", "2_Dense/model.safetensors"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, file: str) -> None:
    path = save_labse(tmp_path)
    (path / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 34\n")
    refused(path, rf"{file} is a pointer of git-lfs.*git lfs pull")


def test_a_pointer_that_nobody_reads_is_left_alone(tmp_path: Path) -> None:
    path = save_bert(tmp_path / "bert")
    for name in ("tf_model.h5", "pytorch_model.bin"):
        (path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 34\n")
    Encoder.load(str(path), device="cpu")


def test_a_missing_part_of_the_weights_is_named(tmp_path: Path) -> None:
    path = save_bert(tmp_path / "parts")
    (path / WEIGHTS).unlink()
    BertModel(BertConfig.from_pretrained(path)).save_pretrained(path, max_shard_size="8KB")
    parts = sorted(path.glob("model-*.safetensors"))
    Encoder.load(str(path), device="cpu")
    parts[1].unlink()
    refused(path, rf"1 of the {len(parts)} files of its weights are missing \({parts[1].name}\)")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    for name, make in (("encoder", save_bert), ("decoder", save_decoder)):
        path = make(tmp_path / name)
        for file in path.glob("tokenizer*"):
            file.unlink()
        refused(path, "has no tokenizer")


def test_a_tokenizer_that_transformers_makes_up_is_refused(tmp_path: Path) -> None:
    path = save_bert(tmp_path / "half")
    (path / "tokenizer.json").unlink()
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    refused(path, "has no tokenizer", before_loading=False)


@pytest.mark.parametrize("make", [save_bert, save_decoder])
def test_missing_weights_are_named_and_counted(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path / "gap")
    gone = [name for name in load_file(path / WEIGHTS) if ".1." in name and "norm" in name.lower()]
    rewrite(path, lambda state: {name: weight for name, weight in state.items() if name not in gone})
    refused(path, rf"lack {len(gone)} weights that its embeddings depend on \(", before_loading=False)


def test_weights_under_other_names_are_refused(tmp_path: Path) -> None:
    path = save_labse(tmp_path)
    rewrite(path, lambda state: {f"text_{name}": weight for name, weight in state.items()})
    refused(path, r"lack \d+ weights that its embeddings depend on", before_loading=False)


def test_layers_that_the_configuration_leaves_out_are_refused(tmp_path: Path) -> None:
    path = save_bert(tmp_path / "deep")
    layer = [name for name in load_file(path / WEIGHTS) if ".layer.1." in name]
    change_config(path, num_hidden_layers=1)
    refused(path, rf"hold {len(layer)} weights for which.*have no place \(encoder\.layer\.1\.", before_loading=False)
    prefixed = tmp_path / "with-a-head"
    BertForMaskedLM(BertConfig.from_pretrained(tmp_path / "deep", num_hidden_layers=2)).save_pretrained(prefixed)
    AutoTokenizer.from_pretrained(path).save_pretrained(prefixed)
    Encoder.load(str(prefixed), device="cpu")
    change_config(prefixed, num_hidden_layers=1)
    refused(prefixed, rf"hold {len(layer)} weights for which", before_loading=False)


def test_a_pooler_may_be_missing_where_it_is_not_used(tmp_path: Path) -> None:
    path = save_bert(tmp_path / "bert")
    whole = Encoder.load(str(path), device="cpu").encode(TEXTS, "query")
    rewrite(path, lambda state: {name: weight for name, weight in state.items() if "pooler" not in name})
    np.testing.assert_array_equal(Encoder.load(str(path), device="cpu").encode(TEXTS, "query"), whole)
    # A model of sentence-transformers may take the pooler's output as its embedding.
    taken = tmp_path / "pooled"
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.Transformer"}]
    save_bert(taken)
    (taken / "modules.json").write_text(json.dumps(modules))
    method = {"text": {"method": "forward", "method_output_name": "pooler_output"}}
    said = {"modality_config": method, "module_output_name": "sentence_embedding"}
    (taken / "sentence_bert_config.json").write_text(json.dumps(said))
    Encoder.load(str(taken), device="cpu")
    rewrite(taken, lambda state: {name: weight for name, weight in state.items() if "pooler" not in name})
    refused(taken, r"lack 2 weights.*\(pooler", before_loading=False)


def test_weights_of_another_size_are_one_line(tmp_path: Path) -> None:
    path = save_bert(tmp_path / "narrow")
    change_config(path, intermediate_size=20)
    words = r"intermediate\.dense\.bias has the shape \[24\] in its files and \[20\] in its network"
    refused(path, words, before_loading=False)


@pytest.mark.parametrize("content", ["[1]", "{", '"text"', ""])
@pytest.mark.parametrize("file", ["config.json", "config_sentence_transformers.json", "modules.json"])
def test_settings_that_are_none_are_one_line(tmp_path: Path, file: str, content: str) -> None:
    path = save_labse(tmp_path) if "sentence" in file or "modules" in file else save_bert(tmp_path / "bert")
    (path / file).write_text(content)
    refused(path, rf"its {file} (is no|cannot be read)")


def test_a_cross_encoder_makes_no_embeddings(tmp_path: Path) -> None:
    path = save_bert(tmp_path / "reranker")
    config = BertConfig.from_pretrained(path, num_labels=1)
    BertForSequenceClassification(config).save_pretrained(path)
    refused(path, "is a cross-encoder.*makes no embeddings")
    # One with several classes is a backbone like any other.
    BertForSequenceClassification(BertConfig.from_pretrained(path, num_labels=3)).save_pretrained(path)
    Encoder.load(str(path), device="cpu")


@pytest.mark.parametrize("kind", ["CrossEncoder", "SparseEncoder"])
def test_other_kinds_of_sentence_transformers_are_refused(tmp_path: Path, kind: str) -> None:
    path = save_labse(tmp_path)
    (path / "config_sentence_transformers.json").write_text(json.dumps({"model_type": kind}))
    refused(path, f"is a {kind} of sentence-transformers")


def test_an_adapter_is_refused_with_a_way_that_works(tmp_path: Path) -> None:
    base = save_bert(tmp_path / "base")
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    torch.manual_seed(4)
    tuned = get_peft_model(
        AutoModel.from_pretrained(base), LoraConfig(target_modules=["value"], init_lora_weights=False)
    )
    tuned.save_pretrained(adapter)
    refused(adapter, rf"is an adapter.*base model '{base}'.*merge_and_unload")
    with pytest.raises(ModelError, match=f"^MODEL '{adapter}' is an adapter"):
        find_backbone(str(adapter), "MODEL")
    PeftModel.from_pretrained(AutoModel.from_pretrained(base), adapter).merge_and_unload().save_pretrained(merged)
    AutoTokenizer.from_pretrained(base).save_pretrained(merged)
    vectors = [Encoder.load(str(path), device="cpu").encode(TEXTS, "query") for path in (base, merged)]
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_an_adapter_inside_a_sentence_transformer_is_told(tmp_path: Path) -> None:
    path = save_labse(tmp_path)
    (path / WEIGHTS).unlink()
    LoraConfig(target_modules=["value"], base_model_name_or_path="nobody/base").save_pretrained(path)
    refused(path, "is an adapter.*base model 'nobody/base'", before_loading=False)
