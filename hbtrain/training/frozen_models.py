"""Guide and teacher: models that are not trained, whose vectors of a rank's texts, or kept scores, the loss is given.

Which texts a run needs follows from its plan, so they are embedded before training begins, each once: a store below
`data.cache` keeps their vectors for all runs of this machine (`text_embedding.py`). Then the model is freed, and
training reads vectors. A model reads texts as they are written, also those whose words training switches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hbtrain.batching import BatchPlan, GlobalBatch
from hbtrain.config import Config
from hbtrain.config.loss import SCORES, VECTOR_TERMS, LossConfig
from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.source import Side, Source
from hbtrain.errors import ConfigError
from hbtrain.modeling.gather import Group
from hbtrain.modeling.loss_inputs import Reference, References, Scores, Sizes
from hbtrain.training.batch_texts import BatchTexts, Texts
from hbtrain.training.text_embedding import PHASE, TextEmbedding
from hbtrain.training.text_vectors import TextVectors, digests_of
from hbtrain.training.worker import PhaseCallback, ignore_phase

BLOCK_TEXTS = 16_384  # texts that are looked up, and embedded if need be, at one time: what a killed run loses at most
LISTED_STEPS = 256  # steps whose texts are listed from one sign of life to the next


Listed = dict[tuple[str, Side, str], npt.NDArray[np.bool_]]
"""{(source, side, language): bool, whether a run needs the text of a number}."""


@dataclass(frozen=True)
class _Role:
    """What a model, or kept scores, are used as."""

    model: str  # its name or folder, or `SCORES`
    language: str | None  # the language that it reads texts in, where their rows have it; None: their own

    def texts(self, texts: Texts, source: Source) -> Texts:
        return texts if self.language is None else texts.in_language(source, self.language)


class FrozenModels:
    """The guide and the teacher of a run, on one rank."""

    def __init__(
        self,
        config: Config,
        group: Group,
        device: torch.device,
        on_phase: PhaseCallback = ignore_phase,
        tell: Callable[[str], None] = lambda note: None,
    ) -> None:
        """Those of a configuration; nothing is loaded yet.

        Args:
            config: of the run.
            group: the ranks.
            device: where this rank embeds texts.
            on_phase: called as often on each rank while texts are listed and embedded.
            tell: called with sentences for people.
        """
        loss = config.loss
        self._config, self._group, self._device = config, group, device
        self._on_phase, self._tell = on_phase, tell
        self._guide = None if loss.guide is None else _Role(loss.guide, loss.guide_language)
        self._teacher = None if loss.teacher is None else _Role(loss.teacher, loss.teacher_language)
        self._stores: dict[str, Mapping[Side, TextVectors]] = {}

    @property
    def roles(self) -> list[_Role]:
        """Those of guide and teacher that there are."""
        return [role for role in (self._guide, self._teacher) if role is not None]

    def prepare(self, plan: BatchPlan, corpus: ParallelCorpus, steps: range, dimension: int | None = None) -> None:
        """Have the stores hold the vectors of all texts of a plan's batches in these steps; collective.

        `dimension` is that of the trained model, which the teacher's is compared with where a term needs it.

        Raises:
            ConfigError: the teacher has another dimension.
            ModelError: a model cannot be loaded, or gives NaN or infinity.
            StorageError: the cache cannot be written.
        """
        for model in dict.fromkeys(role.model for role in self.roles if role.model != SCORES):
            listed = self._listed([role for role in self.roles if role.model == model], plan, corpus, steps)
            embedding = TextEmbedding(model, self._config, self._group, self._device, self._on_phase, self._tell)
            if model == self._config.loss.teacher and dimension is not None:
                check_dimension(self._config.loss, embedding.dimension, dimension)
            embedding.fill(_blocks(listed, corpus), sum(int(needed.sum()) for needed in listed.values()))
            self._stores[model] = embedding.stores

    def references(
        self, batch: GlobalBatch, source: Source, own: BatchTexts, read: Mapping[str, list[str]], sizes: Sizes
    ) -> References:
        """What guide and teacher say of a rank's texts, on the CPU.

        Args:
            batch: the rank's part of a batch of which `prepare` was told.
            source: of the batch.
            own: the rank's texts.
            read: `own`, read.
            sizes: of all ranks.
        """
        found: dict[_Role, Reference | Scores] = {}
        for role in self.roles:
            if role not in found:
                found[role] = (
                    self._scores(batch, source)
                    if role.model == SCORES
                    else self._reference(role, source, own, read, sizes)
                )
        of = [None if role is None else found[role] for role in (self._guide, self._teacher)]
        return References(guide=of[0], teacher=of[1])

    def _scores(self, batch: GlobalBatch, source: Source) -> Scores:
        chosen = batch.rows, batch.passage_languages, self._config.loss.hard_negatives, batch.step
        # A row without hard negatives may have no scores, and there is nothing that they would be compared with.
        both = np.nan_to_num(source.scores(batch.rows)), source.negative_scores(*chosen)
        return Scores(*(torch.from_numpy(scores.astype(np.float32)) for scores in both))

    def _reference(
        self, role: _Role, source: Source, own: BatchTexts, read: Mapping[str, list[str]], sizes: Sizes
    ) -> Reference:
        def vectors(kind: str) -> Tensor:
            texts: Texts = getattr(own, kind)
            seen = read[kind] if role.language is None else role.texts(texts, source).read(source)
            return torch.from_numpy(self._stores[role.model][texts.side].take(digests_of(seen)))

        return Reference(
            q_bE=vectors("queries"),
            p_bE=vectors("passages"),
            n_mE=vectors("negatives") if sum(sizes.negatives) else None,
            t_kE=vectors("translations") if sum(sizes.translations) else None,
        )

    def _listed(self, roles: Sequence[_Role], plan: BatchPlan, corpus: ParallelCorpus, steps: range) -> Listed:
        """The texts that a model is to read in these roles, on every rank alike."""
        listed: Listed = {}
        for nth, step in enumerate(steps):
            if nth % LISTED_STEPS == 0:
                self._on_phase(PHASE)
            batch = plan.batch(step)
            source = corpus.sources[batch.source]
            all_ = BatchTexts.of(batch, source, self._config.loss, plan.seed)
            for role in dict.fromkeys(roles):
                for texts in (all_.queries, all_.passages, all_.negatives, all_.translations):
                    read = role.texts(texts, source)
                    for language, places in read.by_language():
                        _mark(listed, (source.name, read.side, language), read.numbers[places])
        return listed


def check_dimension(loss: LossConfig, teacher: int, student: int) -> None:
    """Raise ConfigError where a term compares vectors of a teacher and of a student that have other dimensions."""
    terms = [term for term in loss.active_terms if term in VECTOR_TERMS]
    if terms and teacher != student:
        raise ConfigError(
            f"loss.terms has {terms[0]}, which compares vectors: those of loss.teacher {loss.teacher} have {teacher} "
            f"dimensions, those of the trained model {student}; take a teacher of {student}, or teacher_kl or "
            "teacher_margin, which compare scores"
        )


def _mark(listed: Listed, key: tuple[str, Side, str], numbers: Int64s) -> None:
    """Note that the texts of these numbers are needed."""
    length, needed = int(numbers.max()) + 1, listed.get(key, np.zeros(0, bool))
    if len(needed) < length:
        needed = listed[key] = np.append(needed, np.zeros(max(length, 2 * len(needed)) - len(needed), bool))
    needed[numbers] = True


def _blocks(listed: Listed, corpus: ParallelCorpus) -> Iterator[tuple[Side, list[str]]]:
    """The texts that are listed, up to `BLOCK_TEXTS` of a side at one time."""
    for (name, side, language), needed in sorted(listed.items()):
        numbers = np.flatnonzero(needed)
        for start in range(0, len(numbers), BLOCK_TEXTS):
            read = corpus.sources[name].numbered_texts(side, language, numbers[start : start + BLOCK_TEXTS])
            yield side, [text for text in read if text is not None]
