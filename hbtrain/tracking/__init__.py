"""MLflow, written and read; the only package that imports it."""
