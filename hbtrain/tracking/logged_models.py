"""Trained encoders as MLflow's logged models, which `mlflow.pyfunc` loads and serves, and versions of registered ones.

What is stored is the folder that sentence-transformers reads, and beside its files those that MLflow needs: so the same
artifacts are loaded by either, and there is one copy of the weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

MODEL = "model"  # name of a run's logged model, as in `runs:/RUN/model`
LOADER = "mlflow.sentence_transformers"  # module of MLflow that loads the folder for `mlflow.pyfunc`
REQUIREMENTS = ("mlflow", "sentence-transformers", "transformers", "torch")
EXAMPLE = ["Where does the Danube rise?", "¿Dónde nace el Danubio?"]
OLD_SERVERS = ("ENDPOINT_NOT_FOUND", "FEATURE_DISABLED")
"""Errors of servers that are older than logged models, or do not offer them."""


def log_model(client: MlflowClient, run_id: str, folder: Path, step: int, figures: Sequence[Sequence[Any]]) -> None:
    """Store the encoder in `folder` as the logged model of a run; one that an earlier attempt has begun is finished.

    A server that has no logged models gets the folder as an artifact of the run.

    Args:
        client: of the run's server.
        run_id: id of the run.
        folder: of a model that sentence-transformers loads.
        step: of training, whose model it is.
        figures: [name, value, time in ms, step, data set's name, its digest] of the run's metrics that are scores of
            this model, so that MLflow shows them with it.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
    from mlflow.exceptions import MlflowException

    run = client.get_run(run_id)
    try:
        model = logged_model(client, run_id) or client.create_logged_model(
            run.info.experiment_id,
            name=MODEL,
            source_run_id=run_id,
            params=run.data.params,
            model_type="retriever",
        )
    except MlflowException as error:
        if error.error_code not in OLD_SERVERS:
            raise
        client.log_artifacts(run_id, str(folder), MODEL)
        return
    client.log_model_artifacts(model.model_id, str(folder))
    with tempfile.TemporaryDirectory(prefix="hbtrain-") as temporary:
        about = Path(temporary) / MODEL
        write_about(about, model, run_id)
        client.log_model_artifacts(model.model_id, str(about))
    outputs = run.outputs.model_outputs if run.outputs is not None else []
    if model.model_id not in {output.model_id for output in outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
    metrics = [
        Metric(*first, dataset_name=name, dataset_digest=digest, model_id=model.model_id, run_id=run_id)
        for *first, name, digest in figures
    ]
    if metrics:
        client.log_batch(run_id, metrics)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def write_about(folder: Path, model: LoggedModel, run_id: str) -> None:
    """Write what MLflow reads beside the files of a model: how it is loaded, what goes in and out, an example.

    A text is embedded as a query unless the parameter `prompt_name` says `passage`.
    """
    import numpy as np
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

    signature = ModelSignature(
        inputs=Schema([ColSpec("string")]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, -1))]),
        params=ParamSchema([ParamSpec("prompt_name", "string", "query")]),
    )
    pyfunc.save_model(
        str(folder),
        loader_module=LOADER,
        mlflow_model=Model(
            artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run_id, model_id=model.model_id
        ),
        signature=signature,
        input_example=EXAMPLE,
        # Builds of torch for one device have a local version, which no registry of packages has.
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
    )


def logged_model(client: MlflowClient, run_id: str) -> LoggedModel | None:
    """The logged model of a run; None if it has none."""
    run = client.get_run(run_id)
    found = client.search_logged_models(
        [run.info.experiment_id], filter_string=f"name = '{MODEL}' AND source_run_id = '{run_id}'"
    )
    return found[0] if found else None


def register(client: MlflowClient, run_id: str, name: str) -> None:
    """Make a run's logged model the newest version of a registered model, which is made if need be; once for a run."""
    from mlflow.exceptions import RESOURCE_DOES_NOT_EXIST, MlflowException

    model = logged_model(client, run_id)
    if model is None:
        raise MlflowException(f"run {run_id} has no logged model to register", RESOURCE_DOES_NOT_EXIST)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    if name in {found.name for found in client.search_model_versions(f"run_id = '{run_id}'")}:
        return
    # Named by its artifacts: a database without a server would look for `models:/ID` at another address.
    client.create_model_version(
        name, model.artifact_location, run_id=run_id, model_id=model.model_id, await_creation_for=0
    )
