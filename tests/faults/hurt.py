"""A run of the quickstart that is to be hurt, and what is seen of it afterwards."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tests.integration.command import PATHS, Command, mlflow_runs

SLOW = [
    "--training.steps", "300", "--training.checkpoint_every", "50", "--training.log_every", "10",
    "--batching.global_batch_size", "64", "--encoder.static.dimension", "128", "--evaluation.before", "false",
]  # fmt: skip
PACE_S = 0.04
"""How much longer each step takes (see `inject`): with it, some 15 seconds of training, with six checkpoints."""

NO_SCORES = ["--evaluation.benchmarks", "[]", "--tracking.log_model", "false"]


class ListeningCommand(Command):
    """A command whose workers listen to the files that `ask` leaves (see `inject`)."""

    def __init__(self, folder, *arguments, **options):
        self.folder = Path(folder)
        self.faults = self.folder / "faults"
        self.faults.mkdir(exist_ok=True)
        paths = os.pathsep.join([str(Path(__file__).parent / "inject"), PATHS])
        super().__init__(folder, *arguments, **{"PYTHONPATH": paths, "HBTRAIN_FAULTS": str(self.faults)} | options)

    def ask(self, what, rank, phase, delay_s=0.0):
        """Have `rank` hang, be killed or take memory (`what`: `hang`, `kill`, `eat`) when it comes to `phase`."""
        temporary = self.faults / "new"
        temporary.write_text(str(delay_s))
        temporary.rename(self.faults / f"{what}-{rank}-{phase}")

    def pid(self, rank):
        """The process of a rank; that of the latest worker group."""
        return int((self.faults / f"rank-{rank}").read_text())


class HurtRun(ListeningCommand):
    """`hbtrain train quickstart ARGUMENTS`."""

    def __init__(self, folder, *arguments, **variables):
        cache = ["--data.cache", Path(folder) / "cache"]
        pace = {"HBTRAIN_PACE_S": str(PACE_S)}
        super().__init__(folder, "train", "quickstart", *SLOW, *cache, *arguments, **pace | variables)


@dataclass
class Seen:
    """What a run showed in the end.

    Attributes:
        exit_code: of the command.
        output: all that it printed.
        resumed: steps that it went on from.
        mlflow: statuses of the MLflow runs.
    """

    exit_code: int
    output: str
    resumed: list
    mlflow: list

    @classmethod
    def of(cls, run, uri=None):
        """Wait for the end of `run`."""
        code = run.finish()
        resumed = [int(x) for x in re.findall(r"goes on from the checkpoint of step (\d+)", run.output)]
        return cls(code, run.output, resumed, [r.info.status for r in mlflow_runs(run.folder, uri)])

    @property
    def last_lines(self):
        """The lines that are no progress."""
        return [line.strip() for line in self.output.splitlines() if line.strip()][-4:]
