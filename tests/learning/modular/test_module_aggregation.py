"""Module-wise aggregation: numbers by hand, numpy's weighted mean, and sums that are the same in any order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.aggregation import quantise
from learning.modular.aggregation import OLDEST, Contribution, Sums, weight_of, weights_of
from learning.modular.structure import NOISE, SELECTOR, SHARED, blocks_of, group, owners
from schemas.blocks import BLOCK, STATISTICS, Tensor, layout, slices
from schemas.modules import FRACTION

UNIT = -24

# Two layers of three shrunk modules and the residual one; module 0/0 takes two blocks and has statistics.
GROUPS = [(SHARED, 3), (STATISTICS, 2), (SELECTOR, 2), (NOISE, 2), ("0/0", BLOCK + 1), (STATISTICS, 2)]
GROUPS += [(group(i, n), 2) for i in range(2) for n in range(3) if (i, n) != (0, 0)]
LAYOUT = layout(tuple(Tensor(f"t{i}", (size,), name) for i, (name, size) in enumerate(GROUPS)))
OWNERS = owners(LAYOUT)
N = sum(LAYOUT.sizes)


def contribution(delta, weights, base=None) -> Contribution:
    """What a device makes of its delta, (n,), rounded so that nothing is lost."""
    pieces = slices(LAYOUT.sizes)
    values = {b: quantise(delta[pieces[b]].astype(np.float64) * w, UNIT, 2.0**20) for b, w in weights.items()}
    return Contribution(base or {}, weights, values)


def of(owner: str) -> list[int]:
    return [b for b, name in enumerate(OWNERS) if name == owner]


def dyadic(seed: int) -> np.ndarray:
    """A delta whose products with weights are exact in units."""
    return np.random.default_rng(seed).integers(-16, 17, N).astype(np.float32) / 256


# ------------------------------------------------------------------ weights


def test_importance_becomes_a_whole_number():
    assert [weight_of(a) for a in (1.0, 0.5, 1 / 16, 2.0**-FRACTION, 1e-9, 0.0)] == [1024, 512, 64, 1, 1, 0]
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="importance is a number from 0 to 1"):
            weight_of(wrong)


def test_a_module_s_blocks_have_its_importance_and_the_shared_ones_the_samples():
    importance = [[0.5, 0.25, 0.0, 0.25], [0.125, 0.0, 0.5, 0.375]]
    weights = weights_of(LAYOUT, ((0, 2, 3), (0, 2, 3)), importance, samples=120)
    expected = {**dict.fromkeys(of(SHARED), 120), **dict.fromkeys(of("0/0"), 512)}
    expected |= {**dict.fromkeys(of("1/0"), 128), **dict.fromkeys(of("1/2"), 512)}
    assert weights == expected  # 0/2 has no importance: not sent
    assert list(weights) == sorted(weights)
    with_selector = weights_of(LAYOUT, ((0, 3), (0, 3)), importance, 120, selector=True)
    assert {b: with_selector[b] for b in of(SELECTOR)} == dict.fromkeys(of(SELECTOR), 120)
    with pytest.raises(ValueError, match="at least one sample"):
        weights_of(LAYOUT, ((0, 3), (0, 3)), importance, 0)


# ------------------------------------------------------------------ sums


def test_by_hand_two_devices_one_module():
    """Importance 1/2 moved it by 1, 1/4 by -2: (1/2 · 1 - 1/4 · 2) / (3/4) = 0; alone, module 1/1 moves by its own delta."""
    sums = Sums(LAYOUT)
    ones = np.ones(N, np.float32)
    sums.add(contribution(ones, dict.fromkeys(of("1/0"), 32768)), {})
    sums.add(contribution(-2 * ones, {**dict.fromkeys(of("1/0"), 16384), **dict.fromkeys(of("1/1"), 5)}), {})
    new = sums.model(ones, UNIT)
    pieces = slices(LAYOUT.sizes)
    assert new[pieces[of("1/0")[0]]].tolist() == [1.0, 1.0]
    assert new[pieces[of("1/1")[0]]].tolist() == [-1.0, -1.0]


def test_what_nobody_trained_stays_bit_for_bit_and_so_does_its_version():
    base = np.random.default_rng(0).normal(size=N).astype(np.float32)
    sums = Sums(LAYOUT)
    choice = ((1, 3), (0, 3))
    weights = weights_of(LAYOUT, choice, [[0.25] * 4] * 2, samples=7)
    sums.add(contribution(dyadic(1), weights), {"1/0": 4})
    new = sums.model(base, UNIT)
    mine = blocks_of(LAYOUT, choice, selector=False)
    for b, piece in enumerate(slices(LAYOUT.sizes)):
        assert np.array_equal(new[piece], base[piece]) == (b not in mine)
    versions = sums.versions({"1/0": 4, "1/2": 9})
    assert versions == {name: {SHARED: 1, "0/1": 1, "1/0": 5, "1/2": 9}.get(name, 0) for name in dict.fromkeys(OWNERS)}


@settings(max_examples=15)
@given(st.data())
def test_each_module_is_the_weighted_mean_of_those_who_trained_it(data):
    base = dyadic(99)
    sums, expected, weight_sum = Sums(LAYOUT), np.zeros(N), np.zeros(N)
    for seed in range(data.draw(st.integers(1, 5))):
        some = st.sets(st.integers(0, 2), min_size=1)
        choice = tuple((*sorted(data.draw(some)), 3) for _ in range(2))
        importance = [[data.draw(st.floats(0, 1)) for _ in range(4)] for _ in range(2)]
        weights, delta = weights_of(LAYOUT, choice, importance, samples=data.draw(st.integers(1, 200))), dyadic(seed)
        sums.add(contribution(delta, weights), {})
        for b, w in weights.items():
            expected[slices(LAYOUT.sizes)[b]] += w * delta[slices(LAYOUT.sizes)[b]].astype(np.float64)
            weight_sum[slices(LAYOUT.sizes)[b]] += w
    mean = np.divide(expected, weight_sum, out=np.zeros(N), where=weight_sum > 0)
    assert np.array_equal(sums.model(base, UNIT), (base.astype(np.float64) + mean).astype(np.float32))


@given(st.permutations(range(5)))
@settings(max_examples=10)
def test_the_order_of_contributions_changes_no_bit(order):
    rng = np.random.default_rng(3)
    many = []
    for seed in range(5):
        weights = weights_of(LAYOUT, ((seed % 3, 3), (0, 2, 3)), rng.random((2, 4)).tolist(), samples=seed + 1)
        many.append(contribution(rng.normal(size=N).astype(np.float32), weights))
    first, other = Sums(LAYOUT), Sums(LAYOUT)
    for c in many:
        first.add(c, {})
    for i in order:
        other.add(many[i], {})
    assert np.array_equal(first.total, other.total)
    assert first.weights == other.weights


# ------------------------------------------------------------------ base versions


def test_devices_of_different_versions_are_mixed_and_only_a_module_that_is_too_old_is_left_out():
    """The shared part moved on, 0/0 did not: of one delta the one is too old and the other counts."""
    versions = {SHARED: OLDEST + 3, "0/0": 2, "1/0": OLDEST + 1}
    weights = {**dict.fromkeys(of(SHARED), 9), **dict.fromkeys(of("0/0"), 4), **dict.fromkeys(of("1/0"), 4)}
    sums = Sums(LAYOUT)
    sums.add(contribution(dyadic(0), weights, {SHARED: 2, "0/0": 1, "1/0": 1}), versions)
    statistics = {*of("0/0")} & LAYOUT.plain
    assert sums.old == len(of(SHARED)) + len(statistics)
    assert {b for b, w in enumerate(sums.weights) if w} == {*of("0/0"), *of("1/0")} - statistics
    sums.add(contribution(dyadic(1), weights, {SHARED: 3, "0/0": 2, "1/0": OLDEST + 1}), versions)
    assert sums.old == len(of(SHARED)) + len(statistics) + len({*of(SHARED)} & LAYOUT.plain)
    assert sums.weights[of(SHARED)[0]] == 9
    assert sums.weights[of("1/0")[0]] == 8


def test_a_running_variance_never_falls_below_0():
    """Two devices find the variance 1/2 where the cloud has 4; the second was sent the version before the first one's change."""
    (b,) = {*of("0/0")} & LAYOUT.plain
    piece, model, versions = slices(LAYOUT.sizes)[b], np.full(N, 4, np.float32), {}
    for _ in range(2):
        delta = np.zeros(N, np.float32)
        delta[piece] = 0.5 - 4
        sums = Sums(LAYOUT)
        sums.add(contribution(delta, dict.fromkeys(of("0/0"), 64)), versions)
        model, versions = sums.model(model, UNIT), sums.versions(versions)
    assert model[piece].tolist() == [0.5, 0.5]
    assert versions["0/0"] == 2


# ------------------------------------------------------------------ what is refused


def changed(weights=None, values=None, base=None) -> Contribution:
    good = contribution(dyadic(0), dict.fromkeys([*of("0/0"), *of("1/1")], 3))
    return Contribution(base or {}, {**good.weights, **(weights or {})}, {**good.values, **(values or {})})


def without(block: int) -> Contribution:
    c = changed()
    left = {b: w for b, w in c.weights.items() if b != block}
    return Contribution({}, left, {b: c.values[b] for b in left})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: without(of("0/0")[1]), r"0/0 comes whole or not at all; missing are blocks \[5\]"),
        (lambda: changed(weights={of("0/0")[0]: 4}), "the blocks of 0/0 have one weight"),
        (lambda: changed(weights={of("1/1")[0]: 0}), "one weight, of at least 1"),
        (lambda: changed(weights={of("1/0")[0]: 3}), r"weights of blocks .* and values of"),
        (lambda: changed(base={"1/1": 3}), "1/1 is at 2, not yet at 3"),
        (lambda: contribution(dyadic(0), dict.fromkeys(of(NOISE), 3)), "serves the offline stage alone"),
        (lambda: changed({99: 3}, {99: (np.zeros(2, np.int32), 0)}), r"blocks 0 to \d+, not \[99\]"),
        (lambda: changed(values={of("1/1")[0]: (np.zeros(3, np.int32), 0)}), r"block \d+ has 2 values"),
        (lambda: changed(values={of("1/1")[0]: (np.zeros(2, np.int64), 0)}), "of int32, int16 or int8"),
        (lambda: changed(values={of("1/1")[0]: (np.zeros(2, np.int32), 63)}), "an exponent from 0 to 62"),
    ],
)
def test_a_contribution_that_cannot_be_changes_nothing(wrong, words):
    sums = Sums(LAYOUT)
    sums.add(changed(), {"1/1": 2})
    before = sums.total.copy(), list(sums.weights)
    with pytest.raises(ValueError, match=words):
        sums.add(wrong(), {"1/1": 2})
    assert np.array_equal(sums.total, before[0])
    assert sums.weights == before[1]
