"""The batch plan: pure, without torch or ray."""

from hbtrain.batching.batch import GlobalBatch, shard_sizes
from hbtrain.batching.plan import BatchPlan

__all__ = ["BatchPlan", "GlobalBatch", "shard_sizes"]
