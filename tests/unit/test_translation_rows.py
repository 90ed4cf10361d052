"""From rows to texts to rows: each text once, nothing that was there is touched, what is rejected is missing."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbtrain.errors import DataError, StorageError
from hbtrain.translation.assemble import assemble, judge
from hbtrain.translation.blocks import Block, Result, blocks_of, dump, read_block
from hbtrain.translation.gates import REASONS
from hbtrain.translation.languages import LANGUAGES
from hbtrain.translation.rows import RowSource
from hbtrain.translation.scores import score
from hbtrain.translation.texts import Texts, collect_texts
from tests.unit.translation_samples import ANYTHING, read_lines

TARGETS = ["de", "tr"]


def translate(text, language):
    """A stand-in: what it gives is empty, and so rejected, for texts with a q in German."""
    return "" if "q" in text and language == "de" else f"{language}:{text}"


def run(rows, folder, size, targets=TARGETS):
    """All stages; (rows, rejects, counts, how many texts were translated)."""
    folder.mkdir(exist_ok=True)
    (folder / "blocks").mkdir()
    (folder / "kept").mkdir()
    rows = list(rows)
    texts = collect_texts(json.loads(json.dumps(rows)), "en", targets, folder, lambda done: None)
    assert Texts.load(folder) == texts
    blocks = blocks_of(texts, size)
    for block in reversed(blocks):
        results = [
            Result(found, score(text, found, LANGUAGES["en"], LANGUAGES[block.language]))
            for text in block.texts(texts)
            for found in [translate(text, block.language)]
        ]
        block.path(folder).write_text(dump(results))
    rejects, out = io.BytesIO(), io.BytesIO()
    counts = judge(texts, blocks, ANYTHING, folder / "kept", rejects)
    assemble(json.loads(json.dumps(rows)), texts, targets, folder / "kept", out)
    lines = [[json.loads(line) for line in x.getvalue().splitlines()] for x in (out, rejects)]
    return *lines, counts, sum(block.stop - block.start for block in blocks)


def expected(rows):
    """The same, row by row in memory."""
    whole = json.loads(json.dumps(rows))
    for row in whole:
        for own in (row.get("text"), row.get("query"), row.get("passage"), *row.get("negatives", ())):
            for language in TARGETS:
                if own and "en" in own and language not in own and translate(own["en"], language):
                    own[language] = translate(own["en"], language)
    return whole


TEXT = st.text(alphabet="abq \u2028é", min_size=1, max_size=4).filter(str.strip)
SIDE = st.dictionaries(st.sampled_from(["en", "de", "tr", "fr"]), TEXT, min_size=1)
ROW = st.fixed_dictionaries(
    {"id": st.uuids().map(str), "query": SIDE, "passage": SIDE},
    optional={"negatives": st.lists(SIDE, max_size=2), "passage_id": TEXT},
)


@given(st.lists(st.one_of(ROW, st.fixed_dictionaries({"id": TEXT, "text": SIDE})), max_size=12), st.integers(1, 5))
def test_rows_are_as_if_each_was_translated_alone(tmp_path_factory, rows, size):
    folder = tmp_path_factory.mktemp("run")
    sides = [
        own
        for row in rows
        for own in [row.get("text"), row.get("query"), row.get("passage"), *row.get("negatives", ())]
    ]
    lacking = {(x, own["en"]) for own in sides if own and "en" in own for x in TARGETS if x not in own}
    if not lacking:
        with pytest.raises(DataError):
            run(rows, folder, size)
        return
    found, rejects, counts, translated = run(rows, folder, size)
    assert found == expected(rows)
    assert translated == len(lacking)
    assert {(reject["language"], reject["text"]) for reject in rejects} == {
        (x, text) for x, text in lacking if not translate(text, x)
    }
    assert sum(count.kept for count in counts.values()) == translated - len(rejects)
    for reject in rejects:
        same_id = [row for row in rows if row["id"] == reject["id"]]
        own = [texts for row in same_id for texts in (row.get(reject["side"]), *row.get("negatives", ()))]
        assert reject["text"] in [texts.get("en") for texts in own if texts]


def test_passages_that_rows_share_are_translated_once(tmp_path):
    rows = [
        {"id": f"r{i}", "query": {"en": f"question {i}"}, "passage": {"en": "the passage"}, "passage_id": "p"}
        for i in range(50)
    ]
    found, _, counts, translated = run(rows, tmp_path / "run", 7)
    assert translated == 2 * 51
    assert counts["de"].as_dict() == {"texts": 51, "kept": 1, "rejected": {"empty": 50}}
    assert found[49] == rows[49] | {
        "query": {"en": "question 49", "tr": "tr:question 49"},
        "passage": {"en": "the passage", "de": "de:the passage", "tr": "tr:the passage"},
    }


def test_blocks_of_languages_take_turns(tmp_path):
    texts = Texts(tmp_path, 9, 5, {"de": 5, "tr": 3})
    assert blocks_of(texts, 2) == [
        Block("de", 0, 0, 2),
        Block("tr", 0, 0, 2),
        Block("de", 1, 2, 4),
        Block("tr", 1, 2, 3),
        Block("de", 2, 4, 5),
    ]


@pytest.mark.parametrize("damage", ["", "{}\n", "null\n", '{"translation": "a", "scores": {"x": 1}}\n', "{"])
def test_a_damaged_block_is_one_line(tmp_path, damage):
    (tmp_path / "blocks").mkdir()
    block = Block("de", 0, 0, 1)
    block.path(tmp_path).write_text(dump([Result("ein\u2028Text", None)]))
    assert list(read_block(block, tmp_path)) == [Result("ein\u2028Text", None)]
    block.path(tmp_path).write_text(damage)
    with pytest.raises(StorageError, match="is damaged.*; delete it") as error:
        list(read_block(block, tmp_path))
    assert "\n" not in str(error.value)


def test_a_source_keeps_what_its_rows_have(write_source, cache):
    rows = [
        {"id": "1", "query": {"en": "a"}, "passage": {"en": "b"}, "passage_id": "p", "domain": "d"},
        {"id": "2", "query": {"en": "a"}, "passage": {"en": "b"}, "negatives": [{"en": "c"}, {"de": "d"}]},
        {"id": "3", "text": {"en": "a"}, "source": "wiki"},
        {"id": "4", "text": {"en": "a"}, "source": {"page": 7, "by": None}},
    ]
    path = write_source(rows)
    source = RowSource.open(str(path))
    assert list(source.records()) == rows
    assert read_lines(path) == rows
    found, _, _, _ = run(source.records(), path.parent / "run", 3)
    assert [row.get("source") for row in found] == [row.get("source") for row in rows]
    scored = {"query": {"en": "q"}, "passage": {"en": "p"}, "negatives": [{"en": "n"}], "scores": [3.0, 1.0]}
    rescored = write_source([{"id": "1", **scored}], "rescored.jsonl")
    assert list(RowSource.open(str(rescored)).records()) == [{"id": "1", **scored}]
    sentences = write_source([{"id": "1", "text": {"en": "a"}}], "sentences.jsonl")
    assert list(RowSource.open(str(sentences)).records()) == [{"id": "1", "text": {"en": "a"}}]
    assert RowSource.open(str(sentences)).digest != source.digest


def test_a_missing_source_is_one_line(tmp_path):
    with pytest.raises(DataError, match="none.jsonl does not exist"):
        RowSource.open(str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="no corpus of `hbtrain prepare`"):
        RowSource.open(str(tmp_path))


@pytest.mark.parametrize(("change", "words"), [(lambda rows: rows[1:], "fewer"), (lambda rows: rows * 2, "more")])
def test_rows_that_are_not_those_of_the_texts_are_no_traceback(tmp_path, change, words):
    rows = [{"id": str(i), "text": {"en": f"text {i}"}} for i in range(3)]
    (tmp_path / "kept").mkdir()
    texts = collect_texts(rows, "en", TARGETS, tmp_path, lambda done: None)
    with pytest.raises(DataError, match=f"there are {words} texts than were collected"):
        assemble(change(rows), texts, TARGETS, tmp_path / "kept", io.BytesIO())


HALF = "a \ud800 b"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"id": HALF}, "id"),
        ({"passage_id": HALF}, "passage_id"),
        ({"domain": HALF}, "domain"),
        ({"source": [HALF]}, "source"),
        ({"query": {"en": HALF}}, "query"),
        ({"passage": {"en": "a", "tr": HALF}}, "passage"),  # not translated, and yet written
        ({"negatives": [{"en": "a"}, {"fr": HALF}]}, "negatives"),
    ],
)
def test_half_of_a_surrogate_pair_anywhere_is_one_line_with_the_row(tmp_path, changes, key):
    rows = [{"id": f"r{i}", "query": {"en": "a"}, "passage": {"en": "b"}} for i in range(3)]
    rows[1] |= changes
    with pytest.raises(DataError) as caught:
        collect_texts(rows, "en", TARGETS, tmp_path, lambda done: None)
    name = "a \\ud800 b" if key == "id" else "r1"
    assert str(caught.value) == f'row 2, id "{name}": {key} is not Unicode: surrogates not allowed'
    str(caught.value).encode()


@pytest.mark.parametrize("scored", [True, False])
def test_what_is_unfinished_is_rejected_whatever_the_limits(tmp_path, scored):
    """And what is too long for the model is that, finished or not."""
    (tmp_path / "blocks").mkdir()
    (tmp_path / "kept").mkdir()
    texts = collect_texts([{"id": "1", "text": {"en": "a house"}}], "en", ["de"], tmp_path, lambda done: None)
    (block,) = blocks_of(texts, 1)
    scores = score("a house", "ein Haus", LANGUAGES["en"], LANGUAGES["de"]) if scored else None
    block.path(tmp_path).write_text(dump([Result("ein Haus" if scored else None, scores, finished=False)]))
    rejects = io.BytesIO()
    counts = judge(texts, [block], ANYTHING, tmp_path / "kept", rejects)
    reason = "unfinished" if scored else "too long"
    assert counts["de"].as_dict() == {"texts": 1, "kept": 0, "rejected": {reason: 1}}
    (reject,) = map(json.loads, rejects.getvalue().splitlines())
    assert (reject["reason"], reject["translation"]) == (reason, "ein Haus" if scored else None)
    assert reason in REASONS
