import json

import pytest

from hbtrain.config import load_config
from hbtrain.errors import ConfigError
from hbtrain.training.deepspeed_config import deepspeed_config


def resolved(**overrides):
    config = load_config("quickstart", overrides)
    return deepspeed_config(config, config.resources.max_workers)


def test_clipping_and_precision_are_always_set():
    settings = resolved(**{"training.deepspeed": None})
    assert settings["gradient_clipping"] == 0.0, "without ZeRO hbtrain clips"
    assert resolved(**{"training.deepspeed": {"zero_optimization": {"stage": 1}}})["gradient_clipping"] == 1.0
    assert settings["gradient_accumulation_steps"] == 1
    assert settings["bf16"] == {"enabled": False}
    assert resolved(**{"encoder.precision": "bf16"})["bf16"] == {"enabled": True}


def test_the_users_keys_pass_through(tmp_path):
    file = tmp_path / "ds.json"
    user = {
        "zero_optimization": {"stage": 2, "overlap_comm": True},
        "gradient_clipping": "auto",
        "train_batch_size": 128,
    }
    file.write_text(json.dumps(user))
    settings = resolved(**{"training.deepspeed": str(file), "training.gradient_clipping": 0.0})
    assert settings["zero_optimization"] == {"stage": 2, "overlap_comm": True}
    assert settings["gradient_clipping"] == 0.0
    assert "train_batch_size" not in settings, "uneven shards make it differ from micro-batch times workers"


def test_offloading_passes_through():
    zero = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu", "pin_memory": True}}
    settings = resolved(**{"training.deepspeed": {"zero_optimization": zero}})
    assert settings["zero_optimization"] == zero
    assert settings["zero_force_ds_cpu_optimizer"] is False


def test_the_micro_batch_is_the_largest_shard():
    settings = resolved(**{"batching.global_batch_size": 100, "resources.workers": 3})
    assert settings["train_micro_batch_size_per_gpu"] == 34


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"gradient_clipping": 5.0}, ["gradient_clipping = 5.0", "training.gradient_clipping", "1.0"]),
        ({"train_batch_size": 64}, ["train_batch_size = 64", "128"]),
        ({"bf16": {"enabled": True}}, ["enabled = True", "encoder.precision fp32"]),
        ({"fp16": {"enabled": True}}, ["'fp16'", "encoder.precision"]),
        ({"scheduler": {"type": "WarmupLR"}}, ["'scheduler'", "training.schedule"]),
        ({"zero_optimization": {"stage": "two"}}, ["stage = 'two'", "0, 1, 2 and 3"]),
        ({"zero_optimization": 2}, ["zero_optimization", "an object"]),
        (
            {"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme", "nvme_path": "/nvme"}}},
            ["offload_param.device = 'nvme'", "'cpu'", "compiled"],
        ),
        (
            {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}},
            ["offload_param", "stage 2", "works on 3"],
        ),
        ({"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}, ["stage 0", "works on 1, 2, 3"]),
    ],
)
def test_disagreement_is_an_error(user, words):
    with pytest.raises(ConfigError) as error:
        resolved(**{"training.deepspeed": user})
    for word in words:
        assert word in str(error.value)


def test_a_disabled_section_is_harmless():
    assert "fp16" not in resolved(**{"training.deepspeed": {"fp16": {"enabled": False}}})


def test_a_file_of_something_else(tmp_path):
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ConfigError, match="must hold an object, not list"):
        resolved(**{"training.deepspeed": str(tmp_path / "list.json")})
