"""Readers of raw sources for `hbtrain prepare`, one file a form."""
