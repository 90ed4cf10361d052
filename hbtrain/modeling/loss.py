"""The loss of the global batch: InfoNCE and other terms, exact across ranks, in bounded memory.

Data parallelism averages gradients over ranks, so rank r must back-propagate g_r with (1/W) sum_r g_r = dL. Each term
is a mean over N rows of the global batch. Here each rank takes its own rows of the sum, scaled by W/N, over candidates
gathered with a backward that sums: every row's gradient is then W times that of L, and the average is exact, for any
sizes of the ranks' shards.

Shapes: b pairs, m hard negatives, k translated passages and o translated queries of this rank, B, M, K and O of all
ranks, C = B + M + K candidates, R rows of one block, D dimensions, E dimensions of a guide or teacher, H = 1 + the most
hard negatives of a pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hbtrain.config.loss import QUERY_TERMS, VECTOR_TERMS, LossConfig, Term
from hbtrain.modeling.candidates import Relations, guide_by_scores, guide_by_vectors
from hbtrain.modeling.gather import Group, gather_rows
from hbtrain.modeling.info_nce import info_nce_sum
from hbtrain.modeling.loss_inputs import Embedded, Owners, PairIds, Reference, References, Scores, Sizes
from hbtrain.modeling.objectives import (
    BlockTerm,
    bridge,
    jensen_shannon,
    sum_over_blocks,
    teacher_cosine,
    teacher_kl,
    teacher_margin,
    teacher_mse,
)

KEPT = 8
"""Autograd keeps some ten matrices of a block's size for a term; blocks that are smaller by this factor keep the memory
near that of InfoNCE, whose kernel keeps one."""


@dataclass(frozen=True)
class BatchLoss:
    """This rank's part of the loss of a global batch: means over ranks, as of the gradient, are those of the batch."""

    total: Tensor  # scalar, float32
    # {term: its value before the weight}, without gradient; empty where InfoNCE is the only term, with weight 1
    terms: dict[Term, Tensor]
    # int64 [b, 2] of this rank's pairs: negatives that the guide drops, and how many there are without it
    guided_b2: Tensor | None = None


def batch_loss(
    own: Embedded,
    sizes: Sizes,
    group: Group,
    config: LossConfig,
    ids: PairIds | None,
    owners: Owners | None = None,
    references: References | None = None,
    weights: Mapping[Term, float] | None = None,
) -> BatchLoss:
    """The loss of the global batch: the weighted sum of its terms; collective.

    Args:
        own: this rank's vectors.
        sizes: texts of every rank; their sums are B, M, K and O.
        group: the ranks.
        config: the section `loss`.
        ids: with them, a candidate that is the same passage as the positive, or another passage of the same query, is
            no negative: its score is left out of the softmax. None if there are no such candidates; translations that
            pairs bring along are such.
        owners: of what pairs bring along, where a guide, a teacher or hardness asks for it, or there are translations.
        references: guide and teacher, where the configuration has them.
        weights: of the terms at this step; by default those of step 0.

    Each term is the mean over `matryoshka_dimensions` and the whole embedding, but for those of a teacher's vectors.
    """
    weights = config.weights(0) if weights is None else weights
    terms = _Terms(own, sizes, group, config, ids, owners, references or References())
    whole = own.q_bD.shape[1]
    dimensions = [d for d in config.matryoshka_dimensions if d < whole] + [whole]
    values: dict[Term, Tensor] = {}
    for term in weights:
        widths = [whole] if term in VECTOR_TERMS else dimensions
        sums = [terms.sum_of(term, d) for d in widths]
        values[term] = sum(sums[1:], sums[0]) * (group.world_size / (terms.count(term) * len(widths)))
    if config.is_plain:
        return BatchLoss(values["contrastive"], {}, terms.guided_b2)
    weighted = [weight * values[term] for term, weight in weights.items()]
    return BatchLoss(sum(weighted[1:], weighted[0]), {t: x.detach() for t, x in values.items()}, terms.guided_b2)


class _Terms:
    """The sums of each term over the rows of this rank, for prefixes of the embedding.

    What is gathered is gathered once, when a term first asks for it: all ranks compute the same terms in one order.
    """

    def __init__(
        self,
        own: Embedded,
        sizes: Sizes,
        group: Group,
        config: LossConfig,
        ids: PairIds | None,
        owners: Owners | None,
        references: References,
    ) -> None:
        self._own = own
        self._sizes = sizes
        self._group = group
        self._config = config
        self._ids = ids
        self._owners = owners
        self._references = references
        self._scale = own.scale if own.scale is not None else 1.0 / config.temperature
        self._start = sum(sizes.pairs[: group.rank])
        self._pairs = sum(sizes.pairs)

    def sum_of(self, term: Term, d: int) -> Tensor:
        """The sum over this rank's rows, for the first d dimensions."""
        if term == "contrastive":
            return self._contrastive(d)
        if term in QUERY_TERMS and self._own.u_oD is None:
            return self._own.q_bD.sum() * 0.0  # no pair takes part; a loss without any gradient has no backward pass
        of_teacher = {"teacher_kl": self._teacher_kl, "teacher_margin": self._teacher_margin}
        of_queries = {"jensen_shannon": self._jensen_shannon, "reversed": self._reversed, "bridge": self._bridge}
        compute = (of_teacher | of_queries).get(term)
        return self._teacher_vectors(term) if compute is None else compute(d)

    def count(self, term: Term) -> int:
        """The number of rows of all ranks that the mean is taken over: pairs, those with a translated query, texts."""
        if term in QUERY_TERMS:
            return max(1, sum(self._sizes.queries))
        return self._pairs * (2 if term in VECTOR_TERMS else 1)

    @property
    def guided_b2(self) -> Tensor | None:
        return self._forward.guided_b2 if self._references.guide is not None else None

    # What terms have in common

    @cached_property
    def _candidates(self) -> Tensor:
        own, sizes = self._own, self._sizes
        parts = [gather_rows(own.p_bD, sizes.pairs, self._group)]
        if sum(sizes.negatives):
            parts.append(gather_rows(own.n_mD, sizes.negatives, self._group))
        if own.t_kD is not None:
            parts.append(gather_rows(own.t_kD, sizes.translations, self._group))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    @cached_property
    def _queries(self) -> Tensor:
        return gather_rows(self._own.q_bD, self._sizes.pairs, self._group)

    @cached_property
    def _translated_queries(self) -> Tensor:
        assert self._own.u_oD is not None
        return gather_rows(self._own.u_oD, self._sizes.queries, self._group)

    def _of_reference(self, reference: Reference) -> Tensor:
        """float32 [C, E]: its vectors of all candidates."""
        own, sizes = reference, self._sizes
        parts = [gather_rows(own.p_bE, sizes.pairs, self._group)]
        if own.n_mE is not None and sum(sizes.negatives) > 0:
            parts.append(gather_rows(own.n_mE, sizes.negatives, self._group))
        if own.t_kE is not None and sum(sizes.translations) > 0:
            parts.append(gather_rows(own.t_kE, sizes.translations, self._group))
        return torch.cat(parts)

    @cached_property
    def _teacher_candidates(self) -> Tensor:
        guide, teacher = self._references.guide, self._references.teacher
        assert isinstance(teacher, Reference)
        return self._guide_candidates if teacher is guide else self._of_reference(teacher)

    @cached_property
    def _guide_candidates(self) -> Tensor:
        assert isinstance(self._references.guide, Reference)
        return self._of_reference(self._references.guide)

    # InfoNCE

    def _contrastive(self, d: int) -> Tensor:
        config, own = self._config, self._own
        forwards = self._info_nce(_prefix(own.q_bD, d), _prefix(self._candidates, d), self._forward)
        if not config.symmetric:
            return forwards
        back = self._info_nce(_prefix(own.p_bD, d), _prefix(self._queries, d), self._back)
        return (forwards + back) / 2

    def _info_nce(self, x_bD: Tensor, y_CD: Tensor, relations: Relations) -> Tensor:
        return info_nce_sum(x_bD, y_CD, self._scale, relations, self._config)

    @cached_property
    def _forward(self) -> Relations:
        """Queries against candidates."""
        config, guide = self._config, self._references.guide
        columns = self._pairs + sum(self._sizes.negatives) + sum(self._sizes.translations)
        if self._own.t_kD is not None and (self._ids is None or self._owners is None):
            raise ValueError("translations are passages of pairs of the batch: their ids and owners must be given")
        relations = Relations(self._start, columns, self._ids, self._owners, config.positives == "translations")
        if config.hardness:
            relations.hardness_of = config.hardness_of
        if isinstance(guide, Reference):
            relations.guide = guide_by_vectors(guide.q_bE, self._guide_candidates, self._start, config)
        elif guide is not None:
            assert self._owners is not None
            negatives, rank = self._sizes.negatives, self._group.rank
            relations.guide = guide_by_scores(guide, self._owners, self._start, columns, negatives, rank, config)
        return relations

    @cached_property
    def _back(self) -> Relations:
        """Passages against queries: each has one positive, its own query, and no hard negatives."""
        config, guide, ids = self._config, self._references.guide, self._ids
        ids = None if ids is None else PairIds(ids.query_B, ids.candidate_C[: self._pairs])
        relations = Relations(self._start, self._pairs, ids)
        if config.hardness and config.hardness_of != "hard_negatives":
            relations.hardness_of = "all"
        if isinstance(guide, Reference):
            q_BE = gather_rows(guide.q_bE, self._sizes.pairs, self._group)
            relations.guide = guide_by_vectors(guide.p_bE, q_BE, self._start, config)
        return relations

    # A teacher

    def _teacher_kl(self, d: int) -> Tensor:
        teacher, config = self._references.teacher, self._config
        teacher_scale = 1.0 / (config.teacher_temperature or config.temperature)
        if isinstance(teacher, Scores):
            s_bH, t_bH, left_out_bH = self._own_scores(teacher, d)
            return teacher_kl(s_bH, t_bH, left_out_bH, self._scale, teacher_scale)

        def term(rows: slice, scores: list[Tensor], scale: Tensor | float) -> Tensor:
            return teacher_kl(scores[0], self._teacher_scores(rows), self._forward.left_out(rows), scale, teacher_scale)

        return self._over_blocks(term, (self._own.q_bD, self._candidates), d=d)

    def _teacher_margin(self, d: int) -> Tensor:
        teacher, teacher_scale = self._references.teacher, self._config.teacher_scale
        if isinstance(teacher, Scores):
            s_bH, t_bH, left_out_bH = self._own_scores(teacher, d)
            first_b = torch.zeros(len(s_bH), dtype=torch.int64, device=s_bH.device)
            return teacher_margin(s_bH, t_bH, left_out_bH, first_b, teacher_scale)

        def term(rows: slice, scores: list[Tensor], scale: Tensor | float) -> Tensor:
            own_R = torch.arange(self._start + rows.start, self._start + rows.stop, device=scores[0].device)
            return teacher_margin(
                scores[0], self._teacher_scores(rows), self._forward.left_out(rows), own_R, teacher_scale
            )

        return self._over_blocks(term, (self._own.q_bD, self._candidates), d=d)

    def _teacher_vectors(self, term: Term) -> Tensor:
        teacher, own = self._references.teacher, self._own
        assert isinstance(teacher, Reference)
        x_nD = torch.cat([own.q_bD, own.p_bD]).float()
        t_nD = torch.cat([teacher.q_bE, teacher.p_bE])
        return teacher_mse(x_nD, t_nD) if term == "teacher_mse" else teacher_cosine(x_nD, t_nD)

    def _teacher_scores(self, rows: slice) -> Tensor:
        """The teacher's cosines of rows of this rank."""
        teacher = self._references.teacher
        assert isinstance(teacher, Reference)
        return teacher.q_bE[rows] @ self._teacher_candidates.T

    def _own_scores(self, teacher: Scores, d: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of each pair's passage and its own hard negatives, H in all: the student's cosines [b, H], the teacher's
        scores, and bool [b, H] where a pair has fewer negatives than others may have."""
        assert self._owners is not None
        q_bD, p_bD, n_mD = (_prefix(x, d).float() for x in (self._own.q_bD, self._own.p_bD, self._own.n_mD))
        first = sum(self._sizes.negatives[: self._group.rank])
        owner_m = self._owners.negative_M[first : first + len(n_mD)] - self._start
        # Hard negatives lie in the order of their pairs, so a pair's first one is where its number first occurs.
        place_m = torch.arange(len(n_mD), device=owner_m.device) - torch.searchsorted(owner_m, owner_m)
        at = (owner_m, place_m)
        shape = len(q_bD), self._config.hard_negatives
        s_bN = q_bD.new_zeros(shape).index_put(at, (q_bD[owner_m] * n_mD).sum(1))
        t_bN = q_bD.new_zeros(shape).index_put(at, teacher.negative_m)
        lacks_bN = torch.ones(shape, dtype=torch.bool, device=q_bD.device).index_put(at, owner_m.new_zeros(()).bool())
        s_bH = torch.cat([(q_bD * p_bD).sum(1, keepdim=True), s_bN], dim=1)
        t_bH = torch.cat([teacher.positive_b[:, None], t_bN], dim=1)
        return s_bH, t_bH, torch.cat([lacks_bN.new_zeros(len(q_bD), 1), lacks_bN], dim=1)

    # Queries in another language

    @cached_property
    def _with_query_o(self) -> Tensor:
        """int64 [o]: places in the global batch of this rank's pairs that have a translated query."""
        assert self._owners is not None
        first = sum(self._sizes.queries[: self._group.rank])
        return self._owners.query_O[first : first + self._sizes.queries[self._group.rank]]

    @cached_property
    def _among_queries(self) -> Relations:
        """The pairs that have a translated query against each other."""
        assert self._owners is not None
        ids, query_O = self._ids, self._owners.query_O
        start = sum(self._sizes.queries[: self._group.rank])
        ids = None if ids is None else PairIds(ids.query_B[query_O], ids.candidate_C[query_O])
        return Relations(start, len(query_O), ids)

    def _jensen_shannon(self, d: int) -> Tensor:
        assert self._own.u_oD is not None

        def term(rows: slice, scores: list[Tensor], scale: Tensor | float) -> Tensor:
            left_out_RC = self._forward.left_out(self._with_query_o[rows])
            return jensen_shannon(scores[0], scores[1], left_out_RC, scale)

        q_oD = self._own.q_bD[self._with_query_o - self._start]
        return self._over_blocks(term, (q_oD, self._candidates), (self._own.u_oD, self._candidates), d=d)

    def _reversed(self, d: int) -> Tensor:
        p_oD = self._own.p_bD[self._with_query_o - self._start]
        return self._info_nce(_prefix(p_oD, d), _prefix(self._translated_queries, d), self._among_queries)

    def _bridge(self, d: int) -> Tensor:
        def term(rows: slice, scores: list[Tensor], scale: Tensor | float) -> Tensor:
            return bridge(scores[0], scores[1], self._among_queries.left_out(rows), scale)

        own_o = self._with_query_o - self._start
        assert self._owners is not None
        p_OD = self._candidates[self._owners.query_O]
        return self._over_blocks(
            term, (self._own.p_bD[own_o], self._translated_queries), (self._own.q_bD[own_o], p_OD), d=d
        )

    def _over_blocks(self, term: BlockTerm, *pairs: tuple[Tensor, Tensor], d: int) -> Tensor:
        prefixes = [(_prefix(x, d), _prefix(y, d)) for x, y in pairs]
        return sum_over_blocks(term, prefixes, self._scale, max(1, self._config.block_rows // KEPT))


def _prefix(x_BD: Tensor, d: int) -> Tensor:
    """The first d dimensions, normalised to unit vectors [B, d]."""
    return x_BD if d == x_BD.shape[1] else normalize(x_BD[:, :d], dim=-1)
