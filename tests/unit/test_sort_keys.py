"""Keys of a score and a place: their order, what they are made of, and the greatest of them."""

import numpy as np
import pytest
import torch

from hbtrain.retrieval import sort_keys
from hbtrain.retrieval.sort_keys import PLACES, count_above, keys_of, lowest_keys, merge_best, scores_and_places

LEAST = float(np.finfo(np.float32).tiny)
SCORES = torch.tensor([[0.5, -0.0, 0.0, -3.5, 0.5, LEAST, -LEAST / 2, 3e38, -3e38, -3.5]])


def test_keys_are_in_the_order_of_scores_and_ties_in_that_of_places():
    keys = keys_of(SCORES, 7)[0].tolist()
    order = sorted(range(len(keys)), key=lambda i: -keys[i])
    assert order == sorted(range(len(keys)), key=lambda i: (-SCORES[0, i].item(), i))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("first", [0, 7, PLACES - 10])
def test_a_key_gives_back_its_score_and_its_place(first):
    scores, places = scores_and_places(keys_of(SCORES, first))
    assert torch.equal(scores, SCORES)
    assert places.tolist() == [list(range(first, first + 10))]
    assert (
        (lowest_keys(SCORES) <= keys_of(SCORES, first)) & (keys_of(SCORES, first) < lowest_keys(SCORES) + PLACES)
    ).all()


def test_a_pool_with_more_places_than_a_key_is_refused():
    with pytest.raises(ValueError, match="more than 4294967296 candidates"):
        keys_of(SCORES, PLACES - 9)


@pytest.mark.parametrize("compared", [0, 96])
def test_keys_above_bounds_are_counted_by_comparing_and_by_sorting(monkeypatch, compared):
    monkeypatch.setattr(sort_keys, "COMPARED", compared)
    keys = torch.from_numpy(np.random.default_rng(0).integers(-5, 6, (7, 40)))
    bounds = torch.from_numpy(np.random.default_rng(1).integers(-7, 8, (7, 4)))
    assert torch.equal(count_above(keys, bounds), (keys[:, :, None] > bounds[:, None]).sum(1))


@pytest.mark.parametrize(("held", "columns", "depth"), [(0, 3, 5), (2, 100, 2), (5, 97, 5), (3, 1, 3), (1, 500, 4)])
def test_the_greatest_of_what_is_held_and_what_comes(held, columns, depth):
    rng = np.random.default_rng(columns)
    keys = torch.from_numpy(rng.permuted(np.tile(np.arange(held + columns), (6, 1)), axis=1))
    best = keys[:, :held].sort(dim=1, descending=True).values
    found = merge_best(best, keys[:, held:], depth)
    assert torch.equal(found, keys.sort(dim=1, descending=True).values[:, :depth])
