"""Merging models: one model from the weights of several that have the same architecture and vocabulary.

In float32, tensor by tensor, and saved in the precision of the first model. Whole numbers, such as position ids, are
those of the first. Vectors of a merged model are not the means of the models' vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from hbtrain.errors import ConfigError, ModelError
from hbtrain.modeling.saving import tokenizer_state

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

    from hbtrain.modeling.encoder import Encoder

Method = Literal["linear", "slerp", "task-arithmetic"]
METHODS: tuple[Method, ...] = get_args(Method)

NEARLY_PARALLEL = 0.9995
"""The cosine of two tensors from which on slerp is linear: the angle is too small to be divided by. Models that were
trained from the same weights mostly are that near."""


def merge_weights(method: Method, models: int, weights: Sequence[float] | None, has_base: bool) -> tuple[float, ...]:
    """The weights of a merge, by default all equal.

    Args:
        method: `linear` and `slerp` have weights from 0 to 1 that add up to 1; those of `task-arithmetic` are free.
        models: how many are merged, without the base.
        weights: as given; None is 1 / models for each.
        has_base: whether a base was given, from which `task-arithmetic` measures what models have learned.

    Raises:
        ConfigError: weights, models or base that the method does not take.
    """
    given = tuple(weights) if weights else (1 / models,) * models
    if len(given) != models:
        raise ConfigError(f"--weights: {len(given)} weights for {models} models; give one for each, in their order")
    if not all(map(math.isfinite, given)):
        raise ConfigError(f"--weights {_shown(given)}: must be finite numbers")
    if has_base != (method == "task-arithmetic"):
        needed = "needs --base, the model that training began with" if not has_base else "has no --base; leave it out"
        raise ConfigError(f"--method {method} {needed}")
    if method == "task-arithmetic":
        return given
    if models < 2:
        raise ConfigError(f"--method {method}: needs two models or more, not {models}")
    if method == "slerp" and models != 2:
        raise ConfigError(f"--method slerp: merges two models, not {models}; take linear")
    if min(given) < 0 or abs(sum(given) - 1) > 1e-6:
        raise ConfigError(f"--weights {_shown(given)}: must be from 0 to 1 and add up to 1, not to {sum(given):g}")
    return given


@dataclass(frozen=True)
class Models:
    """Models that can be merged, loaded on the CPU."""

    names: tuple[str, ...]  # of the models, without the base, as the user wrote them
    base: str | None  # name of the model from which `task-arithmetic` measures what the others have learned
    folders: tuple[str, ...]  # of the models, then of the base; of a model of the hub, its name
    encoders: tuple[Encoder, ...]  # of the same
    languages: tuple[str, ...] | None  # seen by any of the models in training; None where one of them does not tell

    @classmethod
    def load(cls, names: Sequence[str], base: str | None, output: Path | None) -> Models:
        """Load models and base by what users write: runs of hbtrain, folders, hub names.

        Args:
            names: of the models, without the base.
            base: the base, if there is one.
            output: the folder to be written; None if it is not on this machine.

        Raises:
            ConfigError: `output` is one of the models.
            ModelError: a model is not there, cannot be loaded, or is not like the first.
        """
        from hbtrain.modeling import card
        from hbtrain.modeling.backbone import find_backbone
        from hbtrain.modeling.encoder import Encoder

        given = [*names, *([] if base is None else [base])]
        folders = [model_of_run(name) for name in given]
        if output is not None and output.exists():
            taken = {Path(name).resolve() for name in (*given, *folders) if Path(name).exists()}
            if output.resolve() in taken:
                raise ConfigError(f"--output {output} is one of the models that are merged; choose another folder")
        found = [Path(find_backbone(folder, "MODEL").name) for folder in folders]
        encoders = [Encoder.load(folder) for folder in folders]
        check_alike(list(zip(given, encoders, strict=True)))
        told = [card.trained_languages(folder) for folder in found[: len(names)]]
        languages = None if None in told else tuple(dict.fromkeys(x for each in told for x in each or ()))
        return cls(tuple(names), base, tuple(folders), tuple(encoders), languages)

    def merged(self, method: Method, weights: Sequence[float]) -> dict[str, Tensor]:
        """The weights of their merge; see `merged_weights`."""
        own = [encoder.model for encoder in self.encoders]
        return merged_weights(method, own[: len(self.names)], weights, None if self.base is None else own[-1])


def model_of_run(name: str) -> str:
    """The model's folder, where `name` is a run of hbtrain; else `name`."""
    own = Path(name) / "model"
    return str(own) if (own / "modules.json").is_file() else name


def check_alike(models: Sequence[tuple[str, Encoder]]) -> None:
    """Raise ModelError unless all models, with their names, have the modules, shapes, vocabulary and prompts of the
    first."""
    name, first = models[0]
    for other, encoder in models[1:]:
        differs = _difference(first, encoder)
        if differs:
            raise ModelError(
                f"models '{name}' and '{other}' cannot be merged: {differs}; merge models that were trained from the "
                "same one"
            )


def merged_weights(
    method: Method, models: Sequence[SentenceTransformer], weights: Sequence[float], base: SentenceTransformer | None
) -> dict[str, Tensor]:
    """{name: tensor} of the merged model, in the types of the first model.

    - `linear`: the mean with `weights` (arXiv 2203.05482).
    - `slerp`: each tensor, as one vector, on the arc from the first to the second, by the share of the second.
    - `task-arithmetic`: the base, and what each model has learned beyond it times its weight (arXiv 2212.04089).

    A model with weight 1 beside weights of 0 comes out bit for bit, and so do tensors that are equal in all.
    """
    states = [model.state_dict() for model in models]
    start = None if base is None else base.state_dict()
    merged = {}
    for name, first in states[0].items():
        if not first.is_floating_point():
            merged[name] = first
            continue
        tensors = [state[name].float() for state in states]
        if start is not None:
            value = _plus_differences(start[name].float(), tensors, weights)
        elif method == "slerp":
            value = _slerp(tensors[0], tensors[1], weights[1])
        else:
            value = linear(tensors, weights)
        merged[name] = value.to(first.dtype)
    return merged


def linear(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The mean of tensors of one shape; `weights` add up to 1."""
    if 1.0 in weights and sum(map(bool, weights)) == 1:
        return tensors[list(weights).index(1.0)]
    return _plus_differences(tensors[0], tensors[1:], weights[1:])


def _plus_differences(start: Tensor, tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    used = [(tensor, weight) for tensor, weight in zip(tensors, weights, strict=True) if weight]
    if len(used) == 1 and used[0][1] == 1:
        return used[0][0]
    total = start
    for tensor, weight in used:
        total = total + weight * (tensor - start)
    return total


def _slerp(one: Tensor, other: Tensor, share: float) -> Tensor:
    """sin((1 - t) angle) / sin(angle) of the one plus sin(t angle) / sin(angle) of the other, t being `share`."""
    lengths = float(one.double().norm() * other.double().norm())
    cosine = float((one.double() * other.double()).sum()) / lengths if lengths else 1.0
    if share in (0.0, 1.0) or abs(cosine) > NEARLY_PARALLEL:
        return linear((one, other), (1 - share, share))
    angle = math.acos(cosine)
    return (math.sin((1 - share) * angle) * one + math.sin(share * angle) * other) / math.sin(angle)


def _difference(first: Encoder, other: Encoder) -> str:
    """In what a model is built otherwise than the first; empty if in nothing that merging or using it depends on."""
    kinds = [[type(module).__name__ for module in encoder.model] for encoder in (first, other)]
    if kinds[0] != kinds[1]:
        return f"their modules are {', '.join(kinds[0])} and {', '.join(kinds[1])}"
    shapes = [{name: tuple(x.shape) for name, x in encoder.model.state_dict().items()} for encoder in (first, other)]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        one, two = shapes[0].get(name), shapes[1].get(name)
        if one != two:
            return f"{name} has shape {one or 'none'} in one and {two or 'none'} in the other"
    states = [tokenizer_state(getattr(encoder.model, "tokenizer", None)) for encoder in (first, other)]
    if states[0] != states[1]:
        return "their vocabularies or tokenizers differ"
    if first.similarity != other.similarity:
        return f"they compare vectors by {first.similarity} and {other.similarity}"
    if first.prefixes != other.prefixes:
        return f"their prompts are {first.prefixes} and {other.prefixes}"
    settings: list[list[object]] = [
        [getattr(module, "get_config_dict", dict)() for module in list(encoder.model)[1:]] for encoder in (first, other)
    ]
    return "" if settings[0] == settings[1] else "their pooling or other modules are set differently"


def in_words(method: Method, names: Sequence[str], weights: Sequence[float], base: str | None) -> str:
    """What was merged, for the model card: `0.5 × a + 0.5 × b (linear)`."""
    if base is not None:
        learned = " + ".join(f"{weight:g} × ({name} - base)" for name, weight in zip(names, weights, strict=True))
        return f"base + {learned}, the base being {base} ({method})"
    return " + ".join(f"{weight:g} × {name}" for name, weight in zip(names, weights, strict=True)) + f" ({method})"


def _shown(weights: Sequence[float]) -> str:
    return " ".join(f"{weight:g}" for weight in weights)
