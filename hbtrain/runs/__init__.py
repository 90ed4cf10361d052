"""Runs: from a configuration to a trained, evaluated and tracked model. The only package that drives Ray.

Actors and tasks import their one module of it, so that the small ones start without torch.
"""
