"""Laws of chunks: every text once, none lost, padding only within a chunk, one count of batches."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.modeling.features import row_count, select_rows, token_counts
from hbtrain.modeling.packing import packed
from hbtrain.training.chunks import (
    assemble,
    balanced_parts,
    batches_within,
    chunked,
    chunks_within,
    padded_tokens,
    real_tokens,
    with_packed_batches,
)

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def padded(lengths, left=False):
    """Token ids that say which text they belong to."""
    width = max(lengths) + 2
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        where = slice(width - length, width) if left else slice(0, length)
        ids[row, where] = row + 1
        mask[row, where] = 1
    return {"input_ids": ids, "attention_mask": mask, "prompt_length": torch.arange(len(lengths))}


def bags(lengths):
    ids = torch.cat([torch.full((length,), row + 1) for row, length in enumerate(lengths)])
    return {"input_ids": ids, "offsets": torch.tensor([0, *lengths[:-1]]).cumsum(0)}


def texts_of(features):
    """Token ids of each text, without padding."""
    if "offsets" in features:
        return [part.tolist() for part in torch.tensor_split(features["input_ids"], features["offsets"][1:])]
    rows = zip(features["input_ids"], features["attention_mask"], strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in rows]


@given(lengths, st.sampled_from(["right", "left", "bags"]), st.data())
@settings(max_examples=50, deadline=None)
def test_selected_rows_are_the_same_texts(lengths, form, data):
    features = bags(lengths) if form == "bags" else padded(lengths, left=form == "left")
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
    selected = select_rows(features, torch.tensor(rows))
    assert texts_of(selected) == [texts_of(features)[row] for row in rows]
    assert token_counts(selected).tolist() == [lengths[row] for row in rows]
    if form != "bags":
        assert selected["input_ids"].shape[1] == max(lengths[row] for row in rows)
        assert selected["prompt_length"].tolist() == rows


@given(lengths, st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_parts_hold_every_row_once_and_none_is_empty(lengths, count):
    parts = balanced_parts(torch.tensor(lengths), count)
    assert len(parts) == min(count, len(lengths))
    assert all(len(part) for part in parts)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(lengths)))
    largest = max(len(part) * max(lengths[row] for row in part) for part in parts)
    whole = len(lengths) * max(lengths)
    assert largest <= max(*lengths, -(-whole // len(parts)) + max(lengths))
    parts = balanced_parts(torch.tensor(lengths), count, packs=True)
    assert len(parts) == min(count, len(lengths))
    assert sorted(torch.cat(parts).tolist()) == list(range(len(lengths)))
    largest = max(sum(lengths[row] for row in part) for part in parts)
    assert largest <= -(-sum(lengths) // len(parts)) + max(lengths)


@given(st.lists(lengths, min_size=2, max_size=3), st.integers(1, 4), st.integers(1, 3), st.booleans())
@settings(max_examples=50, deadline=None)
def test_assembled_vectors_are_those_of_the_texts_in_order(sides, count, buckets, lacks_negatives):
    features = [padded(side) for side in sides]
    if lacks_negatives:
        features.append(None)
    chunks = chunked(features, count, buckets)
    assert [len(chunk.batches) for chunk in chunks] == [len(features) * buckets] * count
    n = sum(map(len, sides))
    batches = [x for chunk in chunks for x in chunk.batches]
    embedded = [(x["input_ids"].amax(dim=1) * 100 + token_counts(x)).float()[:, None] for x in batches]
    for x in embedded:
        x.requires_grad_()
    whole = assemble(embedded, [positions for chunk in chunks for positions in chunk.positions], n)
    want = [(row + 1) * 100 + length for side in sides for row, length in enumerate(side)]
    assert whole[:, 0].tolist() == want
    whole.sum().backward()
    flowing = sum(x.grad.sum().item() for x in embedded)
    assert flowing == n, "a text embedded again, to keep step with other ranks, has no effect"
    assert sum(row_count(x) for chunk in chunks for x in chunk.batches) >= n


@given(st.lists(lengths, min_size=2, max_size=3), st.integers(1, 4), st.integers(1, 3), st.booleans(), st.booleans())
@settings(max_examples=50, deadline=None)
def test_packed_batches_have_texts_of_all_sides_each_once(sides, count, parts, lacks_negatives, together):
    features = [padded(side) for side in sides] + [None] * lacks_negatives

    def pack(batches):
        return [packed(batches)] if together else [packed([batch]) for batch in batches]

    chunks = [with_packed_batches(chunk, parts, pack) for chunk in chunked(features, count, parts, packs=True)]
    batches = [x for chunk in chunks for x in chunk.batches]
    assert len(batches) == count * parts * (1 if together else len(features))
    embedded = [x["input_ids"][x["starts"][:-1].long()] * 100 + token_counts(x) for x in batches]
    whole = assemble(
        [x.float()[:, None] for x in embedded], [x for chunk in chunks for x in chunk.positions], sum(map(len, sides))
    )
    assert whole[:, 0].tolist() == [(row + 1) * 100 + length for side in sides for row, length in enumerate(side)]
    places = [position for x in batches for position in x["position_ids"].tolist()]
    assert places == [place for x in batches for length in token_counts(x).tolist() for place in range(length)]


@given(lengths, st.integers(1, 400), st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_budget_is_kept_where_it_can_be(lengths, budget, packs):
    sides = [padded(lengths), padded(lengths[::-1])]
    count = chunks_within(sides, budget, len(lengths), packs)
    assert 1 <= count <= len(lengths)
    if count < len(lengths):
        assert max(map(real_tokens if packs else padded_tokens, chunked(sides, count, 1, packs))) <= budget


@given(st.lists(st.tuples(lengths, lengths), min_size=1, max_size=3), st.integers(1, 200))
@settings(max_examples=50, deadline=None)
def test_batches_by_tokens_keep_the_budget_on_every_rank_and_hold_every_text_once(ranks, budget):
    counts = [[batches_within(torch.tensor(side), budget) for side in sides] for sides in ranks]
    agreed = [max(of_side) for of_side in zip(*counts, strict=True)]
    for sides in ranks:
        (chunk,) = chunked([padded(side) for side in sides], 1, agreed)
        assert len(chunk.batches) == sum(agreed)
        longest = max(map(max, sides))
        assert all(features["input_ids"].numel() <= max(budget, longest) for features in chunk.batches)
        n = sum(map(len, sides))
        held = [place for place in torch.cat(chunk.positions).tolist() if place < n]
        assert sorted(held) == list(range(n))


@given(lengths, st.integers(1, 200))
@settings(max_examples=50, deadline=None)
def test_no_fewer_batches_would_keep_the_budget(lengths, budget):
    count = batches_within(torch.tensor(lengths), budget)
    if count > 1:
        parts = balanced_parts(torch.tensor(lengths), count - 1)
        assert any(len(part) * max(lengths[row] for row in part) > budget and len(part) > 1 for part in parts)
