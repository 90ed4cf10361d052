"""WordPiece vocabularies: trained on texts, read from a file, trimmed to what texts use.

Text is cased, keeps its accents and is split as multilingual BERT does (github.com/google-research/bert,
multilingual.md): on white space and punctuation, and around every Chinese character. A word is then cut into the
longest pieces of the vocabulary from left to right; a word that cannot be cut becomes [UNK].
"""

from __future__ import annotations

import gzip
import string
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from hbtrain.errors import ModelError
from hbtrain.storage import local_copy, place

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUATION = "##"
"""Prefix of every piece that does not begin a word."""

MAX_WORD_CHARACTERS = 1000
"""A longer word is [UNK]. BERT's 100 would lose whole clauses of Thai, which is written without spaces."""

_CHUNK_TEXTS = 4096


def load_vocabulary(path: str | Path) -> list[str]:
    """The pieces of a vocabulary file or URI (plain or .gz, UTF-8, one piece a line), in the order of their ids.

    Raises:
        DataError: a URI of remote storage that cannot be fetched.
        ModelError: the file is missing, broken, empty, or lacks a special token.
    """
    path = local_copy(place(str(path)))
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (
        OSError,
        EOFError,
        ValueError,
        zlib.error,
    ) as error:  # gzip.BadGzipFile is an OSError, UnicodeDecodeError a ValueError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ModelError(f"cannot read vocabulary {path}: {reason}; give UTF-8 text, plain or .gz") from error
    # Not splitlines(): pieces such as U+2028 are line separators themselves.
    pieces = [piece for line in text.split("\n") if (piece := line.rstrip("\r"))]
    if not pieces:
        raise ModelError(f"vocabulary {path} is empty; one piece a line is expected")
    if missing := [token for token in SPECIAL_TOKENS if token not in pieces]:
        raise ModelError(f"vocabulary {path} lacks {', '.join(missing)}; a BERT WordPiece vocabulary is expected")
    return list(dict.fromkeys(pieces))


def train_vocabulary(texts: Callable[[], Iterable[str]], size: int) -> list[str]:
    """Train about `size` pieces (fewer if there are few texts) on `texts()`, which is called twice.

    The same texts give the same pieces, in the same order.

    Raises:
        ModelError: there is no text.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.trainers import WordPieceTrainer

    alphabet = _alphabet(texts(), limit=max(1, size // 4))
    if not alphabet:
        raise ModelError("a vocabulary cannot be trained: the sources hold no text; check data.sources")
    # The trainer numbers the continuation letters in the order of a hash table, which differs between processes and
    # decides ties. Listed as special tokens they have fixed numbers; limit_alphabet=0 admits no others.
    fixed = [*SPECIAL_TOKENS, *alphabet, *(CONTINUATION + c for c in alphabet if not _is_own_word(c))]
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    _set_splitting(tokenizer)
    trainer = WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=fixed,
        limit_alphabet=0,
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=False)
    return sorted(vocabulary, key=vocabulary.__getitem__)


def trim_vocabulary(pieces: list[str], texts: Iterable[str]) -> list[str]:
    """The pieces that `texts` use, the special tokens and all single characters, in their old order.

    `texts` are cut into the same pieces as with the full vocabulary; other texts may be cut into smaller ones.
    """
    import numpy as np

    tokenizer = build_tokenizer(pieces)
    unknown_id = pieces.index("[UNK]")
    used = np.zeros(len(pieces), dtype=bool)
    words_beside_unknown: set[str] = set()
    texts = iter(texts)
    while chunk := list(islice(texts, _CHUNK_TEXTS)):
        for text, encoding in zip(chunk, tokenizer.encode_batch_fast(chunk, add_special_tokens=False), strict=True):
            ids = encoding.ids
            used[ids] = True
            if unknown_id in ids:
                normalized = tokenizer.normalizer.normalize_str(text)
                words_beside_unknown.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalized))
    needed = {*SPECIAL_TOKENS, *_pieces_tried(words_beside_unknown, set(pieces))}
    return [
        piece
        for i, piece in enumerate(pieces)
        if used[i] or piece in needed or len(piece.removeprefix(CONTINUATION)) <= 1
    ]


def build_tokenizer(pieces: list[str]) -> Tokenizer:
    """A tokenizer over `pieces` (their ids are their positions) that adds no special tokens."""
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import WordPiece

    tokenizer = Tokenizer(
        WordPiece(
            vocab={piece: i for i, piece in enumerate(pieces)},
            unk_token="[UNK]",
            max_input_chars_per_word=MAX_WORD_CHARACTERS,
        )
    )
    _set_splitting(tokenizer)
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    return tokenizer


def _set_splitting(tokenizer: Tokenizer) -> None:
    from tokenizers import normalizers, pre_tokenizers

    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()


def _alphabet(texts: Iterable[str], limit: int) -> list[str]:
    """The most frequent characters, at most `limit`, in code point order."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    visible = [c for c in counts if not c.isspace() and not unicodedata.category(c).startswith("C")]
    return sorted(sorted(visible, key=lambda c: (-counts[c], c))[:limit])


def _is_own_word(character: str) -> bool:
    """Whether the character is always split off as a word of its own, so that it never continues a word."""
    return character in string.punctuation or "\u3400" <= character <= "\u4dbf" or "\u4e00" <= character <= "\u9fff"


def _pieces_tried(words: Iterable[str], known: set[str]) -> Iterator[str]:
    """The pieces of each word, up to the character where no piece fits and the word becomes unknown.

    An unknown word's pieces must stay in the vocabulary too: with a shorter piece in their place the rest of the word
    might fit, and it would not be unknown any more.
    """
    longest = max(map(len, known))
    for word in words:
        start = 0
        while start < len(word) <= MAX_WORD_CHARACTERS:
            prefix = CONTINUATION if start else ""
            ends = range(min(len(word), start + longest), start, -1)
            end = next((e for e in ends if prefix + word[start:e] in known), None)
            if end is None:
                break
            yield prefix + word[start:end]
            start = end
