"""Losses that are no numbers."""

from tests.faults.hurt import NO_SCORES, HurtRun, Seen
from tests.faults.row import Row, line_with, no_traceback

# Each step multiplies the weights by 1 - 0.2 x 15 = -2: they overflow after some 120 steps.
DOUBLING = ["--training.weight_decay", "15", "--training.schedule", "constant"]


def loss_of_nan(folder):
    """Weights that double until they overflow; no checkpoint falls on a step that is logged."""

    rare = ["--training.checkpoint_every", "20", "--training.log_every", "1000"]
    with HurtRun(folder, *DOUBLING, *rare, *NO_SCORES, "--resources.workers", "1") as run:
        seen = Seen.of(run)
    words = line_with("error: ", seen.output)
    checkpoints = sorted((run.folder / "runs").glob("quickstart-*/*/step-*"))
    checks = no_traceback(seen) | {
        "exit code 1": seen.exit_code == 1,
        "step and rows": "the loss of step " in words and ", rows " in words,
        "the last good checkpoint": bool(checkpoints) and words.endswith(str(checkpoints[-1])),
        "kept weights are finite": all(map(weights_are_finite, checkpoints)),
        "MLflow run FAILED": seen.mlflow == ["FAILED"],
    }
    return Row("loss of NaN", "weight decay that doubles the weights until they overflow", seen, words, checks)


def weights_are_finite(checkpoint):
    """Of the model's part of a checkpoint."""
    import torch

    files = list(checkpoint.rglob("*model_states.pt"))
    states = [torch.load(file, map_location="cpu", weights_only=False)["module"] for file in files]
    return bool(states) and all(bool(x.isfinite().all()) for state in states for x in state.values())
