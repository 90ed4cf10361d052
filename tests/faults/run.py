"""Every fault for real: hurts runs of the quickstart recipe, and says how they fared.

`python -m tests.faults.run [NAME...] [--write]`: the scenarios of these names, or all. With --write what was seen goes
to `observed.json`, and all that is there to docs/faults.md. Takes a minute or two a fault on two cores.
"""

import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.faults import damage, disks, machines, numbers, outages, workers
from tests.faults.row import Skipped
from tests.faults.table import note, write
from tests.integration.command import ROOT

SCENARIOS = [
    workers.worker_killed,
    workers.rank_0_killed,
    workers.killed_while_saving,
    workers.driver_killed,
    workers.driver_terminated,
    workers.worker_out_of_memory,
    machines.node_killed,
    machines.host_loses_power,
    machines.head_killed,
    damage.checkpoint_truncated,
    damage.checkpoint_incomplete,
    disks.storage_full,
    workers.worker_stopped,
    workers.worker_stopped_once_too_often,
    workers.worker_waits_for_ever,
    numbers.loss_of_nan,
    outages.database_locked,
    outages.server_comes_back,
    outages.server_stays_away,
]


def main(arguments):
    names = [argument for argument in arguments if argument != "--write"]
    unknown = set(names) - {scenario.__name__ for scenario in SCENARIOS}
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(s.__name__ for s in SCENARIOS)}")
    good = True
    for scenario in SCENARIOS:
        if names and scenario.__name__ not in names:
            continue
        print(f"{scenario.__name__}: {scenario.__doc__}", flush=True)
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="hbtrain-fault-", ignore_cleanup_errors=True) as folder:
            try:
                row = scenario(Path(folder))
            except Skipped as reason:
                print(f"  skipped: {reason}")
                continue
            except Exception:
                traceback.print_exc()
                good = False
                continue
        print(f"  {time.monotonic() - started:.0f} s, exit code {row.seen.exit_code}, went on from {row.seen.resumed}")
        print(f"  MLflow {row.seen.mlflow}\n  {row.said}")
        for check, holds in row.checks.items():
            print(f"  {'yes' if holds else 'NO '}  {check}", flush=True)
        if not row.good:
            good = False
            print(row.seen.output, flush=True)
        if "--write" in arguments:
            note(scenario.__name__, row)
            write([scenario.__name__ for scenario in SCENARIOS], ROOT / "docs" / "faults.md")
    return good


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
