"""Gradients of packed batches and of compiled layers, through DeepSpeed on gloo ranks, against one padded process."""

import pytest
import torch

from hbtrain.config import to_tree
from hbtrain.modeling import compiling
from hbtrain.modeling.features import is_packed
from hbtrain.training import gradients as gradients_module
from hbtrain.training.verify import compare, plain_gradient
from tests.distributed.ranks import run_ranks
from tests.distributed.verify_matrix import build_initial, config, on_rank, write_source
from tests.unit.tiny_models import save_xlm_roberta

PACKED = {"encoder.attention": "packed"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{backbone: (folder of a run, what its configuration says of the backbone)}"""
    found = {}
    for name in ("distilbert", "xlm-roberta"):
        folder = tmp_path_factory.mktemp(name)
        write_source(folder)
        backbone = {} if name == "distilbert" else {"encoder.backbone": str(save_xlm_roberta(folder / "backbone"))}
        build_initial(folder, config(folder, 1, 0, 1, "fp32", False, **backbone))
        found[name] = (folder, backbone)
    return found


def gradients_and_batches(trees, folder):
    """Gradients of step 0, and of each work its tokens, its computed tokens, and whether its batches are packed."""
    compiling.BACKEND = "eager"
    works = []
    embed = gradients_module.Gradients.backward

    def backward(self, work):
        batches = [batch for chunk in work.chunks for batch in chunk.batches]
        works.append((work.tokens, work.computed_tokens, len(batches), all(map(is_packed, batches))))
        return embed(self, work)

    gradients_module.Gradients.backward = backward
    return on_rank(trees, folder), works


LAYOUTS = [
    (0, 1, "fp32", False),
    (1, 4, "bf16", False),
    (2, 4, "fp32", True),
    (3, 1, "fp32", False),
    (3, 4, "fp32", False),
]
"""ZeRO stage, chunks, precision, LoRA"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("backbone", ["distilbert", "xlm-roberta"])
def test_packed_batches_have_the_gradient_of_padded_ones(folders, backbone, workers):
    folder, of_backbone = folders[backbone]
    settings = [config(folder, workers, *layout, **PACKED, **of_backbone) for layout in LAYOUTS]
    budget = {"training.chunk_tokens": 150, **PACKED, **of_backbone}
    settings.append(config(folder, workers, 0, 1, "fp32", False, **budget))
    ranks = run_ranks(gradients_and_batches, workers, [to_tree(one) for one in settings], str(folder))
    for one, got in zip(settings, ranks[0][0], strict=True):
        padded = one.model_copy(update={"encoder": one.encoder.model_copy(update={"attention": "sdpa"})})
        plain = plain_gradient(padded, folder / "initial", 0, torch.device("cpu"))
        agreement = compare({name: torch.from_numpy(g) for name, g in got.items()}, plain, one.encoder.precision)
        assert agreement.holds, (one.training, agreement)
    for _, works in ranks:
        assert len(works) == len(settings)
        for tokens, computed, batches, packed in works:
            assert packed
            assert tokens == computed
            assert batches in (1, 4) or works[-1][2] == batches
        assert works[-1][0] / works[-1][2] <= 150


def test_compiled_layers_have_the_gradient_of_written_ones(folders):
    folder, of_backbone = folders["xlm-roberta"]
    options = [
        (0, 1, False, PACKED), (1, 4, False, {"encoder.gradient_checkpointing": False}), (2, 4, True, PACKED),
    ]  # fmt: skip
    settings = [
        config(folder, 2, stage, chunks, "fp32", lora, **{"encoder.compile": True}, **of_backbone, **more)
        for stage, chunks, lora, more in options
    ]
    ranks = run_ranks(gradients_and_batches, 2, [to_tree(one) for one in settings], str(folder))
    for one, got in zip(settings, ranks[0][0], strict=True):
        plain = plain_gradient(one, folder / "initial", 0, torch.device("cpu"))
        agreement = compare({name: torch.from_numpy(g) for name, g in got.items()}, plain, "fp32")
        assert agreement.holds, (one.training, agreement)
