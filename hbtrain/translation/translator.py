"""Translating texts with a Hugging Face sequence-to-sequence model, in batches of like length.

Shapes: W pieces of a window, B pieces of a batch, T tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hbtrain.errors import ConfigError, ModelError
from hbtrain.modeling.features import within_budget
from hbtrain.translation.languages import LANGUAGES, Language
from hbtrain.translation.model import TranslationModel, load_tokenizer, prompting_for

if TYPE_CHECKING:
    from torch import Tensor


PRECISIONS = ("auto", "fp32", "bf16", "fp16")
LONGER = 3
"""Tokens of a translation over those of its source, at most; languages that a tokenizer cuts small take two."""
TOKENS_MORE = 20
"""And as many more, for short texts."""
SPECIAL_TOKENS = 8
"""More than any family adds to a text."""


@dataclass(frozen=True)
class Generation:
    """How translations are sought.

    Attributes:
        beams: of beam search; 1 is greedy.
        batch_tokens: source tokens of a batch, padding included.
        max_tokens: source tokens of a piece; longer texts are cut between sentences.
        precision: auto is bf16 on a GPU and fp32 without.
    """

    beams: int = 4
    batch_tokens: int = 4096
    max_tokens: int = 256
    precision: str = "auto"

    def __post_init__(self) -> None:
        for flag, value in (
            ("beams", self.beams),
            ("batch-tokens", self.batch_tokens),
            ("max-tokens", self.max_tokens),
        ):
            if value < 1:
                raise ConfigError(f"--{flag} {value}: must be 1 or more")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"--precision {self.precision}: must be one of {', '.join(PRECISIONS)}")


class Output(NamedTuple):
    """What a model makes of a text; `finished`, if it came to an end before the limit on its tokens."""

    text: str
    finished: bool


class Translator:
    """A model with its weights, on one device."""

    def __init__(self, model: TranslationModel, source: str, targets: Sequence[str], generation: Generation) -> None:
        """Load it, on a GPU if this process sees one.

        Raises:
            ModelError: it cannot be loaded.
        """
        import torch
        from transformers import AutoModelForSeq2SeqLM

        config, self._tokenizer = load_tokenizer(model.name, model.revision)
        self._prompting = prompting_for(config, self._tokenizer, model.name, source, list(targets))
        self._generation = generation
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # Beginnings and ends that the model adds to the text's own tokens are part of what it can read.
        self._max_tokens = min(generation.max_tokens, model.max_tokens)
        try:
            loaded = AutoModelForSeq2SeqLM.from_pretrained(
                model.name, revision=model.revision, dtype=self._dtype(), use_safetensors=True
            )
        except Exception as error:  # of whatever a broken file leads to
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise ModelError(f"--model {model.name} cannot be loaded: {reason}") from error
        self._model = loaded.to(self._device).eval()
        # One, or several, that end a text; where generation is told of none, the tokenizer's.
        ends = loaded.generation_config.eos_token_id
        self._ends = torch.tensor(self._tokenizer.eos_token_id if ends is None else ends, device=self._device)

    def translate(self, texts: Sequence[str], target: str) -> list[Output | None]:
        """The translations of texts, in their order; None for one that has a sentence longer than the model reads.

        Args:
            texts: not blank.
            target: ISO 639-1 code, one of those the translator was made for.
        """
        language = LANGUAGES[target]
        pieces = [split(text, lambda piece: self._fits(piece, language)) for text in texts]
        every = [piece.text for own in pieces if own is not None for piece in own]
        translated = iter(self._translated(every, language))
        return [None if own is None else self._whole(own, translated, language) for own in pieces]

    @staticmethod
    def _whole(pieces: list[Piece], translated: Iterator[Output], language: Language) -> Output:
        outputs = [next(translated) for _ in pieces]
        return Output(join(pieces, [own.text for own in outputs], language), all(own.finished for own in outputs))

    def _translated(self, pieces: Sequence[str], target: Language) -> list[Output]:
        """Translations of pieces, longest batches first."""
        import torch

        if not pieces:
            return []
        ids = self._tokenizer([self._prompting.text(piece, target) for piece in pieces])["input_ids"]
        tokens_W = torch.tensor([len(own) for own in ids])
        found = [Output("", True)] * len(pieces)
        for batch_B in within_budget(tokens_W, len(pieces), self._generation.batch_tokens):
            places = batch_B.tolist()
            padded = self._tokenizer.pad({"input_ids": [ids[place] for place in places]}, return_tensors="pt")
            for place, output in zip(places, self._generated(padded, target), strict=True):
                found[place] = output
        return found

    def _generated(self, padded: Any, target: Language) -> list[Output]:
        import torch

        ids_BT: Tensor = padded["input_ids"].to(self._device)
        told = self._prompting.generation(target)
        try:
            with torch.inference_mode():
                out = self._model.generate(
                    input_ids=ids_BT,
                    attention_mask=padded["attention_mask"].to(self._device),
                    num_beams=self._generation.beams,
                    do_sample=False,
                    max_length=None,
                    max_new_tokens=self._most_new(ids_BT.shape[1]),
                    forced_eos_token_id=None,  # Marian's configurations put an end to what has none
                    **told,
                )
        except torch.cuda.OutOfMemoryError as error:
            raise ModelError(
                f"the GPU's memory is too small for a batch of {self._generation.batch_tokens} tokens with "
                f"{self._generation.beams} beams; lower --batch-tokens or --beams, under another --output"
            ) from error
        # The first token is what the decoder starts with, which in some families is the one that ends.
        finished_B = torch.isin(out[:, 1:], self._ends).any(1).tolist()
        if (first := told.get("forced_bos_token_id")) is not None:
            # Not every tokenizer knows it to be a special token, which decoding leaves out.
            out = out.masked_fill(out == first, self._tokenizer.pad_token_id)
        decoded: list[str] = self._tokenizer.batch_decode(out, skip_special_tokens=True)
        return list(map(Output, decoded, finished_B))

    def _fits(self, piece: str, target: Language) -> bool:
        prompted = self._prompting.text(piece, target)
        # A token is a byte at least, which spares most texts this extra tokenization.
        if len(prompted.encode()) + SPECIAL_TOKENS <= self._max_tokens:
            return True
        return len(self._tokenizer(prompted)["input_ids"]) <= self._max_tokens

    def _most_new(self, longest: int) -> int:
        positions = getattr(self._model.config, "max_position_embeddings", None) or longest * LONGER + TOKENS_MORE + 2
        return max(1, min(longest * LONGER + TOKENS_MORE, positions - 2))

    def _dtype(self) -> Any:
        import torch

        names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        on_gpu = self._device.type == "cuda"
        return names.get(self._generation.precision, torch.bfloat16 if on_gpu else torch.float32)


_LINE_END = re.compile(r"(\s*\n\s*)")
# After the stop of a sentence: a blank, but in Chinese and Japanese nothing.
_SENTENCE_END = re.compile(r"(?<=[.!?…।؟])(\s+)|(?<=[。！？])(\s*)(?=\S)")


class Piece(NamedTuple):
    """A part of a text that is translated on its own, and what stands between it and the next."""

    text: str
    gap: str


def split(text: str, fits: Callable[[str], bool]) -> list[Piece] | None:
    """The pieces of a text: each line, or, of lines that do not fit, as many sentences as do.

    Args:
        text: not blank; blanks around it are left out.
        fits: whether the model can read a piece.

    Returns:
        Pieces that are, with their gaps, the whole text; None if one sentence alone does not fit.
    """
    parts = _LINE_END.split(text.strip())
    pieces: list[Piece] = []
    for line, gap in zip(parts[::2], [*parts[1::2], ""], strict=True):
        if fits(line):
            pieces.append(Piece(line, gap))
            continue
        packed = _packed(_sentences(line), fits)
        if packed is None:
            return None
        pieces += [*packed[:-1], Piece(packed[-1].text, gap)]
    return pieces


def join(pieces: Sequence[Piece], translations: Sequence[str], target: Language) -> str:
    """The translation of a whole text from those of its pieces; lines stay lines."""
    between = "" if "CJK" in target.scripts else " "
    joined = "".join(
        translation.strip() + (piece.gap if "\n" in piece.gap else between)
        for piece, translation in zip(pieces[:-1], translations[:-1], strict=True)
    )
    return joined + translations[-1].strip()


def _sentences(line: str) -> list[Piece]:
    found, start = [], 0
    for end in _SENTENCE_END.finditer(line):
        found.append(Piece(line[start : end.start()], end.group()))
        start = end.end()
    return [*found, Piece(line[start:], "")]


def _packed(sentences: Sequence[Piece], fits: Callable[[str], bool]) -> list[Piece] | None:
    packed: list[Piece] = []
    for sentence in sentences:
        if not fits(sentence.text):
            return None
        longer = packed[-1].text + packed[-1].gap + sentence.text if packed else ""
        if packed and fits(longer):
            packed[-1] = Piece(longer, sentence.gap)
        else:
            packed.append(sentence)
    return packed
