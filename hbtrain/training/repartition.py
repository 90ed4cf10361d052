"""A checkpoint of some number of ranks, made ready for another: DeepSpeed's universal format, one file a tensor.

Each rank saves its slice of the optimizer's state. DeepSpeed's converter puts the slices of every parameter together
(arXiv 2406.18820); on loading each rank cuts its own out again. The converter runs in a process of its own, this
module's `main`: its memory is given back, its many lines are not the user's, and it needs no device.
"""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

PROCESSES = 4
"""Processes of the converter; each holds one rank's slices in memory."""


def to_universal(state: Path, to: Path) -> str:
    """Convert DeepSpeed's `state` folder into `to`; returns why it failed, or an empty text."""
    to.mkdir(parents=True, exist_ok=True)
    ended = subprocess.run(
        [sys.executable, "-m", "hbtrain.training.repartition", str(state), str(to)],
        env=os.environ | {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == 0:
        return ""
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"the converter ended with code {ended.returncode}"


def main(state: str, to: str) -> None:
    """Convert, in this process."""
    from deepspeed.checkpoint import ds_to_universal

    from hbtrain.training.safe_loading import weights_only

    processes = min(PROCESSES, len(os.sched_getaffinity(0)))
    with weights_only():
        ds_to_universal.main(
            Namespace(
                input_folder=state,
                output_folder=to,
                num_extract_workers=processes,
                num_merge_workers=processes,
                keep_temp_folder=False,
                strict=True,
                inject_missing_state=True,  # without it ZeRO-1 and 2 are refused: DeepSpeed does not write it itself
            )
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
