"""Made-up models and texts: XLM-R with random weights, a tokenizer of its size, pairs of texts of mixed lengths."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from hbtrain.config import Config, load_config
from tests.bench.gpu.settings import Settings, Sizes

QUERY_SHARE = 0.2  # of a pair's tokens
SPREAD = 0.5  # standard deviation of the logarithm of lengths
LONGEST = 512  # tokens of a text
LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))
TEMPERATURE = 0.05


def words(count: int) -> list[str]:
    """So many different words; the same ones each time."""
    rng, found = np.random.default_rng(0), {}
    while len(found) < count:
        letters = rng.choice(LETTERS, (count, 8))
        lengths = rng.integers(3, 9, count)
        found |= dict.fromkeys("".join(row[:n]) for row, n in zip(letters, lengths, strict=True))
    return list(found)[:count]


def model_folder(settings: Settings) -> Path:
    """A sentence-transformers model of the campaign's size with random weights and mean pooling, made once."""
    folder = settings.folder / "model"
    if not (folder / "modules.json").exists():
        _save_model(folder, settings.sizes, settings.device)
    return folder


def _save_model(folder: Path, sizes: Sizes, device: torch.device) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import XLMRobertaConfig, XLMRobertaModel

    plain = folder.with_name("plain")
    config = XLMRobertaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=4 * sizes.hidden,
        max_position_embeddings=LONGEST + 2,
        type_vocab_size=1,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    with torch.device(device):  # a quarter of a billion random numbers take a CPU some seconds
        model = XLMRobertaModel(config, add_pooling_layer=False)
    model.cpu().save_pretrained(plain)
    _tokenizer(sizes.vocabulary).save_pretrained(plain)
    transformer = Transformer(str(plain))
    SentenceTransformer(modules=[transformer, Pooling(sizes.hidden, "mean")], device="cpu").save(str(folder))


def _tokenizer(vocabulary: int) -> object:
    """A unigram tokenizer like XLM-R's: so many pieces, most of them words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*((x, 0.0) for x in special), ("▁", -5.0), *((x, -12.0) for x in LETTERS.tolist())]
    pieces += [(f"▁{word}", -10.0) for word in words(vocabulary - len(pieces) - 1)] + [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=special.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {f"{name}_token": f"<{name}>" for name in ("pad", "unk", "mask")}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=LONGEST, bos_token="<s>", eos_token="</s>", cls_token="<s>",
        sep_token="</s>", **names,
    )  # fmt: skip


def texts(count: int, tokens: float, vocabulary: int, seed: int) -> list[str]:
    """Texts with so many tokens on average, log-normal; a word is a token, and each text has two tokens more."""
    rng = np.random.default_rng(seed)
    mean = max(1.0, tokens - 2)
    lengths = rng.lognormal(np.log(mean) - SPREAD**2 / 2, SPREAD, count).round().clip(1, LONGEST - 2).astype(int)
    known = np.array(words(min(vocabulary // 2, 20_000)))
    drawn = known[rng.integers(0, len(known), int(lengths.sum()))]
    return [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]


def pairs(settings: Settings, tokens: int, rows: int) -> list[tuple[str, str]]:
    """Queries and passages with so many tokens a pair."""
    vocabulary, queries = settings.sizes.vocabulary, QUERY_SHARE * tokens
    return list(zip(texts(rows, queries, vocabulary, 1), texts(rows, tokens - queries, vocabulary, 2), strict=True))


def source_file(settings: Settings, tokens: int, rows: int) -> Path:
    """A parallel source with pairs of so many tokens, made once."""
    path = settings.folder / f"pairs-{tokens}-{rows}.jsonl"
    if not path.exists():
        lines = (
            json.dumps({"id": str(i), "query": {"en": q}, "passage": {"en": p}}) + "\n"
            for i, (q, p) in enumerate(pairs(settings, tokens, rows))
        )
        path.write_text("".join(lines))
    return path


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """The texts of a source that `source_file` made."""
    rows = map(json.loads, path.read_text().splitlines())
    return [(row["query"]["en"], row["passage"]["en"]) for row in rows]


def training_config(settings: Settings, source: Path, batch: int, **changes: object) -> Config:
    """The recipe of XLM-R with the campaign's model and texts, in bf16; it logs and saves nothing."""
    return load_config(
        "xlmr-hybrid",
        {
            "data.sources": [str(source)],
            "data.languages": None,
            "data.cache": str(settings.folder / "cache"),
            "batching.mode": "monolingual",
            "batching.alpha": 1.0,
            "batching.global_batch_size": batch,
            "encoder.backbone": str(model_folder(settings)),
            "encoder.query_prefix": "",
            "encoder.passage_prefix": "",
            "encoder.max_query_tokens": LONGEST,
            "encoder.max_passage_tokens": LONGEST,
            "loss.temperature": TEMPERATURE,
            "training.steps": 100_000,
            "training.learning_rate": 1e-5,
            "training.log_every": 100_000,
            "training.checkpoint_every": None,
            "resources.workers": 1,
            **changes,
        },
    )
