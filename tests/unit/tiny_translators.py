"""Tiny translation models with random weights, made on the fly, in the families that real ones come in."""

import io
import json
from pathlib import Path

import torch
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    M2M100Tokenizer,
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
    NllbTokenizer,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

TEXTS = ["the cat sleeps in the garden", "where is the station", "a small house by the sea", "we read many books"]
LETTERS = "abcdefghijklmnopqrstuvwxyzäöüßçşABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?!>-'"
SIZE = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
SIZE |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64, "dropout": 0.0}


def save_nllb(folder: Path, languages=("eng_Latn", "deu_Latn", "tur_Latn"), size=SIZE) -> Path:
    tokenizer = nllb_tokenizer(languages)
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
    torch.manual_seed(0)
    model = M2M100ForConditionalGeneration(M2M100Config(vocab_size=len(tokenizer), **ids, **size))
    return _saved(model, tokenizer, folder)


def nllb_tokenizer(languages):
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *LETTERS]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return NllbTokenizer(vocab=vocabulary, merges=[], extra_special_tokens=list(languages), src_lang=languages[0])


def save_trained_nllb(folder: Path, parallel, steps=300) -> Path:
    """One that has learned `parallel`, [{NLLB's code: text}], by heart, from its first language to the others."""
    languages = list(parallel[0])
    size = SIZE | {"d_model": 64, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "activation_dropout": 0.0}
    save_nllb(folder, languages, size | {"attention_dropout": 0.0})
    model = M2M100ForConditionalGeneration.from_pretrained(folder)
    tokenizer = NllbTokenizer.from_pretrained(folder)
    pairs = [(row[languages[0]], row[x], x) for row in parallel for x in languages[1:]]
    inputs = tokenizer([source for source, _, _ in pairs], padding=True, return_tensors="pt")
    targets = []
    for _, text, language in pairs:
        tokenizer.tgt_lang = language
        targets.append({"input_ids": tokenizer(text_target=text)["input_ids"]})
    labels = tokenizer.pad(targets, return_tensors="pt")["input_ids"]
    labels[labels == tokenizer.pad_token_id] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
        decay.step()
    return _saved(model, nllb_tokenizer(languages), folder)


def save_m2m100(folder: Path) -> Path:
    folder.mkdir(parents=True)
    pieces = _sentencepiece(folder / "sentencepiece.bpe.model")
    vocabulary = {piece: number for number, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *pieces])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    files = str(folder / "vocab.json"), str(folder / "sentencepiece.bpe.model")
    special = [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES["m2m100"]]  # as the published ones say
    tokenizer = M2M100Tokenizer(*files, additional_special_tokens=special)
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
    torch.manual_seed(0)
    size = len(vocabulary) + len(tokenizer.lang_token_to_id) + tokenizer.num_madeup_words
    return _saved(M2M100ForConditionalGeneration(M2M100Config(vocab_size=size, **ids, **SIZE)), tokenizer, folder)


def save_marian(folder: Path, targets=(), source_lang="en", target_lang="de") -> Path:
    folder.mkdir(parents=True)
    pieces = _sentencepiece(folder / "source.spm")
    (folder / "target.spm").write_bytes((folder / "source.spm").read_bytes())
    names = ["</s>", "<unk>", *pieces, *(f">>{target}<<" for target in targets), "<pad>"]
    vocabulary = {piece: number for number, piece in enumerate(names)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = MarianTokenizer(
        str(folder / "source.spm"),
        str(folder / "target.spm"),
        str(folder / "vocab.json"),
        source_lang=source_lang,
        target_lang=target_lang,
    )
    pad = vocabulary["<pad>"]
    ids = {"pad_token_id": pad, "eos_token_id": 0, "decoder_start_token_id": pad, "forced_eos_token_id": 0}
    torch.manual_seed(0)
    return _saved(MarianMTModel(MarianConfig(vocab_size=len(vocabulary), **ids, **SIZE)), tokenizer, folder)


def save_madlad(folder: Path, targets=("de", "tr", "en")) -> Path:
    folder.mkdir(parents=True)
    symbols = [f"<2{target}>" for target in targets]
    tokenizer = _t5_tokenizer(symbols)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    return _saved(T5ForConditionalGeneration(config), tokenizer, folder)


def _t5_tokenizer(symbols):
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((s, 0.0) for s in symbols), ("▁", -2.0)]
    return T5Tokenizer(vocab=[*pieces, *((letter, -3.0) for letter in LETTERS)], extra_ids=0)


def _sentencepiece(path: Path) -> list[str]:
    """Train a model of single letters; its pieces without those that every model has."""
    import sentencepiece

    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, " ".join(LETTERS)]),
        model_writer=stream,
        model_type="char",
        vocab_size=len(LETTERS) + 4,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path.write_bytes(stream.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [processor.id_to_piece(i) for i in range(3, processor.get_piece_size())]


def _saved(model, tokenizer, folder: Path) -> Path:
    model.generation_config.max_length = 64
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
