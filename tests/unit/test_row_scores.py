"""Scores that rows bring along: kept by corpora in either form, read with the hard negatives in their turn."""

import json

import numpy as np
import pytest

from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.prepare.prepare import prepare
from hbtrain.corpus.readers.inline import ParallelReader

TABLE = [
    {
        "id": f"r{i}",
        "query": {"de": f"Frage {i}", "en": f"question {i}"},
        "passage": {"de": f"Antwort {i}", "en": f"answer {i}"},
        "negatives": [
            # Every third one is in English only.
            {"en": f"other {i} {j}", **({} if j % 3 == 2 else {"de": f"anders {i} {j}"})}
            for j in range(i % 5)
        ],
        **({} if i % 4 == 3 else {"scores": [10.0 + i, *(1 / (3 + i + j) for j in range(i % 5))]}),
    }
    for i in range(40)
]


def lines(table, path):
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    return path


@pytest.fixture(params=["given", "prepared"])
def opened(request, tmp_path, cache):
    """Opens a table of rows as a source, from JSON lines or as a corpus of `hbtrain prepare`."""

    def make(table):
        path = lines(table, tmp_path / f"{len(table)}.jsonl")
        if request.param == "prepared":
            path = prepare(ParallelReader([str(path)]), tmp_path / f"corpus-{len(table)}").folder
        (source,) = ParallelCorpus.open([str(path)]).sources.values()
        return source

    return make


def test_scores_are_those_of_the_chosen_negatives(opened):
    source = opened(TABLE)
    rows = np.array([4, 39, 13, 3, 13])
    languages = ["en", "de", "de", "en", "en"]
    np.testing.assert_array_equal(source.scores(rows), [14.0, np.nan, 23.0, np.nan, 23.0])
    for turn in range(4):
        texts = source.negatives(rows, languages, 2, turn)
        scores = source.negative_scores(rows, languages, 2, turn)
        numbers, owners = source.negative_numbers(rows, languages, 2, turn)
        assert len(texts) == len(scores) == len(numbers) == 10
        for text, score, owner in zip(texts, scores, owners.tolist(), strict=True):
            row, nth = map(int, text.split()[1:])
            assert row == rows[owner]
            expected = TABLE[row]["scores"][1 + nth] if "scores" in TABLE[row] else np.nan
            np.testing.assert_equal(score, expected)
        for language in ("de", "en"):
            places = [i for i, owner in enumerate(owners.tolist()) if languages[owner] == language]
            read = source.numbered_texts("passage", language, numbers[places])
            assert read == [texts[place] for place in places]


def test_rows_come_back_as_they_were(opened):
    for row, record in zip(TABLE, opened(TABLE).records(), strict=True):
        assert record.get("scores") == row.get("scores")
        assert record.get("negatives", []) == row["negatives"]


def test_rows_without_scores_are_counted_where_they_have_negatives(opened):
    assert opened(TABLE).rows_without_scores() == sum(i % 4 == 3 and i % 5 > 0 for i in range(40))
    assert opened([row for row in TABLE if "scores" in row]).rows_without_scores() == 0
    plain = opened([{k: v for k, v in row.items() if k != "scores"} for row in TABLE[:39]])
    assert plain.rows_without_scores() == sum(i % 5 > 0 for i in range(39))
    assert np.isnan(plain.negative_scores(np.arange(39), ["en"] * 39, 1, 0)).all()


def test_negatives_without_a_language_are_counted(opened):
    assert opened(TABLE).negatives_without("de") == sum(i % 5 > 2 for i in range(40))
    assert opened(TABLE[:20]).negatives_without("sw") == sum(i % 5 for i in range(20))


def test_a_corpus_without_scores_has_no_files_for_them(opened, cache, tmp_path):
    opened([{k: v for k, v in row.items() if k != "scores"} for row in TABLE])
    assert not [*tmp_path.rglob("*scores*")]


def test_scores_follow_the_negatives_of_the_languages_that_are_taken(tmp_path, cache):
    path = lines(TABLE, tmp_path / "rows.jsonl")
    output = prepare(ParallelReader([str(path)], ["de"]), tmp_path / "german").folder
    (source,) = ParallelCorpus.open([str(output)]).sources.values()
    for row, record in zip(TABLE, source.records(), strict=True):
        kept = [j for j, negative in enumerate(row["negatives"]) if "de" in negative]
        assert record.get("negatives", []) == [{"de": row["negatives"][j]["de"]} for j in kept]
        expected = [row["scores"][0], *(row["scores"][1 + j] for j in kept)] if "scores" in row else None
        assert record.get("scores") == expected
