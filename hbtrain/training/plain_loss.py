"""The loss of a global batch in one process, over whole matrices: what `hbtrain verify` compares training with.

Nothing here is shared with `hbtrain.modeling.loss`: terms are written down row by row, as their papers define them, and
autograd differentiates them. What must be the same on both sides is what they are computed from.

Shapes: B pairs, M hard negatives, K translations of passages, O translated queries, C = B + M + K candidates, D
dimensions, E dimensions of a guide or teacher.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, normalize, softmax

from hbtrain.config.loss import QUERY_TERMS, VECTOR_TERMS, LossConfig, Term
from hbtrain.modeling.loss_inputs import Owners, Reference, References, Scores

TIE = 1e-6  # scores of a guide that differ by less are equal


@dataclass(frozen=True)
class WholeBatch:
    """A global batch and the vectors of its texts."""

    queries: Tensor  # [B, D], unit vectors, as all of them
    candidates: Tensor  # [C, D]: passages, hard negatives, translations
    translated_queries: Tensor  # [O, D]
    scale: Tensor | float  # 1 / temperature
    query_ids: Tensor  # int64 [B]: equal for the same query
    candidate_ids: Tensor  # int64 [C]: equal for the same passage
    owners: Owners
    references: References  # of the whole batch, as if one rank had all of it


def plain_terms(batch: WholeBatch, config: LossConfig) -> dict[Term, Tensor]:
    """Each active term of the loss, before its weight."""
    whole = batch.queries.shape[1]
    dimensions = (*(d for d in config.matryoshka_dimensions if d < whole), whole)
    rows = _Rows(batch, config)
    terms: dict[Term, Tensor] = {}
    for term in config.active_terms:
        widths = (whole,) if term in VECTOR_TERMS else dimensions
        terms[term] = torch.stack([_of_width(term, batch, config, rows, d) for d in widths]).mean()
    return terms


def plain_total(batch: WholeBatch, config: LossConfig, step: int) -> Tensor:
    """The loss at a step: the weighted sum of its terms."""
    weights = config.weights(step)
    return torch.stack([weights[term] * value for term, value in plain_terms(batch, config).items()]).sum()


class _Rows:
    """What every candidate is to every query."""

    def __init__(self, batch: WholeBatch, config: LossConfig) -> None:
        count, columns = len(batch.queries), len(batch.candidates)
        device = batch.queries.device
        place_B = torch.arange(count, device=device)
        nobody_M = torch.full_like(batch.owners.negative_M, -1)
        owner_C = torch.cat([place_B, batch.owners.negative_M, batch.owners.translation_K])
        # A hard negative belongs to no query: it may be an answer to another one.
        known_C = torch.cat([place_B, nobody_M, batch.owners.translation_K])
        same_passage_BC = batch.candidate_ids[:count, None] == batch.candidate_ids
        same_query_BC = (batch.query_ids[:, None] == batch.query_ids[known_C]) & (known_C >= 0)
        own_BC = torch.eye(count, columns, dtype=torch.bool, device=device)
        self.positive_BC = own_BC | (same_passage_BC & (config.positives == "translations"))
        self.left_out_BC = (same_passage_BC | same_query_BC) & ~self.positive_BC
        self.own_negative_BC = (owner_C == place_B[:, None]) & (known_C < 0)
        negative_BC = ~self.positive_BC & ~self.left_out_BC
        self.back_left_out_BB = ((same_passage_BC | same_query_BC) & ~own_BC)[:, :count]
        self.dropped_BC = torch.zeros_like(own_BC)
        self.back_dropped_BB = torch.zeros_like(own_BC[:, :count])
        guide = batch.references.guide
        if guide is not None:
            g_BC = _scores_of(guide, batch.owners, columns)
            own_B = g_BC.diagonal()
            margin_B = config.guide_margin * (own_B.abs() if config.guide_relative else torch.ones_like(own_B))
            self.dropped_BC = negative_BC & (g_BC > (own_B - margin_B + TIE)[:, None])
            if isinstance(guide, Reference):
                back_BB = (own_B - margin_B + TIE)[:, None] < g_BC[:, :count].T
                self.back_dropped_BB = back_BB & ~self.back_left_out_BB & ~own_BC[:, :count]
        harder_BC = {
            "all": negative_BC,
            "hard_negatives": negative_BC & self.own_negative_BC,
            "in_batch": negative_BC & ~self.own_negative_BC,
        }
        self.hardness_BC = harder_BC[config.hardness_of] * config.hardness
        back_negative_BB = ~self.back_left_out_BB & ~own_BC[:, :count]
        self.back_hardness_BB = back_negative_BB * (config.hardness if config.hardness_of != "hard_negatives" else 0.0)


def _scores_of(reference: Reference | Scores, owners: Owners, columns: int) -> Tensor:
    """float32 [B, C]: by a guide or teacher; minus infinity where it has none."""
    if isinstance(reference, Reference):
        parts = (reference.p_bE, reference.n_mE, reference.t_kE)
        return reference.q_bE @ torch.cat([x for x in parts if x is not None]).T
    count = len(reference.positive_b)
    scores_BC = reference.positive_b.new_full((count, columns), float("-inf"))
    scores_BC.diagonal().copy_(reference.positive_b)
    for m, owner in enumerate(owners.negative_M.tolist()):
        scores_BC[owner, count + m] = reference.negative_m[m]
    return scores_BC


def _of_width(term: Term, batch: WholeBatch, config: LossConfig, rows: _Rows, d: int) -> Tensor:
    q_Bd, c_Cd, u_Od = (normalize(x[:, :d], dim=1) for x in (batch.queries, batch.candidates, batch.translated_queries))
    s_BC, scale = q_Bd @ c_Cd.T, batch.scale
    if term == "contrastive":
        forwards = _contrastive(
            s_BC, scale, rows.hardness_BC, rows.left_out_BC | rows.dropped_BC, rows.positive_BC, config
        )
        if not config.symmetric:
            return forwards
        s_BB = s_BC[:, : len(q_Bd)].T
        own_BB = torch.eye(len(q_Bd), dtype=torch.bool, device=s_BB.device)
        left_out_BB = rows.back_left_out_BB | rows.back_dropped_BB
        return (forwards + _contrastive(s_BB, scale, rows.back_hardness_BB, left_out_BB, own_BB, config)) / 2
    if term in QUERY_TERMS:
        return _of_queries(term, q_Bd, c_Cd, u_Od, batch, rows)
    teacher = batch.references.teacher
    assert teacher is not None
    if term in VECTOR_TERMS:
        assert isinstance(teacher, Reference)
        student, wanted = torch.cat([q_Bd, c_Cd[: len(q_Bd)]]), torch.cat([teacher.q_bE, teacher.p_bE])
        if term == "teacher_mse":
            return torch.nn.functional.mse_loss(student, wanted)
        return (1 - torch.cosine_similarity(student, wanted)).mean()
    t_BC = _scores_of(teacher, batch.owners, len(c_Cd))
    teacher_scale = 1 / (config.teacher_temperature or config.temperature)
    losses = []
    for i in range(len(s_BC)):
        known = (t_BC[i] > float("-inf")) & (~rows.left_out_BC[i] if isinstance(teacher, Reference) else True)
        s, t = s_BC[i][known], t_BC[i][known]
        if term == "teacher_kl":
            wanted = softmax(t * teacher_scale, dim=0)
            losses.append(kl_div(log_softmax(s * scale, dim=0), wanted, reduction="sum"))
            continue
        own = int(known[:i].sum())
        margins = (s[own] - s) - config.teacher_scale * (t[own] - t)
        others = [k for k in range(len(s)) if k != own]
        losses.append(margins[others].square().mean() if others else s.sum() * 0)
    return torch.stack(losses).mean()


def _contrastive(
    s_BC: Tensor,
    scale: Tensor | float,
    hardness_BC: Tensor,
    left_out_BC: Tensor,
    positive_BC: Tensor,
    config: LossConfig,
) -> Tensor:
    nothing = float("-inf")
    z_BC = s_BC * scale
    all_B = (z_BC + hardness_BC * s_BC.detach()).masked_fill(left_out_BC, nothing).logsumexp(1)
    count_B = positive_BC.sum(1)
    if config.positives_form == "in":
        return (all_B - z_BC.masked_fill(~positive_BC, nothing).logsumexp(1) + count_B.log()).mean()
    return (all_B - (z_BC * positive_BC).sum(1) / count_B).mean()


def _of_queries(term: Term, q_Bd: Tensor, c_Cd: Tensor, u_Od: Tensor, batch: WholeBatch, rows: _Rows) -> Tensor:
    owner_O = batch.owners.query_O
    if not len(owner_O):
        return q_Bd.sum() * 0
    p_Bd, scale = c_Cd[: len(q_Bd)], batch.scale
    losses = []
    for o, i in enumerate(owner_O.tolist()):
        in_row = ~rows.left_out_BC[i]
        # Of pairs, other passages of the same query and other queries of the same passage are left out.
        pairs = ~rows.back_left_out_BB[i][owner_O]
        from_passage = p_Bd[i] @ u_Od[pairs].T * scale
        if term == "jensen_shannon":
            losses.append(_jsd(q_Bd[i] @ c_Cd[in_row].T * scale, u_Od[o] @ c_Cd[in_row].T * scale))
        elif term == "reversed":
            losses.append(from_passage.logsumexp(0) - p_Bd[i] @ u_Od[o] * scale)
        else:
            forwards = q_Bd[i] @ p_Bd[owner_O[pairs]].T * scale
            losses.append(_divergence(log_softmax(from_passage, 0), log_softmax(forwards, 0)))
    return torch.stack(losses).mean()


def _jsd(one: Tensor, other: Tensor) -> Tensor:
    p, r = softmax(one, 0), softmax(other, 0)
    mean = ((p + r) / 2).log()
    return (_divergence(p.log(), mean) + _divergence(r.log(), mean)) / 2


def _divergence(log_p: Tensor, log_r: Tensor) -> Tensor:
    return kl_div(log_r, log_p, reduction="sum", log_target=True)
