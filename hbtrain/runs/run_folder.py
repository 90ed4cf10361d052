"""The folder of a run: where its configuration, checkpoints, models and results are.

It is on disk or in remote storage. Remote storage holds all of the run: each process copies what it reads to its own
disk, and uploads what it has written before it reports it, so that a run can go on from any machine.

The folder's name follows from the configuration, so that the same command goes on with a run that was cut off. A
finished run is not changed; the same command then begins a new one, in a folder with a number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hbtrain.config import Config, to_yaml, training_values, without_passwords
from hbtrain.errors import StorageError
from hbtrain.storage import Place, folders_in, place, write_text
from hbtrain.storage.files import make_folder
from hbtrain.storage.lease import Lease
from hbtrain.tracking.tracker import UNDELIVERED

PARALLEL_READS = 8


class UsageTotals(BaseModel):
    """What a run has used, over all its attempts."""

    model_config = ConfigDict(frozen=True, extra="allow")

    worker_s: float = 0.0  # seconds of all workers together
    gpu_s: float = 0.0  # seconds of all their GPUs together
    pairs: float = 0.0  # pairs trained on, repeated steps included
    tokens: float = 0.0  # tokens of these pairs

    def __add__(self, other: UsageTotals) -> UsageTotals:
        return UsageTotals(
            worker_s=self.worker_s + other.worker_s,
            gpu_s=self.gpu_s + other.gpu_s,
            pairs=self.pairs + other.pairs,
            tokens=self.tokens + other.tokens,
        )


class RunState(BaseModel):
    """The state of a run, or of a sweep, that outlives its processes: the content of its `run.json`.

    The aliases are the names in the file. Unknown names in the file, as a later version may write, are preserved.
    """

    model_config = ConfigDict(frozen=True, extra="allow", validate_by_name=True, validate_by_alias=True)

    mlflow_run_id: str | None = None  # id of its MLflow run
    usage: UsageTotals = UsageTotals()  # what it has used so far
    finished: bool = False  # whether it was trained, evaluated and reported to MLflow as a whole
    # the step where training was stopped last, to go on later
    stopped_at: int | None = Field(default=None, alias="stopped_at_step")
    # the options that its scores were measured with (see `hbtrain.runs.segments.measured_by`)
    measured: dict[str, Any] | None = None
    measured_steps: dict[str, dict[str, Any]] | None = None  # the same of each file in `results-steps`, by its name
    # id of the MLflow run from whose checkpoint it began
    continues: str | None = Field(default=None, alias="continues_run")
    inputs: dict[str, str] | None = None  # digests of the contents that it reads (see `hbtrain.runs.run_inputs`)
    batch_plan: str | None = None  # fingerprint of its first 16 batches
    data_sets: dict[str, dict[str, Any]] | None = None
    """{`sources/mmarco`: repositories, revisions and digests} of the catalogue's data sets that it reads."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, and the paths in it."""

    path: Place
    lease: Lease | None = field(default=None, compare=False)  # checked before each change of the state, if it is given

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> Place:
        """File with the resolved configuration, as YAML."""
        return self.path / "config.yaml"

    @property
    def initial_model(self) -> Place:
        """Folder of the encoder before training."""
        return self.path / "initial"

    @property
    def model(self) -> Place:
        """Folder of the trained encoder."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Place:
        """Folder of checkpoints; Ray Train stores its own files of the run there as well."""
        return self.path / "ray"

    @property
    def results(self) -> Place:
        """Folder of the trained encoder's scores."""
        return self.path / "results"

    @property
    def results_before(self) -> Place:
        """Folder of the scores before training."""
        return self.path / "results-before"

    @property
    def results_steps(self) -> Place:
        """Folder with the scores at each step where training was stopped (see `hbtrain.runs.segments`)."""
        return self.path / "results-steps"

    @property
    def undelivered(self) -> Place:
        """File with the messages that MLflow has not received yet."""
        return self.path / UNDELIVERED

    def undelivered_of_others(self) -> list[Place]:
        """The files of undelivered MLflow messages of finished runs in the same storage."""
        return self.undelivered_in(self.path.parent)

    @staticmethod
    def undelivered_in(root: Place) -> list[Place]:
        """The files of undelivered MLflow messages of the finished runs in a folder: a request for each run there."""
        files = [root / name / UNDELIVERED for name in folders_in(root, "*")]
        with ThreadPoolExecutor(PARALLEL_READS) as pool:
            exists = pool.map(lambda file: file.exists(), files)
            existing = [file for file, found in zip(files, exists, strict=True) if found]
        return [file for file in existing if RunFolder(file.parent)._is_known_to_be_finished]

    @classmethod
    def open(cls, config: Config) -> RunFolder:
        """The folder of this configuration's unfinished run, or a new one; writes the configuration into it.

        Raises:
            StorageError: the storage cannot be written.
        """
        folder = cls.current(config)
        folder.write_config(config)
        return folder

    def write_config(self, config: Config) -> None:
        """Write the configuration, without passwords; the folder is made if it is not there. Raises StorageError."""
        try:
            if isinstance(self.path, Path):
                make_folder(self.path)
            write_text(self.config, without_passwords(to_yaml(config)))
        except OSError as error:
            raise StorageError(
                f"storage = {config.storage!r} cannot be written: {error.strerror} ({self.path})"
            ) from error

    @classmethod
    def current(cls, config: Config) -> RunFolder:
        """The folder of this configuration's unfinished run, or of the run to come; creates nothing."""
        return next(folder for folder in cls._numbered(config) if not folder.is_finished)

    @classmethod
    def finished(cls, config: Config) -> list[RunFolder]:
        """The folders of the finished runs of this configuration, oldest first."""
        return list(takewhile(lambda folder: folder.is_finished, cls._numbered(config)))

    @classmethod
    def _numbered(cls, config: Config) -> Iterator[RunFolder]:
        """The folders of the first, second, ... run of this configuration, existing or not; without end."""
        digest = hashlib.sha256(json.dumps(training_values(config), sort_keys=True).encode()).hexdigest()[:8]
        root = cls._root(config)
        base = f"{config.name}-{digest}"
        yield cls(root / base)
        yield from (cls(root / f"{base}-{number}") for number in count(2))

    @staticmethod
    def _root(config: Config) -> Place:
        root = place(config.storage)
        return root.absolute() if isinstance(root, Path) else root

    def delete_ray_checkpoint_list(self) -> None:
        """Delete Ray Train's own list of checkpoints.

        hbtrain finds checkpoints by their manifests. Ray Train does not write its list atomically: with one that a kill
        cut off, or that names a deleted checkpoint, it would never start in this folder again.
        """
        (self.checkpoints / "checkpoint_manager_snapshot.json").unlink(missing_ok=True)

    @property
    def is_finished(self) -> bool:
        """Whether the run is finished. Raises StorageError where `state` does."""
        return self.state.finished

    @property
    def _is_known_to_be_finished(self) -> bool:
        try:
            return self.is_finished
        except StorageError:
            return False

    @property
    def _state_file(self) -> Place:
        return self.path / "run.json"

    @property
    def state(self) -> RunState:
        """The run's state; the default one where the run has not begun.

        Raises:
            StorageError: the file cannot be read, or is damaged.
        """
        file = self._state_file
        try:
            return RunState.model_validate_json(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return RunState()
        except OSError as error:
            raise StorageError(f"cannot read {file}: {error.strerror or error}") from error
        except ValueError as error:
            raise StorageError(
                f"{file} is damaged ({_reason(error)}), so what it knew of the run is lost: put a copy of it back, or "
                "delete it, and the run counts as unfinished and goes on from its last checkpoint as a new MLflow run"
            ) from error

    def check_lease(self) -> None:
        """Raise LeaseLostError if another process drives the run now; OSError if the storage does not answer."""
        if self.lease is not None:
            self.lease.check()

    def update(self, **fields: Any) -> None:
        """Set fields of the state, and write it to storage. One process at a time may do so.

        Raises:
            StorageError: the state cannot be read or written.
            LeaseLostError: another process drives the run now; nothing was written.
        """
        if unknown := fields.keys() - RunState.model_fields.keys():
            raise TypeError(f"a run's state has no {', '.join(sorted(unknown))}")
        state = RunState.model_validate(self.state.model_dump(exclude_unset=True) | fields)
        try:
            self.check_lease()
            write_text(self._state_file, state.model_dump_json(by_alias=True, exclude_unset=True))
        except OSError as error:
            raise StorageError(f"cannot write {self._state_file}: {error.strerror or error}") from error


def _reason(error: ValueError) -> str:
    """What is wrong with a state file, without the value itself."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return ": ".join([".".join(map(str, first["loc"])), first["msg"]] if first["loc"] else [first["msg"]])
    return "it is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
