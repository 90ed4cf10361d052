"""Comparison of runs: who is better, by how much, and whether that is more than luck."""
