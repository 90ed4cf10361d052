"""`hbtrain doctor`: whether this machine, or every node of a cluster, is fit for training."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from hbtrain.errors import ConfigError
from hbtrain.reporting.console import TextConsole
from hbtrain.reporting.text import counted

if TYPE_CHECKING:
    from hbtrain.doctor.machine_checks import Finding

COLOURS = {"ok": "green", "warning": "yellow", "failure": "bold red"}
NAMED_NODES = 8
STEPS, STARTS_S = 6, 300.0
"""The whole may take so many times `--timeout-s`, and so many seconds in which processes start; it should take less."""


def doctor(
    *,
    address: str | None = None,
    storage: str | None = None,
    tracking_uri: str | None = None,
    gpus: int = 0,
    wait_s: float = 0.0,
    timeout_s: float = 60.0,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Check that this machine, or every node of a Ray cluster, is fit for training: `hbtrain doctor --address auto`.

    Looks at versions of packages, GPUs, drivers and CUDA, rates of matrix products and of an all-gather between all
    GPUs, FAISS, /dev/shm and other limits, shared folders, Ray, MLflow and clocks. Each line is ok, a warning or a
    failure; the last two say what to do. Exit code 0 without failures, else 1.

    Parameters
    ----------
    address
        A Ray cluster's address, or auto; by default $RAY_ADDRESS, or this machine alone.
    storage
        Folder or s3:// URI of runs, to be looked at beside the cache.
    tracking_uri
        MLflow's address; by default $MLFLOW_TRACKING_URI.
    gpus
        GPUs that have to be there.
    wait_s
        Seconds to wait for nodes where there are fewer; an autoscaler is asked for them.
    timeout_s
        Seconds after which a check that does not answer is a failure.
    json_
        Print one JSON document in place of the table.
    """
    if not 1 <= timeout_s <= 3600:
        raise ConfigError(f"--timeout-s {timeout_s:g}: must be from 1 to 3600 seconds")
    if gpus < 0 or not wait_s >= 0:  # refuses nan
        raise ConfigError(f"--gpus {gpus} --wait-s {wait_s:g}: must be 0 or more")
    from hbtrain.cluster.capacity import Demand
    from hbtrain.doctor.cluster_checks import findings
    from hbtrain.doctor.survey import survey

    demand = Demand(f"--gpus {gpus}", gpus, cpus=1, gpus=1, wait_s=wait_s, noun="GPUs")
    with _progress() as tell, _ended_within(wait_s + STEPS * timeout_s + STARTS_S):
        seen = survey(address, storage, tracking_uri, demand, timeout_s, tell)
    found = findings(seen)
    if json_:
        print(json.dumps(_document(seen.where, found) | {"facts": asdict(seen)}, ensure_ascii=True))
    else:
        _show(TextConsole(), found)
    if any(finding.status == "failure" for finding in found):
        sys.exit(1)


@contextmanager
def _progress() -> Iterator[Any]:
    """A function that shows what is being done, on a terminal's standard error."""
    console = TextConsole(stderr=True)
    with console.status("") as status:
        yield lambda text: status.update(Text(text))


@contextmanager
def _ended_within(limit_s: float) -> Iterator[None]:
    """End the process if the block takes longer: a call of Ray's core that hangs cannot be interrupted."""

    def give_up() -> None:
        print(f"failure: not done in {limit_s:g} s: Ray, or the file system of this machine, hangs", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)

    timer = threading.Timer(limit_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _document(where: str, found: Sequence[Finding]) -> dict[str, Any]:
    counts = {status: sum(finding.status == status for finding in found) for status in COLOURS}
    worst = next(status for status in reversed(COLOURS) if counts[status] or status == "ok")
    return {"address": where, "status": worst, "counts": counts, "findings": [asdict(finding) for finding in found]}


def _show(console: TextConsole, found: Sequence[Finding]) -> None:
    """Print a line for each finding, and the sum of them."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    before = None
    for finding in found:
        text = Text()
        if finding.nodes and finding.status == "ok":
            text.append(f"{counted(len(finding.nodes), 'other node')}: ")
        elif finding.nodes:
            more = len(finding.nodes) - NAMED_NODES
            names = ", ".join(finding.nodes[:NAMED_NODES]) + (f" and {more} more" if more > 0 else "")
            text.append(f"{names}: ", "bold")
        text.append(finding.found)
        if finding.remedy:
            text.append(f"\nfix: {finding.remedy}", "italic")
        name = "" if finding.check == before else finding.check
        table.add_row(Text(finding.status, COLOURS[finding.status]), Text(name, "bold"), text)
        before = finding.check
    console.print(table)
    failures, warnings = (sum(one.status == status for one in found) for status in ("failure", "warning"))
    last = Text("\n")
    last.append(counted(failures, "failure"), "bold red" if failures else "green")
    last.append(", ").append(counted(warnings, "warning"), "yellow" if warnings else "green")
    console.print(last)
