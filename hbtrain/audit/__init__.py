"""What the batches of a run will be like, from its plan alone: counts, collisions, tokens, memory."""

from hbtrain.audit.audit import Audit, audit

__all__ = ["Audit", "audit"]
