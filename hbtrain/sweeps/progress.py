"""What a sweep prints while it runs: a line when a trial starts, at each rung of a search, and when a trial ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ray.tune import Callback

from hbtrain.reporting.console import TextConsole
from hbtrain.sweeps.drivers import FAILURE, STEP, trial_label


class _Progress(Callback):
    """Ray Tune's callback on the events of trials. It is pickled, and therefore holds no console."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def _say(self, text: str) -> None:
        clock = f"{time.monotonic() - self._began:5.0f} s"
        TextConsole().print(f"{clock}  {text}", soft_wrap=True)


class GridProgress(_Progress):
    """Prints, for trials that are all trained in full, how each ends, and about how long the others will take."""

    def __init__(self, labels: list[str], side_by_side: int) -> None:
        super().__init__()
        self._labels = labels
        self._side_by_side = side_by_side
        self._started: dict[int, float] = {}
        self._durations: list[float] = []

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["trial"]
        self._started[number] = time.monotonic()
        self._say(f"{self._labels[number]}  started")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has succeeded, or failed with an error that the user can mend."""
        self._end(trial, str((trial.last_result or {}).get(FAILURE) or ""))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "its driver died")

    def _end(self, trial: Any, failure: str) -> None:
        number = trial.config["trial"]
        seconds = time.monotonic() - self._started.get(number, self._began)
        self._durations.append(seconds)
        how = f"failed after {seconds:.0f} s: {failure}" if failure else f"finished in {seconds:.0f} s"
        left = len(self._labels) - len(self._durations)
        outlook = ""
        if left:
            mean = sum(self._durations) / len(self._durations)
            outlook = f"; {left} to go, about {max(1, round(mean * left / self._side_by_side / 60))} min"
        self._say(f"{self._labels[number]}  {how}{outlook}")


class SearchProgress(_Progress):
    """Prints, for trials that are evaluated at rungs and may be stopped there or changed, their scores and their ends.

    Args:
        objectives: names of the scores that are printed.
        trials: how many there will be.
        steps: of the whole training.
    """

    def __init__(self, objectives: tuple[str, ...], trials: int, steps: int) -> None:
        super().__init__()
        self._objectives = objectives
        self._left = trials
        self._steps = steps
        self._labels: dict[str, str] = {}
        self._started: dict[str, float] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's driver starts, for the first time or after a pause."""
        label, known = trial_label(trial.config), self._labels.get(trial.trial_id)
        self._started.setdefault(trial.trial_id, time.monotonic())
        self._labels[trial.trial_id] = label
        if known is None:
            self._say(f"{label}  started")
        elif known != label:
            self._say(f"{known}  is given up; in its place another one goes on as {label}")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        failure = result.get(FAILURE)
        if failure:
            self._say(f"{self._label(trial)}  failed: {failure}")
        elif STEP in result:
            self._say(f"{self._label(trial)}  step {result[STEP]} of {self._steps}: {self._scores(result)}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended, or was stopped because of its scores."""
        result = trial.last_result or {}
        if result.get(FAILURE):
            self._end(trial, "failed")
        elif result.get(STEP, 0) < self._steps:
            self._end(trial, f"stopped at step {result.get(STEP, 0)}, others are better,")
        else:
            self._end(trial, "finished")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "failed, as its driver died,")

    def _end(self, trial: Any, how: str) -> None:
        seconds = time.monotonic() - self._started.get(trial.trial_id, self._began)
        self._left -= 1
        left = f"; {self._left} to go" if self._left > 0 else ""
        self._say(f"{self._label(trial)}  {how} after {seconds:.0f} s{left}")

    def _label(self, trial: Any) -> str:
        return self._labels.get(trial.trial_id) or trial_label(trial.config)

    def _scores(self, result: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {result[name]:.4g}" for name in self._objectives if name in result)
