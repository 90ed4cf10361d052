"""Sorting, finding, linking and ordering on disk, in blocks of a few numbers, against the same in memory."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.corpus.conflicts import cluster_order, clusters
from hbtrain.corpus.preparation import number_array, numbers, sorting
from hbtrain.corpus.preparation.components import Components
from hbtrain.corpus.preparation.keys import KeyIndex
from hbtrain.corpus.preparation.number_array import NumberArray
from hbtrain.corpus.preparation.order import write_order
from tests.prepared_samples import scratch

LAW = settings(deadline=None, max_examples=40)
SMALL = st.integers(0, 9)


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        for module in (numbers, sorting):
            patch.setattr(module, "BLOCK", 4)
        patch.setattr(sorting, "MOST_BUCKETS", 3)
        patch.setattr(number_array, "WINDOW", 3)
        yield


def in_blocks(*arrays, size=3):
    return [tuple(a[at : at + size] for a in arrays) for at in range(0, len(arrays[0]), size)]


@given(st.lists(SMALL, max_size=30), st.integers(10, 2**63))
@LAW
def test_sorted_blocks_are_a_stable_sort_and_keep_keys_together(keys, bound):
    keys = np.array(keys, np.int64)
    values = np.arange(len(keys))
    with scratch() as name:
        found = list(sorting.sorted_blocks(in_blocks(keys, values), len(keys), bound, Path(name) / "sorting"))
        assert not list(Path(name).iterdir())
    order = np.argsort(keys, kind="stable")
    assert [int(x) for _, block in found for x in block] == order.tolist()
    assert [int(x) for block, _ in found for x in block] == keys[order].tolist()
    blocks_of = [set(block.tolist()) for block, _ in found]
    assert sum(map(len, blocks_of)) == len(set(keys.tolist()))


@given(st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 10**6), max_size=60))
@LAW
def test_what_is_sorted_does_not_grow_with_its_length(keys):
    """Files that got much are dealt out again, so that a block is large only where keys are equal."""
    keys = np.array(keys, np.int64)
    with scratch() as name:
        pairs = in_blocks(keys, np.arange(len(keys)))
        found = list(sorting.sorted_blocks(pairs, len(keys), 2**63, Path(name) / "sorting"))
    assert sum(len(block) for block, _ in found) == len(keys)
    for block, _ in found:
        assert len(block) <= 2 * sorting.BLOCK or len(set(block.tolist())) == 1


@given(st.lists(st.integers(0, 99), min_size=1, max_size=20), st.data())
@LAW
def test_arrayare_read_and_written_at_any_place(content, data):
    at = np.array(data.draw(st.lists(st.integers(0, len(content) - 1), max_size=30)), np.int64)
    new = np.arange(len(at)) + 100
    expected = np.array(content, np.int64)
    with scratch() as name:
        array = NumberArray.filled(Path(name) / "numbers", len(content), 0)
        array.put(np.arange(len(content)), expected)
        assert array.get(at).tolist() == expected[at].tolist()
        for place, number in zip(at.tolist(), new.tolist(), strict=True):
            expected[place] = number
        array.put(at, new)
        np.add.at(expected, at, 1)
        array.count_up(at)
        assert [x for block in array.blocks() for x in block.tolist()] == expected.tolist()
        array.put(at, -1)
        expected[at] = -1
        assert array.get(np.arange(len(content))).tolist() == expected.tolist()


@given(
    st.lists(st.integers(0, 2**63 - 1) | SMALL, max_size=20), st.lists(st.integers(0, 2**63 - 1) | SMALL, max_size=20)
)
@LAW
def test_a_key_has_its_first_number(known, asked):
    with scratch() as name:
        keys = np.array(known, np.int64)
        pairs = in_blocks(keys, np.arange(len(keys)) + 7)
        index = KeyIndex.build(pairs, len(keys), Path(name) / "index")
        assert len(index) == len(set(known))
        wanted = np.array(asked + known, np.int64)
        assert index.find(wanted).tolist() == [known.index(x) + 7 if x in known else -1 for x in wanted.tolist()]


@given(st.integers(1, 25), st.lists(st.tuples(SMALL, SMALL), max_size=30))
@LAW
def test_components_are_those_of_the_whole_graph(extra, edges):
    nodes = 10 + extra
    with scratch() as name:
        components = Components(Path(name) / "components", nodes)
        for a, b in in_blocks(*np.array(edges, np.int64).reshape(-1, 2).T) if edges else []:
            components.link(a, b)
        found = np.concatenate(list(components.blocks()))
    expected = list(range(nodes))
    for _ in range(nodes):
        for a, b in edges:
            expected[a] = expected[b] = min(expected[a], expected[b])
    assert found.tolist() == expected
    assert components.linked == any(a != b for a, b in edges)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=40))
@LAW
def test_the_order_is_that_of_conflicts(pairs):
    query, passage = np.array(pairs, np.int64).T
    with scratch() as name:
        target = Path(name) / "order.npy"
        classes = write_order(lambda: iter(in_blocks(query, passage)), len(pairs), 8, 8, Path(name) / "work", target)
        cluster = clusters(query, passage)
        if len(set(cluster.tolist())) == len(pairs):
            assert classes is None
            assert not target.exists()
            return
        # Known by their first query id, as on disk; else clusters of one size would stand in another order.
        first = np.array([query[cluster == one].min() for one in cluster])
        order, expected = cluster_order(np.arange(len(pairs)), first, passage)
        assert np.load(target).tolist() == order.tolist()
        assert classes == expected
