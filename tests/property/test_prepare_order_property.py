"""Numbering, linking and ordering in blocks of a few numbers, against the same in memory."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.corpus.columns import TextColumn
from hbtrain.corpus.conflicts import Components, cluster_order, clusters
from hbtrain.corpus.drops import Drops
from hbtrain.corpus.prepare import database
from hbtrain.corpus.prepare.alignment import Side
from hbtrain.corpus.prepare.database import ArrayWriter, Database, NumberWriter, blocks, by_code, count
from hbtrain.corpus.prepare.order import Coding, write_order
from hbtrain.corpus.prepare.rows import Digests
from hbtrain.corpus.prepare.text_tables import PartTables, write_texts
from hbtrain.corpus.readers.items import Part, TextItem
from hbtrain.formats.inputs import Position
from tests.prepared_samples import scratch

LAW = settings(deadline=None, max_examples=40)
SMALL = st.integers(0, 9)


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "BLOCK", 4)
        yield


def in_blocks(*arrays, size=3):
    return [tuple(a[at : at + size] for a in arrays) for at in range(0, len(arrays[0]), size)]


NUMBERS = st.integers(-(2**63), 2**63 - 1) | SMALL


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=30), st.integers(0, 30))
@LAW
def test_numbers_come_back_from_a_file(rows, single):
    """Written one by one and many at one time, read in blocks, and sorted by a query."""
    with scratch() as name:
        path = Path(name) / "numbers.parquet"
        with NumberWriter(path, ("a", "b")) as writer:
            for row in rows[:single]:
                writer.append(row)
            writer.extend(*np.array(rows[single:], np.int64).reshape(-1, 2).T)
        assert count(path) == len(rows)
        found = list(blocks(path, "b", "a"))
        assert all(len(b) <= database.BLOCK for b, _ in found)
        assert [(a, b) for block in found for b, a in zip(*(x.tolist() for x in block), strict=True)] == rows
        with Database(Path(name)) as db, db.session() as session:
            query = f"SELECT a, b FROM {database.parquet(path)} ORDER BY a, b"
            sorted_pairs = [
                pair for block in session.blocks(query) for pair in zip(*(x.tolist() for x in block), strict=True)
            ]
            codes = [(code, columns[1].tolist()) for code, columns in by_code(session.blocks(query))]
        assert [path.name for path in Path(name).iterdir()] == ["numbers.parquet"]
    assert sorted_pairs == sorted(rows)
    assert [(code, b) for code, own in codes for b in own] == sorted(rows)


@given(st.lists(NUMBERS, max_size=20), st.integers(0, 20), st.sampled_from([10, 2**31 - 1, 2**31, 2**63]))
@LAW
def test_an_array_is_what_was_written(content, filled, bound):
    content = np.array([x % min(bound, 2**62) for x in content], np.int64)
    with scratch() as name:
        for numbers in (content, np.arange(len(content))):
            path = Path(name) / "array.npy"
            array = ArrayWriter(path, bound)
            for (block,) in in_blocks(numbers):
                array.extend(block)
            array.fill(-1, filled)
            array.close()
            found = np.load(path)
            expected = [*numbers.tolist(), *[-1] * (filled - len(numbers))]
            assert found.tolist() == expected
            assert found.dtype == (np.int32 if bound < 2**31 else np.int64)
            assert array.length == len(expected)
            assert array.counts_up == (expected == list(range(len(expected))))
            unwanted = ArrayWriter(path, bound)
            unwanted.close(wanted=False)
            assert not path.exists()


@given(st.lists(st.lists(st.tuples(SMALL, st.booleans()), min_size=1, max_size=12), min_size=1, max_size=4))
@LAW
def test_numbers_of_keys(tables):
    """A key has its first number, in the order of tables and items; its texts are found by it, those of others are not.

    Of an item, the second value says that it shares the text before it.
    """
    languages = ["de", "en", "fr", "zh"][: len(tables)]
    expected = [{} for _ in tables]
    for own, table in zip(expected, tables, strict=True):
        text = None
        for at, (key, same) in enumerate(table):
            text = text if same and at else f"text {at}"
            own.setdefault(f"k{key}", text)
    keys = list(dict.fromkeys(key for own in expected for key in own))
    with scratch() as name, Database(Path(name)) as db:
        found = {}
        for number, (language, table) in enumerate(zip(languages, tables, strict=True)):
            items = [
                TextItem("query", language, f"k{key}", None if same and at else f"text {at}", Position("file", at))
                for at, (key, same) in enumerate(table)
            ]
            folder = Path(name) / str(number)
            folder.mkdir()
            part = Part("part", lambda drops, items=items: iter(items))
            result = write_texts(db, part, number, True, True, Drops.silent(), folder, lambda done: None)
            tables_of_part = PartTables(folder, result)
            (one,) = tables_of_part.tables
            found[language] = tables_of_part, one
            assert one.items == len(expected[number])
            assert one.texts == len(set(expected[number].values()))
        own = Path(name) / "side"
        own.mkdir()
        side = Side("query", found, own)
        side.align(db)
        assert len(side) == len(keys)
        digests = {Digests().of(key): key for key in keys}
        with db.session() as session:
            numbers = {digests[key]: number for key, number in session.rows(side.of_keys(False))}
            complete = {digests[key] for key, _ in session.rows(side.of_keys(True))}
        assert numbers == {key: number for number, key in enumerate(keys)}
        assert complete == set.intersection(*(set(texts) for texts in expected))
        for language, texts in zip(languages, expected, strict=True):
            places = own / f"place.query.{language}.npy"
            column = TextColumn(side.columns()[language])
            place = np.load(places) if places.exists() else np.arange(len(keys))
            got = [None if at < 0 else column.get([int(at)])[0] for at in place]
            assert got == [texts.get(key) for key in keys]
        lacking = side.incomplete(db)
        assert (lacking is None) == (len(complete) == len(keys))
        if lacking is not None:
            first = next(key for key in keys if key not in complete)
            assert lacking.total == len(keys) - len(complete)
            assert first not in expected[languages.index(lacking.lacks)]
            table = tables[languages.index(lacking.has)]
            place = lacking.part.position(lacking.place)
            assert place == Position("file", [f"k{key}" for key, _ in table].index(first))


@given(st.integers(1, 25), st.lists(st.tuples(SMALL, SMALL), max_size=30))
@LAW
def test_components_are_those_of_the_whole_graph(extra, edges):
    nodes = 10 + extra
    components = Components(nodes)
    for a, b in in_blocks(*np.array(edges, np.int64).reshape(-1, 2).T) if edges else []:
        components.link(a, b)
    found = components.of(np.arange(nodes))
    expected = list(range(nodes))
    for _ in range(nodes):
        for a, b in edges:
            expected[a] = expected[b] = min(expected[a], expected[b])
    assert found.tolist() == expected
    assert found.dtype == np.int64
    assert components.linked == any(a != b for a, b in edges)


@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=40),
    st.none() | st.lists(st.integers(0, 2**63 - 1), min_size=8, max_size=8, unique=True),
)
@LAW
def test_the_order_is_that_of_conflicts(pairs, identities):
    """Whether identities are numbers from 0 on or any others."""
    query, passage = np.array(pairs, np.int64).T
    if identities is not None:
        query, passage = np.array(identities)[query], np.array(identities[::-1])[passage]
    with scratch() as name, Database(Path(name)) as db:
        ids, target = Path(name) / "ids.parquet", Path(name) / "order.npy"
        with NumberWriter(ids, ("row", "query", "passage")) as writer:
            for block in in_blocks(np.arange(len(pairs)), query, passage):
                writer.extend(*block)
        coding = Coding(8), Coding(8)
        if identities is not None:
            coding = Coding.of_ids(db, ids, "query"), Coding.of_ids(db, ids, "passage")
        classes = write_order(db, ids, coding, Path(name))["classes"]
        cluster = clusters(query, passage)
        if len(set(cluster.tolist())) == len(pairs):
            assert classes is None
            assert not target.exists()
            return
        order, expected = cluster_order(np.arange(len(pairs)), cluster, passage)
        assert np.load(target).tolist() == order.tolist()
        assert classes == [[c.size, c.clusters, c.start] for c in expected]


@given(st.lists(st.tuples(SMALL, SMALL), min_size=1, max_size=30))
@LAW
def test_clusters_are_numbered_by_their_smallest_query(pairs):
    query, passage = np.array(pairs, np.int64).T
    found = clusters(query, passage)
    if len(set(query.tolist())) == len(set(passage.tolist())) == len(pairs):
        assert found.tolist() == list(range(len(pairs)))
        return
    first = [min(query[found == one].tolist()) for one in range(found.max() + 1)]
    assert first == sorted(first)
    for row, (q, p) in enumerate(pairs):
        linked = [i for i, (a, b) in enumerate(pairs) if a == q or b == p]
        assert {found[i] for i in linked} == {found[row]}
