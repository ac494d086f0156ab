"""Stretches of time, beside the plain reading: which of the first twenty moments lie in them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.spans import both, solid, without

spans = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20))).map(sorted)


def moments(spans) -> set[int]:
    return {t for a, b in spans for t in range(a, b)}


def orderly(spans) -> bool:
    return all(a < b for a, b in spans) and all(x[1] < y[0] for x, y in pairwise(spans))


@given(spans, spans)
def test_they_are_sets_of_moments(one, other):
    x, y = solid(one), solid(other)
    assert orderly(x)
    assert moments(x) == moments(one)
    assert moments(both(x, y)) == moments(x) & moments(y)
    assert orderly(list(both(x, y)))
    assert moments(without(x, y)) == moments(x) - moments(y)
    assert orderly(list(without(x, y)))


@given(spans, spans, st.integers(0, 5))
def test_cuts_may_be_longer_than_to_the_next_one(one, other, longer):
    x, cuts = solid(one), [(a, b + longer) for a, b in solid(other)]
    assert moments(without(x, cuts)) == moments(x) - moments(cuts)


@pytest.mark.parametrize("bad", [[(1, 1)], [(2, 4), (3, 5)], [(1, 2), (2, 3)], [(3, 4), (1, 2)]])
def test_control_the_order_is_looked_at(bad):
    assert not orderly(bad)
