"""Eqs. 1 to 5: numbers worked by hand, the ranges they stay in, and bad input said in words."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.rewards import (
    FLOOR,
    TOP,
    Measured,
    boosted,
    contributions,
    first_quality,
    profit,
    progress,
    quality,
    reward,
    zone_reward,
)

values = st.floats(-1000, 1000, width=32)
models = st.lists(values, min_size=3, max_size=3).map(lambda v: np.array(v, np.float32))
losses_of = st.lists(st.floats(0, 100), min_size=1, max_size=50)
amounts = st.floats(0, 1e6)
measured = st.builds(Measured, amounts, amounts)


def flat(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


# ------------------------------------------------------------------ eq. 1


def test_contribution_is_the_share_of_the_deviation():
    """|(3, 4)| = 5 and |(0, 15)| = 15, of 20."""
    assert contributions({"east": flat(4, 5), "west": flat(1, 16)}, flat(1, 1)) == {"east": 0.25, "west": 0.75}


def test_without_any_deviation_all_zones_have_the_same():
    same = flat(1, 2)
    assert contributions(dict.fromkeys("abc", same), same) == {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
    assert contributions({"east": same}, same) == {"east": 1.0}


def test_one_zone_has_all_even_if_the_server_went_elsewhere():
    assert contributions({"east": flat(1, 2)}, flat(5, 5)) == {"east": 1.0}


def test_a_deviation_of_the_smallest_floats_is_one():
    assert contributions({"east": flat(1e-45), "west": flat(0)}, flat(0)) == {"east": 1.0, "west": 0.0}


@given(st.dictionaries(st.sampled_from("abcdef"), models, min_size=1), models, st.randoms())
def test_contributions_add_up_to_one_whatever_the_order_of_the_zones(zones, merged, dice):
    shares = contributions(zones, merged)
    assert all(0 <= s <= 1 for s in shares.values())
    assert math.fsum(shares.values()) == pytest.approx(1, rel=1e-12)
    shuffled = dice.sample(sorted(zones), len(zones))
    assert contributions({z: zones[z] for z in shuffled}, merged) == shares


@pytest.mark.parametrize(
    ("zones", "merged", "words"),
    [
        ({}, flat(1), "no zones"),
        ({"east": flat(1), "west": flat(1, 2)}, flat(1), "zone west has the shape"),
        ({"east": flat(1), "west": flat(math.nan)}, flat(1), "zone west .* is not finite"),
        ({"east": flat(math.inf)}, flat(1), "zone east .* is not finite"),
        ({"east": flat(math.inf)}, flat(math.inf), "zone east .* is not finite"),
    ],
)
def test_models_that_make_no_contribution(zones, merged, words):
    with pytest.raises(ValueError, match=words):
        contributions(zones, merged)


# ------------------------------------------------------------------ eq. 2


@pytest.mark.parametrize(
    ("before", "last", "wanted"),
    [
        ((10, 2), (8, 1.5), 0.01),  # (2/10)² · 0.5/2
        ((10, 2), (12, 1.5), 0.01),  # the square: grown counts as fallen
        ((1, 1), (4, 0.5), 4.5),  # (-3)² · 0.5: may be more than 1
        ((10, 2), (0, 0), 1.0),
        ((10, 2), (8, 2), FLOOR),
        ((10, 2), (8, 3), FLOOR),  # the loss grew
        ((10, 2), (10, 1), FLOOR),
        ((0, 0), (0, 0), FLOOR),  # ε keeps it finite
    ],
)
def test_progress_is_the_relative_change_of_both(before, last, wanted):
    assert progress([Measured(*before), Measured(*last)]) == pytest.approx(wanted, rel=1e-7)


def test_the_first_two_rounds_have_full_progress():
    assert progress([]) == 1
    assert progress([Measured(3, 2)]) == 1


@given(st.lists(measured, max_size=5))
def test_progress_looks_at_the_last_two_and_never_falls_below_the_floor(rounds):
    assert FLOOR <= progress(rounds) < math.inf
    if len(rounds) >= 2:
        assert progress(rounds) == progress(rounds[-2:])


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf, 1e60])
@pytest.mark.parametrize("field", ["gradient", "loss"])
def test_a_round_that_cannot_be(bad, field):
    """Also where it would not be looked at yet: better said in the round that has it."""
    wrong = Measured(1, 1)._replace(**{field: bad})
    with pytest.raises(ValueError, match="delta" if field == "gradient" else "loss"):
        progress([wrong])
    with pytest.raises(ValueError, match="is a number from 0"):
        progress([Measured(1, 1), wrong])


# ------------------------------------------------------------------ the zone's announcement


def test_the_zone_announces_the_product():
    assert zone_reward(0.25, 0.01) == 0.0025


@pytest.mark.parametrize(
    ("before", "starved", "wanted"),
    [
        (0.01, 0, 0.01),
        (0.01, 1, 0.02),
        (0.01, 3, 0.08),
        (0.01, 7, TOP),  # not 1.28
        (4.5, 3, 4.5),  # above the top already
        (0.0, 0, 0.0),
        (0.0, 1, 2 * FLOOR),  # twice nothing would be nothing
        (0.0, 14, TOP),
        (0.5, 10**9, TOP),
    ],
)
def test_a_task_that_starved_is_worth_more(before, starved, wanted):
    assert boosted(before, starved) == pytest.approx(wanted, rel=1e-15)


@given(amounts, st.integers(0, 40), st.integers(0, 40))
def test_the_boost_grows_with_each_round_and_is_bounded(before, one, other):
    less, more = boosted(before, min(one, other)), boosted(before, max(one, other))
    assert before <= less <= more <= max(before, TOP)
    assert boosted(before, 14) >= TOP


# ------------------------------------------------------------------ eqs. 3 to 5


def test_quality_is_oorts():
    """2 · √((3² + 4²) / 2)"""
    assert quality(np.array([3, 4], np.float32)) == pytest.approx(7.0710678118654755, rel=1e-15)
    assert quality(np.array([0.0, 0.0])) == 0


def test_before_the_first_run_each_loss_is_that_of_a_guess():
    assert first_quality(10, 10) == pytest.approx(23.02585092994046, rel=1e-15)
    assert first_quality(10, 10) == pytest.approx(quality(np.full(10, math.log(10))), rel=1e-15)


@given(losses_of, st.randoms())
def test_the_order_of_samples_changes_no_bit(losses, dice):
    shuffled = dice.sample(losses, len(losses))
    assert quality(np.array(shuffled)) == quality(np.array(losses))


def test_control_in_the_order_they_come_the_bits_would_differ():
    losses = [1e8, 1.0, 1.0]
    assert sum(loss**2 for loss in losses) != sum(loss**2 for loss in reversed(losses))
    assert quality(np.array(losses)) == quality(np.array(losses[::-1]))


@given(losses_of)
def test_quality_lies_between_the_mean_and_the_largest_loss(losses):
    q, n = quality(np.array(losses)), len(losses)
    assert math.fsum(losses) * (1 - 1e-12) <= q <= n * max(losses) * (1 + 1e-12)


def test_losses_whose_squares_are_0_count_all_the_same():
    assert quality(np.array([3e-200, 4e-200])) == pytest.approx(7.0710678118654755e-200, rel=1e-15)
    assert quality(np.array([1.367283874854626e-159])) == 1.367283874854626e-159


def test_profit_and_reward_by_hand():
    assert profit(0.0025, 8.0) == 0.02
    assert reward(0) == 0
    assert reward(math.e - 1) == pytest.approx(0.5, rel=1e-15)
    # 1/4 · 1/100 · 7.07107 = 0.0176777; its log1p 0.0175232; that / 1.0175232
    whole = reward(profit(zone_reward(0.25, 0.01), quality(np.array([3.0, 4.0]))))
    assert whole == pytest.approx(0.0172215, abs=1e-7)


@given(st.floats(0, 1e200), st.floats(0, 1e200))
def test_reward_keeps_the_order_of_profits_below_one(one, other):
    less, more = sorted((one, other))
    assert 0 <= reward(less) <= reward(more) < 1
    if more > less * 1.001 + 1e-300 and more < 1e12:
        assert reward(less) < reward(more)


@given(measured, measured, st.floats(0, 1), st.integers(0, 99), st.lists(amounts, min_size=1, max_size=20))
def test_whatever_is_measured_has_a_reward(before, last, contribution, starved, losses):
    announced = boosted(zone_reward(contribution, progress([before, last])), starved)
    assert 0 <= reward(profit(announced, quality(np.array(losses)))) < 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: quality(np.array([])), "at least one sample"),
        (lambda: quality(np.ones((2, 2))), r"not an array of \(2, 2\)"),
        (lambda: quality(np.array([1, math.nan])), "losses are finite and 0 or more"),
        (lambda: quality(np.array([1, math.inf])), "losses are finite and 0 or more"),
        (lambda: quality(np.array([1, -0.1])), "from -0.1 to 1"),
        (lambda: quality(np.array([1e60])), "losses are finite"),
        (lambda: first_quality(0, 10), "at least one sample and two classes, not 0"),
        (lambda: first_quality(10, 1), "two classes"),
        (lambda: zone_reward(-0.1, 1), "a contribution is"),
        (lambda: zone_reward(1, math.nan), "progress is"),
        (lambda: boosted(math.nan, 0), "a zone reward is"),
        (lambda: boosted(1, -1), "0 or more, not -1"),
        (lambda: profit(math.inf, 1), "a zone reward is"),
        (lambda: profit(1, -1), "quality is"),
        (lambda: reward(-1e-9), "a profit is"),
        (lambda: reward(math.nan), "a profit is"),
    ],
)
def test_bad_input_is_said_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
