"""A tokenizer and its network, fitted to each other: their vocabularies and lengths, the padding, and how a network
without a pooling of its own is pooled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hbtrain.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer

_NO_LIMIT = 1_000_000_000  # tokenizers without a limit of their own state one like 1e30
_PROBED_TOKENS = 8
_ROUNDING = 1e-6
"""Relative difference of the components of vectors that are equal but for the batches that they were computed in."""


def fit_tokenizers(name: str, model: SentenceTransformer) -> list[str]:
    """Check the tokenizers of a model against its networks, and set what they leave open.

    Args:
        name: what messages call the model.
        model: whose tokenizers get a padding token where they have none, and the limit that their network has.

    Returns:
        a sentence for each thing that was set otherwise than the model's files say.

    Raises:
        ModelError: there is no tokenizer, or it has tokens for which the network has no embedding.
    """
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    said: list[str] = []
    for module in model.modules():
        if isinstance(module, StaticEmbedding):
            _check_vocabulary(name, module.tokenizer.get_vocab(), module.embedding.num_embeddings)
        elif isinstance(module, Transformer) and module.tokenizer is not None:
            said += _fit_transformer(name, module)
    return said


def _fit_transformer(name: str, module: Transformer) -> Iterator[str]:
    tokenizer = module.tokenizer
    if (filler := fit_tokenizer(name, tokenizer, module.model)) is not None:
        yield f"model '{name}' has no padding token: texts are padded with {filler!r}, which the attention mask hides"
    if set(module.modality_config) <= {"text", "message"}:  # a network for pictures has positions of another kind
        if counts_padding(module.model):
            tokenizer.padding_side = "right"
        limit, stated = usable_positions(module.model), module.max_seq_length
        if limit is not None and (stated is None or stated > limit):
            module.max_seq_length = limit
            allowed = "no limit" if stated is None or stated > _NO_LIMIT else f"{stated} tokens"
            yield (
                f"model '{name}': texts are cut to {limit} tokens, since its network has no more positions, though its "
                f"tokenizer or configuration says {allowed}"
            )


def fit_tokenizer(name: str, tokenizer: Any, network: nn.Module) -> str | None:
    """Check a tokenizer against its network, and choose a padding token where it has none: its end of text, as users of
    decoders do, or another special token; returns which, None if it needed none.

    Raises:
        ModelError: see `fit_tokenizers`.
    """
    # Where there are no files, transformers makes one up; some of those have a token or two, such as that of a blank.
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)) + 2:
        raise ModelError(
            f"model '{name}' has no tokenizer: its files are missing, and what is there has no tokens but special "
            "ones; copy them there from where the model comes from"
        )
    chosen = None
    if tokenizer.pad_token_id is None:
        own = (tokenizer.eos_token, tokenizer.sep_token, tokenizer.unk_token, tokenizer.bos_token)
        chosen = next((token for token in own if token is not None), None) or tokenizer.convert_ids_to_tokens(0)
        tokenizer.pad_token = chosen
    table = _token_embeddings(network)
    if table is not None:
        # Special tokens may be put nowhere: some classes of tokenizers have their own, whatever the network.
        special = {str(added) for added in getattr(tokenizer, "added_tokens_decoder", {}).values() if added.special}
        special -= {tokenizer.pad_token, tokenizer.unk_token, *tokenizer.convert_ids_to_tokens(tokenizer("").input_ids)}
        vocabulary = {token: number for token, number in tokenizer.get_vocab().items() if token not in special}
        _check_vocabulary(name, vocabulary, table.num_embeddings)
    return chosen


def _check_vocabulary(name: str, vocabulary: Mapping[str, int], rows: int) -> None:
    beyond = [token for token, number in vocabulary.items() if number >= rows]
    if beyond:
        raise ModelError(
            f"model '{name}': its tokenizer has {max(vocabulary.values()) + 1} tokens and its network embeddings for "
            f"{rows}, so that {len(beyond)} have none, such as {beyond[0]!r}; tokenizer and weights are of different "
            "models, or the network was not resized"
        )


def usable_positions(network: nn.Module) -> int | None:
    """The most tokens for which a network has positions; None if it has no table of positions.

    XLM-R and its like number positions from the padding index + 1, BART and OPT from 2: 514 positions hold 512 tokens.
    """
    limits = [
        table.num_embeddings - (getattr(table, "offset", 0) if table.padding_idx is None else table.padding_idx + 1)
        for table in _position_tables(network)
    ]
    stated = getattr(network.config, "max_position_embeddings", None)
    return min([*limits, *([stated] if isinstance(stated, int) and stated > 0 else [])]) if limits else None


def counts_padding(network: nn.Module) -> bool:
    """Whether the network numbers the positions of a row from its start, so that padding must not stand there."""
    return any(table.padding_idx is None and not hasattr(table, "offset") for table in _position_tables(network))


def _position_tables(network: nn.Module) -> list[nn.Embedding]:
    found = []
    for path, module in network.named_modules():
        name = path.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and (("position" in name and "relative" not in name) or name == "wpe"):
            found.append(module)
    return found


def check_ids(features: Mapping[str, Tensor], rows: int | None, side: str) -> None:
    """Raise ModelError if a text has a token beyond the network's `rows` embeddings; None if they are not known."""
    ids = features.get("input_ids")
    if rows is not None and ids is not None and ids.numel() and (highest := int(ids.max())) >= rows:
        raise ModelError(
            f"a {side} has the token {highest}, and the network has embeddings for {rows} tokens: the tokenizer has "
            "special tokens for which the network was not resized, and a text holds one of them"
        )


def length_limit(model: SentenceTransformer) -> int | None:
    """Tokens after which the model, as anyone loads it, cuts a text; None if it never does."""
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    if isinstance(model[0], StaticEmbedding):
        truncation = model[0].tokenizer.truncation
        return None if truncation is None else int(truncation["max_length"])
    limit = model.max_seq_length
    return None if limit is None or limit > _NO_LIMIT else int(limit)


def limit_length(model: SentenceTransformer, wanted: int) -> int:
    """Let the model cut texts at `wanted` tokens, or at its own limit if that is lower; returns which."""
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    if isinstance(model[0], StaticEmbedding):
        # A bag of tokens has no positions to run out of, and its tokenizer keeps the limit when it is saved.
        model[0].tokenizer.enable_truncation(wanted)
        return wanted
    own = length_limit(model)
    limit = wanted if own is None else min(wanted, own)
    model.max_seq_length = limit
    return limit


def embedding_rows(model: SentenceTransformer) -> int | None:
    """The number of tokens for which the model's first module has embeddings; None if that is not known."""
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    first = model[0]
    table = _token_embeddings(first.model) if isinstance(first, Transformer) else None
    if isinstance(first, StaticEmbedding):
        table = first.embedding
    return None if table is None else int(table.num_embeddings)


def _token_embeddings(network: Any) -> nn.Embedding | None:
    try:
        table = network.get_input_embeddings()
    except NotImplementedError:
        return None
    return table if isinstance(table, nn.Embedding) else None


def natural_pooling(module: Transformer) -> str:
    """`lasttoken` for a causal network, whose last token alone has seen the whole text, else `mean`.

    Whether it is causal is tried, since names of architectures do not tell: a network is if its last token changes
    nothing about the tokens before.
    """
    special = set(module.tokenizer.all_special_ids)
    ordinary = [number for number in range(len(module.tokenizer)) if number not in special]
    if len(ordinary) < 2:
        return "mean"
    first, other = ordinary[:2]
    length = min(_PROBED_TOKENS, module.max_seq_length or _PROBED_TOKENS)
    states = []
    with torch.no_grad(), without_flash_attention(module.model):
        for last in (first, other):
            ids = torch.tensor([[first] * (length - 1) + [last]], device=module.model.device)
            features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            states.append(module(features)["token_embeddings"][0])
    changed = (states[0] != states[1]).any(dim=1)
    return "lasttoken" if changed[-1] and not changed[:-1].any() else "mean"


def collapse(texts: Sequence[str], side: str, vectors_ND: NDArray[np.float32]) -> str | None:
    """A sentence on a model that gives different texts one and the same vector; None if it does not."""
    if len(vectors_ND) < 2 or not all(_equal(vectors_ND[:rows]) for rows in (2, len(vectors_ND))):
        return None
    if (different := len(set(texts))) == 1:
        return None
    return (
        f"all {different} different texts of a {side} have one and the same vector: the model has collapsed, "
        "or knows none of their words; scores are ties, and ranks are the order of the texts"
    )


def _equal(vectors_ND: NDArray[np.float32]) -> bool:
    """Whether all vectors are the same, up to rounding."""
    least, most = vectors_ND.min(axis=0), vectors_ND.max(axis=0)
    return bool((most - least).max() <= _ROUNDING * abs(vectors_ND[0]).max())


@contextmanager
def without_flash_attention(network: Any) -> Iterator[None]:
    """Without flash attention, which needs a GPU, while the body runs."""
    chosen = network.config._attn_implementation or ""
    if "flash" not in chosen:
        yield
        return
    network.set_attn_implementation("eager")
    try:
        yield
    finally:
        network.set_attn_implementation(chosen)
