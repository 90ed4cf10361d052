"""Readers of `hbtrain prepare`: they make texts with keys and pairs of keys (`items`) of raw files (`hbtrain.formats`)."""
