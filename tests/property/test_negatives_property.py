"""Hard negatives of a source against lists in Python."""

import json
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.corpus import Source

LANGUAGES = ("de", "en", "zh")
# Few texts, so that negatives are often passages of the source, under one id or several.
TEXT = st.sampled_from([f"text {i}" for i in range(12)] + ["ü", "漢字"])
PASSAGE = st.dictionaries(st.sampled_from(LANGUAGES), TEXT, min_size=1)


@st.composite
def tables(draw):
    rows = draw(st.lists(st.tuples(PASSAGE, st.lists(PASSAGE, max_size=5)), min_size=1, max_size=12))
    shared_ids = draw(st.booleans())
    return [
        {
            "id": f"r{i}",
            "query": {"en": f"question {i}"},
            "passage": passage,
            "passage_id": f"p{i // 2 if shared_ids else i}",
            **({"negatives": negatives} if negatives or i % 2 else {}),
        }
        for i, (passage, negatives) in enumerate(rows)
    ]


def build(table, folder):
    path = Path(folder) / "source.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    return Source.from_jsonl(path, "source", Path(folder) / "cache")


@given(tables(), st.integers(0, 6), st.integers(0, 9), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_negatives_are_those_of_the_lists(table, limit, turn, random):
    with tempfile.TemporaryDirectory() as folder:
        source = build(table, folder)
        pairs = [(random.randrange(len(table)), random.choice([*LANGUAGES, "sw"])) for _ in range(15)]
        rows = np.array([row for row, _ in pairs])
        languages = [language for _, language in pairs]
        counts = source.negative_counts(rows, languages)
        texts = source.negatives(rows, languages, limit, turn)
        ids = source.negative_ids(rows, languages, limit, turn)
        of_passage: dict[str, set[int]] = {}
        for i, row in enumerate(table):
            for text in row["passage"].values():
                of_passage.setdefault(text, set()).add(int(source.index.passage_ids_of(np.array([i]))[0]))
    expected_counts, expected = [], []
    for row, language in pairs:
        own = [n[language] for n in table[row].get("negatives", []) if language in n]
        expected_counts.append(len(own))
        expected += [own[(turn * limit + i) % len(own)] for i in range(min(limit, len(own)))]
    assert counts.tolist() == expected_counts
    assert texts == expected
    assert ids.dtype == np.int64
    assert len(ids) == len(texts)
    number_of: dict[str, int] = {}
    for text, number in zip(texts, ids.tolist(), strict=True):
        assert number_of.setdefault(text, number) == number, "equal texts have one id"
        if text in of_passage:
            assert number in of_passage[text]
        else:
            assert number < 0, "outside the range of the passages"
    others = [number for text, number in number_of.items() if text not in of_passage]
    assert len(set(others)) == len(others), "different texts differ"


@given(st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None, max_examples=20)
def test_turning_goes_through_all_of_them(count, limit):
    table = [
        {"id": 0, "query": {"en": "q"}, "passage": {"en": "p"}, "negatives": [{"en": str(i)} for i in range(count)]}
    ]
    with tempfile.TemporaryDirectory() as folder:
        source = build(table, folder)
        turns = -(-count // limit)
        seen = [source.negatives(np.array([0]), ["en"], limit, turn) for turn in range(turns)]
    assert all(len(set(part)) == len(part) == min(limit, count) for part in seen)
    assert {text for part in seen for text in part} == {str(i) for i in range(count)}
