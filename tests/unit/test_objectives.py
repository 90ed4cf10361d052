"""Terms of the loss on numbers that were worked out with NumPy and SciPy."""

import pytest
import torch
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from hbtrain.config.loss import LossConfig
from hbtrain.modeling.gather import SingleProcess
from hbtrain.modeling.loss import batch_loss
from hbtrain.modeling.loss_inputs import Embedded, Owners, PairIds, Reference, References, Scores, Sizes
from hbtrain.modeling.objectives import jensen_shannon, teacher_cosine, teacher_kl, teacher_margin, teacher_mse
from tests.objective_samples import B, D, Sample, of_scores, reference

S = [[0.8, 0.7, 0.2], [0.3, 0.6, 0.5], [0.1, 0.65, 0.7]]
G = [[0.7, 0.75, 0.1], [0.2, 0.6, 0.55], [0.0, 0.5, 0.8]]


@pytest.mark.parametrize(
    ("settings", "loss", "dropped"),
    [
        ({}, 0.379901, None),
        ({"guide": "m"}, 0.275702, [1, 0, 0]),
        ({"guide": "m", "guide_margin": 0.1}, 0.175561, [1, 1, 0]),
        ({"guide": "m", "guide_margin": 0.1, "guide_relative": True}, 0.175561, [1, 1, 0]),
    ],
)
def test_a_guide_drops_what_it_scores_above_the_positive(settings, loss, dropped):
    got = of_scores(S, G if settings else None, **settings)
    assert got.total.item() == pytest.approx(loss, abs=1e-6)
    assert dropped is None or got.guided_b2.tolist() == [[count, 2] for count in dropped]


def test_a_students_own_scores_as_guide_drop_only_what_is_better_by_the_margin():
    own = {"guide": "m", "guide_margin": -0.1}
    rows = [[0.8, 0.95, 0.2], [0.0, 0.5, 0.0], [0.0, 0.0, 0.5]]
    assert of_scores(rows, rows, **own).guided_b2[:, 0].tolist() == [1, 0, 0]
    rows[0][1] = 0.9
    assert of_scores(rows, rows, **own).guided_b2[:, 0].tolist() == [0, 0, 0], "above, strictly"


def test_a_row_whose_negatives_are_all_dropped_has_neither_loss_nor_gradient():
    q = torch.eye(3).requires_grad_()
    s = torch.tensor(S)
    guide = Reference(torch.eye(3), torch.tensor([[0.1, 0.9, 0.9], [0.0, 0.9, 0.0], [0.0, 0.0, 0.9]]).T)
    own, config = Embedded(q, s.T.contiguous(), s[:0]), LossConfig(temperature=0.1, guide="m")
    batch_loss(own, Sizes([3], [0]), SingleProcess(), config, None, None, References(guide)).total.backward()
    assert q.grad[0].tolist() == [0.0] * 3
    assert q.grad[1].abs().max() > 0


def test_divergence_from_a_teacher():
    t, s = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[2.0, 1.0, 0.0]], requires_grad=True)
    loss = teacher_kl(s, t, None, 1.0, 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.081555, abs=1e-6)
    assert s.grad[0].tolist() == pytest.approx([-0.178554, 0.130533, 0.048021], abs=1e-6)
    s.grad = None
    loss = teacher_kl(s, t, None, 0.5, 0.5)
    loss.backward()
    assert loss.item() == pytest.approx(0.030167, abs=1e-6)
    assert s.grad[0].tolist() == pytest.approx([-0.061026, 0.037986, 0.023040], abs=1e-6)


def test_a_teacher_whose_softmax_has_one_candidate_gives_numbers():
    t, s = torch.tensor([[900.0, 0.0, -900.0]]), torch.tensor([[2.0, 1.0, 0.0]], requires_grad=True)
    loss = teacher_kl(s, t, torch.tensor([[False, False, True]]), 1.0, 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.313262, abs=1e-6)
    assert s.grad[0].tolist() == pytest.approx([-0.268941, 0.268941, 0.0], abs=1e-6)


def test_margins_of_a_teacher():
    s, t = torch.tensor([[0.9, 0.4, 0.1]]), torch.tensor([[5.0, 2.0, 0.0]])
    first = torch.tensor([0])
    assert teacher_margin(s, t, None, first, 1.0).item() == pytest.approx(11.945, abs=1e-5)
    assert teacher_margin(s + 3, t - 7, None, first, 1.0).item() == pytest.approx(11.945, abs=1e-4)
    left_out = torch.tensor([[False, True, False]])
    assert teacher_margin(s, t, left_out, first, 1.0).item() == pytest.approx(17.64, abs=1e-5)
    assert teacher_margin(s[:, :1], t[:, :1], None, first, 1.0).item() == 0.0


def test_vectors_of_a_teacher():
    x, t = torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]])
    assert teacher_mse(x, t).item() == pytest.approx(0.4, abs=1e-6)
    assert teacher_cosine(x, t).item() == pytest.approx(0.4, abs=1e-6)


@pytest.mark.parametrize(
    ("hardness_of", "alone", "weighted"), [("all", 0.050946, 0.478262), ("in_batch", 0.050946, 0.478262)]
)
def test_hardness_weighs_negatives(hardness_of, alone, weighted):
    rows = [[0.8, 0.5, 0.2], [0.0, 90.0, 0.0], [0.0, 0.0, 90.0]]
    assert of_scores(rows).total.item() == pytest.approx(alone / 3, abs=1e-6)
    owners = Owners(*[torch.zeros(0, dtype=torch.int64)] * 3)
    s = torch.tensor(rows)
    config = LossConfig(temperature=0.1, hardness=5.0, hardness_of=hardness_of)
    own = Embedded(torch.eye(3), s.T.contiguous(), s[:0])
    loss = batch_loss(own, Sizes([3], [0]), SingleProcess(), config, None, owners).total
    assert loss.item() == pytest.approx(weighted / 3, abs=1e-6)


@pytest.mark.parametrize(("form", "loss"), [("out", 0.940190), ("in", 0.820075)])
def test_several_positives(form, loss):
    z = torch.tensor([[2.0, 1.0, 0.0, -1.0]] * 2)
    z[1, 0], z[1, 1] = 1.0, 2.0  # its own positive is the second
    config = LossConfig(temperature=1.0, positives="translations", positives_form=form, hard_negatives=1)
    ids = PairIds(torch.tensor([0, 1]), torch.tensor([0, 0, 2, 3]))
    candidates = z.T.contiguous()
    own = Embedded(torch.eye(2), candidates[:2], candidates[2:])
    got = batch_loss(own, Sizes([2], [2]), SingleProcess(), config, ids)
    assert got.total.item() == pytest.approx(loss, abs=1e-6)


def test_divergence_of_two_languages():
    p, r = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    assert jensen_shannon(p, r, None, 1.0).item() == pytest.approx(0.101749, abs=1e-6)
    assert jensen_shannon(p * 0 + torch.tensor([[300.0, 0.0]]), p - torch.tensor([[300.0, 0.0]]), None, 1.0).item() == (
        pytest.approx(0.693147, abs=1e-6)
    )


def test_the_terms_of_clear():
    """F, R and K of two pairs whose scores are a . d and d . x."""
    a_d, d_x = torch.tensor([[0.8, 0.2], [0.3, 0.7]]), torch.tensor([[0.6, 0.1], [0.2, 0.9]])
    config = LossConfig(temperature=1.0, terms={"contrastive": 0.4, "reversed": 0.4, "bridge": 0.2})
    none = torch.zeros(0, dtype=torch.int64)
    own = Embedded(a_d, torch.eye(2), torch.zeros(0, 2), None, None, d_x.T.contiguous())
    sizes = Sizes([2], [0], (), [2])
    got = batch_loss(own, sizes, SingleProcess(), config, None, Owners(none, none, torch.arange(2)))
    values = {term: value.item() for term, value in got.terms.items()}
    assert values == pytest.approx({"contrastive": 0.475252, "reversed": 0.438632, "bridge": 0.005725}, abs=1e-6)
    assert got.total.item() == pytest.approx(0.366698, abs=1e-6)


def test_kept_scores_are_of_a_row_and_its_own_hard_negatives():
    unit = normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]]), dim=1)
    own = Embedded(unit[:2], unit[2:], unit[:3])
    owners = Owners(torch.tensor([0, 0, 1]), *[torch.zeros(0, dtype=torch.int64)] * 2)
    kept = Scores(torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1, 0.6]))
    config = LossConfig(temperature=1.0, hard_negatives=2, guide="scores", guide_margin=0.0)
    sizes = Sizes([2], [3])
    got = batch_loss(own, sizes, SingleProcess(), config, None, owners, References(guide=kept))
    assert got.guided_b2.tolist() == [[1, 4], [1, 4]]
    config = LossConfig(
        temperature=1.0, hard_negatives=2, teacher="scores", terms={"contrastive": 0.0, "teacher_kl": 1.0}
    )
    got = batch_loss(own, sizes, SingleProcess(), config, None, owners, References(teacher=kept))
    first = teacher_kl(torch.tensor([[0.6, 1.0, 0.0]]), torch.tensor([[0.5, 0.9, 0.1]]), None, 1.0, 1.0)
    # Cosines of the second query, (0, 1): with its passage (0.8, 0.6), and with its negative (0.6, 0.8).
    second = teacher_kl(torch.tensor([[0.6, 0.8]]), torch.tensor([[0.5, 0.6]]), None, 1.0, 1.0)
    assert got.total.item() == pytest.approx((first + second).item() / 2, abs=1e-6)


def test_the_plain_loss_is_the_same_to_the_last_bit_whatever_keys_are_at_their_defaults():
    torch.manual_seed(1)
    q, p, n = (normalize(torch.randn(count, 8), dim=1).requires_grad_() for count in (9, 9, 5))
    results = []
    for settings in ({}, {"terms": {"contrastive": 1.0}, "hardness": 0.0, "translations": 0}):
        for x in (q, p, n):
            x.grad = None
        owners = Owners(torch.tensor([0, 1, 1, 4, 8]), *[torch.zeros(0, dtype=torch.int64)] * 2)
        loss = batch_loss(Embedded(q, p, n), Sizes([9], [5]), SingleProcess(), LossConfig(**settings), None, owners)
        loss.total.backward()
        results.append([loss.total.detach(), q.grad.clone(), p.grad.clone(), n.grad.clone()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert loss.terms == {}


class Largest(TorchDispatchMode):
    """Sees how many numbers the largest tensor has that is made."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        tensors = out if isinstance(out, (tuple, list)) else [out]
        self.numbers = max(self.numbers, *(x.untyped_storage().nbytes() // 4 for x in tensors if torch.is_tensor(x)))
        return out


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"guide": "m", "symmetric": True, "positives": "translations", "positives_form": "in", "hardness": 2.0},
        {"teacher": "m", "terms": {"teacher_kl": 1.0, "teacher_margin": 1.0}},
        {"terms": {"jensen_shannon": 1.0, "reversed": 1.0, "bridge": 1.0}, "positives": "translations"},
    ],
)
def test_no_term_ever_holds_the_whole_matrix_of_scores(settings):
    known = reference()
    batch = Sample(references=References(known if "guide" in settings else None, known))
    columns = len(batch.ids.candidate_C)
    with Largest() as largest:
        batch.loss(LossConfig(block_rows=1, **settings)).total.backward()
    assert columns * 2 < largest.numbers <= columns * D < columns * B
