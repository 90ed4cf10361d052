"""Mixtures as searches draw them, and grids of mixtures."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, kstest

from hbtrain.config.batching import KINDS, read_mixture
from hbtrain.sweeps.ranges import PARTS, Simplex, read_simplex

KINDS_OF = st.lists(st.sampled_from(KINDS), min_size=2, unique=True).map(lambda kinds: tuple(sorted(kinds)))
UNIFORM = st.floats(0, 1, allow_nan=False)


@given(KINDS_OF, st.data())
def test_drawn_mixtures_have_few_digits_and_their_own_numbers_give_them_again(kinds, data):
    simplex = Simplex(kinds)
    uniforms = data.draw(st.lists(UNIFORM, min_size=len(kinds) - 1, max_size=len(kinds) - 1))
    mixture = simplex.mixture(uniforms)
    assert list(read_mixture(mixture)) == list(kinds)
    assert all(weight == round(weight * PARTS) / PARTS for weight in mixture.values())
    assert sum(round(weight * PARTS) for weight in mixture.values()) == PARTS
    again = simplex.uniforms(mixture)
    assert all(0 <= uniform <= 1 for uniform in again)
    assert simplex.mixture(again) == mixture
    assert simplex.recalled(mixture) == mixture


@given(KINDS_OF, st.data())
def test_mixtures_from_elsewhere_are_not_recalled(kinds, data):
    simplex = Simplex(kinds)
    mixture = simplex.mixture([0.5] * simplex.dimensions)
    others = [{**mixture, kinds[0]: 0.00005}, {kinds[0]: 1.0}, {**mixture, "more": 0.0}, 0.5, {**mixture, kinds[0]: -1}]
    with pytest.raises(ValueError, match="is no mixture of"):
        simplex.recalled(data.draw(st.sampled_from(others)))


def test_uniform_numbers_give_every_mixture_alike():
    """In the flat Dirichlet distribution over K kinds, a kind's weight has the distribution Beta(1, K - 1)."""
    for kinds in (KINDS[:2], KINDS[:3], KINDS):
        numbers = np.random.default_rng(0).random((2000, len(kinds) - 1))
        drawn = [Simplex(kinds).mixture(uniforms) for uniforms in numbers.tolist()]
        for kind in kinds:
            assert kstest([one[kind] for one in drawn], beta(1, len(kinds) - 1).cdf).pvalue > 1e-4


@given(KINDS_OF, st.integers(1, 8))
def test_a_grid_has_every_multiple_of_its_step_once(kinds, steps):
    entry = {"simplex": list(kinds), "step": 1 / steps}
    mixtures = read_simplex("batching.mixture", entry, "a test", searching=False).probes
    found = {tuple(round(weight * steps) for weight in mixture.values()) for mixture in mixtures}
    assert len(found) == len(mixtures) == comb(steps + len(kinds) - 1, len(kinds) - 1)
    assert all(sum(one) == steps for one in found)
    assert all(set(mixture) == set(kinds) for mixture in mixtures)
