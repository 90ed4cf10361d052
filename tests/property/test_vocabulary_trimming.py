"""Trimming a vocabulary to texts never changes how those texts are cut."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from hbtrain.modeling.vocabulary import SPECIAL_TOKENS, build_tokenizer, trim_vocabulary

pieces = st.builds(
    lambda inside, text: ("##" if inside else "") + text, st.booleans(), st.text("abcd", min_size=1, max_size=4)
)
texts = st.lists(st.text("abcd ,", max_size=12), max_size=6)


@given(st.sets(pieces, max_size=14), texts)
@example({"ab", "abc", "##cd"}, ["abcd", "ab"])
def test_texts_are_cut_as_before(vocabulary: set[str], sources: list[str]) -> None:
    full = [*SPECIAL_TOKENS, *sorted(vocabulary)]
    trimmed = trim_vocabulary(full, sources)
    before, after = build_tokenizer(full), build_tokenizer(trimmed)
    for text in sources:
        assert after.encode(text).tokens == before.encode(text).tokens
    used = {token for text in sources for token in before.encode(text).tokens}
    assert used <= set(trimmed) <= set(full)
