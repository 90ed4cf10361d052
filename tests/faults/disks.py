"""Storage that runs full."""

import subprocess
from contextlib import contextmanager

from tests.faults.hurt import NO_SCORES, HurtRun, Seen
from tests.faults.row import Row, Skipped, line_with, survived

# The first model and two checkpoints fit, with MLflow's database; a third one does not.
SMALL, LARGE = "76m", "400m"
WIDE = ["--encoder.static.dimension", "512"]


@contextmanager
def small_disk(folder, size):
    """A file system of its own in `folder`; gives a function that changes its size."""
    folder.mkdir()

    def mount(*options):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True, check=False
        )
        if done.returncode:
            raise Skipped(f"cannot mount a small file system here: {done.stderr.decode().strip()}")

    mount("-o", f"size={size}")
    try:
        yield lambda size: mount("-o", f"remount,size={size}")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def storage_full(folder):
    """The storage has room for two checkpoints; then there is more, and the same command again."""
    with small_disk(folder / "disk", SMALL) as resize:
        arguments = [*NO_SCORES, *WIDE, "--storage", folder / "disk" / "runs"]
        with HurtRun(folder, *arguments) as run:
            code, first = run.finish(), run.output
        kept = sorted(path.name for path in (folder / "disk" / "runs").glob("quickstart-*/*/step-*"))
        resize(LARGE)
        uri = f"sqlite:///{folder / 'disk' / 'runs' / 'mlflow.db'}"
        with HurtRun(folder, *arguments) as run:
            seen = Seen.of(run, uri=uri)
    words = line_with("error: ", first)
    checks = survived(seen) | {
        "exit code 1 or 2 when full": code in {1, 2},
        "no traceback when full": "Traceback" not in first,
        "says what, where and what to do": str(folder / "disk") in words and "make room" in words,
        "earlier checkpoints stay": any(name.startswith("step-00000050") for name in kept),
        "the same command goes on": bool(seen.resumed),
    }
    done = "storage of 76 MiB, full at the third checkpoint; then 400 MiB and the same command again"
    return Row("storage full", done, seen, words, checks)
