"""Translated passages and queries on their way to the loss: whose, in which order, alike on any number of ranks."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hbtrain.config import load_config
from hbtrain.modeling.loss_inputs import Reference, References
from tests.unit.feeding import fed

LANGUAGES = ("ar", "de", "en")
SIDES = ("queries", "passages", "negatives", "translations", "translated_queries")


def row(i):
    """Every fourth row has its query in one language only, every fifth its passage; the others have all three."""
    asked = LANGUAGES[:1] if i % 4 == 0 else LANGUAGES
    answered = LANGUAGES[1:2] if i % 5 == 0 else LANGUAGES
    return {
        "id": f"r{i}",
        "query": {x: f"question {i} {x}" for x in asked},
        "passage": {x: f"answer {i} {x}" for x in answered},
        "negatives": [{x: f"other {i} {j} {x}" for x in LANGUAGES} for j in range(i % 3)],
    }


@pytest.fixture
def config(tmp_path, cache):
    def make(table=None, **changes):
        path = tmp_path / "source.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in table or [row(i) for i in range(30)]))
        small = {
            "data.sources": [str(path)],
            "batching.global_batch_size": 11,
            "encoder.static.vocabulary_size": 200,
            "evaluation.benchmarks": [],
            "loss.hard_negatives": 2,
            "loss.positives": "translations",
            "loss.translations": 2,
            "loss.terms": {"reversed": 0.5},
        }
        return load_config("quickstart", small | changes)

    return make


def parts(text):
    kind, number, *_, language = text.split()
    return kind, int(number), language


def test_pairs_bring_along_what_their_rows_have_in_other_languages(config):
    work, texts = fed(config(), 2)
    assert [side for side, _ in texts] == ["query", "passage", "passage", "passage", "query"]
    queries, passages, negatives, translations, translated = ([*map(parts, x)] for _, x in texts)
    rows = work.batch.rows.tolist()
    owners = {name: x.tolist() for name, x in vars(work.owners).items()}
    assert [number for _, number, _ in negatives] == [rows[owner] for owner in owners["negative_M"]]
    for owner, (kind, number, language) in zip(owners["translation_K"], translations, strict=True):
        assert (kind, number) == ("answer", rows[owner])
        assert language != passages[owner][2]
    for owner, (kind, number, language) in zip(owners["query_O"], translated, strict=True):
        assert (kind, number) == ("question", rows[owner])
        assert language != queries[owner][2]
    assert np.bincount(owners["translation_K"], minlength=11).tolist() == [0 if r % 5 == 0 else 2 for r in rows]
    assert owners["query_O"] == [place for place, r in enumerate(rows) if r % 4]
    ids = work.ids.candidate_C.tolist()
    assert ids[-len(translations) :] == [ids[owner] for owner in owners["translation_K"]]
    assert len(ids) == 11 + len(negatives) + len(translations)


@pytest.mark.parametrize("ranks", [2, 3, 11])
def test_any_number_of_ranks_is_given_the_same_texts_and_knows_them_all(config, ranks):
    one = config()
    for step in (0, 3):
        whole, texts = fed(one, step)
        works = [fed(one, step, rank, ranks) for rank in range(ranks)]
        joined = {side: [] for side in SIDES}
        for rank, (work, own) in enumerate(works):
            sizes = work.sizes
            of_sides = (sizes.pairs, sizes.pairs, sizes.negatives, sizes.translations, sizes.queries)
            counts = [of_ranks[rank] for of_ranks in of_sides]
            assert [len(given) for _, given in own] == [count for count in counts if count]
            given = iter(own)
            for side, count in zip(SIDES, counts, strict=True):
                joined[side] += next(given)[1] if count else []
            for known in ("owners", "ids"):
                for x, y in zip(vars(getattr(work, known)).values(), vars(getattr(whole, known)).values(), strict=True):
                    assert torch.equal(x, y)
        assert [*joined.values()] == [given for _, given in texts]


def test_a_plain_loss_is_given_what_it_was_given_before(config):
    one = config(**{"loss.positives": "own", "loss.translations": 0, "loss.terms": {"contrastive": 1}})
    work, texts = fed(one, 2)
    _, with_more = fed(config(), 2)
    assert texts == with_more[:3]
    assert work.owners is None
    assert not work.sizes.translations
    assert not work.sizes.queries


def test_parallel_sentences_bring_along_languages_that_the_pair_does_not_have(config):
    table = [{"id": i, "text": {x: f"sentence {i} {x}" for x in LANGUAGES}} for i in range(20)]
    one = config(table, **{"batching.mode": "cross-lingual", "loss.hard_negatives": 0})
    work, texts = fed(one, 1)
    queries, passages, translations, translated = ([*map(parts, x)] for _, x in texts)
    assert len(translations) == len(translated) == 11
    for query, passage, *others in zip(queries, passages, translations, translated, strict=True):
        for other in others:
            assert {query[2], passage[2], other[2]} == set(LANGUAGES)
            assert query[1] == other[1]
    assert sum(work.sizes.negatives) == 0


def test_where_no_row_has_another_language_no_rank_has_any(config):
    table = [
        {"id": i, "query": {x: f"question {i} {x}"}, "passage": {x: f"answer {i} {x}"}}
        for i, x in enumerate(LANGUAGES * 10)
    ]
    work, texts = fed(config(table, **{"batching.mode": "multilingual"}), 0)
    assert len(texts) == 2
    assert (work.sizes.translations, work.sizes.queries) == ((), ())


def test_work_on_its_way_to_a_device_has_all_of_it(config):
    work, _ = fed(config(), 0)
    meta = work.to(torch.device("meta"))
    assert {x.device.type for x in meta.tensors()} == {"meta"}
    assert len(list(meta.tensors())) == len(list(work.tensors())) == sum(len(c.batches) for c in work.chunks) * 3 + 5


def test_what_one_model_says_as_guide_and_teacher_is_copied_once(config):
    work, _ = fed(config(), 0)
    vectors, other = (Reference(torch.zeros(2, 3), torch.zeros(2, 3)) for _ in range(2))
    for guide, teacher in ((vectors, vectors), (vectors, other), (None, other)):
        meta = replace(work, references=References(guide, teacher)).to(torch.device("meta")).references
        assert (meta.guide is meta.teacher) == (guide is teacher)
        assert meta.teacher.q_bE.device.type == "meta"
