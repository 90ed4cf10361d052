"""Readers of `hbtrain prepare`: raw files (`hbtrain.formats`) become texts with keys and pairs of keys (`items`)."""
