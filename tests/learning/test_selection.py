"""Which zones take part: by hand, and that none waits for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.selection import participants

SHARES = {"asia": 0.5, "europe": 0.3, "africa": 0.2}


@pytest.mark.parametrize("most", [0, 3, 7])
def test_all_of_them(most):
    assert participants(SHARES, {}, most) == ("africa", "asia", "europe")


def test_those_that_contribute_most():
    assert participants(SHARES, {}, 2) == ("asia", "europe")
    assert participants(SHARES, {}, 1) == ("asia",)
    assert participants({"b": 0.5, "a": 0.5}, {}, 1) == ("a",)  # a tie goes by name


def test_who_waited_long_comes_first():
    """One of three at a time: who waited for three epochs is due."""
    assert participants(SHARES, {"africa": 2, "europe": 2}, 1) == ("asia",)
    assert participants(SHARES, {"africa": 3, "europe": 2}, 1) == ("africa",)
    assert participants(SHARES, {"africa": 3, "europe": 4}, 1) == ("europe",)


def test_how_many_is_no_negative_number():
    with pytest.raises(ValueError, match="0 \\(all\\) or more"):
        participants(SHARES, {}, -1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(1, 8))
def test_no_zone_waits_for_ever(shares, most):
    """Whatever they contribute: between two turns of a zone lie fewer than two rounds of all zones."""
    contributions = {f"z{i}": c for i, c in enumerate(shares)}
    waited: dict[str, int] = {}
    longest = 0
    for _ in range(6 * len(shares)):
        part = participants(contributions, waited, most)
        assert len(part) == min(most, len(shares))
        waited = {z: 0 if z in part else waited.get(z, 0) + 1 for z in contributions}
        longest = max(longest, *waited.values())
    assert longest <= 2 * -(-len(shares) // most)
