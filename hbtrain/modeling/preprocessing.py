"""From texts to token features: a model's own preprocessing, or the same result without what it costs in Python.

The preprocessing of a model looks at every text for pictures, has the tokenizer make lists of all that there is to know
of a text, pads them, and makes tensors of them, number by number while it holds Python's lock: half of the time to
prepare a batch, in which the other threads of a worker must wait. For models that do nothing but tokenize, the Rust
library under the tokenizer is called here, which lets other threads run and uses several itself
(`TOKENIZERS_PARALLELISM`), and rows are padded with numpy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hbtrain.modeling import features as forms
from hbtrain.modeling.features import Features, truncate_bags, with_padding
from hbtrain.modeling.fitting import check_ids, embedding_rows

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class Preprocessor:
    """Makes the token features of a model's texts, on the CPU; may be called by several threads."""

    def __init__(self, model: SentenceTransformer) -> None:
        self._model = model
        self._rows = embedding_rows(model)
        # Hugging Face tokenizers change their truncation and padding in place, which two threads must not do at once.
        self._lock = threading.Lock()
        self._prompt_lengths: dict[tuple[str, int | None], int] = {}  # {(prompt, most tokens): tokens of the prompt}

    def __call__(self, texts: Sequence[str], prompt: str, task: str, max_tokens: int | None = None) -> Features:
        """Features of `prompt` before each text, as `SentenceTransformer.preprocess` gives them; texts that all have no
        tokens have one of padding.

        Args:
            texts: of one side.
            prompt: may be empty.
            task: sentence-transformers' name of the side: `query` or `document`.
            max_tokens: the most tokens of a text; None is what the model says.

        Raises:
            ModelError: a text has a token that the network does not know.
        """
        options = {} if max_tokens is None else {"max_length": max_tokens}
        by_model = partial(self._model.preprocess, prompt=prompt or None, task=task, **options)
        if texts and forms.gives_rows(self._model):
            features = self._tokenized(texts, prompt, task, max_tokens, by_model)
        else:
            with self._lock:
                features = by_model(list(texts))
        check_ids(features, self._rows, "query" if task == "query" else "passage")
        if "prompt_length" in features:  # an integer, for models that leave the prompt out of their pooling
            features["prompt_length"] = torch.full((len(texts),), features["prompt_length"])
        tensors = with_padding({name: value for name, value in features.items() if isinstance(value, torch.Tensor)})
        return tensors if max_tokens is None or "offsets" not in tensors else truncate_bags(tensors, max_tokens)

    def _tokenized(
        self, texts: Sequence[str], prompt: str, task: str, max_tokens: int | None, by_model: Callable[..., Any]
    ) -> dict[str, Any]:
        """What `by_model` would give, without it, but for the length of a prompt that is new."""
        first = self._model[0]
        if max_tokens is None:
            max_tokens = first.query_length if task == "query" else first.document_length
        key = prompt, max_tokens
        with self._lock:
            if prompt and key not in self._prompt_lengths:
                self._prompt_lengths[key] = by_model([""])["prompt_length"]
            encodings = encoded(first.processor, [prompt + text for text in texts], max_tokens)
        features = padded(encodings, first.processor)
        return features | {"prompt_length": self._prompt_lengths[key]} if prompt else features


def encoded(tokenizer: Any, texts: list[str], max_tokens: int | None) -> list[Any]:
    """The `tokenizers.Encoding` of each text, special tokens included; as `tokenizer(texts, truncation=True)` has it.

    The tokenizer of transformers would make lists of all that there is of every text; here the Rust library under it is
    called, which lets other threads run, and uses several by itself.

    Args:
        tokenizer: of transformers; its truncation and padding are changed in place.
        texts: with their prompts.
        max_tokens: the most tokens of a text; None is what the tokenizer says.
    """
    from transformers.tokenization_utils_base import LARGE_INTEGER, PaddingStrategy, TruncationStrategy

    limit = tokenizer.model_max_length if max_tokens is None else max_tokens
    cut = TruncationStrategy.DO_NOT_TRUNCATE if limit > LARGE_INTEGER else TruncationStrategy.LONGEST_FIRST
    tokenizer.set_truncation_and_padding(PaddingStrategy.DO_NOT_PAD, cut, limit, 0, None, None)
    backend = tokenizer.backend_tokenizer
    if backend.encode_special_tokens != tokenizer.split_special_tokens:
        backend.encode_special_tokens = tokenizer.split_special_tokens
    encodings: list[Any] = backend.encode_batch_fast(texts)
    return encodings


def padded(encodings: Sequence[Any], tokenizer: Any) -> dict[str, Tensor]:
    """{name: int64 [B, longest]}, padded as the tokenizer would do it, and with the names that it would give.

    Args:
        encodings: B, without padding, see `encoded`.
        tokenizer: of transformers; has the padding token and the side on which to pad.
    """
    lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
    longest = int(lengths.max(initial=0))
    place = np.arange(longest)
    left = tokenizer.padding_side == "left"
    real = place >= (longest - lengths)[:, None] if left else place < lengths[:, None]

    def table(rows: Iterable[Sequence[int]], filler: int) -> Tensor:
        numbers = np.full(real.shape, filler, np.int64)
        numbers[real] = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
        return torch.from_numpy(numbers)

    features = {"input_ids": table((one.ids for one in encodings), tokenizer.pad_token_id)}
    if "token_type_ids" in tokenizer.model_input_names:
        features["token_type_ids"] = table((one.type_ids for one in encodings), tokenizer.pad_token_type_id)
    if "attention_mask" in tokenizer.model_input_names:
        features["attention_mask"] = torch.from_numpy(real.astype(np.int64))
    return features
