"""Holds an actor that is at work, as `evaluate --actors` does, until the cluster goes: hold_actors.py ADDRESS."""

import sys
import time

from hbtrain.cluster.capacity import Demand
from hbtrain.errors import HbtrainError
from hbtrain.retrieval.actors import actor_session
from tests.integration.command import PATIENCE_S


class Sleeper:
    def __init__(self, device):
        pass

    def sleep(self):
        time.sleep(PATIENCE_S)

    def ready(self):
        return True


if __name__ == "__main__":
    try:
        with actor_session(Demand("--actors 1", 1, 1), sys.argv[1]) as start, start([Sleeper]) as workers:
            workers.call_all("ready")
            print("at work", flush=True)
            workers.call_all("sleep")
    except HbtrainError as error:
        print(f"error: {error}", flush=True)
        sys.exit(error.exit_code)
