"""ZeRO-3 from the first moment: the parameters of a transformer are spread over the ranks while they are loaded.

Rank 0 reads the weights, one module at a time, and each rank keeps its part; so none ever holds the whole model.
Modules of sentence-transformers around the transformer (a dense layer, a static embedding) are one or two parameters,
each of which a forward pass gathers whole in any case: they are loaded whole, and spread when the engine takes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hbtrain.config import Config
from hbtrain.modeling.encoder import Encoder
from hbtrain.training.deepspeed_config import deepspeed_config, zero_stage
from hbtrain.training.engine import deepspeed_for
from hbtrain.training.export import load_for_training
from hbtrain.training.worker import Worker


def load_on_rank(config: Config, worker: Worker) -> Encoder:
    """The encoder that this rank trains: whole on the CPU, or under ZeRO-3 this rank's part of it; collective."""
    settings = deepspeed_config(config, worker.group.world_size)
    if zero_stage(config) < 3:
        return load_for_training(config, worker.initial_model)
    with partitioned_loading(settings, worker.device):
        # DeepSpeed no longer moves a model that comes in parts; buffers and the modules around must be in their place.
        return load_for_training(config, worker.initial_model, worker.device)


@contextmanager
def partitioned_loading(settings: dict[str, Any], device: torch.device) -> Iterator[None]:
    """While this lasts, transformers spreads the parameters of every model that it loads, as `settings` say."""
    deepspeed_for(device)
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    held = HfDeepSpeedConfig(settings)  # transformers itself keeps no more than a weak reference
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        del held
