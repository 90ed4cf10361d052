"""The section `encoder` of a configuration: the backbone, its prefixes and limits, which of its weights are trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hbtrain.config.section import Float, Fraction, NonNegativeInt, PositiveInt, Section

Precision = Literal["fp32", "bf16"]


class StaticConfig(Section):
    """`encoder.backbone: static`: the mean of token vectors."""

    dimension: PositiveInt = 256
    """Of the token vectors, and so of the embeddings."""
    vocabulary: str | None = None
    """A WordPiece vocabulary, one piece a line, plain or .gz; none means one trained on the sources."""
    vocabulary_size: PositiveInt = 16_000
    """Pieces of the vocabulary that is trained where none is given."""
    trim: bool = True
    """Keep only the pieces of the given vocabulary that the sources use (any language), and single characters."""


class TransformerConfig(Section):
    """`encoder.backbone: transformer`: a small BERT-like encoder with random weights."""

    layers: PositiveInt = 2
    """Transformer layers."""
    hidden_size: PositiveInt = 128
    """Of the hidden states, and so of the embeddings; a multiple of `heads`."""
    heads: PositiveInt = 4
    """Attention heads of a layer."""
    intermediate_size: PositiveInt = 512
    """Of the feed-forward network of a layer."""
    dropout: Fraction = 0.0
    """Probability of dropout of hidden states and of attention."""
    vocabulary: str | None = None
    """A WordPiece vocabulary, as `encoder.static.vocabulary`."""
    vocabulary_size: PositiveInt = 16_000
    """As `encoder.static.vocabulary_size`."""
    trim: bool = True
    """As `encoder.static.trim`."""
    max_positions: PositiveInt = 512
    """Longest text in tokens that the position embeddings are for."""

    @model_validator(mode="after")
    def _heads_divide(self) -> TransformerConfig:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not divisible by heads {self.heads}")
        return self


class LoraConfig(Section):
    """Low-rank adapters (arXiv 2106.09685), merged into the backbone when the model is saved."""

    rank: PositiveInt = 16
    """Columns of an adapter's factors; more learn more and cost more memory."""
    alpha: PositiveInt = 32
    """An adapter's output is multiplied by alpha / rank."""
    dropout: Fraction = 0.0
    """Probability of dropout of what goes into an adapter."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the modules that get adapters (endings, or one regular expression); `all-linear` is all but the head."""


class EncoderConfig(Section):
    """The model that embeds queries and passages with shared parameters."""

    backbone: str = "static"
    """`static`, `transformer`, or a sentence-transformers or Hugging Face model by hub name or path."""
    query_prefix: str = "Query: "
    """Put before each query, and stored with the model as its prompt."""
    passage_prefix: str = "Passage: "
    """The same for passages."""
    max_query_tokens: PositiveInt = 64
    """Longer queries are cut off; the prefix counts."""
    max_passage_tokens: PositiveInt = 256
    """The same for passages."""
    precision: Precision = "fp32"
    """Of weights and computation in training; the optimizer's own copies and the loss are float32 in any case."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "packed"] = "auto"
    """`packed` computes no padding, with the networks of BERT, DistilBERT, RoBERTa and XLM-R; so does
    `flash_attention_2`, by the kernels of the package flash-attn. `auto` is `packed` on GPUs in bf16 with these
    networks, else `sdpa`."""
    compile: bool = False
    """Compile the layers of a transformer with torch.compile while it is trained: fewer, larger kernels."""
    dropout: Annotated[Float, Field(ge=0.0, lt=1.0)] | None = None
    """Probability of each dropout of a pretrained backbone; none given leaves it as the backbone's files say. 0
    makes training faster on CPUs, where random numbers are dear."""
    pooling: Literal["mean", "cls", "max", "lasttoken"] | None = None
    """Pooling put on a plain Hugging Face backbone (by default mean, lasttoken on a causal language model).

    The pooling of a sentence-transformers model is kept.
    """
    trust_remote_code: str | None = None
    """Consent to running the backbone's own Python code on the workers: the value of `backbone` once more."""
    freeze_embeddings: bool = False
    """Leave the token (and position) embeddings of a transformer as they are."""
    freeze_layers: NonNegativeInt = 0
    """How many of a transformer's lowest layers are left as they are."""
    lora: LoraConfig | None = None
    average_with_initial: Annotated[Float, Field(ge=0.0, lt=1.0)] = 0.0
    """w in [0, 1): the saved model's weights are w times those before training plus 1 - w times the trained ones
    (arXiv 2109.01903). 0 saves the trained ones."""
    static: StaticConfig = StaticConfig()
    transformer: TransformerConfig = TransformerConfig()

    @model_validator(mode="after")
    def _trusts_its_backbone(self) -> EncoderConfig:
        if self.trust_remote_code not in (None, self.backbone):
            raise ValueError(
                f"trust_remote_code = {self.trust_remote_code!r}, but backbone = {self.backbone!r}: name the backbone "
                "whose own code may run, or leave trust_remote_code out"
            )
        return self

    @model_validator(mode="after")
    def _drops_out(self) -> EncoderConfig:
        if self.dropout is not None and self.backbone in ("static", "transformer"):
            own = "has no dropout" if self.backbone == "static" else "has its own key, encoder.transformer.dropout"
            raise ValueError(f"dropout is for pretrained backbones; the backbone {self.backbone} {own}")
        return self

    @model_validator(mode="after")
    def _can_compile(self) -> EncoderConfig:
        if self.compile and self.backbone == "static":
            raise ValueError("a static backbone has no layers to compile; leave compile out")
        return self

    @model_validator(mode="after")
    def _can_freeze(self) -> EncoderConfig:
        if not self.freeze_layers and not self.freeze_embeddings:
            return self
        if self.backbone == "static":
            raise ValueError(
                "a static backbone has no layers and nothing but its embeddings; "
                "with it freeze_layers must be 0 and freeze_embeddings false"
            )
        if self.lora is not None:
            raise ValueError(
                "lora freezes the whole backbone and trains adapters; leave out lora, or freeze_layers and "
                "freeze_embeddings"
            )
        if self.backbone == "transformer" and self.freeze_layers > self.transformer.layers:
            raise ValueError(
                f"freeze_layers = {self.freeze_layers} is more than transformer.layers = {self.transformer.layers}"
            )
        return self
