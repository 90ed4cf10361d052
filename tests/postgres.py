"""A PostgreSQL server of its own on this machine, with a password."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port

USER, PASSWORD = "tracker", "hunter2canary"
OTHERS = ("postgres", "nobody")
"""Accounts that it may run as where the tests run as root, which it refuses."""


def why_not():
    """Why no server can be started here; None if one can."""
    for program in ("initdb", "postgres"):
        if shutil.which(program) is None:
            return f"PostgreSQL is not installed: no {program} on the PATH"
    if os.geteuid() == 0 and not _accounts():
        return f"PostgreSQL does not run as root, and there is no account {' or '.join(OTHERS)}"
    return None


def _accounts():
    return [account for account in pwd.getpwall() if account.pw_name in OTHERS]


def _as_another():
    """Arguments of subprocess: an account that is not root's."""
    if os.geteuid() != 0:
        return {}
    account = min(_accounts(), key=lambda account: OTHERS.index(account.pw_name))
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


@contextmanager
def server():
    """Start it with a database `mlflow`; gives a function: user and password to a URI."""
    account = _as_another()
    # Not in the tests' own folder, into which another account has no way.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        words = Path(folder) / "password"
        words.write_text(PASSWORD)
        if account:
            for path in (folder, words):
                os.chown(path, account["user"], account["group"])
        data = f"{folder}/data"
        initdb = ["initdb", "--pgdata", data, "--username", USER, "--pwfile", str(words), "--auth", "scram-sha-256"]
        subprocess.run([*initdb, "--no-sync"], cwd=folder, check=True, capture_output=True, timeout=300, **account)
        port = free_port()
        with (Path(folder) / "log").open("w") as log:
            command = ["postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"]
            running = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **account)
        try:
            _make_database(running, port, Path(folder) / "log")
            yield lambda user=USER, password=PASSWORD: f"postgresql://{user}:{password}@127.0.0.1:{port}/mlflow"
        finally:
            running.send_signal(2)  # the fast way: clients are cut off
            running.wait(30)


def _make_database(running, port, log):
    import psycopg2

    deadline = time.monotonic() + 300
    while True:
        try:
            link = psycopg2.connect(host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname="postgres")
            break
        except psycopg2.OperationalError:
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
    link.autocommit = True
    link.cursor().execute("CREATE DATABASE mlflow")
    link.close()
