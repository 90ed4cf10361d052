"""Every fault for real: hurts runs of the quickstart recipe, and says how they fared.

`python -m tests.faults.run [NAME...] [--write]`: the scenarios of these names, or all. With --write what was seen goes
to `observed.json`, and all that is there to docs/faults.md. Takes a minute or two a fault on two cores.

`python -m tests.faults.run --random N [--seed S] [--first K] [--references FOLDER] [--write]`: draws K to K + N - 1 of
a seed, each some faults at random moments of a random run (`draws.py`). A line of JSON tells what was done in each and
how it went. In the folder the ends of the runs that were not hurt are kept, for later calls of the same version. With
--on-ranks they are trainings without Ray (`on_ranks.py`).
"""

import argparse
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.faults import damage, disks, machines, numbers, outages, workers
from tests.faults.on_ranks import happen_on_ranks
from tests.faults.random_faults import happen
from tests.faults.row import Skipped
from tests.faults.table import note, note_random, random_table, write
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
    parser = argparse.ArgumentParser(prog="python -m tests.faults.run", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(s.__name__ for s in SCENARIOS))
    parser.add_argument("--random", type=int, metavar="N", help="so many draws of random faults, in place of scenarios")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, metavar="K", help="number of the first draw")
    parser.add_argument("--references", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--on-ranks",
        nargs="?",
        const="folder",
        choices=["folder", "s3"],
        help="trainings without Ray: seconds a draw; in a bucket (s3) in segments",
    )
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.names) - {scenario.__name__ for scenario in SCENARIOS}
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    if chosen.random is not None:
        return at_random(chosen)
    return scenarios(chosen.names, chosen.write)


def at_random(chosen):
    """Carry out draws; whether each ended as the run that was not hurt."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        references = chosen.references or Path(folder)
        references.mkdir(parents=True, exist_ok=True)
        for number in range(chosen.first, chosen.first + chosen.random):
            if chosen.on_ranks:
                lines.append(happen_on_ranks(chosen.seed, number, references, chosen.on_ranks))
            else:
                lines.append(happen(chosen.seed, number, references))
            print(json.dumps(lines[-1], ensure_ascii=False), flush=True)
            if chosen.write:
                note_random(lines[-1])
                write_page()
    print("\n".join(random_table(lines)))
    return all(line["as_unhurt"] for line in lines)


def write_page():
    write([scenario.__name__ for scenario in SCENARIOS], ROOT / "docs" / "faults.md")


def scenarios(names, to_page):
    """Carry out the scenarios of these names, or all; whether all was as it should be."""
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
        if to_page:
            note(scenario.__name__, row)
            write_page()
    return good


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
