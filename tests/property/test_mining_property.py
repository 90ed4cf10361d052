"""Mining against a brute force in Python, on embeddings of small integers: scores are exact, and ties real and many."""

import hashlib
import json
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.corpus import ParallelCorpus, Source
from hbtrain.retrieval import mining, top
from hbtrain.retrieval.mining import Miner, MiningOptions
from hbtrain.retrieval.top import top_scores

LANGUAGES = ("de", "en", "zh")


class IntegerEncoder:
    """A text's embedding is made of its digest."""

    dimension = 3
    device = torch.device("cpu")

    def vector(self, text, side):
        digest = hashlib.sha256(f"{side} {text}".encode()).digest()
        return [byte % 5 - 2 for byte in digest[: self.dimension]]

    def encode(self, texts, side, batch_size=128, progress=None):
        return np.array([self.vector(text, side) for text in texts], np.float32).reshape(len(texts), self.dimension)


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


def brute_force(tables, encoder, options):
    """[(negatives, dropped)] for the rows of all tables, by the words of the docstring."""
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

    def score(query, text):
        q, p = encoder.vector(query, "query"), encoder.vector(text, "passage")
        return sum(a * b for a, b in zip(q, p, strict=True))

    outcome = []
    for r, (_, row) in enumerate(rows):
        own = {passage_group[o] for o in range(len(rows)) if question_group[o] == question_group[r]}
        best, dropped = {}, set()
        for x, query in queries[r].items():
            allowed = {"same": [x], "other": [y for y in languages if y != x], "both": languages}[options.languages]
            scored = [(-score(query, text), n) for n, (y, text, _) in enumerate(pool) if y in allowed]
            positives = {y: score(query, text) for y, text in passages[r].items()}
            if "text" in row and len(positives) > 1:
                positives.pop(x)
            for negated, n in sorted(scored)[: options.depth]:
                y, _, owner = pool[n]
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
        outcome.append(
            ([translations(pool[n], passages, passage_ids) for n in chosen], sum(key in dropped for key in ranking))
        )
    return outcome


def translations(item, passages, passage_ids):
    language, text, owner = item
    found = {}
    for r, passage in enumerate(passages):
        if passage_ids[r] == passage_ids[owner]:
            found = passage | found
    return found | {language: text}


@given(st.lists(tables(), min_size=1, max_size=2), all_options(), st.integers(1, 5), st.integers(1, 5))
@settings(deadline=None, max_examples=60)
def test_mining_is_what_its_words_say(tables, options, block_rows, chunk_columns):
    encoder = IntegerEncoder()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(mining, "BLOCK_ROWS", block_rows),
        mock.patch.object(mining, "BLOCK_TEXTS", block_rows),
        mock.patch.object(top, "CHUNK_COLUMNS", chunk_columns),
    ):
        sources = []
        for number, table in enumerate(tables):
            path = Path(folder) / f"{number}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in table))
            sources.append(Source.from_jsonl(path, str(number), Path(folder) / "cache"))
        corpus = ParallelCorpus(sources)
        if options.languages == "other" and len(corpus.languages) == 1:
            return
        miner = Miner(encoder, corpus, options)
        mined = [tuple(row) for source in sources for row in miner.rows(source)]
    assert mined == brute_force(tables, encoder, options)


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
