from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer, MT5ForConditionalGeneration

from hbtrain.errors import ModelError, StorageError
from hbtrain.modeling import EmbeddingModule, Encoder
from hbtrain.modeling.embedding import embed
from hbtrain.modeling.features import token_counts
from tests.unit.tiny_models import TEXTS, encoder_config, save_bert, save_decoder, save_labse, save_mt5

BUILT = ["static", "transformer"]


def build(backbone: str, seed: int = 0, **changes: object) -> Encoder:
    return Encoder.build(encoder_config(backbone, **changes), lambda: TEXTS, seed)


def plain(path: Path) -> SentenceTransformer:
    return SentenceTransformer(str(path), device="cpu")


@pytest.mark.parametrize("backbone", BUILT)
def test_a_seed_decides_the_weights_and_global_randomness_is_left_alone(backbone: str) -> None:
    before = torch.get_rng_state()
    first, again, other = build(backbone, 0), build(backbone, 0), build(backbone, 1)
    assert torch.equal(torch.get_rng_state(), before)
    states = [encoder.model.state_dict() for encoder in (first, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


@pytest.mark.parametrize("backbone", BUILT)
def test_the_saved_model_is_anyones(tmp_path: Path, backbone: str) -> None:
    encoder = build(backbone)
    encoder.save(tmp_path / "model")
    theirs = plain(tmp_path / "model")
    texts = [*TEXTS, ""]
    queries = encoder.encode(texts, "query", batch_size=3)
    passages = encoder.encode(texts, "passage")
    np.testing.assert_allclose(queries, theirs.encode(texts, prompt_name="query"), atol=1e-5)
    np.testing.assert_allclose(queries, theirs.encode_query(texts), atol=1e-5)
    np.testing.assert_allclose(passages, theirs.encode(texts, prompt_name="passage"), atol=1e-5)
    np.testing.assert_allclose(passages, theirs.encode_document(texts), atol=1e-5)
    assert queries.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1.0, atol=1e-6)
    assert np.abs(queries - passages).max() > 1e-3  # the prefixes differ
    reloaded = Encoder.load(str(tmp_path / "model"), device="cpu")
    assert reloaded.prefixes == {"query": "Query: ", "passage": "Passage: "}
    np.testing.assert_allclose(reloaded.encode(texts, "query"), queries, atol=1e-6)
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_of_a_model_with_a_decoder_the_encoder_embeds(tmp_path: Path) -> None:
    """mT5: the mean of its encoder's last states, and nothing of the decoder is trained or saved."""
    path = save_mt5(tmp_path / "mt5")
    encoder = build(str(path))
    network, tokenizer = MT5ForConditionalGeneration.from_pretrained(path).encoder, AutoTokenizer.from_pretrained(path)
    for text, vector in zip(TEXTS, encoder.encode(TEXTS, "query"), strict=True):
        ids = tokenizer("Query: " + text, truncation=True, max_length=20, return_tensors="pt").input_ids
        mean = network(ids).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(vector, functional.normalize(mean, dim=0).detach().numpy(), atol=1e-5)
    assert not any("decoder" in name for name, _ in encoder.model.named_parameters())
    encoder.save(tmp_path / "saved")
    np.testing.assert_allclose(plain(tmp_path / "saved").encode_query(TEXTS), encoder.encode(TEXTS, "query"), atol=1e-5)


@pytest.mark.parametrize("backbone", BUILT)
def test_an_empty_text_without_prefix_has_a_defined_vector(backbone: str) -> None:
    encoder = build(backbone, query_prefix="", passage_prefix="")
    for texts in ([""], ["", "hello", ""]):
        assert np.isfinite(encoder.encode(texts, "query")).all()
    features = encoder.tokenize(["", "hello"], "query")
    embed(encoder.model, features)[:, 0].sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.model.parameters())
    assert encoder.encode([], "query").shape == (0, 16)


@pytest.mark.parametrize(("side", "limit", "prefix"), [("query", 12, "Query: "), ("passage", 20, "Passage: ")])
def test_static_tokens_are_prefixed_and_cut(side: str, limit: int, prefix: str) -> None:
    encoder = build("static")
    features = encoder.tokenize(TEXTS, side)  # type: ignore[arg-type]
    tokenizer = encoder.model.tokenizer
    tokenizer.no_truncation()
    expected = [tokenizer.encode(prefix + text).ids[:limit] for text in TEXTS]
    bags = torch.tensor_split(features["input_ids"], features["offsets"][1:])
    assert [bag.tolist() for bag in bags] == expected
    assert max(map(len, expected)) == limit > min(map(len, expected))
    assert token_counts(features).sum() == sum(map(len, expected))


@pytest.mark.parametrize(("side", "limit", "prefix"), [("query", 12, "Query: "), ("passage", 20, "Passage: ")])
def test_transformer_tokens_are_prefixed_and_cut(side: str, limit: int, prefix: str) -> None:
    encoder = build("transformer")
    features = encoder.tokenize(TEXTS, side)  # type: ignore[arg-type]
    tokenizer = encoder.model.tokenizer.backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for row, text in enumerate(TEXTS):
        whole = tokenizer.encode(prefix + text).ids
        expected = whole if len(whole) <= limit else [*whole[: limit - 1], whole[-1]]
        mask = features["attention_mask"][row].bool()
        assert features["input_ids"][row][mask].tolist() == expected
    assert features["input_ids"].shape == (len(TEXTS), limit)
    assert token_counts(features).sum() == features["attention_mask"].sum()


def test_a_limit_never_exceeds_the_backbones(caplog: pytest.LogCaptureFixture) -> None:
    encoder = build("transformer", max_passage_tokens=500)
    assert encoder.max_tokens == {"query": 12, "passage": 64}
    assert encoder.model.max_seq_length == 64
    assert "64 tokens" in caplog.text
    assert np.isfinite(encoder.encode(["hello " * 500], "passage")).all()


def test_gradients_of_a_static_encoder_reach_the_tokens_used_and_no_others() -> None:
    encoder = build("static")
    features = encoder.tokenize(TEXTS[:2], "query")
    (vectors,), _ = EmbeddingModule(encoder.model)([features])
    vectors[:, 0].sum().backward()
    gradient = encoder.model[0].embedding.weight.grad
    touched = set(torch.nonzero(gradient.abs().sum(1)).flatten().tolist())
    assert touched == set(features["input_ids"].tolist())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_parameter_of_a_transformer_gets_its_gradient(checkpointing: bool) -> None:
    encoder = build("transformer", gradient_checkpointing=checkpointing)
    module = EmbeddingModule(encoder.model).train()
    network = encoder.model[0].model
    assert network.is_gradient_checkpointing is checkpointing
    queries, passages = encoder.tokenize(TEXTS, "query"), encoder.tokenize(TEXTS, "passage")
    columns = set(queries)
    (q_BD, p_BD), _ = module([queries, passages])
    functional.cross_entropy(q_BD @ p_BD.T / 0.05, torch.arange(len(TEXTS))).backward()
    assert set(queries) == columns  # the features can be embedded again
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    # Against the network, mean pooling and normalisation written out.
    hidden = network(queries["input_ids"], attention_mask=queries["attention_mask"]).last_hidden_state
    mask = queries["attention_mask"].unsqueeze(-1)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(q_BD, mean / mean.norm(dim=1, keepdim=True), atol=1e-6, rtol=0)


@pytest.mark.parametrize("backbone", BUILT)
def test_bf16_gives_unit_vectors_in_fp32(backbone: str) -> None:
    encoder = build(backbone)
    features = encoder.tokenize(TEXTS, "passage")
    exact = embed(encoder.model, features).detach()
    module = EmbeddingModule(encoder.model).bfloat16()
    (vectors,), _ = module([features])
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(TEXTS)), atol=1e-6, rtol=0)
    assert (vectors * exact).sum(1).min() > 0.999
    vectors.sum().backward()
    assert all(p.grad.dtype == torch.bfloat16 for p in module.parameters())


@pytest.mark.parametrize("backbone", BUILT)
def test_encode_keeps_order_reports_progress_and_restores_modes(backbone: str) -> None:
    encoder = build(backbone)
    encoder.model.train()
    encoder.model[1].eval()
    modes = [module.training for module in encoder.model.modules()]
    done: list[int] = []
    together = encoder.encode(TEXTS, "query", batch_size=3, progress=done.append)
    assert done == [3, 6, 8]
    one_by_one = np.concatenate([encoder.encode([text], "query") for text in TEXTS])
    np.testing.assert_allclose(together, one_by_one, atol=1e-6)
    assert [module.training for module in encoder.model.modules()] == modes


def test_encoding_is_without_dropout() -> None:
    encoder = build(
        "transformer", transformer={**encoder_config("transformer").transformer.model_dump(), "dropout": 0.5}
    )
    encoder.model.train()
    features = encoder.tokenize(TEXTS, "query")
    assert not torch.equal(embed(encoder.model, features), embed(encoder.model, features))
    np.testing.assert_array_equal(encoder.encode(TEXTS, "query"), encoder.encode(TEXTS, "query"))


def test_tokenizing_in_a_thread_does_not_disturb_encoding() -> None:
    encoder = build("transformer")
    expected_tokens, expected_vectors = encoder.tokenize(TEXTS, "query"), encoder.encode(TEXTS, "passage", batch_size=2)
    wrong: list[str] = []
    stop = threading.Event()

    def tokenize() -> None:
        while not stop.is_set():
            try:
                tokens = encoder.tokenize(TEXTS, "query")
                if not torch.equal(tokens["input_ids"], expected_tokens["input_ids"]):
                    wrong.append("tokens")
            except RuntimeError as error:
                wrong.append(str(error))

    thread = threading.Thread(target=tokenize)
    thread.start()
    try:
        for _ in range(4):
            np.testing.assert_allclose(encoder.encode(TEXTS, "passage", batch_size=2), expected_vectors, atol=1e-6)
    finally:
        stop.set()
        thread.join()
    assert not wrong


def test_a_model_like_labse_trains_and_keeps_its_modules(tmp_path: Path) -> None:
    path = save_labse(tmp_path)
    encoder = Encoder.build(encoder_config(str(path)), lambda: [], 0)
    assert [type(module).__name__ for module in encoder.model] == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert encoder.dimension == 10
    short = ["hello world", "a"]  # so that the token limit, which is new, does not matter
    expected = plain(path).encode(["Query: " + text for text in short])
    np.testing.assert_allclose(encoder.encode(short, "query"), expected, atol=1e-5)
    optimizer = torch.optim.Adam(encoder.model.parameters(), lr=0.01)
    embed(encoder.model, encoder.tokenize(TEXTS, "query"))[:, 0].sum().backward()
    assert encoder.model[2].linear.weight.grad.abs().sum() > 0
    optimizer.step()
    assert np.abs(encoder.encode(short, "query") - expected).max() > 1e-3
    encoder.save(tmp_path / "trained")
    theirs = plain(tmp_path / "trained").encode_document(TEXTS)
    np.testing.assert_allclose(encoder.encode(TEXTS, "passage"), theirs, atol=1e-5)


@pytest.mark.parametrize(
    "chat_template", [None, "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"]
)
def test_a_decoder_reads_texts_as_they_are_and_pools_the_last_token(tmp_path: Path, chat_template: str | None) -> None:
    path = save_decoder(tmp_path / "decoder", chat_template)
    encoder = Encoder.build(encoder_config(str(path)), lambda: [], 0)
    features = encoder.tokenize(TEXTS, "query")
    vectors = embed(encoder.model, features)
    vectors[:, 0].sum().backward()
    network, tokenizer = AutoModel.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = tokenizer("Query: " + text).input_ids[:12]
        last = network(torch.tensor([ids])).last_hidden_state[0, -1]
        torch.testing.assert_close(vector, functional.normalize(last, dim=0), atol=1e-5, rtol=0)
    encoder.save(tmp_path / "saved")
    theirs = plain(tmp_path / "saved").encode(TEXTS, prompt_name="passage")
    np.testing.assert_allclose(encoder.encode(TEXTS, "passage"), theirs, atol=1e-5)


@pytest.mark.parametrize("pooling", [None, "mean", "cls", "max", "lasttoken"])
def test_a_plain_encoder_gets_the_pooling_asked_for(tmp_path: Path, pooling: str | None) -> None:
    path = save_bert(tmp_path / "bert")
    encoder = Encoder.load(str(path), encoder_config(str(path), pooling=pooling), device="cpu")
    ids = AutoTokenizer.from_pretrained(path)("Query: hello world", return_tensors="pt").input_ids
    hidden = AutoModel.from_pretrained(path)(ids).last_hidden_state[0]
    pooled = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.max(0).values, "lasttoken": hidden[-1]}
    expected = functional.normalize(pooled[pooling or "mean"], dim=0).detach().numpy()
    np.testing.assert_allclose(encoder.encode(["hello world"], "query")[0], expected, atol=1e-5)


def test_foreign_prompts_are_respected(tmp_path: Path) -> None:
    path = save_labse(tmp_path, prompts={"query": "q: ", "corpus": "p: "})
    encoder = Encoder.load(str(path), device="cpu")
    assert encoder.prefixes == {"query": "q: ", "passage": "p: "}
    theirs = plain(path)
    np.testing.assert_allclose(encoder.encode(TEXTS, "query"), theirs.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(encoder.encode(TEXTS, "passage"), theirs.encode(TEXTS, prompt_name="corpus"), atol=1e-5)
    for_training = Encoder.load(str(path), encoder_config(str(path)), device="cpu")
    assert for_training.prefixes == {"query": "Query: ", "passage": "Passage: "}


def test_a_model_without_prompts_gets_none_and_unit_vectors_without_normalize(tmp_path: Path) -> None:
    modules = [Transformer(str(save_bert(tmp_path / "bert"))), Pooling(16, "mean", include_prompt=False)]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "model"))
    encoder = Encoder.load(str(tmp_path / "model"), device="cpu")
    assert encoder.prefixes == {"query": "", "passage": ""}
    theirs = plain(tmp_path / "model").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode(TEXTS, "query"), theirs, atol=1e-5)
    # For training the vectors are made unit by the model itself, and its wish to leave out the prompt is kept.
    trained = Encoder.load(str(tmp_path / "model"), encoder_config("x"), device="cpu")
    assert isinstance(trained.model[-1], Normalize)
    trained.save(tmp_path / "saved")
    theirs = plain(tmp_path / "saved").encode(TEXTS[:7], prompt_name="query")
    np.testing.assert_allclose(trained.encode(TEXTS[:7], "query"), theirs, atol=1e-5)
    short = ["hello", "world"]
    vectors = embed(trained.model, trained.tokenize(short, "query")).detach().numpy()
    theirs = plain(tmp_path / "saved").encode(short, prompt_name="query")
    np.testing.assert_allclose(vectors, theirs, atol=1e-5)


def test_the_attention_implementation_is_passed_on(tmp_path: Path) -> None:
    path = str(save_bert(tmp_path / "bert"))
    for attention in ("eager", "sdpa"):
        encoder = Encoder.load(path, encoder_config(path, attention=attention), device="cpu")
        assert encoder.model[0].model.config._attn_implementation == attention


def test_unusable_models_are_named(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    for path in ("nothing", "broken", "missing"):
        with pytest.raises(ModelError, match=path) as error:
            Encoder.load(str(tmp_path / path))
        assert "\n" not in str(error.value)


def test_saving_replaces_a_model_and_nothing_else(tmp_path: Path) -> None:
    encoder = build("static")
    encoder.save(tmp_path / "model")
    (tmp_path / "model" / "stale.txt").write_text("of the model before")
    encoder.save(tmp_path / "model")
    assert not (tmp_path / "model" / "stale.txt").exists()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("ten years")
    with pytest.raises(StorageError, match="holds no model"):
        encoder.save(precious)
    with pytest.raises(StorageError, match="cannot write"):
        encoder.save(precious / "thesis.txt" / "model")
    assert (precious / "thesis.txt").read_text() == "ten years"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "precious"]  # nothing temporary is left


def test_a_failed_save_leaves_the_model_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build("static")
    encoder.save(tmp_path / "model")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SentenceTransformer, "save", fail)
    with pytest.raises(StorageError, match="No space left"):
        encoder.save(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    monkeypatch.undo()
    np.testing.assert_array_equal(
        Encoder.load(str(tmp_path / "model")).encode(["a"], "query"), encoder.encode(["a"], "query")
    )
