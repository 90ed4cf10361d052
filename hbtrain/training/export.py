"""Loading sentence-transformers models for training, and saving trained ones.

ZeRO-3 partitions the parameters of a transformer over the ranks while they are loaded: rank 0 reads the weights, one
module at a time, and each rank keeps its part; so none ever holds the whole model. Modules of sentence-transformers
around the transformer (a dense layer, a static embedding) are one or two parameters, each of which a forward pass
gathers in any case: they are loaded as a whole, and partitioned when the engine is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hbtrain
from hbtrain.config import Config, override
from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.data_sets import provenance, repositories
from hbtrain.errors import StorageError
from hbtrain.modeling.adapters import add_lora, merged
from hbtrain.modeling.card import ModelCard
from hbtrain.modeling.compiling import compile_layers
from hbtrain.modeling.devices import compute_in, evaluation_precision
from hbtrain.modeling.embedding import EmbeddingModule
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.merging import linear
from hbtrain.modeling.packing import pack_on_gpu
from hbtrain.storage import Place, pushed
from hbtrain.training.deepspeed_config import deepspeed_config, zero_stage
from hbtrain.training.engine import Engine, deepspeed_for
from hbtrain.training.worker import Worker


def load_on_rank(config: Config, worker: Worker) -> Encoder:
    """The encoder that this rank trains: all of it on the CPU, or under ZeRO-3 this rank's part; collective."""
    settings = deepspeed_config(config, worker.group.world_size)
    if zero_stage(config) < 3:
        encoder = load_for_training(config, worker.initial_model)
    else:
        with partitioned_loading(settings, worker.device):
            # DeepSpeed moves no partitioned model to the device; buffers and other modules must be there already.
            encoder = load_for_training(config, worker.initial_model, worker.device)
    if config.encoder.attention == "auto":
        pack_on_gpu(encoder.model, worker.device)
    if config.encoder.compile:
        compile_layers(encoder.model)
    return encoder


@contextmanager
def partitioned_loading(settings: dict[str, Any], device: torch.device) -> Iterator[None]:
    """While the body runs, transformers partitions every model that it loads, by DeepSpeed's `settings`."""
    deepspeed_for(device)
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    reference = HfDeepSpeedConfig(settings)  # transformers itself holds only a weak reference
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        del reference


@contextmanager
def torch_linear() -> Iterator[None]:
    """While the body runs, linear layers are computed as torch does.

    For ZeRO-3, DeepSpeed replaces the function in the whole process and for good, by one that adds the bias in a step
    of its own: in bf16 that rounds once more, and scores would not be those of the exported model.
    """
    from deepspeed.runtime.zero.partition_parameters import InsertPostInitMethodToModuleSubClasses
    from torch.nn import functional

    replaced = functional.linear
    functional.linear = getattr(InsertPostInitMethodToModuleSubClasses, "linear_bk", replaced)
    try:
        yield
    finally:
        functional.linear = replaced


def load_for_training(config: Config, folder: Path, device: torch.device | None = None) -> Encoder:
    """The encoder in `folder`, by default on the CPU, ready to be trained as `config` says, adapters included."""
    encoder = Encoder.load(str(folder), config.encoder, device=str(device or "cpu"))
    if config.encoder.lora is not None:
        add_lora(encoder.model, config.encoder.lora, config.seed)
    return encoder


def trainable(encoder: Encoder, config: Config) -> EmbeddingModule:
    """The module to train: the encoder, and the temperature where it is learned."""
    return EmbeddingModule(encoder.model, config.loss.temperature if config.loss.learn_temperature else None)


def export(
    engine: Engine,
    encoder: Encoder,
    config: Config,
    initial: Path,
    to: Place | None,
    card: ModelCard,
    more: Mapping[str, str] | None = None,
) -> None:
    """Save the encoder with the weights that the engine has: the moving average, while it is in place; collective.

    Args:
        engine: holds the weights.
        encoder: the encoder inside the engine.
        config: the run's.
        initial: folder of the encoder that training started from. A fresh copy of it, in float32, takes the weights
            that were trained where these cannot be saved as they are: partitioned over ranks (ZeRO-3), in one flat
            buffer that safetensors does not split (ZeRO-1 and 2), in bf16, or averaged with those before training.
            Frozen weights stay bit for bit.
        to: folder of the saved model, or None on ranks that do not write.
        card: the model card.
        more: {name: content} of other files of the folder.
    """
    averages = config.encoder.average_with_initial > 0
    if engine.zero_stage > 0 or config.encoder.precision == "bf16" or averages:
        weights = engine.trained_weights()
        if to is not None:
            encoder = _with_weights(config, initial, weights)
    if to is not None:
        try:
            with pushed(to, replace=True) as folder:
                encoder.save(folder, card, more)
        except OSError as error:
            raise StorageError(f"cannot write the model to {to}: {error.strerror or error}") from error


def as_exported(engine: Engine, encoder: Encoder, config: Config, initial: Path, device: torch.device) -> Encoder:
    """The encoder that gives what the exported one would give if `export` saved it now, on every rank; collective.

    It is the encoder that is trained itself where that computes as the exported one does. Else it is a copy on
    `device`, whole and in the precision of evaluations, with adapters merged into the weights. Random states are as
    before.
    """
    precision = evaluation_precision(config.evaluation.precision, device.type)
    plain = config.encoder.precision == "fp32" and config.encoder.attention == "auto"
    plain = plain and precision != "bf16" and not config.encoder.average_with_initial
    if plain and engine.zero_stage < (3 if config.encoder.lora is None else 1):
        own = encoder
    else:
        weights = engine.trained_weights(everywhere=True)
        with torch.random.fork_rng(devices=[]):
            own = _with_weights(override(config, {"encoder.attention": "auto"}), initial, weights)
    model = merged(own.model)
    if precision == "bf16":
        compute_in(model, precision)
    pack_on_gpu(model.to(device), device)
    return own if model is own.model else Encoder(model, own.prefixes, own.max_tokens)


def _with_weights(config: Config, initial: Path, weights: Mapping[str, Tensor]) -> Encoder:
    """The encoder in `initial`, in float32 on the CPU, adapters included, with the weights that were trained, or the
    mean of these and its own that `config` asks for."""
    config = override(config, {"encoder.precision": "fp32"})
    encoder = load_for_training(config, initial)
    trainable(encoder, config).load_state_dict(weights, strict=False)
    if share := config.encoder.average_with_initial:
        average_with(encoder, load_for_training(override(config, {"encoder.lora": None}), initial), share)
    return encoder


def average_with(encoder: Encoder, before: Encoder, share: float) -> None:
    """Make the weights of `encoder` `share` times those of `before` plus the rest times its own, in float32.

    Adapters are merged first, as what they change are the weights of the backbone. Weights that are equal in both, such
    as frozen ones, stay bit for bit.
    """
    encoder.model = merged(encoder.model)
    start = before.model.state_dict()
    mean = {
        name: linear((value, start[name]), (1 - share, share)) if value.is_floating_point() else value
        for name, value in encoder.model.state_dict().items()
    }
    encoder.model.load_state_dict(mean)


def model_card(config: Config, corpus: ParallelCorpus, languages: tuple[str, ...], steps: int) -> ModelCard:
    """The model card, without scores, of a model trained on `corpus` for `steps` steps."""
    batching = config.batching
    return ModelCard(
        base_model=config.encoder.backbone,
        languages=languages,
        sources={name: source.index.rows for name, source in corpus.sources.items()},
        data_sets={
            name: (list(repositories(source.data_set)), provenance(source.data_set))
            for name, source in corpus.sources.items()
            if source.data_set is not None
        },
        mode=batching.mode,
        alpha=batching.alpha if batching.mode == "hybrid" else None,
        mixture=batching.kind_points if batching.mixture is not None else None,
        switching=batching.switching if "switched" in batching.kinds else None,
        global_batch_size=batching.global_batch_size,
        steps=steps,
        temperature=config.loss.temperature,
        average=config.training.average,
        objectives=config.loss.beside_plain,
        average_with_initial=config.encoder.average_with_initial,
        version=hbtrain.__version__,
    )
