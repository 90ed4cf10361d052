"""What a sweep prints while it runs: a line when a trial starts, at each rung of a search, and when a trial ends."""

from __future__ import annotations

import time
from typing import Any

from ray.tune import Callback

from hbtrain.cluster.termination import asked_by, listen_again
from hbtrain.cluster.trial_stop import announce, await_trials
from hbtrain.errors import Terminated
from hbtrain.reporting.text import counted, say
from hbtrain.sweeps.drivers import FAILURE, GOES_ON, STEP, trial_label


class _Progress(Callback):
    """Ray Tune's callback on the events of trials, which may start more than once. It is pickled."""

    def __init__(self, trials: int) -> None:
        self._began = time.monotonic()
        self._trials = trials
        self._labels: dict[str, str] = {}
        self._started: dict[str, float] = {}
        self._durations: list[float] = []

    def setup(self, **info: Any) -> None:
        """Ray Tune has set up its own handlers of signals."""
        listen_again()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """If a signal has asked for the end, wait until the trials that train have kept a checkpoint, and end."""
        if (name := asked_by()) is None:
            return
        self._say(f"{name}: trials that train keep a checkpoint, and then this ends; a second signal ends it at once")
        announce(name)
        if left := await_trials():
            self._say(f"{counted(left, 'trial')} did not end in time")
        raise Terminated(f"ended by {name}; {GOES_ON}")  # not one that Tune would catch

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        label, known = trial_label(trial.config), self._labels.get(trial.trial_id)
        self._started.setdefault(trial.trial_id, time.monotonic())
        self._labels[trial.trial_id] = label
        if known is None:
            self._say(f"{label}  started")
        elif known != label:
            self._say(f"{known}  is given up; in its place another one goes on as {label}")

    def _say(self, text: str) -> None:
        say(f"{time.monotonic() - self._began:5.0f} s  {text}")

    def _ended(self, trial: Any) -> tuple[str, float, int]:
        """(label of a trial that has ended, the seconds it took, how many are to go)."""
        seconds = time.monotonic() - self._started.get(trial.trial_id, self._began)
        self._durations.append(seconds)
        return self._label(trial), seconds, self._trials - len(self._durations)

    def _label(self, trial: Any) -> str:
        return self._labels.get(trial.trial_id) or trial_label(trial.config)


class GridProgress(_Progress):
    """Prints, for trials that are all trained in full, how each ends, and about how long the others will take."""

    def __init__(self, trials: int, side_by_side: int) -> None:
        super().__init__(trials)
        self._side_by_side = side_by_side

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has succeeded, or failed with an error that the user can mend."""
        self._end(trial, str((trial.last_result or {}).get(FAILURE) or ""))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "its driver died")

    def _end(self, trial: Any, failure: str) -> None:
        label, seconds, left = self._ended(trial)
        how = f"failed after {seconds:.0f} s: {failure}" if failure else f"finished in {seconds:.0f} s"
        outlook = ""
        if left:
            mean = sum(self._durations) / len(self._durations)
            outlook = f"; {left} to go, about {max(1, round(mean * left / self._side_by_side / 60))} min"
        self._say(f"{label}  {how}{outlook}")


class SearchProgress(_Progress):
    """Prints, for trials that are evaluated at rungs and may be stopped there or changed, their scores and their ends.

    Args:
        objectives: names of the scores that are printed.
        trials: how many there will be.
        steps: of the whole training.
    """

    def __init__(self, objectives: tuple[str, ...], trials: int, steps: int) -> None:
        super().__init__(trials)
        self._objectives = objectives
        self._steps = steps

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if result.get(FAILURE):
            self._say(f"{self._label(trial)}  failed: {result[FAILURE]}")
        elif STEP in result:
            scores = ", ".join(f"{name} {result[name]:.4g}" for name in self._objectives if name in result)
            self._say(f"{self._label(trial)}  step {result[STEP]} of {self._steps}: {scores}")

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
        label, seconds, left = self._ended(trial)
        self._say(f"{label}  {how} after {seconds:.0f} s" + (f"; {left} to go" if left > 0 else ""))
