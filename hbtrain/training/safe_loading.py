"""Loading what DeepSpeed pickled without running what a pickle may hold.

DeepSpeed loads its own files with `weights_only=False`: whoever can write into a checkpoint could run code on every
worker. PyTorch can be told to overrule that, and then takes tensors, plain containers and named classes only.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

from hbtrain.errors import TrainingError

OVERRULE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextmanager
def weights_only() -> Iterator[None]:
    """Inside, `torch.load` refuses every class but torch's own and the three that DeepSpeed's state is made of.

    Raises:
        TrainingError: a file names another class; it was not run.
    """
    import torch
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    before = os.environ.get(OVERRULE)
    os.environ[OVERRULE] = "1"
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
            del os.environ[OVERRULE]
        else:
            os.environ[OVERRULE] = before
