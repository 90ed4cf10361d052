"""Evaluation: benchmarks, metrics from exact ranks, and how results are stored and shown."""
