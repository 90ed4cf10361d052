"""Runs: from a configuration to a trained, evaluated and tracked model. The only package that drives Ray."""

from hbtrain.launch.run import Outcome, train

__all__ = ["Outcome", "train"]
