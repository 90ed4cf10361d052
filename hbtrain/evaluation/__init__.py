"""Evaluation: benchmarks, metrics from exact ranks, and how results are kept and shown."""
