"""The gathered loss against a plain single process that holds the whole score matrix."""

import itertools

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from hbtrain.batching import shard_sizes
from hbtrain.config.schema import LossConfig
from hbtrain.modeling.gather import ProcessGroup
from hbtrain.modeling.loss import PairIds, contrastive_loss
from tests.distributed.ranks import run_ranks

B, D, TEMPERATURE = 11, 6, 0.1
CASES = list(itertools.product([False, True], [False, True], [2, 1000]))
"""symmetric, duplicates, block_rows"""


def batch():
    torch.manual_seed(3)
    q, p = torch.randn(B, D, dtype=torch.float32), torch.randn(B, D, dtype=torch.float32)
    queries = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1])
    passages = torch.tensor([0, 1, 2, 3, 4, 4, 6, 7, 8, 0, 10])
    return q, p, queries, passages


def reference(symmetric, duplicates):
    """Value and gradients by autograd over the full matrix."""
    q, p, queries, passages = batch()
    q.requires_grad_(), p.requires_grad_()
    scores = normalize(q, dim=1) @ normalize(p, dim=1).T / TEMPERATURE
    if duplicates:
        same = (queries[:, None] == queries) | (passages[:, None] == passages)
        scores = scores.masked_fill(same & ~torch.eye(B, dtype=bool), float("-inf"))
    target = torch.arange(B)
    loss = cross_entropy(scores, target)
    if symmetric:
        loss = (loss + cross_entropy(scores.T, target)) / 2
    loss.backward()
    return loss.item(), q.grad, p.grad


def on_rank():
    """The rank's loss and the gradients of its rows, for every case."""
    group = ProcessGroup()
    sizes = shard_sizes(B, group.world_size)
    start = sum(sizes[: group.rank])
    own = slice(start, start + sizes[group.rank])
    answers = []
    for symmetric, duplicates, block_rows in CASES:
        q, p, queries, passages = batch()
        q, p = q[own].requires_grad_(), p[own].requires_grad_()
        config = LossConfig(temperature=TEMPERATURE, symmetric=symmetric, block_rows=block_rows)
        ids = PairIds(queries, passages) if duplicates else None
        loss = contrastive_loss(normalize(q, dim=1), normalize(p, dim=1), sizes, group, config, ids)
        loss.backward()
        answers.append((loss.item(), q.grad.numpy(), p.grad.numpy()))
    return answers


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_loss_and_gradients_equal_one_process(world_size):
    ranks = run_ranks(on_rank, world_size)
    for i, (symmetric, duplicates, _) in enumerate(CASES):
        loss, q_grad, p_grad = reference(symmetric, duplicates)
        assert sum(rank[i][0] for rank in ranks) / world_size == pytest.approx(loss, rel=1e-6)
        for column, want in ((1, q_grad), (2, p_grad)):
            # Data parallelism divides the sum over ranks by W; a row's gradient stands on its own rank alone.
            got = torch.cat([torch.from_numpy(rank[i][column]) for rank in ranks]) / world_size
            assert torch.linalg.vector_norm(got).item() == pytest.approx(
                torch.linalg.vector_norm(want).item(), rel=1e-5
            )
            assert torch.cosine_similarity(got.flatten(), want.flatten(), dim=0).item() > 1 - 1e-6
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
