"""The encoder: a sentence-transformers model that embeds queries and passages with shared parameters.

Shapes: B texts in a batch, N texts in all, D dimensions of an embedding.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from hbtrain.errors import ModelError
from hbtrain.modeling.backbone import BUILT_BACKBONES
from hbtrain.modeling.devices import compute_in
from hbtrain.modeling.loading import without_garbage_collection

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer
    from torch import Tensor, device

    from hbtrain.config.encoder import EncoderConfig, Precision
    from hbtrain.modeling.card import ModelCard
    from hbtrain.modeling.features import Features

Side = Literal["query", "passage"]
Similarity = Literal["cosine", "dot", "euclidean"]
"""How vectors are compared: `similarity_fn_name` of sentence-transformers."""

BATCH_TOKENS = {"cpu": 4096, "gpu": 65_536}
"""Tokens of a batch, padding included: what fits into the caches of a CPU, what keeps a large GPU busy."""
BATCH_TEXTS = {"cpu": 128, "gpu": 65_536}
"""The most texts of a batch: on a GPU its tokens alone decide."""

_PROMPT_NAMES: Mapping[Side, tuple[str, ...]] = {"query": ("query",), "passage": ("passage", "document", "corpus")}
"""Names under which published models store their prompts."""
_TASKS: Mapping[Side, str] = {"query": "query", "passage": "document"}
"""Names of the sides in sentence-transformers, for models that treat them differently."""

logger = logging.getLogger(__name__)


class Origin(NamedTuple):
    """Where an encoder was loaded from with its own prompts, so that other processes can load it again."""

    name_or_path: str
    trust_remote_code: bool
    precision: Precision | None = None


class Encoder:
    """A `SentenceTransformer` with a prefix and a token limit for each side.

    `model` is the SentenceTransformer; to train it, wrap it: `EmbeddingModule(encoder.model)`. `similarity` is how its
    vectors are compared, and `notes` are sentences on what was found about the model while it was loaded and used.
    """

    def __init__(
        self, model: SentenceTransformer, prefixes: Mapping[Side, str], max_tokens: Mapping[Side, int | None]
    ) -> None:
        from hbtrain.modeling.preprocessing import Preprocessor

        self.model = model
        self.prefixes = dict(prefixes)
        self.max_tokens = dict(max_tokens)
        self.origin: Origin | None = None
        self.similarity: Similarity = model.similarity_fn_name
        self.notes: list[str] = []
        self._preprocessor = Preprocessor(model)
        if hasattr(model[0], "can_flatten_inputs"):
            # Rows stay rows until batches have been cut from them; then they are packed by `pack`.
            model[0].can_flatten_inputs = False

    @classmethod
    @without_garbage_collection()
    def build(cls, config: EncoderConfig, texts: Callable[[], Iterable[str]], seed: int) -> Encoder:
        """The encoder that training starts from, on the CPU and in float32, adapters included.

        The same config, texts and seed give the same weights; the global random state is left as it was.

        Args:
            config: what to build; `backbone` says which of `static`, `transformer` or a pretrained model.
            texts: gives the texts of the sources, which decide the vocabulary; unused for a pretrained backbone.
            seed: of the random weights.

        Raises:
            ModelError: the backbone or the vocabulary is not there, or has fewer layers than are to be frozen.
        """
        import torch

        from hbtrain.modeling.adapters import add_lora
        from hbtrain.modeling.build import build_static, build_transformer
        from hbtrain.modeling.loading import load_pretrained

        config = config.model_copy(update={"precision": "fp32"})
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            if config.backbone in BUILT_BACKBONES:
                build_model = build_static if config.backbone == "static" else build_transformer
                model = build_model(config, texts)
            else:
                model = load_pretrained(config.backbone, config, device="cpu").model
        if config.lora is not None:
            add_lora(model, config.lora, seed)
        return cls._for_training(model, config)

    @classmethod
    @without_garbage_collection()
    def load(
        cls,
        name_or_path: str,
        config: EncoderConfig | None = None,
        device: str = "cpu",
        trust_remote_code: bool = False,
        prompts: Mapping[Side, str] | None = None,
        precision: Precision | None = None,
    ) -> Encoder:
        """Load a model by its name on the hub or its folder.

        Args:
            name_or_path: a sentence-transformers model, or a plain Hugging Face model, which gets pooling.
            config: for training: prefixes, token limits, attention and the precision of a transformer; its adapters are
                not added. None, for evaluation: the model stays as published, with its own prompts.
            device: such as `cpu`, `cuda` or `cuda:1`.
            trust_remote_code: whether to run Python code that comes with the model; `config` has a key for it too.
            prompts: what to put before the texts of a side, in place of the model's own prompt; without `config`.
            precision: in which its transformers compute; without `config`. None leaves them as their files say.

        Raises:
            ModelError: there is no such model, it is unsafe, not whole, or makes no embeddings, its similarity is
                unknown here, or it cannot be loaded or trained.
        """
        from hbtrain.modeling.loading import load_pretrained

        model, notes = load_pretrained(name_or_path, config, device, trust_remote_code)
        if config is not None:
            return cls._for_training(model, config)
        if model.similarity_fn_name not in get_args(Similarity):
            raise ModelError(
                f"model '{name_or_path}' compares its vectors by similarity_fn_name = {model.similarity_fn_name!r}; "
                f"only {', '.join(get_args(Similarity))} are known here"
            )
        used: dict[Side, str] = {
            side: next((prompt for name in names if (prompt := model.prompts.get(name))), "")
            for side, names in _PROMPT_NAMES.items()
        }
        encoder = cls(model, used | dict(prompts or {}), {"query": None, "passage": None})
        encoder.origin = Origin(name_or_path, trust_remote_code)
        encoder.compute_in(precision)
        encoder.notes += notes
        unused = [name for name, prompt in model.prompts.items() if prompt and prompt not in encoder.prefixes.values()]
        if unused and len(prompts or {}) < len(_PROMPT_NAMES):
            stored = ", ".join(f"{name} ({model.prompts[name]!r})" for name in unused)
            encoder._note(
                f"model '{name_or_path}' stores prompts under names that are not used, and are put before no text: "
                f"{stored}; `hbtrain evaluate` takes a side's prompt with --query-prompt and --passage-prompt"
            )
        return encoder

    @classmethod
    def _for_training(cls, model: SentenceTransformer, config: EncoderConfig) -> Encoder:
        from hbtrain.modeling.build import made_trainable

        limit = made_trainable(model, config)
        prefixes: dict[Side, str] = {"query": config.query_prefix, "passage": config.passage_prefix}
        wanted: dict[Side, int] = {"query": config.max_query_tokens, "passage": config.max_passage_tokens}
        return cls(model, prefixes, {side: min(tokens, limit) for side, tokens in wanted.items()})

    @property
    def dimension(self) -> int:
        """D, the number of dimensions of an embedding."""
        return int(self.model.get_embedding_dimension())

    @property
    def precision(self) -> str:
        """The types in which its weights are, and compute: `float32`, `bfloat16`, or several, with commas."""
        return ", ".join(sorted({str(weight.dtype).removeprefix("torch.") for weight in self.model.parameters()}))

    @property
    def packs(self) -> bool:
        """Whether `model` takes packed batches, which `pack` makes, as well as padded ones."""
        from hbtrain.modeling.packing import packs

        return packs(self.model)

    def pack(self, batches: Sequence[Features]) -> list[Features]:
        """The texts of padded batches in packed ones, on the CPU: in one, or one for each where a pooling must know the
        length of the prompt, which is one number for a batch. See `hbtrain.modeling.packing`."""
        from hbtrain.modeling.packing import packed, padding_index, reads_prompt_length

        padding_idx = padding_index(self.model)
        if reads_prompt_length(self.model):
            return [packed([batch], padding_idx) for batch in batches]
        return [packed(batches, padding_idx)]

    @property
    def device(self) -> device:
        where: device = self.model.device
        return where

    def digest(self) -> str:
        """A hex digest that differs from that of any other model (see `model_digest`) and precision.

        Where a model's files are in bf16, weights do not tell in what it pools. Prefixes do not enter the digest.
        """
        from hashlib import sha256

        from hbtrain.modeling.saving import model_digest

        digest = model_digest(self.model)
        if self.origin is None or self.origin.precision != "bf16":
            return digest
        return sha256(f"{digest} pooled in float32".encode()).hexdigest()

    def compute_in(self, precision: Precision | None) -> None:
        """Have the transformers compute in `precision` from now on, and those of processes that load this encoder; None
        leaves them as they are. Where that pays, batches are packed."""
        from hbtrain.modeling.packing import pack_on_gpu

        if precision is not None:
            compute_in(self.model, precision)
            if self.origin is not None:
                self.origin = self.origin._replace(precision=precision)
        pack_on_gpu(self.model, self.device)

    def on(self, device: str) -> Encoder:
        """A copy of this encoder on another device, which may encode at the same time; both write the same notes."""
        twin = copy.copy(self)
        twin.model = copy.deepcopy(self.model).to(device)
        twin._preprocessor = type(self._preprocessor)(twin.model)
        return twin

    def tokenize(self, texts: Sequence[str], side: Side) -> dict[str, Tensor]:
        """Token features of prefix + text, cut to the side's token limit, on the CPU: the input of `EmbeddingModule`.

        A transformer's features are `input_ids` [B, tokens] and its companions; a static encoder's are `input_ids`
        [all tokens] and `offsets` [B]. May run in a background thread while the encoder is used in another.
        """
        return self._preprocessor(texts, self.prefixes[side], _TASKS[side], self.max_tokens[side])

    def encode(
        self,
        texts: Sequence[str],
        side: Side,
        batch_size: int | None = None,
        progress: Callable[[int], None] | None = None,
        batch_tokens: int | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> NDArray[np.float32]:
        """Vectors [N, D] of the texts, in their order, without gradient and without dropout; unit vectors where the
        model's similarity is the cosine.

        Equal to `SentenceTransformer.encode` with the side's prompt. How texts are batched, and so the last bits of
        their vectors, depends on all texts given, on whether a GPU computes, and on nothing else. Each of the `windows`
        of the texts, encoded by itself, gives the same.

        Args:
            texts: to embed.
            side: decides the prefix.
            batch_size: the most texts of a batch; None is `BATCH_TEXTS` of the device.
            progress: called after every batch with the number of texts done so far.
            batch_tokens: the most tokens of a batch, padding included unless batches are packed; None is `BATCH_TOKENS`
                of the device.
            share: (i, n): of the batches only number i, i + n, i + 2n, ... are encoded, and all other vectors are zero.
                What n processes give for i = 0 to n - 1 adds up to what one gives, to the last bit.
        """
        import numpy as np
        import torch

        from hbtrain.modeling.embedding import embed, evaluating
        from hbtrain.modeling.features import ahead, moved, pinned, select_rows, token_counts, windows, within_budget

        unit, kind = self.similarity == "cosine", "cpu" if self.device.type == "cpu" else "gpu"
        most, budget = batch_size or BATCH_TEXTS[kind], batch_tokens or BATCH_TOKENS[kind]
        vectors_ND = np.zeros((len(texts), self.dimension), dtype=np.float32)
        done, numbers = 0, count()

        def batches(places_W: list[int]) -> list[tuple[Tensor, dict[str, Tensor] | None]]:
            """The rows of each batch of a window, and its features where it is of this share."""
            features = self._preprocessor([texts[i] for i in places_W], self.prefixes[side], _TASKS[side])
            found: list[tuple[Tensor, dict[str, Tensor] | None]] = []
            for rows_B in within_budget(token_counts(features), most, budget, self.packs):
                batch = select_rows(features, rows_B) if next(numbers) % share[1] == share[0] else None
                if batch is not None:
                    batch = pinned(self.pack([batch])[0] if self.packs else batch, self.device)
                found.append((rows_B, batch))
            return found

        with torch.no_grad(), evaluating(self.model):
            # What a window's batches need of the host is made while the device computes the window before.
            for places_W, prepared in ahead(batches, windows(texts)):
                own, found = [], []
                for rows_B, batch in prepared:
                    if batch is not None:
                        found.append(embed(self.model, moved(batch, self.device), unit, task=_TASKS[side]))
                        own.append(rows_B)
                    done += len(rows_B)
                    if progress is not None:
                        progress(done)
                # Copied from the device once a window: after each batch, the device would have to wait for the host.
                if found:
                    vectors_ND[np.asarray(places_W)[torch.cat(own).numpy()]] = torch.cat(found).cpu().numpy()
        if share[1] == 1:
            self.tell_if_collapsed(texts, side, vectors_ND)
        return vectors_ND

    def tell_if_collapsed(self, texts: Sequence[str], side: Side, vectors_ND: NDArray[np.float32]) -> None:
        """Note a model that gives different texts one and the same vector: its scores are all ties."""
        from hbtrain.modeling.fitting import collapse

        if (note := collapse(texts, side, vectors_ND)) is not None:
            self._note(note)

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)
            logger.warning("%s", note)

    def save(self, path: Path, card: ModelCard | None = None, more: Mapping[str, str] | None = None) -> None:
        """Write a sentence-transformers folder (safetensors, prompts, README.md) in the model's current dtype.

        Adapters are merged into the weights saved, not into this encoder. A model that was at `path` is replaced.
        `more`: {name: content} of other files of the folder, texts.

        Raises:
            StorageError: `path` cannot be written, or holds something that is no model.
        """
        from hbtrain.modeling.adapters import merged
        from hbtrain.modeling.card import ModelCard
        from hbtrain.modeling.fitting import length_limit
        from hbtrain.modeling.saving import replace_folder

        plain = merged(self.model)
        limit = length_limit(plain)
        readme = (card or ModelCard()).render(
            query_prefix=self.prefixes["query"],
            passage_prefix=self.prefixes["passage"],
            dimension=self.dimension,
            max_tokens=limit,
        )

        def write(folder: Path) -> None:
            plain.save(str(folder), create_model_card=False)
            for name, content in {"README.md": readme, **(more or {})}.items():
                (folder / name).write_text(content, encoding="utf-8")

        replace_folder(path, write)
