"""Code-switching: what is drawn, how often, and that all else of a text stays as it is.

A translation of a word w into a language y reads <y:w>, so that what was done to a text can be read off and undone.
"""

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from hbtrain.batching import shard_sizes
from hbtrain.batching.permutation import permute
from hbtrain.batching.switching import Switcher

WORDS = ["lake", "hill", "wood", "été", "дом", "straße"]
MARK = re.compile(r"<(\w\w):([^>:]+)(?::\d)?>")
LOWEST_P = 1e-5

texts = st.lists(
    st.sampled_from([*WORDS, "unknown", "lakes", "3", "1,5", "-", "'", " ", "  ", ", ", "?\n", "\u00a0", "(", "日"]),
    max_size=12,
).map("".join)
lexicons = st.dictionaries(
    st.tuples(st.sampled_from(["en", "de"]), st.sampled_from(["ru", "sw", "zh"])),
    st.lists(st.sampled_from(WORDS), min_size=1, unique=True),
    min_size=1,
)


def switcher(words, share, seed=0):
    """A switcher by {(x, y): words that the lexicon from x to y has}."""
    marked = {(x, y): {word: (f"<{y}:{word}>",) for word in own} for (x, y), own in words.items()}
    return Switcher(marked, share, seed)


def undone(text):
    return MARK.sub(lambda mark: mark[2], text)


@given(lexicons, st.lists(texts, max_size=4), st.floats(0, 1), st.integers(0, 2**40), st.sampled_from([0, 7]))
def test_all_but_known_words_stays_and_targets_are_those_of_the_language(words, originals, share, step, seed):
    for language in {x for x, _ in words}:
        switched = switcher(words, share, seed).switch(originals, language, "query", step, np.arange(len(originals)))
        assert [undone(text) for text in switched] == originals
        for target, word in (mark for text in switched for mark in MARK.findall(text)):
            assert word in words[language, target]


@given(lexicons, st.lists(texts, max_size=4), st.integers(0, 1000))
def test_share_0_changes_nothing_and_share_1_leaves_no_known_word(words, originals, step):
    places = np.arange(len(originals))
    for language in {x for x, _ in words}:
        assert switcher(words, 0.0).switch(originals, language, "query", step, places) == originals
        known = {word for (x, _), own in words.items() if x == language for word in own}
        for text, original in zip(
            switcher(words, 1.0).switch(originals, language, "query", step, places), originals, strict=True
        ):
            expected = [word for word in re.findall(r"[^\W日]+", original) if word in known]
            assert [word for _, word in MARK.findall(text)] == expected


@given(lexicons, st.lists(texts, min_size=1, max_size=9), st.integers(1, 4), st.integers(0, 1000), st.integers(0, 99))
def test_a_text_depends_on_its_place_alone_whatever_the_workers_and_the_order(words, originals, ranks, step, key):
    language = next(iter(words))[0]
    places = np.arange(len(originals))
    whole = switcher(words, 0.5).switch(originals, language, "query", step, places)
    sharded, start = [], 0
    for size in shard_sizes(len(originals), min(ranks, len(originals))):
        part = slice(start, start + size)
        sharded += switcher(words, 0.5).switch(originals[part], language, "query", step, places[part])
        start += size
    assert sharded == whole
    order = permute(places, len(places), key)
    other = switcher(words, 0.5).switch([originals[i] for i in order], language, "query", step, order)
    assert other == [whole[i] for i in order]


@given(lexicons, texts, st.floats(0, 1), st.floats(0, 1), st.integers(0, 1000))
def test_a_larger_share_replaces_the_same_words_alike_and_more(words, original, one, other, step):
    language = next(iter(words))[0]
    small, large = (
        re.findall(r"<[^>]+>|日|[^\W日]+", text)
        for share in sorted((one, other))
        for text in switcher(words, share).switch([original], language, "query", step, np.arange(1))
    )
    for few, many in zip(small, large, strict=True):
        assert few == many or (few[0] != "<" and many[0] == "<")


@settings(max_examples=5)
@given(st.integers(0, 2**16), st.sampled_from([0.1, 0.5, 0.9]), st.sampled_from(["query", "passage"]))
def test_words_languages_and_translations_have_their_frequencies(seed, share, side):
    meanings = tuple(f"<ru:lake:{n}>" for n in range(3))
    known = {("en", "ru"): {"lake": meanings}, ("en", "sw"): {"lake": ("<sw:lake>",), "hill": ("<sw:hill>",)}}
    text, batch, steps = "lake and hill, " * 10, 10, 20
    mixer = Switcher(known, share, seed)
    found = [
        re.findall(r"<[^>]+>|lake|hill", one)
        for step in range(steps)
        for one in mixer.switch([text] * batch, "en", side, step, np.arange(batch))
    ]
    replaced = np.array([[word[0] == "<" for word in row] for row in found])
    assert binomtest(int(replaced.sum()), replaced.size, share).pvalue > LOWEST_P
    by_place, by_step = replaced.reshape(steps, batch, 20).sum((0, 2)), replaced.reshape(steps, -1).sum(1)
    for counts in (by_place, by_step, replaced.sum(0)):  # places, steps and positions are all alike
        assert chisquare(counts).pvalue > LOWEST_P
    lakes = [word for row in found for word in row if word[0] == "<" and "lake" in word]
    into_russian = [word for word in lakes if word.startswith("<ru")]
    assert binomtest(len(into_russian), len(lakes), 0.5).pvalue > LOWEST_P
    assert chisquare([into_russian.count(meaning) for meaning in meanings]).pvalue > LOWEST_P


def test_steps_places_positions_sides_and_seeds_draw_by_themselves():
    words, text = {("en", "ru"): ["lake"]}, "lake " * 64
    drawn = {
        switcher(words, 0.5, seed).switch([text], "en", side, step, np.array([place]))[0]
        for seed in (0, 1)
        for side in ("query", "passage", "negative")
        for step in (0, 1, 2**33)
        for place in (0, 1, 70_000)
    }
    assert len(drawn) == 2 * 3 * 3 * 3
    assert all(len(set(re.findall(r"<ru:lake>|lake", one))) == 2 for one in drawn)
