"""Runs: from a configuration to a trained, evaluated and tracked model. The only package that drives Ray."""

from hbtrain.launch.run import Outcome, train
from hbtrain.launch.verify import verify

__all__ = ["Outcome", "train", "verify"]
