"""The per-worker training loop; imports neither ray nor mlflow."""
