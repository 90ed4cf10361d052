"""Imported by the processes of tests as they begin, so that they start in a fraction of the time.

The libraries that they import are a million objects that stay, among which Python would look for garbage ever again.
Where there is a server of forks, workers of Ray and converters of checkpoints are its forks.
"""

import gc
import os
import sys

gc.set_threshold(100_000)

FORKS = ("default_worker.py", "hbtrain.training.safe_loading")

if "HBTRAIN_TEST_FORKS" in os.environ and any(argument.endswith(FORKS) for argument in sys.orig_argv[1:3]):
    from fork_server import leave_to_fork

    leave_to_fork(os.environ["HBTRAIN_TEST_FORKS"])
