"""PyramidFL: gradient utilities, what is dropped, and how long a device trains."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.pyramidfl import CODE, HAR, INTENT, SPEECH, Settings, dropout, gradient_utility, kept, longer, plan

amounts = st.floats(0.1, 1e3)


def flat(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


# ------------------------------------------------------------------ gradient utility


def test_the_intent_is_the_deltas_norm_and_the_code_takes_the_model_off():
    """|(3, 4)| = 5 and |(3, 4) - (3, 16)| = 12, for 80 samples of 200."""
    delta, base = flat(3, 4), flat(3, 16)
    assert gradient_utility(delta, base, 200, 80) == gradient_utility(delta, base, 80, 400, INTENT) == 5 * 0.8
    assert gradient_utility(delta, base, 200, 80, CODE) == pytest.approx(12 * 0.8)


def test_the_codes_utility_hardly_sees_the_delta():
    """Where deltas are small beside the model, all differ by samples alone."""
    dice = np.random.default_rng(0)
    base = dice.standard_normal(1000).astype(np.float32)
    small, large = (dice.standard_normal(1000).astype(np.float32) * s for s in (0.001, 0.01))
    assert gradient_utility(large, base, 50, 80) > 5 * gradient_utility(small, base, 50, 80)
    ratio = gradient_utility(large, base, 50, 80, CODE) / gradient_utility(small, base, 50, 80, CODE)
    assert ratio == pytest.approx(1, abs=0.01)


def test_another_variant_is_refused():
    with pytest.raises(ValueError, match="intent and code, not 'paper'"):
        gradient_utility(flat(1), flat(1), 1, 1, "paper")


# ------------------------------------------------------------------ what is dropped


def test_ranks_are_by_utility_and_equals_share_the_better_one():
    """0.1 + rank × 0.5 / 5; the two of 7 are both second, and the next is fourth."""
    assert dropout([7, 9, 1, 7, 3], 5).tolist() == pytest.approx([0.2, 0.1, 0.5, 0.2, 0.4])


def test_ranks_are_by_the_demand_even_if_fewer_run():
    assert dropout([2, 1], 10).tolist() == pytest.approx([0.1, 0.15])


@given(st.lists(amounts, min_size=1, max_size=40), st.integers(0, 10))
def test_chances_lie_between_low_and_high_and_fall_with_utility(utilities, more):
    settings = Settings(low=0.2, high=0.5)
    ratios = dropout(utilities, len(utilities) + more, settings)
    assert ((ratios >= 0.2) & (ratios < 0.5)).all()
    assert ratios[int(np.argmax(utilities))] == 0.2
    assert (np.diff(ratios[np.argsort(-np.array(utilities))]) >= 0).all()


def test_tensors_are_dropped_whole_and_as_often_as_said():
    sizes, dice = [3, 1, 5], np.random.default_rng(0)
    masks = np.array([kept(sizes, 0.4, dice) for _ in range(4000)])
    assert masks.shape == (4000, 9)
    for of_tensor in np.split(masks, [3, 4], axis=1):
        assert (of_tensor == of_tensor[:, :1]).all()
        assert of_tensor[:, 0].mean() == pytest.approx(0.6, abs=0.03)
    assert kept(sizes, 0, dice).all()


@pytest.mark.parametrize("utilities", [[], [1, 2, 3]])
def test_a_round_has_some_devices_and_no_more_than_its_demand(utilities):
    with pytest.raises(ValueError, match="a round of 2 has at least 1 device"):
        dropout(utilities, 2)


# ------------------------------------------------------------------ how long they train


def test_a_round_worked_by_hand():
    """K = 3. Chances: b is best, then a, c: 0.1 + 1/6, 0.1, 0.1 + 2/6. Times: a 5 + 22/30 × 3 = 7.2, b 10 + 0.9 × 10 = 19,
    c 4 + 17/30 × 6 = 7.4; so a has time for 11 steps more of 1 s: 5 × (1 + 0.7 × 11 / 5) = 12.7; c, of 0.8 s, for 14: 14.8, of
    which its data allow 10."""
    p = plan([2, 3, 1], [5, 10, 4], [3, 10, 6], [5, 5, 5], [13, 20, 2], 3, HAR)
    assert p.ratios.tolist() == pytest.approx([0.1 + 1 / 6, 0.1, 0.1 + 1 / 3])
    assert p.seconds == pytest.approx(19)
    assert p.steps == [12, 5, 10]


@pytest.mark.parametrize(
    ("left", "steps"),
    [(0, 5), (0.9, 5), (1, 6), (4, 9), (49, 54), (50, 55), (1000, 55)],
)
def test_the_time_left_is_trained_in_up_to_eleven_times_the_steps(left, steps):
    assert longer(left, training_s=5, steps=5, batches=100, beta=1) == steps


def test_a_step_is_not_lost_to_rounding():
    assert longer(4, training_s=3, steps=3, batches=100, beta=1) == 7


def test_no_more_than_five_passes_unless_the_round_asks_for_them():
    assert longer(1000, 5, steps=5, batches=3, beta=1) == 15
    assert longer(1000, 5, steps=40, batches=3, beta=1) == 40


@given(st.lists(st.tuples(amounts, amounts, amounts), min_size=1, max_size=20), st.integers(1, 20))
def test_the_slowest_sets_the_time_and_nobody_overruns_it_nor_does_less(devices, steps):
    worth, training, transfer = map(list, zip(*devices, strict=True))
    p = plan(worth, training, transfer, [steps] * len(worth), [100] * len(worth), 20)
    for ratio, more, s, t in zip(p.ratios, p.steps, training, transfer, strict=True):
        assert more >= steps
        assert s * more / steps + (1 - ratio) * t <= p.seconds * (1 + 1e-6)
    assert p.seconds == pytest.approx(
        max(s + (1 - r) * t for r, s, t in zip(p.ratios, training, transfer, strict=True))
    )


def test_settings_are_those_of_its_logs():
    assert (HAR.low, HAR.high, HAR.beta) == (0.1, 0.6, 0.7)
    assert (SPEECH.low, SPEECH.high, SPEECH.beta) == (0.1, 0.6, 1.0)
