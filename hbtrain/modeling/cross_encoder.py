"""Cross-encoders: models of sentence-transformers that read a query and a passage together and score the pair.

Shapes: n pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from hbtrain.errors import ModelError
from hbtrain.modeling.backbone import find_backbone
from hbtrain.modeling.devices import Device, compute_in, evaluation_precision
from hbtrain.modeling.encoder import BATCH_TOKENS
from hbtrain.modeling.model_files import check_cross_encoder_files
from hbtrain.reporting.text import counted, listed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import CrossEncoder

    from hbtrain.config.encoder import Precision
    from hbtrain.modeling.loading import Networks

BYTES_OF_A_TOKEN = 3
"""A token of a text has at least so many bytes, mostly, in any script; by it lengths are estimated."""
_NAMED = 3  # weights that a message names


class Loading(NamedTuple):
    """What it takes to load a cross-encoder once more."""

    name_or_path: str
    precision: Precision | None  # that was asked for


class CrossScorer:
    """A cross-encoder; its scores are those of `CrossEncoder.predict`, in float32."""

    def __init__(self, model: CrossEncoder, loading: Loading) -> None:
        self.model = model
        self._loading = loading

    @classmethod
    def load(cls, name_or_path: str, precision: Precision | None = None, device: Device = "cpu") -> CrossScorer:
        """Load a cross-encoder by its name on the hub or its folder.

        Args:
            name_or_path: saved by sentence-transformers, or a classifier of Hugging Face with one score.
            precision: in which its transformer computes; None: bf16 on GPUs that have it, else as its files say.
            device: that computes.

        Raises:
            ModelError: there is no such model, it is unsafe, not whole, or does not give one score for a pair.
        """
        from sentence_transformers import CrossEncoder

        from hbtrain.modeling.fitting import fit_tokenizers
        from hbtrain.modeling.loading import watched_loading

        backbone = find_backbone(name_or_path, "--rescore")
        check_cross_encoder_files(backbone.name, backbone.is_sentence_transformer)
        try:
            with watched_loading() as networks:
                model = CrossEncoder(backbone.name, device=device, model_kwargs={"use_safetensors": True})
            fit_tokenizers(name_or_path, model)
        except ModelError:
            raise
        except Exception as error:  # tokenizers and safetensors have errors of their own
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ModelError(f"--rescore: model '{name_or_path}' cannot be loaded: {reason}") from error
        _check_head(name_or_path, model, networks)
        if (used := evaluation_precision(precision, device)) is not None:
            compute_in(model, used)
            if used == "bf16":  # 8 bits of a logit would make ties of what it is to tell apart
                model.set_keep_in_fp32_modules(_last_layer(model))
        return cls(model, Loading(name_or_path, precision))

    def loader(self, anew: bool) -> Callable[[Device], CrossScorer]:
        """Gives this model; or `anew`, for workers with a device each, loads it on theirs, and can be pickled."""
        return partial(_load, self._loading) if anew else lambda device: self

    def score(self, queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        """float32 [n], a score for each query and the passage beside it. Batches are of pairs of similar length."""
        import numpy as np

        from hbtrain.modeling.features import windows

        scores_n = np.empty(len(queries), np.float32)
        budget = BATCH_TOKENS["cpu" if self.model.device.type == "cpu" else "gpu"]
        limit = self.model.max_seq_length or budget
        for places_W in windows([query + passage for query, passage in zip(queries, passages, strict=True)]):
            pairs = [(queries[place], passages[place]) for place in places_W]
            longest = max(len((query + passage).encode()) for query, passage in pairs) // BYTES_OF_A_TOKEN + 1
            most = max(1, budget // min(longest, limit))
            scores_n[places_W] = self.model.predict(pairs, batch_size=most, show_progress_bar=False)
        return scores_n


def _load(loading: Loading, device: Device) -> CrossScorer:
    return CrossScorer.load(loading.name_or_path, loading.precision, device)


def _check_head(name: str, model: CrossEncoder, networks: Networks) -> None:
    if model.num_labels != 1:
        raise ModelError(
            f"--rescore: model '{name}' gives {model.num_labels} numbers for a pair, as classifiers do; a rescorer "
            "gives one score"
        )
    for _, info in networks:
        missing = sorted(info["missing_keys"]) + sorted(key for key, *_ in info["mismatched_keys"])
        if missing:
            raise ModelError(
                f"--rescore: model '{name}': its files lack {counted(len(missing), 'weight')} that its scores depend "
                f"on ({listed(missing, _NAMED)}), and these would be random; give a model whose head was trained"
            )


def _last_layer(model: CrossEncoder) -> list[str]:
    """The name of the layer that gives the score, if it is a plain one."""
    from torch import nn

    layers = [name for name, layer in model.named_modules() if type(layer) is nn.Linear and layer.out_features == 1]
    return layers[-1:]
