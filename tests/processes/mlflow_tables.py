"""Empty databases of MLflow are copied: it makes one in two seconds, by all the migrations that there ever were."""

import functools
import sqlite3
import sys
import tempfile
from pathlib import Path

UTILS = "mlflow.store.db.utils"


@functools.cache
def copy_empty_databases():
    """From now on this process makes the tables of a SQLite database as a copy of the first ones that it made.

    To be called once MLflow's module for databases is there.
    """
    utils = sys.modules[UTILS]
    make_tables = utils._initialize_tables

    @functools.cache
    def empty():
        """A connection to an empty database in memory."""
        kept = sqlite3.connect(":memory:", check_same_thread=False)
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "empty.db"
            engine = utils.create_sqlalchemy_engine_with_retry(f"sqlite:///{made}")
            make_tables(engine)
            engine.dispose()
            with sqlite3.connect(made) as connection:
                connection.backup(kept)
            connection.close()
        return kept

    def copy_tables(engine):
        if engine.url.get_backend_name() != "sqlite" or not utils._is_empty_database(engine):
            make_tables(engine)
            return
        connection = engine.raw_connection()
        empty().backup(connection.dbapi_connection)
        connection.close()

    utils._initialize_tables = copy_tables
    return empty
