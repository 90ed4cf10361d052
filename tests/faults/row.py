"""What a scenario reports: a row of the table of faults."""

from dataclasses import dataclass

from tests.faults.hurt import Seen


@dataclass
class Row:
    """A fault, what was done, and what was seen.

    Attributes:
        fault: in a few words.
        done: what was done to bring it about.
        seen: the run at its end.
        said: the line of the output that speaks of it.
        checks: {what is to be true: whether it was}.
    """

    fault: str
    done: str
    seen: Seen
    said: str
    checks: dict

    @property
    def good(self):
        """Whether all is as it should be."""
        return all(self.checks.values())


def line_with(words, output):
    """The last line of `output` that holds `words`; empty if none does."""
    return next((line.strip() for line in reversed(output.splitlines()) if words in line), "")


def no_traceback(seen):
    """For `checks`: users see no traceback."""
    return {"no traceback": "Traceback" not in seen.output}


def survived(seen, steps=300):
    """For `checks`: the run came to its end, in one MLflow run."""
    return {
        "exit code 0": seen.exit_code == 0,
        "all steps": f"step {steps}/{steps}" in seen.output,
        "one MLflow run, FINISHED": seen.mlflow == ["FINISHED"],
    } | no_traceback(seen)


class Skipped(Exception):  # noqa: N818
    """This machine does not allow what the scenario needs."""
