"""The batch plan: which pairs are in the global batch of each step, computed without torch and ray."""

from hbtrain.batching.batch import GlobalBatch, shard_sizes
from hbtrain.batching.plan import BatchPlan

__all__ = ["BatchPlan", "GlobalBatch", "shard_sizes"]
