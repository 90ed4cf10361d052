"""The DeepSpeed configuration of a run: the user's own keys, checked against what hbtrain decides."""

from __future__ import annotations

import json
from typing import Any

from hbtrain.batching import shard_sizes
from hbtrain.config import Config
from hbtrain.errors import ConfigError
from hbtrain.storage import expand_home

OWNED = {
    "optimizer": "training.optimizer, learning_rate, weight_decay and betas",
    "scheduler": "training.schedule and warmup_steps",
    "fp16": "encoder.precision (fp32 or bf16)",
}
"""{section that users may not set: keys of hbtrain that set it}."""


def deepspeed_config(config: Config, world_size: int) -> dict[str, Any]:
    """The whole configuration for `deepspeed.initialize` on `world_size` ranks.

    Gradient clipping is always set (DeepSpeed's default is 1.0, silently), to 0 where hbtrain does it; and one step is
    one batch: the loss is over the whole global batch, which accumulation over micro-batches would change.

    Raises:
        ConfigError: the user's file cannot be read, or a key of it disagrees with the recipe.
    """
    user = _user_settings(config.training.deepspeed)
    _check_zero(_section(user, "zero_optimization"))
    _check_muon(config)
    micro = max(shard_sizes(config.batching.global_batch_size, world_size))
    decided: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": 1,
        # Without ZeRO hbtrain clips (`WholeStep`), at a fraction of DeepSpeed's cost.
        "gradient_clipping": config.training.gradient_clipping if zero_stage(config) else 0.0,
        "bf16": {"enabled": config.encoder.precision == "bf16"},
        # The optimizer is torch's: DeepSpeed's own would be compiled on the user's machine.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
    for key, instead in OWNED.items():
        if key in user and user[key] != {"enabled": False}:
            raise ConfigError(f"training.deepspeed sets {key!r}: hbtrain sets it from {instead}; remove it there")
    _agree(user, "train_batch_size", config.batching.global_batch_size, "batching.global_batch_size")
    _agree(user, "train_micro_batch_size_per_gpu", micro, f"batching.global_batch_size over {world_size} workers")
    _agree(user, "gradient_accumulation_steps", 1, "the exact loss over the whole batch")
    _agree(user, "gradient_clipping", config.training.gradient_clipping, "training.gradient_clipping")
    bf16 = _section(user, "bf16")
    _agree(bf16, "enabled", config.encoder.precision == "bf16", f"encoder.precision {config.encoder.precision}")
    if config.training.average is not None and bf16.get("bf16_master_weights_and_grads"):
        raise ConfigError(
            f"training.average = {config.training.average:g} is of float32 weights, and training.deepspeed sets "
            "bf16_master_weights_and_grads, which keeps none; leave one of them out"
        )
    decided["bf16"] = {**bf16, **decided["bf16"]}
    rest = {k: v for k, v in user.items() if k not in {"train_batch_size", "fp16"}}
    return {**rest, **decided}


def _check_zero(zero: dict[str, Any]) -> None:
    section = "training.deepspeed zero_optimization"
    stage = zero.get("stage", 0)
    if stage not in (0, 1, 2, 3):
        raise ConfigError(f"{section}.stage = {stage!r}: allowed are 0, 1, 2 and 3")
    for key, stages in (("offload_optimizer", (1, 2, 3)), ("offload_param", (3,))):
        device = _section(zero, key).get("device", "none")
        if device not in ("none", "cpu"):
            raise ConfigError(
                f"{section}.{key}.device = {device!r}: allowed are 'cpu' and 'none'; "
                "'nvme' needs an extension of DeepSpeed that would have to be compiled on every machine"
            )
        if device == "cpu" and stage not in stages:
            raise ConfigError(
                f"{section}.{key} has no effect on stage {stage}; it works on {', '.join(map(str, stages))}: "
                f"change the stage, or leave {key} out"
            )


def _check_muon(config: Config) -> None:
    if config.training.optimizer != "muon":
        return
    reasons = {
        "takes whole matrices, and ZeRO cuts them up: leave zero_optimization out of training.deepspeed, or set its "
        "stage to 0": zero_stage(config) > 0,
        "is for whole matrices, and encoder.lora trains adapters of a low rank": config.encoder.lora is not None,
        "is for the layers of a transformer, and encoder.backbone static has none": config.encoder.backbone == "static",
    }
    for reason, holds in reasons.items():
        if holds:
            raise ConfigError(f"training.optimizer = 'muon' {reason}; or set training.optimizer to 'adamw'")


def zero_stage(config: Config) -> int:
    """The ZeRO stage: ranks partition 0 nothing, 1 the optimizer state, 2 gradients as well, 3 parameters as well."""
    return int(_section(_user_settings(config.training.deepspeed), "zero_optimization").get("stage", 0))


def _user_settings(setting: str | dict[str, Any] | None) -> dict[str, Any]:
    if setting is None:
        return {}
    if isinstance(setting, dict):
        return setting
    path = expand_home(setting)
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"training.deepspeed: cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"training.deepspeed: {path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"training.deepspeed: {path} must hold an object, not {type(value).__name__}")
    return value


def _section(user: dict[str, Any], key: str) -> dict[str, Any]:
    section = user.get(key)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ConfigError(f"training.deepspeed {key} = {section!r}: must be an object")
    return section


def _agree(user: dict[str, Any], key: str, ours: object, reason: str) -> None:
    if user.get(key, ours) not in (ours, "auto"):
        raise ConfigError(
            f"training.deepspeed sets {key} = {user[key]!r}, but {reason} gives {ours!r}; "
            "leave it out, or make the two agree"
        )
