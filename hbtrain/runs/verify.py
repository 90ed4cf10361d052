"""`hbtrain verify`: compares the gradient of the configured workers on the cluster with that of one plain process."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import Any

from hbtrain.cluster.session import connected, run_task
from hbtrain.config import Config, absolute_paths, from_tree, to_tree
from hbtrain.errors import StorageError, TrainingError
from hbtrain.events import NullObserver, Observer, SafeObserver
from hbtrain.reporting.text import counted
from hbtrain.runs.preflight import check_storage, preflight
from hbtrain.runs.ray_tasks import build
from hbtrain.storage import Place, RemotePath, as_local, local_copy, place, pushed, quoted, remove_tree
from hbtrain.training.verify import Agreement

GRADIENT = "gradient.safetensors"


def verify(config: Config, step: int = 0, observer: Observer | None = None) -> Agreement:
    """Compare the gradient of one step, as `config` would train it, with that of one plain process; trains nothing.

    Args:
        config: the setup to verify: workers (the most), ZeRO stage, chunks, precision and loss.
        step: the step whose batch is used.
        observer: told of each phase.

    Raises:
        HbtrainError: the input is wrong, or the workers gave no gradient.
    """
    observer = SafeObserver(observer or NullObserver())
    config = absolute_paths(config)
    observer.phase("checking the configuration and the sources")
    check_storage(config)
    preflight(config, observer)
    folder = _scratch(config.storage)
    try:
        observer.phase("starting Ray")
        with connected(config, observer.phase):
            run_task(config, build, to_tree(config), str(folder / "initial"))
            workers = config.resources.max_workers
            observer.phase(f"the gradient of step {step} on {counted(workers, 'worker')}")
            _run_workers(config, folder, step)
            observer.phase("the gradient of one plain process")
            agreement: Agreement = run_task(config, _compare, to_tree(config), str(folder), step)
            return agreement
    finally:
        remove_tree(folder)


def _scratch(storage: str) -> Place:
    """A temporary folder in the storage, which all workers can read."""
    root = place(storage)
    if isinstance(root, RemotePath):
        return root / f"verify-{uuid.uuid4().hex[:8]}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="verify-", dir=root))
    except OSError as error:
        raise StorageError(f"storage = {storage!r} cannot be written: {error.strerror}") from error


def _run_workers(config: Config, folder: Place, step: int) -> None:
    from ray.train.v2.api.exceptions import TrainingFailedError

    from hbtrain.runs.torch_trainer import torch_trainer

    settings = {"config": to_tree(config), "folder": str(folder), "step": step}
    workers = config.resources.max_workers
    trainer = torch_trainer(
        _gradient_on_worker, settings, config.resources, workers, name="ray", storage_path=quoted(folder)
    )
    try:
        trainer.fit()
    except SystemExit as end:  # how Ray Train's own handler of Ctrl-C leaves
        raise KeyboardInterrupt from end
    except TrainingFailedError as error:
        cause = str(getattr(error, "error_message", "") or error).strip().splitlines()[-1]
        raise TrainingError(f"the workers gave no gradient: {cause}") from error


def _gradient_on_worker(settings: dict[str, Any]) -> None:
    """What Ray Train runs on each worker."""
    import ray.train
    from ray.train.torch import get_device
    from safetensors.torch import save_file

    from hbtrain.modeling.gather import ProcessGroup
    from hbtrain.training.verify import trained_gradient
    from hbtrain.training.worker import Worker

    folder = place(settings["folder"])
    worker = Worker(
        group=ProcessGroup(),
        device=get_device(),
        initial_model=local_copy(folder / "initial"),
        final_model=folder / "model",
        emit=lambda event: None,
        upload=lambda part: None,
        checkpoints=folder / "checkpoints",
    )
    gradient = trained_gradient(from_tree(settings["config"]), worker, settings["step"])
    if ray.train.get_context().get_world_rank() == 0:
        with pushed(folder) as files:
            save_file(gradient, files / GRADIENT)


def _compare(tree: dict[str, Any], folder: str, step: int) -> Agreement:
    import torch
    from safetensors.torch import load_file

    from hbtrain.training.verify import compare, plain_gradient

    config = from_tree(tree)
    device = torch.device("cuda" if config.resources.use_gpu else "cpu")
    with as_local(place(folder) / "initial") as initial, as_local(place(folder) / GRADIENT) as gradient:
        plain = plain_gradient(config, initial, step, device)
        return compare(load_file(gradient), plain, config.encoder.precision)
