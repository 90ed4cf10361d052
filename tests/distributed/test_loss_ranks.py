"""The gathered loss against a plain single process that holds the whole score matrix."""

import itertools

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from hbtrain.batching import shard_sizes
from hbtrain.config.loss import LossConfig
from hbtrain.modeling.gather import ProcessGroup
from hbtrain.modeling.loss import batch_loss
from hbtrain.modeling.loss_inputs import Embedded, PairIds, Sizes
from tests.distributed.ranks import run_ranks

B, D, TEMPERATURE = 11, 6, 0.1
NEGATIVES = [2, 0, 1, 2, 2, 0, 0, 1, 2, 0, 2]
"""Of each pair: the last shard of two has other numbers of them than the first."""
CASES = list(
    itertools.product(
        [{"symmetric": False}, {"symmetric": True}, {"symmetric": True, "matryoshka_dimensions": (2, 4)}],
        [False, True],
        [False, True],
        [2, 1000],
    )
)
"""configuration, duplicates, negatives, block_rows"""


def batch():
    torch.manual_seed(3)
    q, p = torch.randn(B, D, dtype=torch.float32), torch.randn(B, D, dtype=torch.float32)
    n = torch.randn(sum(NEGATIVES), D)
    queries = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1])
    passages = torch.tensor([0, 1, 2, 3, 4, 4, 6, 7, 8, 0, 10])
    negatives = torch.tensor([7, 20, 21, 22, 10, 24, 24, 27, 28, 29, 30, 0])
    return q, p, n, queries, passages, negatives


def reference(settings, duplicates, negatives):
    """Value and gradients (queries, passages, negatives, 1 / temperature) by autograd over the full matrix."""
    q, p, n, queries, passages, negative_ids = batch()
    scale = torch.tensor([1 / TEMPERATURE])
    for x in (q, p, n, scale):
        x.requires_grad_()
    losses = []
    for d in (*settings.get("matryoshka_dimensions", ()), D):
        c = torch.cat([p, n]) if negatives else p
        ids = torch.cat([passages, negative_ids]) if negatives else passages
        scores = normalize(q[:, :d], dim=1) @ normalize(c[:, :d], dim=1).T * scale
        back = normalize(p[:, :d], dim=1) @ normalize(q[:, :d], dim=1).T * scale
        if duplicates:
            same = passages[:, None] == ids
            same[:, :B] |= queries[:, None] == queries
            same[range(B), range(B)] = False
            scores = scores.masked_fill(same, float("-inf"))
            back = back.masked_fill(same[:, :B], float("-inf"))
        target = torch.arange(B)
        loss = cross_entropy(scores, target)
        losses.append((loss + cross_entropy(back, target)) / 2 if settings["symmetric"] else loss)
    loss = sum(losses) / len(losses)
    loss.backward()
    return loss.item(), [q.grad, p.grad, n.grad if negatives else torch.zeros_like(n), scale.grad]


def on_rank():
    """The rank's loss and the gradients of its rows, for every case."""
    group = ProcessGroup()
    pairs = shard_sizes(B, group.world_size)
    bounds = [sum(pairs[:r]) for r in range(group.world_size + 1)]
    counts = [sum(NEGATIVES[start:stop]) for start, stop in itertools.pairwise(bounds)]
    own = slice(bounds[group.rank], bounds[group.rank + 1])
    first = sum(counts[: group.rank])
    answers = []
    for settings, duplicates, negatives, block_rows in CASES:
        q, p, n, queries, passages, negative_ids = batch()
        q, p, n = q[own].requires_grad_(), p[own].requires_grad_(), n[first : first + counts[group.rank]]
        n.requires_grad_()
        scale = torch.tensor([1 / TEMPERATURE], requires_grad=True)
        config = LossConfig(block_rows=block_rows, **settings)
        candidates = torch.cat([passages, negative_ids]) if negatives else passages
        ids = PairIds(queries, candidates) if duplicates else None
        sizes = Sizes(pairs, counts if negatives else [0] * group.world_size)
        embedded = Embedded(*(normalize(x, dim=1) for x in (q, p, n if negatives else n[:0])), scale)
        loss = batch_loss(embedded, sizes, group, config, ids).total
        loss.backward()
        n_grad = n.grad if negatives else torch.zeros_like(n)
        answers.append((loss.item(), [x.numpy() for x in (q.grad, p.grad, n_grad, scale.grad)]))
    return answers


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_loss_and_gradients_equal_one_process(world_size):
    ranks = run_ranks(on_rank, world_size)
    for i, (settings, duplicates, negatives, _) in enumerate(CASES):
        loss, wanted = reference(settings, duplicates, negatives)
        assert sum(rank[i][0] for rank in ranks) / world_size == pytest.approx(loss, rel=1e-6)
        for j, want in enumerate(wanted):
            parts = [torch.from_numpy(rank[i][1][j]) for rank in ranks]
            # Data parallelism divides the sum over ranks by W; a row's gradient stands on its own rank alone.
            got = (torch.cat(parts) if j < 3 else sum(parts)) / world_size
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
            if want.any():
                cosine = torch.cosine_similarity(got.flatten(), want.flatten(), dim=0).item()
                ratio = (torch.linalg.vector_norm(got) / torch.linalg.vector_norm(want)).item()
                assert cosine > 1 - 1e-6
                assert ratio == pytest.approx(1, rel=1e-5)
