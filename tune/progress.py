"""What a sweep says while it goes on: a line when a trial starts, and one when it ends."""

from __future__ import annotations

import time
from typing import Any

from ray.tune import Callback
from rich.console import Console


class Progress(Callback):
    """Told by Ray Tune of each trial. It must pickle, and so holds no console."""

    def __init__(self, labels: list[str], at_once: int) -> None:
        self._labels = labels
        self._at_once = at_once
        self._began = time.monotonic()
        self._started: dict[int, float] = {}
        self._durations: list[float] = []

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's driver starts."""
        number = trial.config["trial"]
        self._started[number] = time.monotonic()
        self._say(f"{self._labels[number]}  started")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial came to its end, by success or by an error that the user can mend."""
        self._end(trial, str((trial.last_result or {}).get("failure") or ""))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's driver died too often."""
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
            outlook = f"; {left} to go, about {max(1, round(mean * left / self._at_once / 60))} min"
        self._say(f"{self._labels[number]}  {how}{outlook}")

    def _say(self, text: str) -> None:
        clock = f"{time.monotonic() - self._began:5.0f} s"
        Console().print(f"{clock}  {text}", highlight=False, soft_wrap=True, markup=False)
