"""Mining against a brute force in Python, on embeddings of small integers: scores are exact, and ties real and many."""

import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from unittest import mock

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.corpus import ParallelCorpus, Source
from hbtrain.retrieval import mining, pool_embeddings, rescoring, top
from hbtrain.retrieval.collection_search import SearchOptions
from hbtrain.retrieval.mining import Miner, MiningOptions
from hbtrain.retrieval.top import top_scores

LANGUAGES = ("de", "en", "zh")


class IntegerEncoder:
    """A text's embedding is made of its digest."""

    dimension = 3
    origin = None
    prefixes = MappingProxyType({"query": "", "passage": ""})

    def __init__(self, name="first"):
        self.name = name

    def digest(self):
        return self.name

    def vector(self, text, side):
        digest = hashlib.sha256(f"{self.name} {side} {text}".encode()).digest()
        return [byte % 5 - 2 for byte in digest[: self.dimension]]

    def one(self, query, passage):
        return sum(a * b for a, b in zip(self.vector(query, "query"), self.vector(passage, "passage"), strict=True))

    def encode(self, texts, side, batch_size=None, progress=None, batch_tokens=None):
        return np.array([self.vector(text, side) for text in texts], np.float32).reshape(len(texts), self.dimension)


class IntegerPairs:
    """Scores a pair by its digest, as a cross-encoder does."""

    def one(self, query, passage):
        return hashlib.sha256(f"{query} {passage}".encode()).digest()[0] % 7 - 3

    def score(self, queries, passages):
        return np.array([self.one(*pair) for pair in zip(queries, passages, strict=True)], np.float32)

    def loader(self, anew):
        return lambda device: self


def texts(kind):
    # Numbers beyond the row's own make texts that several rows share.
    return st.dictionaries(st.sampled_from(LANGUAGES), st.integers(0, 14), min_size=1).map(
        lambda numbers: {language: f"{kind} {number}" for language, number in numbers.items()}
    )


@st.composite
def tables(draw):
    count = draw(st.integers(1, 10))
    if draw(st.booleans()):
        return [{"id": draw(st.integers(0, 12)), "text": draw(texts("s"))} for _ in range(count)]
    return [
        {"id": draw(st.integers(0, 12)), "query": draw(texts("q")), "passage": draw(texts("p"))}
        | ({"passage_id": draw(st.integers(0, 12))} if draw(st.booleans()) else {})
        for _ in range(count)
    ]


@st.composite
def all_options(draw):
    negatives, skip_top = draw(st.integers(1, 4)), draw(st.integers(0, 2))
    return MiningOptions(
        negatives=negatives,
        languages=draw(st.sampled_from(["same", "other", "both"])),
        margin=draw(st.sampled_from([-2.0, -1.0, 0.0, 0.25, 1.0])),
        margin_kind=draw(st.sampled_from(["absolute", "relative"])),
        skip_top=skip_top,
        depth=negatives + skip_top + draw(st.integers(0, 20)),
    )


def components(labels_of):
    """For each item, the lowest item that it is linked to by shared labels."""
    group = list(range(len(labels_of)))
    changed = True
    while changed:
        changed = False
        for i, mine in enumerate(labels_of):
            for j, yours in enumerate(labels_of):
                if mine & yours and group[i] != group[j]:
                    group[i] = group[j] = min(group[i], group[j])
                    changed = True
    return group


@st.composite
def ways(draw):
    """How the pool is cut, and by what it is searched."""
    return {
        "rows_per_shard": draw(st.integers(1, 6)),
        "block_rows": draw(st.integers(1, 4)),
        "shards": draw(st.integers(1, 3)),
    }


def brute_force(tables, encoder, options, second):
    """[(negatives, dropped, scores)] for the rows of all tables, by the words of the docstring."""
    rows = [(source, row) for source, table in enumerate(tables) for row in table]
    passages = [row.get("text", row.get("passage")) for _, row in rows]
    queries = [row.get("text", row.get("query")) for _, row in rows]
    passage_ids = [(source, str(row.get("passage_id", row["id"]))) for source, row in rows]
    query_ids = [(source, str(row["id"])) for source, row in rows]
    passage_group = components([{passage_ids[r], *passages[r].values()} for r in range(len(rows))])
    question_group = components([{query_ids[r], *queries[r].values()} for r in range(len(rows))])
    languages = sorted({x for r in range(len(rows)) for x in [*queries[r], *passages[r]]})
    pool = {}
    for language in languages:
        for r, passage in enumerate(passages):
            if language in passage:
                pool.setdefault((language, passage[language]), r)
    pool = [(language, text, r) for (language, text), r in pool.items()]

    by = second or encoder
    outcome = []
    for r, (_, row) in enumerate(rows):
        own = {passage_group[o] for o in range(len(rows)) if question_group[o] == question_group[r]}
        best, dropped, own_scores = {}, set(), []
        for x, query in queries[r].items():
            allowed = {"same": [x], "other": [y for y in languages if y != x], "both": languages}[options.languages]
            found = [(-encoder.one(query, text), n) for n, (y, text, _) in enumerate(pool) if y in allowed]
            positives = {y: by.one(query, text) for y, text in passages[r].items()}
            if "text" in row and len(positives) > 1:
                positives.pop(x)
            own_scores += [positives.get(y, max(positives.values())) for y in allowed]
            for _, n in sorted(found)[: options.depth]:
                y, text, owner = pool[n]
                negated = -by.one(query, text)
                if passage_group[owner] in own:
                    continue
                positive = positives.get(y, max(positives.values()))
                less = options.margin * (abs(positive) if options.margin_kind == "relative" else 1)
                if -negated > positive - less:
                    dropped.add(passage_group[owner])
                key = passage_group[owner]
                best[key] = min(best.get(key, (negated, n)), (negated, n))
        ranking = sorted(best, key=best.__getitem__)[options.skip_top :]
        chosen = [best[key][1] for key in ranking if key not in dropped][: options.negatives]
        negatives = [translations(pool[n], passages, passage_ids) for n in chosen]
        scores = [max(own_scores), *(-best[key][0] for key in ranking if key not in dropped)]
        outcome.append((negatives, sum(key in dropped for key in ranking), scores[: options.negatives + 1]))
    return outcome


def translations(item, passages, passage_ids):
    language, text, owner = item
    found = {}
    for r, passage in enumerate(passages):
        if passage_ids[r] == passage_ids[owner]:
            found = passage | found
    return found | {language: text}


def mined(tables, encoder, options, second, size, ways):
    """What is mined from tables, and what a brute force says, where all blocks have `size`."""
    with (
        tempfile.TemporaryDirectory() as name,
        mock.patch.multiple(mining, BLOCK_ROWS=size, BLOCK_CANDIDATES=40 * size),
        mock.patch.multiple(pool_embeddings, READ_TEXTS=size, PAIR_FLOATS=3 * size),
        mock.patch.object(rescoring, "TASK_PAIRS", size),
        mock.patch.object(top, "CHUNK_COLUMNS", size),
    ):
        folder, sources = Path(name), []
        for number, table in enumerate(tables):
            path = folder / f"{number}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in table))
            sources.append(Source.from_jsonl(path, str(number), folder / "cache"))
        corpus = ParallelCorpus(sources)
        if options.languages == "other" and len(corpus.languages) == 1:
            return [], []
        search = SearchOptions(cache=folder / "cache", **ways)
        with Miner(encoder, corpus, options, search, rescorer=second) as miner:
            assert miner.rescored is (second is not None)
            found = [tuple(row) for source in sources for row in miner.rows(source)]
    return found, brute_force(tables, encoder, options, second)


some_tables = st.lists(tables(), min_size=1, max_size=2)
seconds = st.sampled_from([None, IntegerEncoder("second"), IntegerPairs()])


@given(some_tables, all_options(), seconds, st.integers(1, 5), ways())
@settings(deadline=None, max_examples=40)
def test_mining_is_what_its_words_say_however_it_is_cut(tables, options, second, size, ways):
    found, expected = mined(tables, IntegerEncoder(), options, second, size, ways)
    assert found == expected


@given(some_tables, all_options(), seconds, st.integers(1, 5), ways())
@settings(deadline=None, max_examples=12)
def test_an_index_that_finds_everything_gives_what_exact_search_does(tables, options, second, size, ways):
    everything = replace(options, depth=1000)  # of equal scores, an index finds any
    found, expected = mined(tables, IntegerEncoder(), everything, second, size, ways | {"index": "IVF1,Flat"})
    assert found == expected


@given(st.integers(0, 2**32), st.integers(1, 150), st.integers(1, 400), st.integers(1, 40), st.integers(1, 300))
@settings(deadline=None, max_examples=60)
def test_top_scores_are_a_stable_sort(seed, queries, candidates, depth, chunk):
    rng = np.random.default_rng(seed)
    q = rng.integers(-9, 10, (queries, 2)).astype(np.float32)
    p = rng.integers(-9, 10, (candidates, 2)).astype(np.float32)
    start, stop = sorted(rng.integers(0, candidates + 1, 2).tolist())
    with mock.patch.object(top, "CHUNK_COLUMNS", chunk):
        scores, places = top_scores(q, torch.from_numpy(p), [slice(0, start), slice(stop, candidates)], depth)
    inside = [i for i in range(candidates) if not start <= i < stop]
    assert scores.shape == places.shape == (queries, min(depth, len(inside)))
    for row in range(queries):
        products = (p @ q[row]).tolist()
        expected = sorted(inside, key=lambda i: (-products[i], i))[:depth]
        assert places[row].tolist() == expected
        assert scores[row].tolist() == [products[i] for i in expected]
