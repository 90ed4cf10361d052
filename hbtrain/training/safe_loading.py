"""Loading DeepSpeed's pickled checkpoints without running code in them; converting them for other numbers of ranks.

DeepSpeed loads its own files with `weights_only=False`: whoever can write into a checkpoint could run code on every
worker. An environment variable makes PyTorch overrule that; then it accepts only tensors, plain containers and the
classes that are named here.

Each rank saves its slice of the optimizer's state. DeepSpeed's converter joins the slices of every parameter (universal
checkpoint, arXiv 2406.18820, one file for each tensor); on loading, each rank cuts out its own slice again. The
converter runs in a process of its own, this module's `main`, so that its memory is freed, its output is not printed,
and it uses no GPU.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hbtrain.errors import TrainingError
from hbtrain.storage.files import plain_path

FORCE_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextmanager
def weights_only() -> Iterator[None]:
    """While the body runs, `torch.load` rejects all classes but torch's own and three of DeepSpeed's state.

    Raises:
        TrainingError: a file names another class; its code was not run.
    """
    import torch
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    before = os.environ.get(FORCE_WEIGHTS_ONLY)
    os.environ[FORCE_WEIGHTS_ONLY] = "1"
    try:
        with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
            yield
    except pickle.UnpicklingError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reason = next((line for line in lines if "GLOBAL" in line), lines[0])
        raise TrainingError(
            f"a file of the checkpoint is not one that hbtrain saved, and is not loaded: {reason}"
        ) from error
    finally:
        if before is None:
            del os.environ[FORCE_WEIGHTS_ONLY]
        else:
            os.environ[FORCE_WEIGHTS_ONLY] = before


PROCESSES = 4  # the most processes of the converter; each holds one rank's slices in memory


def to_universal(state: Path, to: Path) -> str:
    """Convert DeepSpeed's folder `state` into the folder `to`; returns why it failed, or an empty text."""
    to.mkdir(parents=True, exist_ok=True)
    with plain_path(state) as source, plain_path(to) as target:
        ended = subprocess.run(
            [sys.executable, "-m", "hbtrain.training.safe_loading", str(source), str(target)],
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
    """Convert in this process; may be called once."""
    from hbtrain.training.engine import import_deepspeed

    import_deepspeed()
    from deepspeed.checkpoint import ds_to_universal

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
