"""Packed batches give what padded ones give: vectors, gradients, with every network, pooling and prompt."""

import itertools

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    CamembertConfig,
    CamembertModel,
    DistilBertConfig,
    DistilBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from hbtrain.config.encoder import LoraConfig
from hbtrain.errors import ModelError
from hbtrain.modeling import packed_attention, packing
from hbtrain.modeling.adapters import add_lora
from hbtrain.modeling.embedding import EmbeddingModule, embed
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.features import is_packed, row_count, select_rows, token_counts, within_budget
from hbtrain.modeling.packing import PACKED, can_pack, pack, padding_index
from tests.unit.tiny_models import TEXTS, encoder_config, save_decoder

WORDS = ["<s>", "<pad>", "</s>", "<unk>", "red", "green", "blue", "white", "black", "is", "not", "Query:"]
SIZES = {
    "vocab_size": len(WORDS), "pad_token_id": 1, "max_position_embeddings": 40, "initializer_range": 0.4,
}  # fmt: skip
BERT_SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
NETWORKS = {
    "bert": lambda: BertModel(BertConfig(**SIZES, **BERT_SIZES)),
    "roberta": lambda: RobertaModel(RobertaConfig(**SIZES, **BERT_SIZES)),
    "xlm-roberta": lambda: XLMRobertaModel(XLMRobertaConfig(**SIZES, **BERT_SIZES, type_vocab_size=1)),
    "camembert": lambda: CamembertModel(CamembertConfig(**SIZES, **BERT_SIZES)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(**SIZES, dim=16, n_layers=2, n_heads=2, hidden_dim=24, dropout=0.0, attention_dropout=0.0)
    ),
}
MIXED = [
    "red", "green is not blue " * 4, "not red not green " * 3, "", "white <pad> black <pad> red", "blue is black", "is",
    "blue is black",
]  # fmt: skip
"""Of 0 to 16 tokens; one has the padding token in its text, one is there twice, two neighbours are of like length."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{network: folder}; the tokenizer puts no token of its own around a text, so that texts may have one or none."""
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    root = tmp_path_factory.mktemp("networks")
    for number, (name, make) in enumerate({**NETWORKS, "mpnet": lambda: MPNetModel(MPNetConfig(**SIZES))}.items()):
        torch.manual_seed(number)
        names_of_inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if name == "bert" else [])]
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=names_of_inputs, **names)
        make().save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return {path.name: str(path) for path in root.iterdir()}


def loaded(folder, **changes):
    settings = {"query_prefix": "", "passage_prefix": "is not ", "max_query_tokens": 20, "max_passage_tokens": 30}
    return Encoder.load(folder, encoder_config(folder, **settings, **changes))


def both(folder, **changes):
    return loaded(folder, **changes), loaded(folder, attention=PACKED, **changes)


def vectors_and_gradient(encoder, batches):
    """The vectors of all batches, one after another, and {parameter: gradient} of some function of them."""
    module = EmbeddingModule(encoder.model).train()
    vectors = torch.cat(module(batches)[0])
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(5))
    (vectors * weights).sum().backward()
    return vectors.detach(), {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def assert_same(found, expected):
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(
            found[1][name], gradient, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: name + text
        )


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken"])
def test_vectors_and_gradients_are_those_of_padded_batches(folders, network, pooling):
    padded, other = both(folders[network], pooling=pooling)
    assert (padded.packs, other.packs) == (False, True)
    texts = [text for text in MIXED if text] if pooling in ("cls", "max") else MIXED  # of no token these make no sense
    sides = [padded.tokenize(texts, "query"), padded.tokenize(texts[:3], "passage")]
    expected = vectors_and_gradient(padded, sides)
    (batch,) = other.pack(sides)
    assert is_packed(batch)
    assert row_count(batch) == len(texts) + 3
    assert token_counts(batch).tolist() == [n for side in sides for n in token_counts(side).tolist()]
    assert len(batch["input_ids"]) == sum(side["attention_mask"].sum() for side in sides)
    assert_same(vectors_and_gradient(other, [batch]), expected)
    other.model.zero_grad()
    assert_same(vectors_and_gradient(other, sides), expected)  # padded ones are taken as well
    assert expected[0].std(dim=0).min() > 0.01, "vectors differ"


def test_positions_are_numbered_as_each_family_does(folders):
    roberta, bert = (loaded(folders[name], attention=PACKED) for name in ("xlm-roberta", "bert"))
    assert (padding_index(roberta.model), padding_index(bert.model)) == (1, None)
    side = roberta.tokenize(["red", "green <pad> blue", "", "is"], "query")
    (batch,) = roberta.pack([side])
    assert batch["position_ids"].tolist() == [2, 2, 1, 3, 2]
    embeddings = roberta.model[0].model.embeddings
    expected = embeddings.create_position_ids_from_input_ids(side["input_ids"], 1)[side["attention_mask"].bool()]
    assert batch["position_ids"].tolist() == expected.tolist()
    (batch,) = bert.pack([side])
    assert batch["position_ids"].tolist() == [0, 0, 1, 2, 0]
    assert batch["starts"].tolist() == [0, 1, 4, 4, 5]
    assert batch["starts"].dtype == torch.int32


def test_texts_without_a_single_token_stay_padded(folders):
    encoder = loaded(folders["roberta"], attention=PACKED)
    batches = [
        encoder.tokenize(["", ""], "query"),
        select_rows(encoder.tokenize(["red", ""], "query"), torch.tensor([1])),
    ]
    (batch,) = encoder.pack(batches)
    assert not is_packed(batch)
    assert not embed(encoder.model, batch).any()
    assert row_count(batch) == 3


def published(folder, include_prompt, *more):
    """A published model, LaBSE's modules and another pooling."""
    transformer = Transformer(folder)
    modules = [transformer, Pooling(16, "mean", include_prompt=include_prompt), Dense(16, 10), *more]
    model = SentenceTransformer(modules=modules, device="cpu", prompts={"query": "is not red ", "document": ""})
    return model.eval()


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("network", ["bert", "xlm-roberta"])
def test_encoding_is_that_of_sentence_transformers_in_any_batch(folders, network, include_prompt):
    torch.manual_seed(3)
    model = published(folders[network], include_prompt, Normalize())
    texts = [text for text in MIXED if text] * 2
    expected = model.encode(texts, prompt_name="query")
    encoder = Encoder(model, {"query": "is not red ", "passage": ""}, {"query": None, "passage": None})
    pack(model)
    passes = []
    hook = model[0].register_forward_hook(lambda _, inputs, __: passes.append(inputs[0]["input_ids"].shape))
    for batch_size in (1, 3, 100):
        found = encoder.encode(texts, "query", batch_size=batch_size)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    hook.remove()
    assert {rows for rows, _ in passes} == {1}
    assert passes[-1][1] == sum(token_counts(encoder.tokenize(texts, "query")))
    with_prompt = encoder.tokenize(texts[:2], "query")
    assert len(encoder.pack([with_prompt, encoder.tokenize(texts[:3], "passage")])) == (1 if include_prompt else 2)


def test_batches_of_encoding_are_filled_with_tokens_that_are_not_padding():
    tokens = torch.tensor([3, 10, 1, 4, 4, 9, 0])
    filled = [tokens[rows].tolist() for rows in within_budget(tokens, 5, 13, packed=True)]
    assert filled == [[10], [9, 4], [4, 3, 1, 0]]
    assert [len(rows) for rows in within_budget(tokens, 2, 100, packed=True)] == [2, 2, 2, 1]


def test_what_is_not_proven_is_refused_or_stays_padded(folders, tmp_path):
    for folder in (folders["mpnet"], str(save_decoder(tmp_path / "decoder"))):
        with pytest.raises(ModelError, match=r"^encoder.attention = 'packed' is for networks of BERT"):
            Encoder.load(folder, encoder_config(folder, attention=PACKED))
        assert not can_pack(Encoder.load(folder, encoder_config(folder)).model)
    with pytest.raises(ModelError, match="StaticEmbedding"):
        Encoder.build(encoder_config("static", attention=PACKED), lambda: TEXTS, 0)


def test_gradients_are_those_of_padded_batches_with_adapters_and_checkpointing(folders):
    """Adapters and recomputation wrap what packing gives to the network."""
    encoders = both(folders["xlm-roberta"], gradient_checkpointing=True)
    for encoder in encoders:
        add_lora(encoder.model, LoraConfig(rank=2, alpha=4), seed=0)
        for number, (name, weight) in enumerate(encoder.model.named_parameters()):
            if "lora_B" in name:  # zero at the start, with which the gradient of the other half would be zero
                weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
    padded, other = encoders
    sides = [padded.tokenize(MIXED, "query"), padded.tokenize(MIXED[:3], "passage")]
    expected = vectors_and_gradient(padded, sides)
    assert expected[1]
    assert all("lora_" in name for name in expected[1])
    assert_same(vectors_and_gradient(other, other.pack(sides)), expected)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_is_drawn_the_same_with_and_without_a_graph(folders, checkpointing):
    folder = folders["bert"]
    encoder = loaded(folder, attention=PACKED, dropout=0.3, gradient_checkpointing=checkpointing)
    module = EmbeddingModule(encoder.model).train()
    batches = encoder.pack([encoder.tokenize(MIXED, "query")])

    def drawn(seed):
        torch.manual_seed(seed)
        return module(batches)[0][0]

    with torch.no_grad():
        first, other = drawn(5), drawn(6)
    assert torch.equal(first, drawn(5))
    assert (first - other).abs().max() > 0.1
    module.eval()
    assert torch.equal(drawn(5), drawn(6))


def test_all_texts_may_be_attended_to_in_rows_of_one_width(folders, monkeypatch):
    """As on a GPU without a kernel, and in compiled layers."""
    padded, other = both(folders["bert"])
    sides = [padded.tokenize(MIXED, "query"), padded.tokenize(MIXED[:3], "passage")]
    expected = vectors_and_gradient(padded, sides)
    monkeypatch.setattr(packing, "is_compiled", lambda module: True)
    assert_same(vectors_and_gradient(other, other.pack(sides)), expected)


def by_text(q, k, v, starts, longest, dropout, scaling):
    """Attention [T, H, E] of each text by itself."""
    assert dropout == 0.0
    scaling = q.shape[-1] ** -0.5 if scaling is None else scaling
    parts = []
    for first, last in itertools.pairwise(starts.tolist()):
        scores = torch.einsum("qhe,khe->hqk", q[first:last], k[first:last]) * scaling
        parts.append(torch.einsum("hqk,khe->qhe", scores.softmax(-1), v[first:last]))
    return torch.cat(parts)


def test_a_kernel_for_packed_texts_is_given_their_tokens_and_starts(folders, monkeypatch):
    padded, other = both(folders["roberta"])
    sides = [padded.tokenize(MIXED, "query"), padded.tokenize(MIXED[:3], "passage")]
    expected = vectors_and_gradient(padded, sides)

    def kernel(q, k, v, starts, longest, *rest):
        assert int(starts.diff().max()) == longest
        return by_text(q, k, v, starts, longest, *rest)

    monkeypatch.setattr(packed_attention, "_has_kernel", lambda x: True)
    monkeypatch.setattr(packed_attention, "_flash_attention", kernel)
    assert_same(vectors_and_gradient(other, other.pack(sides)), expected)


def test_torch_has_the_kernel_with_a_gradient():
    """On tensors without numbers, as there is no GPU here."""
    q, k, v = (torch.empty(9, 2, 8, device="meta", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    starts = torch.empty(4, dtype=torch.int32, device="meta")
    found = packed_attention._flash_attention(q, k, v, starts, 5, 0.1, 0.5)
    assert found.shape == q.shape
    found.sum().backward()
    assert q.grad.shape == k.grad.shape == v.grad.shape == q.shape


@pytest.mark.parametrize(
    ("kernel", "problem"),
    [
        (lambda q, k, v, starts, *rest: by_text(q.float(), k.float(), v.float(), starts, *rest).bfloat16(), None),
        # One text attends to the next one's tokens.
        (lambda q, k, v, starts, *rest: by_text(q, k, v, starts[[0, 1, 3, 4]], *rest), "is off by"),
        (lambda q, k, v, *rest: q * k * v, "is off by"),
        (lambda *_: torch.ops.aten.no_such_kernel(), "fails on this GPU"),
    ],
)
def test_a_kernel_that_is_not_right_leaves_batches_padded(folders, monkeypatch, caplog, kernel, problem):
    monkeypatch.setattr(packed_attention, "_has_kernel", lambda x: True)
    monkeypatch.setattr(packed_attention, "_flash_attention", kernel)
    found = packed_attention.kernel_problem.__wrapped__(torch.device("cpu"), 16)
    assert (found is None) if problem is None else problem in found
    monkeypatch.setattr(packed_attention, "kernel_problem", lambda device, dimension: found)
    model = Encoder.load(str(folders["bert"])).model.bfloat16()
    packing.pack_on_gpu(model, torch.device("cuda"))
    assert packing.packs(model) == (problem is None)
    assert ("texts are padded" in caplog.text) == (problem is not None)


def test_packed_features_are_refused_by_a_model_that_takes_none(folders):
    padded, other = both(folders["bert"])
    with pytest.raises(ValueError, match="a packed batch was given"):
        embed(padded.model, other.pack([padded.tokenize(MIXED, "query")])[0])
