"""What belongs together: nodes linked by pairs, which come in blocks. Kept on disk: one number a node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.preparation.number_array import NumberArray
from hbtrain.corpus.preparation.numbers import NumberWriter, places


class Components:
    """Nodes 0 to n - 1 and what they are linked with; a component is known by its smallest node."""

    def __init__(self, path: Path, nodes: int) -> None:
        """`path`: a file for the numbers; it is made."""
        self._parent = NumberArray(path)
        self.nodes = nodes
        self.linked = False
        writer = NumberWriter(path)
        for part in places(nodes):
            writer.extend(np.arange(part.start, part.stop, dtype=np.int64))
        writer.close()

    def link(self, a: Int64s, b: Int64s) -> None:
        """Link node a[i] with node b[i], for all i (int64 [n], int64 [n])."""
        left, right = self.of(a), self.of(b)
        apart = left != right
        if not apart.any():
            return
        self.linked = True
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        nodes, code = np.unique(np.concatenate([left[apart], right[apart]]), return_inverse=True)
        first, second = np.split(code, 2)
        graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(len(nodes), len(nodes)))
        parts, label = connected_components(graph, directed=False)
        smallest = np.full(parts, np.iinfo(np.int64).max)
        np.minimum.at(smallest, label, nodes)
        self._parent.put(nodes, smallest[label])  # never upwards, so that no circle arises

    def link_equal(self, sorted_pairs: Iterable[tuple[Int64s, Int64s]]) -> None:
        """Link nodes that have one key: (keys, nodes) as `sorted_blocks` gives them."""
        for keys, nodes in sorted_pairs:
            first = np.flatnonzero(np.diff(keys, prepend=-1))
            run = np.repeat(first, np.diff(first, append=len(keys)))
            self.link(nodes[run], nodes)

    def of(self, nodes: Int64s) -> Int64s:
        """int64 [n]: the smallest node of each one's component."""
        parents = roots = self._parent.get(nodes)
        while not np.array_equal(above := self._parent.get(roots), roots):
            roots = above
        if roots is not parents:
            self._parent.put(nodes, roots)  # shorter ways for those who ask next
        return roots

    def blocks(self) -> Iterator[Int64s]:
        """The same of all nodes, in blocks."""
        for part in places(self.nodes):
            yield self.of(np.arange(part.start, part.stop, dtype=np.int64))
