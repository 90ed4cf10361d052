"""What each kind of message changes on the MLflow server. A message may come twice: then the second changes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hbtrain.storage import as_local, place
from hbtrain.tracking.data_inputs import dataset_input
from hbtrain.tracking.logged_models import log_model, register
from hbtrain.tracking.spool import Message

if TYPE_CHECKING:
    from mlflow import MlflowClient

TABLES = "mlflow.loggedArtifacts"  # MLflow's tag of a run: which of its artifacts are tables that can be compared


def deliver(client: MlflowClient, message: Message) -> None:
    """Make the change that a message describes."""
    from mlflow.entities import Metric

    run_id, content = message.run_id, message.content
    if message.kind == "figures":
        client.log_batch(run_id, [Metric(*figure) for figure in content])
    elif message.kind == "tag":
        client.set_tag(run_id, *content)
    elif message.kind == "untag":
        if content[0] in client.get_run(run_id).data.tags:
            client.delete_tag(run_id, content[0])
    elif message.kind == "status":
        client.set_terminated(run_id, *content)
    elif message.kind == "inputs":
        client.log_inputs(run_id, [dataset_input(one) for one in content])
    elif message.kind == "tables":
        _announce_tables(client, run_id, content)
    elif message.kind == "register":
        register(client, content[1], content[0])
    else:
        with as_local(place(content[0])) as path:
            if message.kind == "model":
                log_model(client, run_id, path, content[1], content[2])
            else:
                store = client.log_artifacts if path.is_dir() else client.log_artifact
                store(run_id, str(path), content[1])


def _announce_tables(client: MlflowClient, run_id: str, paths: list[str]) -> None:
    """Add artifacts to those that MLflow shows as tables, as `mlflow.log_table` does."""
    from mlflow.utils.validation import MAX_TAG_VAL_LENGTH

    known = json.loads(client.get_run(run_id).data.tags.get(TABLES, "[]"))
    both = known + [table for path in paths if (table := {"path": path, "type": "table"}) not in known]
    while len(text := json.dumps(both)) > MAX_TAG_VAL_LENGTH:
        both.pop()
    client.set_tag(run_id, TABLES, text)
