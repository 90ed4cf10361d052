"""From token features to unit vectors: the part of the encoder that is trained.

Shapes: B texts, D dimensions of an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hbtrain.modeling.features import Features, is_packed, is_padded, join_bags, row_count
from hbtrain.modeling.packing import packs

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class EmbeddingModule(nn.Module):
    """The module that is trained: all parameters of the encoder, and the temperature if it is learned.

    One call embeds several batches (queries, passages, negatives), because a wrapper that counts forward passes (the
    engine of DeepSpeed) should see one.
    """

    def __init__(self, model: SentenceTransformer, learned_temperature: float | None = None) -> None:
        """Wrap `model`; `learned_temperature`: initial value of a temperature that is trained, None if it is fixed."""
        super().__init__()
        self.model = model
        self.log_scale: nn.Parameter | None = None
        if learned_temperature is not None:
            # Its logarithm is trained, as in CLIP (arXiv 2103.00020): it stays positive, and a step is a ratio.
            self.log_scale = nn.Parameter(torch.tensor([-math.log(learned_temperature)]))

    def forward(self, batches: Sequence[Features]) -> tuple[list[Tensor], Tensor | None]:
        """Unit vectors [B_i, D] in fp32 of each batch of token features, and 1 / temperature [1] where it is learned.

        The features are left unchanged.
        """
        # Read here, where a wrapper that spreads parameters over ranks (ZeRO-3) has gathered them.
        scale = None if self.log_scale is None else self.log_scale.float().exp()
        with _Float32Sums() if self._sums_in_bf16() else nullcontext():
            if any(is_padded(features) or is_packed(features) for features in batches):
                return [embed(self.model, features) for features in batches], scale
            # Each call of an embedding bag has a gradient of the size of the vocabulary, so there is one.
            vectors_BD = embed(self.model, join_bags(batches))
            return list(vectors_BD.split([row_count(features) for features in batches])), scale

    def _sums_in_bf16(self) -> bool:
        return any(weight.is_cpu and weight.dtype == torch.bfloat16 for weight in self.model.parameters())


class _Float32Sums(TorchFunctionMode):
    """Looks embedding tables up in float32 while it is active, so that their gradients are summed in float32.

    On a CPU, torch sums the gradient of a row in the table's own type, one token after another. In bf16, with 8
    significant bits, a sum stops growing when it is 256 times its next summand: of 4,000 tokens that share a row, such
    as their token type, three quarters are lost. On a GPU it sums in float32.
    """

    def __torch_function__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), options: dict[str, Any] | None = None
    ) -> Any:
        options = options or {}
        if function in (functional.embedding, functional.embedding_bag) and arguments[1].dtype == torch.bfloat16:
            indices, table, *others = arguments
            return function(indices, table.float(), *others, **options).to(table.dtype)
        return function(*arguments, **options)


def embed(model: SentenceTransformer, features: Features, unit: bool = True, **forward_kwargs: Any) -> Tensor:
    """Vectors [B, D] in fp32 of a batch of token features, of length 1 where `unit` says so; a text without tokens may
    give the zero vector.

    Raises:
        ValueError: the features are packed, and the model does not take them so.
    """
    if is_packed(features) and not packs(model):
        raise ValueError("a packed batch was given to a model without `hbtrain.modeling.packing.pack`")
    # A copy, because the modules of a SentenceTransformer write into what they are given.
    vectors_BD = model(dict(features), **forward_kwargs)["sentence_embedding"][:, : model.truncate_dim].float()
    return functional.normalize(vectors_BD, dim=-1) if unit else vectors_BD


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module is in its former mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
