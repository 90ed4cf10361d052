"""Translates texts with a Hugging Face sequence-to-sequence model, in batches of texts of similar length.

A text is split into segments, which are translated one by one: its lines, or sentences of a line that is too long.

Shapes: W segments in all, B segments of a batch, T tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hbtrain.errors import ConfigError, ModelError
from hbtrain.modeling.devices import Device, evaluation_precision
from hbtrain.modeling.features import within_budget
from hbtrain.translation.languages import LANGUAGES, Language
from hbtrain.translation.model import TranslationModel, load_tokenizer
from hbtrain.translation.prompting import prompting_of

if TYPE_CHECKING:
    from torch import Tensor


PRECISIONS = ("auto", "fp32", "bf16", "fp16")
MAX_LENGTH_RATIO = 3  # a translation has at most so many tokens for each one of its source; some languages need two
EXTRA_TOKENS = 20  # tokens that it may have beyond that, for short texts
SPECIAL_TOKENS = 8  # more special tokens than any family adds to a text


@dataclass(frozen=True)
class Generation:
    """How the model generates translations."""

    beams: int = 4  # width of the beam search; 1 is greedy search
    batch_tokens: int = 4096  # the most source tokens of a batch, padding included
    max_tokens: int = 256  # the most source tokens of a segment
    precision: str = "auto"  # one of PRECISIONS; `auto` is bf16 on GPUs that have it, else fp32

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
    """The translation of a text; `finished` is whether it ended before the limit on its tokens."""

    text: str
    finished: bool


class Translator:
    """A model with its weights, on one device."""

    def __init__(
        self,
        model: TranslationModel,
        source: str,
        targets: Sequence[str],
        generation: Generation,
        device: Device = "cpu",
    ) -> None:
        """Load the model onto `device`. Raises ModelError if it cannot be loaded."""
        import torch
        from transformers import AutoModelForSeq2SeqLM

        config, self._tokenizer = load_tokenizer(model.name, model.revision)
        self._prompting = prompting_of(config.model_type, self._tokenizer, source, targets, model.name)
        self._generation = generation
        self._device = torch.device(device)
        # The special tokens that are added to a text count as well.
        self._max_tokens = min(generation.max_tokens, model.max_tokens)
        dtype = self._dtype()
        try:
            loaded = AutoModelForSeq2SeqLM.from_pretrained(
                model.name, revision=model.revision, dtype=dtype, use_safetensors=True
            )
        except Exception as error:  # broken files lead to errors of any type
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise ModelError(f"--model {model.name} cannot be loaded: {reason}") from error
        self._model = loaded.to(self._device).eval()
        # The token, or tokens, that end a text; the tokenizer's if the model's generation settings have none.
        ends = loaded.generation_config.eos_token_id
        self._ends = torch.tensor(self._tokenizer.eos_token_id if ends is None else ends, device=self._device)

    def translate(self, texts: Sequence[str], target: str) -> list[Output | None]:
        """The translations of texts that are not blank; None where a sentence is too long for the model."""
        language = LANGUAGES[target]
        segments = [split(text, lambda segment: self._fits(segment, language)) for text in texts]
        every = [segment.text for own in segments if own is not None for segment in own]
        translated = iter(self._translated(every, language))
        return [None if own is None else self._whole(own, translated, language) for own in segments]

    @staticmethod
    def _whole(segments: list[Segment], translated: Iterator[Output], language: Language) -> Output:
        outputs = [next(translated) for _ in segments]
        return Output(join(segments, [own.text for own in outputs], language), all(own.finished for own in outputs))

    def _translated(self, segments: Sequence[str], target: Language) -> list[Output]:
        """The translations of segments, in their order; batches of long segments are translated first."""
        import torch

        if not segments:
            return []
        ids = self._tokenizer([self._prompting.text(segment, target) for segment in segments])["input_ids"]
        tokens_W = torch.tensor([len(own) for own in ids])
        found = [Output("", True)] * len(segments)
        for batch_B in within_budget(tokens_W, len(segments), self._generation.batch_tokens):
            indices = batch_B.tolist()
            padded = self._tokenizer.pad({"input_ids": [ids[i] for i in indices]}, return_tensors="pt")
            for i, output in zip(indices, self._generated(padded, target), strict=True):
                found[i] = output
        return found

    def _generated(self, padded: Any, target: Language) -> list[Output]:
        import torch

        ids_BT: Tensor = padded["input_ids"].to(self._device)
        prompt = self._prompting.generation(target)
        try:
            with torch.inference_mode():
                out = self._model.generate(
                    input_ids=ids_BT,
                    attention_mask=padded["attention_mask"].to(self._device),
                    num_beams=self._generation.beams,
                    do_sample=False,
                    max_length=None,
                    max_new_tokens=self._most_new(ids_BT.shape[1]),
                    forced_eos_token_id=None,  # with Marian's, translations that reach the limit would look finished
                    **prompt,
                )
        except torch.cuda.OutOfMemoryError as error:
            raise ModelError(
                f"the GPU's memory is too small for a batch of {self._generation.batch_tokens} tokens with "
                f"{self._generation.beams} beams; lower --batch-tokens or --beams, under another --output"
            ) from error
        # The first token is the decoder's start token, which in some families is also the one that ends a text.
        finished_B = torch.isin(out[:, 1:], self._ends).any(1).tolist()
        if (first := prompt.get("forced_bos_token_id")) is not None:
            # Not every tokenizer has it among the special tokens, which are left out of decoded texts.
            out = out.masked_fill(out == first, self._tokenizer.pad_token_id)
        decoded: list[str] = self._tokenizer.batch_decode(out, skip_special_tokens=True)
        return list(map(Output, decoded, finished_B))

    def _fits(self, segment: str, target: Language) -> bool:
        prompted = self._prompting.text(segment, target)
        # A token is at least one byte, so most texts need not be tokenized to see that they fit.
        if len(prompted.encode()) + SPECIAL_TOKENS <= self._max_tokens:
            return True
        return len(self._tokenizer(prompted)["input_ids"]) <= self._max_tokens

    def _most_new(self, longest: int) -> int:
        most = longest * MAX_LENGTH_RATIO + EXTRA_TOKENS
        positions = getattr(self._model.config, "max_position_embeddings", None) or most + 2
        return max(1, min(most, positions - 2))

    def _dtype(self) -> Any:
        import torch

        names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        return names.get(self._generation.precision) or names[evaluation_precision(None, self._device.type) or "fp32"]


_LINE_END = re.compile(r"(\s*\n\s*)")
# A punctuation mark and a space; Chinese and Japanese write no space.
_SENTENCE_END = re.compile(r"(?<=[.!?…।؟])(\s+)|(?<=[。！？])(\s*)(?=\S)")


class Segment(NamedTuple):
    """A part of a text that is translated by itself, and the whitespace between it and the next."""

    text: str
    separator: str


def split(text: str, fits: Callable[[str], bool]) -> list[Segment] | None:
    """Split a text that is not blank into lines, and lines that do not fit into runs of as many sentences as do.

    The segments and their separators are the whole text without spaces around it; None if a sentence does not fit.
    """
    parts = _LINE_END.split(text.strip())
    segments: list[Segment] = []
    for line, separator in zip(parts[::2], [*parts[1::2], ""], strict=True):
        if fits(line):
            segments.append(Segment(line, separator))
            continue
        packed = _packed(_sentences(line), fits)
        if packed is None:
            return None
        segments += [*packed[:-1], Segment(packed[-1].text, separator)]
    return segments


def join(segments: Sequence[Segment], translations: Sequence[str], target: Language) -> str:
    """The translation of a whole text from those of its segments; line ends stay as they are."""
    between = "" if "CJK" in target.scripts else " "
    joined = "".join(
        translation.strip() + (segment.separator if "\n" in segment.separator else between)
        for segment, translation in zip(segments[:-1], translations[:-1], strict=True)
    )
    return joined + translations[-1].strip()


def _sentences(line: str) -> list[Segment]:
    found, start = [], 0
    for end in _SENTENCE_END.finditer(line):
        found.append(Segment(line[start : end.start()], end.group()))
        start = end.end()
    return [*found, Segment(line[start:], "")]


def _packed(sentences: Sequence[Segment], fits: Callable[[str], bool]) -> list[Segment] | None:
    """Join neighbouring sentences to segments that fit; None if one sentence does not."""
    packed: list[Segment] = []
    for sentence in sentences:
        if not fits(sentence.text):
            return None
        longer = packed[-1].text + packed[-1].separator + sentence.text if packed else ""
        if packed and fits(longer):
            packed[-1] = Segment(longer, sentence.separator)
        else:
            packed.append(sentence)
    return packed
