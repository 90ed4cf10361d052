"""Rates that hbtrain doctor measures, on gloo ranks; and that wrong results are noticed."""

import pytest
import torch
import torch.distributed as dist

from hbtrain.doctor import ranks
from tests.distributed.ranks import run_ranks

CPU = torch.device("cpu")


def gather():
    return ranks.all_gather_rate(CPU)


def gather_what_was_not_sent():
    real = dist.all_gather

    def wrong(parts, own):
        real(parts, own)
        parts[-1][-1] += 1

    dist.all_gather = wrong
    try:
        ranks.all_gather_rate(CPU)
    except RuntimeError as error:
        return str(error)


def test_three_ranks_gather():
    rates = run_ranks(gather, 3)
    assert all(0 < rate < 1000 for rate in rates)


def test_what_arrives_is_compared_with_what_was_sent():
    assert run_ranks(gather_what_was_not_sent, 2) == ["an all-gather brings other values than were sent"] * 2


def test_a_product(monkeypatch):
    assert 0 < ranks.product_rate(CPU) < 1000
    real = torch.Tensor.__matmul__

    def wrong(one, other):
        return real(one, other) * (1.1 if one.dtype == torch.bfloat16 else 1)

    monkeypatch.setattr(torch.Tensor, "__matmul__", wrong)
    with pytest.raises(RuntimeError, match="a matrix product in bf16 is wrong"):
        ranks.product_rate(CPU)
