"""Checkpoints that are not what they were."""

from tests.faults.hurt import NO_SCORES, HurtRun, Seen
from tests.faults.row import Row, line_with, survived


def damaged(folder, what, hurt):
    """The newest checkpoint is hurt between a killed command and the same command again."""
    with HurtRun(folder, *NO_SCORES) as run:
        run.wait_for("checkpoint of step 100 kept")
        run.kill_all()
    checkpoints = sorted((folder / "runs").glob("quickstart-*/*/step-*"))
    newest = max(int(path.name.split("-")[1]) for path in checkpoints)
    for checkpoint in checkpoints:
        if int(checkpoint.name.split("-")[1]) == newest:
            hurt(max(checkpoint.rglob("*.pt"), key=lambda file: file.stat().st_size))
    with HurtRun(folder, *NO_SCORES) as run:
        seen = Seen.of(run)
    words = line_with("damaged", seen.output)
    checks = survived(seen) | {
        "the one before is taken": seen.resumed == [newest - 50],
        "says so": f"checkpoint of step {newest} is damaged" in words,
    }
    return Row(
        f"checkpoint {what}", "killed command; newest checkpoint hurt; the same command again", seen, words, checks
    )


def checkpoint_truncated(folder):
    """A file of the newest checkpoint is cut off."""
    return damaged(folder, "truncated", lambda file: file.write_bytes(file.read_bytes()[:1000]))


def checkpoint_incomplete(folder):
    """A file of the newest checkpoint is missing."""
    return damaged(folder, "with a file missing", lambda file: file.unlink())
