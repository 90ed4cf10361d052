"""The best encoder so far: by which figure, of which step, and when training stops because none is better.

The figure is the validation loss, or the score that `evaluation.keep_best` names. The state is part of checkpoints. The
encoder itself lies in the run's folder of the trained model, with a file beside its weights that says which it is: a
run that goes on relies on the state only where both are of one encoder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

from hbtrain.reporting.metric_names import sign
from hbtrain.storage import Place, RemoteError, is_whole

VALIDATION_LOSS = "validation/loss"
BEST = "best.json"  # file in the folder of a trained model that was chosen by a figure


class Best(NamedTuple):
    """An encoder that was chosen by a figure."""

    step: int  # steps it was trained
    value: float  # of the figure, at that step


def best_text(best: Best, metric: str) -> str:
    """The content of `BEST`."""
    return json.dumps({"step": best.step, "metric": metric, "value": best.value}) + "\n"


def best_in(model: Place) -> Best | None:
    """Which encoder a folder of a trained model holds; None if it was not chosen by a figure, or is not there.

    Raises:
        RemoteError: remote storage does not answer.
    """
    if not is_whole(model):
        return None
    try:
        found = json.loads((model / BEST).read_text(encoding="utf-8"))
        return Best(int(found["step"]), float(found["value"]))
    except FileNotFoundError:
        return None
    except RemoteError:  # nothing is known of the model
        raise
    except (OSError, ValueError, TypeError, KeyError):
        return None


@dataclass
class Patience:
    """The best figure so far, and early stopping: how many figures have come since that are not better."""

    limit: int | None  # figures without improvement after which to stop; None means never
    metric: str = VALIDATION_LOSS  # the figure: this, or a score such as `demo/multi/map`
    best: Best | None = None  # None before the first figure
    waited: int = 0  # figures since then

    def improved(self, value: float, step: int) -> bool:
        """Record the figure of a step; True if it is the best so far. Of equal ones the first is the best."""
        before = float("inf") if self.best is None else -self._sign * self.best.value
        if -self._sign * value < before:  # false for nan
            self.best, self.waited = Best(step, value), 0
            return True
        self.waited += 1
        return False

    @property
    def _sign(self) -> int:
        return -1 if self.metric == VALIDATION_LOSS else sign(self.metric.rpartition("/")[2])

    @property
    def exhausted(self) -> bool:
        """Whether training is to stop."""
        return self.limit is not None and self.waited >= self.limit

    @property
    def reason(self) -> str:
        """Why training stops, in words."""
        figure = "validation loss" if self.metric == VALIDATION_LOSS else self.metric
        return f"stopped early: no better {figure}" + (f" than {self.best.value:.4f}" if self.best else "")
