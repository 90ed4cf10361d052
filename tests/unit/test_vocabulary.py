from __future__ import annotations

import gzip
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from hbtrain.errors import ModelError
from hbtrain.modeling.vocabulary import (
    SPECIAL_TOKENS,
    build_tokenizer,
    load_vocabulary,
    train_vocabulary,
    trim_vocabulary,
)
from tests.unit.tiny_models import TEXTS

SHARED = Path(__file__).parents[3] / "shared" / "data"


def write(path: Path, pieces: list[str]) -> Path:
    data = "".join(f"{piece}\n" for piece in pieces).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["vocab.txt", "vocab.txt.gz"])
def test_a_vocabulary_file_is_read_in_order(tmp_path: Path, name: str) -> None:
    pieces = [*SPECIAL_TOKENS, "\u2028", "ä", "##ä", "Haus"]  # U+2028 is a line separator for splitlines()
    assert load_vocabulary(write(tmp_path / name, pieces)) == pieces


def test_unusable_vocabulary_files_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.txt.gz"
    broken.write_bytes(gzip.compress(b"[PAD]\n" * 100)[:-9])
    not_gzip = tmp_path / "plain.gz"
    not_gzip.write_text("[PAD]")
    latin = tmp_path / "latin.txt"
    latin.write_bytes("ä".encode("latin-1"))
    cases = {
        tmp_path / "missing.txt": "No such file",
        write(tmp_path / "empty.txt", []): "is empty",
        write(tmp_path / "words.txt", ["a", "[UNK]"]): r"lacks \[PAD\], \[CLS\]",
        broken: "cannot read",
        not_gzip: "cannot read",
        latin: "cannot read",
    }
    for path, reason in cases.items():
        with pytest.raises(ModelError, match=reason) as error:
            load_vocabulary(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_trained_vocabulary_covers_its_texts_and_keeps_case_and_accents() -> None:
    pieces = train_vocabulary(lambda: TEXTS, 400)
    assert pieces[:5] == list(SPECIAL_TOKENS)
    assert len(pieces) == len(set(pieces)) <= 400
    tokenizer = build_tokenizer(pieces)
    for text in TEXTS:
        tokens = tokenizer.encode(text).tokens
        assert "[UNK]" not in tokens
        assert "".join(token.removeprefix("##") for token in tokens) == "".join(text.split())
    assert "hello" in pieces  # the most frequent word has become one piece


def test_a_trained_vocabulary_is_the_same_in_every_process() -> None:
    code = (
        "import json, sys; from hbtrain.modeling.vocabulary import train_vocabulary;"
        "texts = json.load(sys.stdin); print(json.dumps(train_vocabulary(lambda: texts, 300)))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], input=json.dumps(TEXTS).encode(), capture_output=True, check=True)
        for _ in range(3)
    ]
    assert runs[0].stdout == runs[1].stdout == runs[2].stdout != b""


def test_a_vocabulary_is_not_trained_on_nothing() -> None:
    with pytest.raises(ModelError, match="no text"):
        train_vocabulary(lambda: ["", " \n"], 100)


def test_long_words_without_spaces_are_not_lost() -> None:
    tokenizer = build_tokenizer([*SPECIAL_TOKENS, "ก", "##ก"])
    assert len(tokenizer.encode("ก" * 300).tokens) == 300


def test_trimming_keeps_used_pieces_single_characters_and_order() -> None:
    pieces = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "zebra", "b", "##b", "haus", "##boot", "xyz"]
    trimmed = trim_vocabulary(pieces, ["haus hausboot"])
    assert trimmed == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "b", "##b", "haus", "##boot"]


def test_trimming_leaves_an_unknown_word_unknown() -> None:
    # "abcd" is unknown because "abc" is taken first; without "abc" it would be "ab", "##cd".
    pieces = [*SPECIAL_TOKENS, "ab", "abc", "##cd"]
    trimmed = trim_vocabulary(pieces, ["abcd", "ab"])
    assert build_tokenizer(trimmed).encode("abcd").tokens == ["[UNK]"]
    trimmed = trim_vocabulary(pieces, ["abcd", "ab", "ab cd abcd"])
    assert build_tokenizer(trimmed).encode("abcd").tokens == ["[UNK]"]


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_trimming_the_multilingual_vocabulary_changes_no_text() -> None:
    texts: list[str] = []
    with gzip.open(SHARED / "parallel" / "course-docs.jsonl.gz", "rt", encoding="utf-8") as stream:
        for line in islice(stream, 300):
            row = json.loads(line)
            texts += [*row["query"].values(), *row["passage"].values()]
    full = load_vocabulary(SHARED / "tokenizer" / "mbert_vocab.txt.gz")
    assert len(full) == 119_547
    trimmed = trim_vocabulary(full, iter(texts))
    assert len(trimmed) < 40_000
    positions = {piece: i for i, piece in enumerate(full)}
    assert [positions[piece] for piece in trimmed] == sorted(positions[piece] for piece in trimmed)
    before = [encoding.tokens for encoding in build_tokenizer(full).encode_batch(texts)]
    after = [encoding.tokens for encoding in build_tokenizer(trimmed).encode_batch(texts)]
    assert before == after
    assert build_tokenizer(full).encode("Köln, Zürich").tokens == [
        "Köln",
        ",",
        "Zürich",
    ]  # neither case nor accent lost
