"""Deaths of workers: what each died of, in one line, and when to give up restarting them.

Ray Train restarts the workers after a death. How often is up to this module: `training.max_failures` restarts in a row
that bring the run no further. A checkpoint that is newer than at the death before begins the count anew, so that a run
of weeks on machines that come and go ends, while one that dies at the same step again and again is given up.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

from hbtrain.cluster.memory import memory_kills, out_of_memory
from hbtrain.errors import HbtrainError
from hbtrain.events import Event
from hbtrain.reporting.text import counted
from hbtrain.runs.hang_detection import RankProgress
from hbtrain.storage import RemoteError, place
from hbtrain.training.checkpoint_files import checkpoints_in, is_complete, step_of

FOR_LESS_MEMORY = (
    "lower training.chunk_tokens (or raise training.chunks), batching.global_batch_size or loss.block_rows, or use "
    "nodes with more memory"
)


class GivenUpError(Exception):
    """The workers are not restarted any more."""

    def __init__(self, cause: str, why: str) -> None:
        super().__init__(cause, why)
        self.cause = cause  # what they died of last
        self.why = why  # why that was the last time


class Restarts:
    """Counts restarts of the workers, and tells of them. The broker keeps the count: Ray Train's controller may die."""

    def __init__(self, broker: Any, checkpoints: str, max_failures: int) -> None:
        """Count in `broker`.

        Args:
            broker: the handle of the run's `MessageBroker`.
            checkpoints: path or URI of the folder of the run's checkpoints.
            max_failures: restarts without a newer checkpoint before the run is given up; -1: without end.
        """
        self._broker = broker
        self._checkpoints = checkpoints
        self._max_failures = max_failures

    def after_deaths(self, errors: Mapping[int, Exception]) -> None:
        """Count the restart after deaths of workers, and tell of it.

        Args:
            errors: {rank: the error that Ray Train saw of it}; not empty.

        Raises:
            GivenUpError: the workers are not to be restarted.
        """
        is_preempted = any(getattr(error, "preempted", False) for error in errors.values())
        progress = self._progress()
        self._restart(cause_of_death(errors, progress), progress, first_to_die(errors), counts=not is_preempted)

    def after_lost_controller(self, error: OutOfMemoryError | RayActorError) -> None:
        """Count the restart after Ray Train's controller was lost, or gave up as an actor that it needs was.

        Raises:
            GivenUpError: the workers are not to be restarted.
        """
        progress = self._progress()
        for group in {last.group for last in progress.values()}:
            release(group)
        if not isinstance(error, OutOfMemoryError):
            self._restart("an actor of Ray Train, or a worker that began, died", progress, None)
            return
        killed = {(kill.node, kill.pid) for kill in memory_kills(str(error))}
        rank = next((rank for rank, last in progress.items() if (last.node, last.pid) in killed), None)
        unknown = f"{out_of_memory(str(error))}; {FOR_LESS_MEMORY}"
        self._restart(unknown if rank is None else cause_of_death({rank: error}, progress), progress, rank)

    def _progress(self) -> dict[int, RankProgress]:
        import ray

        return {rank.rank: rank for rank in ray.get(self._broker.progress.remote())}

    def _restart(self, cause: str, progress: Mapping[int, RankProgress], rank: int | None, counts: bool = True) -> None:
        """Raise GivenUpError if this restart is one too many, or would end the same way; else tell of it."""
        import ray

        reason = ray.get(self._broker.failure.remote())
        if reason is not None:
            raise GivenUpError(reason, "a restart would end the same way")
        often = ""
        if counts and self._max_failures >= 0:
            restarts = ray.get(self._broker.count_restart.remote(self._furthest_checkpoint()))
            if restarts > self._max_failures:
                before = f"{counted(restarts - 1, 'restart')} in a row" if restarts > 1 else "no restart is allowed"
                raise GivenUpError(cause, f"given up: {before} without a newer checkpoint (training.max_failures)")
            often = f" (restart {restarts} of {self._max_failures} without progress)"
        step = max((rank.step for rank in progress.values()), default=0)
        note = f"{cause}; the workers are restarted from the last checkpoint{often}"
        ray.get(self._broker.put_event.remote(Event(step, {}, note, kind="restart", rank=rank)))

    def _furthest_checkpoint(self) -> int | None:
        """The step of the newest whole checkpoint; 0 without one, None where storage does not answer."""
        folder = place(self._checkpoints)
        with suppress(RemoteError, HbtrainError):
            steps = (step_of(name) for name in checkpoints_in(folder) if is_complete(folder / name))
            return next(steps, 0)
        return None


class WorkerDeaths(WorkerGroupCallback, ControllerCallback):
    """A callback of Ray Train's controller, in whose process it runs: has deaths counted, which may end the run."""

    def __init__(self, restarts: Restarts) -> None:
        self._restarts = restarts
        self._errors: dict[int, Exception] = {}

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Called by Ray Train after each look at the workers."""
        if worker_group_status.errors:
            self._errors = {rank: unwrapped(error) for rank, error in worker_group_status.errors.items()}

    def before_controller_execute_failure_decision(self, failure_decision: Any) -> None:
        """Called by Ray Train before it restarts the workers.

        Raises:
            GivenUpError: they are not to be restarted.
        """
        errors, self._errors = self._errors, {}
        if errors:  # else it was no worker that failed
            self._restarts.after_deaths(errors)


def release(group: str) -> None:
    """End what is left of a group of workers, and free the CPUs and GPUs that Ray keeps for it.

    Ray Train leaves that to another actor, which may have been killed along with the controller.
    """
    import ray
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group))))


def unwrapped(error: Exception) -> Exception:
    """What lies behind the error that Ray Train makes of a failed health check."""
    return getattr(error, "health_check_failure", None) or error


def first_to_die(errors: Mapping[int, Exception]) -> int:
    """The rank whose error explains the others: those of survivors tell of the connection that they lost to it."""
    return min(errors, key=lambda rank: (*_is_no_victim(errors[rank]), rank))


def _is_no_victim(error: Exception) -> tuple[bool, bool]:
    return not isinstance(error, OutOfMemoryError), not isinstance(error, RayActorError)


def cause_of_death(errors: Mapping[int, Exception], progress: Mapping[int, RankProgress]) -> str:
    """One sentence: which rank died, of what, and how much memory it and its node used.

    Args:
        errors: {rank: the error that Ray Train saw of it}; not empty.
        progress: {rank: its last heartbeat}, of those that sent one.
    """
    rank = first_to_die(errors)
    error, last = errors[rank], progress.get(rank)
    who = f"rank {rank}" if last is None else f"rank {rank} on node {last.node} (pid {last.pid})"
    if isinstance(error, OutOfMemoryError):
        kills = memory_kills(str(error))
        own = [kill for kill in kills if last is not None and kill.pid == last.pid] or kills
        used = f": {own[0].use}" if own else ""
        return f"{who} was killed because memory ran out{used}; {FOR_LESS_MEMORY}"
    if not isinstance(error, RayActorError):
        return f"{who} failed: {_first_line(str(error))}"
    if "killed by `ray.kill`" in str(error):
        return f"{who} was killed, as it kept the others waiting"
    if last is not None and last.memory.is_nearly_full:
        return f"{who} died, most likely because memory ran out: {last.memory}; {FOR_LESS_MEMORY}"
    used = f"; {last.memory} then" if last is not None and last.memory.limit else ""
    return f"{who} died{used}"


def _first_line(text: str) -> str:
    """The last line of a traceback, or the only line of a message."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
