"""Benchmarks as they are published, one file a form."""
