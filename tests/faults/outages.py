"""MLflow that is locked, dead or away."""

import sqlite3

from tests.faults.hurt import NO_SCORES, HurtRun, Seen
from tests.faults.row import Row, line_with, survived
from tests.faults.server import MlflowServer
from tests.integration.command import mlflow_runs

KEPT = "checkpoint of step 50 kept"


def figures(folder, uri=None):
    """Steps of the training loss in MLflow."""
    from mlflow import MlflowClient

    (run, *_) = mlflow_runs(folder, uri)
    client = MlflowClient(uri or f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    return [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]


def every(folder, uri=None, steps=300):
    return {"every figure is there, once": figures(folder, uri) == list(range(10, steps + 1, 10))}


def database_locked(folder):
    """Another connection holds the SQLite database while training goes on."""
    with HurtRun(folder, *NO_SCORES) as run:
        run.wait_for(KEPT)
        with sqlite3.connect(run.folder / "runs" / "mlflow.db", isolation_level=None, timeout=30) as other:
            other.execute("BEGIN EXCLUSIVE")
            run.wait_for("step 300: checkpoint")
            other.execute("ROLLBACK")
        other.close()
        seen = Seen.of(run)
    checks = survived(seen) | every(run.folder)
    done = "another connection holds an exclusive lock from step 50 to the last step"
    return Row("MLflow database locked", done, seen, said(seen), checks)


def server_comes_back(folder):
    """The server is killed during the run and started again."""
    with MlflowServer(folder / "server") as server:
        with HurtRun(folder, *NO_SCORES, "--tracking.uri", server.uri) as run:
            run.wait_for(KEPT)
            server.kill()
            run.wait_for("checkpoint of step 150 kept")
            server.start()
            seen = Seen.of(run, uri=server.uri)
        checks = survived(seen) | every(run.folder, server.uri) | {"said at the end": "MLflow was away" in seen.output}
    return Row("MLflow server killed, back later", "kill -9 at step 50, started at step 150", seen, said(seen), checks)


def server_stays_away(folder):
    """The server is killed and away at the end; the same command delivers what it did not get."""
    with MlflowServer(folder / "server") as server:
        arguments = [*NO_SCORES, "--tracking.uri", server.uri]
        with HurtRun(folder, *arguments) as run:
            run.wait_for(KEPT)
            server.kill()
            code = run.finish()
            first = run.output
        server.start()
        server.wait()
        with HurtRun(folder, *arguments) as run:
            run.wait_for("checkpoint of step 50 kept")
            second, done = mlflow_runs(folder, server.uri)
        seen = Seen(code, first, [], [done.info.status])
        from mlflow import MlflowClient

        history = MlflowClient(server.uri).get_metric_history(done.info.run_id, "train/loss")
    checks = survived(seen) | {
        "every figure is there after the same command": [p.step for p in history] == list(range(10, 301, 10)),
        "nothing is left on disk": not list((run.folder / "runs").glob("*/mlflow-undelivered.jsonl")),
        "the second command made a run of its own": second.info.run_id != done.info.run_id,
    }
    what = "kill -9 at step 50; started after the end of the run, then the same command again"
    return Row("MLflow server killed, away at the end", what, seen, line_with("did not get", first), checks)


def said(seen):
    return line_with("MLflow", "\n".join(line for line in seen.output.splitlines() if "mlflow ui" not in line))
