"""The folder of a run: where its configuration, checkpoints, models and results are.

The folder's name follows from the configuration, so that the same command goes on with a run that was cut off; a run
that is finished is left alone, and the same command makes a new one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from hbtrain.config import Config, to_flat, to_yaml, without_passwords
from hbtrain.config.keys import ELSEWHERE
from hbtrain.errors import StorageError


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The resolved configuration, as YAML."""
        return self.path / "config.yaml"

    @property
    def initial_model(self) -> Path:
        """The encoder before training."""
        return self.path / "initial"

    @property
    def model(self) -> Path:
        """The trained encoder."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """The checkpoints of training, in what is Ray Train's folder of this run."""
        return self.path / "ray"

    @property
    def results(self) -> Path:
        """What the trained encoder scored."""
        return self.path / "results"

    @property
    def results_before(self) -> Path:
        """What the encoder scored before training."""
        return self.path / "results-before"

    @property
    def results_steps(self) -> Path:
        """What the encoders of earlier steps scored, where training stopped in between."""
        return self.path / "results-steps"

    @classmethod
    def open(cls, config: Config) -> RunFolder:
        """The folder to work in: that of the unfinished run of this configuration, or a new one.

        Raises:
            StorageError: the storage cannot be written.
        """
        folder = cls.current(config)
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.config.write_text(without_passwords(to_yaml(config)), encoding="utf-8")
        except OSError as error:
            raise StorageError(
                f"storage = {config.storage!r} cannot be written: {error.strerror} ({folder.path})"
            ) from error
        return folder

    @classmethod
    def current(cls, config: Config) -> RunFolder:
        """Where the unfinished run of this configuration is, or a new one would be; nothing is made."""
        return next(folder for folder in cls._numbered(config) if not folder.is_finished)

    @classmethod
    def finished(cls, config: Config) -> list[RunFolder]:
        """The folders of the finished runs of this configuration, oldest first."""
        return list(takewhile(lambda folder: folder.is_finished, cls._numbered(config)))

    @classmethod
    def _numbered(cls, config: Config) -> Iterator[RunFolder]:
        """Where the first run of this configuration is, or would be; then the second, and so on."""
        relevant = {key: value for key, value in to_flat(config).items() if not key.startswith(ELSEWHERE)}
        digest = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:8]
        root = Path(config.storage).expanduser().absolute()
        base = f"{config.name}-{digest}"
        yield cls(root / base)
        yield from (cls(root / f"{base}-{number}") for number in count(2))

    def forget_rays_record(self) -> None:
        """Delete Ray Train's own list of checkpoints.

        Training finds them by their manifests. The list is not written in one go: one that a kill cut off, or that
        names a checkpoint that is gone, would keep Ray Train from ever starting in this folder again.
        """
        (self.checkpoints / "checkpoint_manager_snapshot.json").unlink(missing_ok=True)

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end."""
        return self.recall("finished") is True

    def recall(self, key: str) -> Any:
        """What `remember` kept under `key`, or None."""
        try:
            return json.loads((self.path / "run.json").read_text(encoding="utf-8")).get(key)
        except (OSError, ValueError):
            return None

    def remember(self, **values: Any) -> None:
        """Keep values beyond the life of this process."""
        file = self.path / "run.json"
        try:
            known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            temporary = file.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(known | values), encoding="utf-8")
            temporary.replace(file)
        except (OSError, ValueError) as error:
            raise StorageError(f"cannot write {file}: {error}") from error
