"""Exact sums: no order, grouping or cutting changes a bit, and Python's own integers agree."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.aggregation import (
    add,
    apply_mean,
    capacity,
    largest_in_units,
    mean,
    merge,
    merge_blocks,
    norm,
    quantise,
    within,
)

UNIT = -24
LARGEST = 65536.0
MOST = largest_in_units(LARGEST, UNIT)
SIZE = 12

values = st.lists(
    st.one_of(
        st.floats(-LARGEST, LARGEST, width=32),
        st.floats(-1, 1, width=32),
        st.integers(-(2**33), 2**33).map(lambda n: n * 2.0 ** (UNIT - 1)),  # many lie half-way between two units
        st.sampled_from([0.0, -0.0, LARGEST, -LARGEST, 128.0, -128.0, 2.0**UNIT / 2]),
    ),
    min_size=SIZE,
    max_size=SIZE,
).map(lambda v: np.array(v))
contributions = st.lists(values, min_size=1, max_size=8).map(lambda vs: [quantise(v, UNIT, LARGEST) for v in vs])


def total(parts: list[tuple[np.ndarray, int]]) -> np.ndarray:
    acc = np.zeros(SIZE, dtype=np.int64)
    for q, exponent in parts:
        assert within(q, exponent, MOST)
        add(acc, q, exponent)
    return acc


# ------------------------------------------------------------------ rounding


@given(values)
def test_each_value_is_rounded_once_to_the_nearest_multiple(v):
    q, exponent = quantise(v, UNIT, LARGEST)
    assert q.dtype == np.int32
    step = Fraction(2) ** (UNIT + exponent)
    assert q.tolist() == [round(Fraction(x) / step) for x in v.tolist()]  # Python's round: halves to even, exact


@given(values)
def test_the_exponent_is_the_smallest_that_fits(v):
    _, exponent = quantise(v, UNIT, LARGEST)
    if exponent:
        finer = [round(Fraction(x) / Fraction(2) ** (UNIT + exponent - 1)) for x in v.tolist()]
        assert min(finer) < -(2**31) or max(finer) > 2**31 - 1


def test_exponents_at_the_edge_of_int32():
    at_the_edge = (  # units, the exponent, the integer
        (2**31 - 1, 0, 2**31 - 1),
        (2**31, 1, 2**30),
        (-(2**31), 0, -(2**31)),
        (-(2**31) - 1, 1, -(2**30)),  # half-way: to the even one
        (2**40, 10, 2**30),
        (-(2**40), 9, -(2**31)),
    )
    for units, exponent, integer in at_the_edge:
        q, e = quantise(np.array([units * 2.0**UNIT]), UNIT, LARGEST)
        assert (e, int(q[0])) == (exponent, integer)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="1 of 3 values are NaN or infinite"):
        quantise(np.array([0.0, bad, 1.0]), UNIT, LARGEST)


@pytest.mark.parametrize("bad", [math.nextafter(LARGEST, math.inf), -LARGEST - 1, 1e300])
def test_what_is_too_large_is_refused(bad):
    with pytest.raises(ValueError, match="more than the largest allowed"):
        quantise(np.array([0.0, bad]), UNIT, LARGEST)


@given(st.floats(1e-6, 1e9), st.integers(-40, 0), st.floats(-1, 1))
def test_what_quantise_made_is_never_refused(largest, unit, fraction):
    if not 1 <= largest * 2.0**-unit < 2**62:
        return
    most = largest_in_units(largest, unit)
    for v in (largest, -largest, largest * fraction):
        q, exponent = quantise(np.array([v]), unit, largest)
        acc = np.zeros(1, dtype=np.int64)
        assert within(q, exponent, most)
        add(acc, q, exponent)
        assert abs(Fraction(v) - int(acc[0]) * Fraction(2) ** unit) < Fraction(2) ** (unit + exponent)


def test_an_empty_block():
    q, exponent = quantise(np.zeros(0, dtype=np.float32), UNIT, LARGEST)
    assert (q.shape, q.dtype, exponent) == ((0,), np.int32, 0)
    assert within(q, 0, 1)
    add(np.zeros(0, dtype=np.int64), q, 0)


def test_largest_in_units():
    assert largest_in_units(65536.0, -24) == 2**40
    assert largest_in_units(0.3, 0 - 2) == 1  # 1.2 units, rounded down
    for largest, unit in (
        (0.1, 0),
        (2.0**40, -24),
        (1e308, -40),
        (0.0, -24),
        (-1.0, -24),
        (math.nan, 0),
        (math.inf, 0),
    ):
        with pytest.raises(ValueError, match="largest value"):
            largest_in_units(largest, unit)


# ------------------------------------------------------------------ sums


@given(contributions)
def test_the_sum_is_that_of_python_integers(parts):
    oracle = [sum(int(q[i]) << e for q, e in parts) for i in range(SIZE)]
    assert total(parts).tolist() == oracle


@given(contributions, st.data())
def test_order_grouping_and_cutting_change_no_bit(parts, data):
    expected = total(parts).tobytes()
    shuffled = data.draw(st.permutations(parts))
    assert total(shuffled).tobytes() == expected

    cut = data.draw(st.integers(0, len(parts)))  # two aggregators, a leader that adds their partials
    assert (total(shuffled[cut:]) + total(shuffled[:cut])).tobytes() == expected

    at = data.draw(st.integers(0, SIZE))  # blocks cut elsewhere, added as views of one array
    acc = np.zeros(SIZE, dtype=np.int64)
    for piece in (slice(at, SIZE), slice(0, at)):
        for q, e in shuffled:
            add(acc[piece], q[piece], e)
    assert acc.tobytes() == expected


def test_control_floats_do_depend_on_the_order():
    dice = np.random.default_rng(0)
    parts = [dice.normal(size=SIZE).astype(np.float32) * 10**i for i in range(5)]
    assert sum(parts, np.zeros(SIZE, np.float32)).tobytes() != sum(parts[::-1], np.zeros(SIZE, np.float32)).tobytes()
    whole = [quantise(p, UNIT, LARGEST) for p in parts]
    assert total(whole).tobytes() == total(whole[::-1]).tobytes()


@given(contributions, st.data())
def test_control_one_twice_or_none_is_seen(parts, data):
    one = data.draw(st.sampled_from(parts))
    seen = total([*parts, one]).tobytes() != total(parts).tobytes()
    assert seen == bool(one[0].any())


FORMS = st.sampled_from([np.int8, np.int16, np.int32])


@st.composite
def integers(draw):
    """Up to five integers of one of the three types, its ends among them."""
    form = draw(FORMS)
    low, high = int(np.iinfo(form).min), int(np.iinfo(form).max)
    return np.array(
        draw(st.lists(st.integers(low, high) | st.sampled_from([low, high, 0]), min_size=1, max_size=5)), form
    )


@given(integers(), st.integers(-1, 64), st.integers(1, 2**63 - 1) | st.integers(0, 62).map(lambda n: 2**n))
def test_the_bound_is_that_of_python_integers(q, exponent, largest):
    right = 0 <= exponent <= 62 and all(abs(n) << exponent <= largest for n in q.tolist())
    assert within(q, exponent, largest) == right


@given(integers(), st.integers(0, 62), st.integers(1, 2**10))
def test_shifts_and_factors_are_those_of_python_integers(q, exponent, factor):
    if any(abs(n) * factor << exponent >= 2**63 for n in q.tolist()):
        return
    acc = np.arange(len(q), dtype=np.int64)
    add(acc, q, exponent, factor)
    # In Z / 2^64, as the start values may take a sum of the very largest past the end.
    assert all(
        (int(a) - i - (n * factor << exponent)) % 2**64 == 0
        for i, (a, n) in enumerate(zip(acc, q.tolist(), strict=True))
    )


@given(integers(), st.integers(0, 24), st.integers(1, 2**10))
def test_values_are_added_where_they_belong(q, exponent, factor):
    acc, expected = np.zeros(2 * len(q), np.int64), np.zeros(2 * len(q), np.int64)
    at = np.arange(len(q), dtype=np.intp) * 2 + 1
    add(acc, q, exponent, factor, at)
    expected[1::2] = q.astype(np.int64) * factor * 2**exponent
    assert acc.tobytes() == expected.tobytes()


@given(integers().filter(lambda q: q.any()), st.integers(0, 31))
def test_the_bound_is_sharp(q, exponent):
    exactly = max(abs(n) for n in q.tolist()) << exponent
    assert within(q, exponent, exactly)
    assert not within(q, exponent, exactly - 1)
    assert not within(q, -1, 2**62)
    assert not within(q, 63, 2**62)


def test_a_sum_of_capacity_contributions_holds_and_one_more_need_not():
    for largest in (2**40, 2**62, 3 * 2**59 + 1, 2**63 - 1):
        n = capacity(largest)
        assert n * largest <= 2**63 - 1 < (n + 1) * largest
    acc = np.zeros(1, dtype=np.int64)
    q = np.array([-1], dtype=np.int32)
    for _ in range(capacity(2**61)):
        assert within(q, 61, 2**61)
        add(acc, q, 61)
    assert int(acc[0]) == -3 * 2**61
    with pytest.raises(ValueError, match="at least one unit"):
        capacity(0)


@pytest.mark.parametrize(
    ("acc", "q", "exponent", "factor"),
    [
        (np.zeros(3, np.int64), np.ones(1, np.int32), 0, 1),  # numpy would spread one value over three
        (np.zeros(3, np.int64), np.ones(1, np.int8), 0, 1),
        (np.zeros(3, np.int64), np.ones(3, np.int64), 0, 1),
        (np.zeros(3, np.int64), np.ones(3, np.uint8), 0, 1),
        (np.zeros(3, np.int64), np.ones(3, np.float32), 0, 1),
        (np.zeros(3, np.int32), np.ones(3, np.int32), 0, 1),
        (np.zeros(3, np.int64), np.ones(3, np.int32), -1, 1),
        (np.zeros(3, np.int64), np.zeros(3, np.int32), 63, 1),
        (np.zeros(3, np.int64), np.zeros(3, np.int32), 0, 0),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(acc, q, exponent, factor):
    with pytest.raises(ValueError, match=r"added|exponent|factor"):
        add(acc, q, exponent, factor)
    assert not acc.any()


# ------------------------------------------------------------------ means


def test_a_mean_worked_by_hand():
    # Weights 2 and 6, deltas 1.0 and -0.5: (2 - 3) / 8.
    acc = np.zeros(1, dtype=np.int64)
    for w, delta in ((2, 1.0), (6, -0.5)):
        add(acc, *quantise(np.array([w * delta]), UNIT, LARGEST))
    assert mean(acc, 8, UNIT).tolist() == [-0.125]
    assert apply_mean(np.array([1.0], np.float32), acc, [8], [1], UNIT).tolist() == [0.875]
    with pytest.raises(ValueError, match="weight"):
        mean(acc, 0, UNIT)


def test_blocks_without_weight_keep_their_bits():
    old = np.array([-0.0, math.nan, 1.0, 2.0, 3.0], dtype=np.float32)
    sums = np.array([0, 9, 3, 0, 4], dtype=np.int64)
    new = apply_mean(old, sums, [0, 2, 4], [2, 2, 1], 0)
    assert new[:2].tobytes() == old[:2].tobytes()
    assert new[2:].tolist() == [2.5, 2.0, 4.0]
    assert new.dtype == np.float32
    assert old[2:].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("sums", "weights", "sizes"),
    [([1, 1], [1], [1, 1]), ([1, 1], [1, 1], [1, 2]), ([1], [1, 1], [1, 1])],
)
def test_sums_that_do_not_fit_the_model_are_refused(sums, weights, sizes):
    with pytest.raises(ValueError, match=r"weight|blocks"):
        apply_mean(np.zeros(2, np.float32), np.array(sums, np.int64), weights, sizes, UNIT)


models = st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3).map(lambda v: np.array(v, np.float32))


@given(models, st.lists(st.integers(1, 10**6), min_size=1, max_size=5))
def test_equal_models_merge_to_themselves_bit_for_bit(m, weights):
    assert merge([m] * len(weights), weights).tobytes() == (m + np.float32(0)).tobytes()  # + 0: a sum is never -0


@given(st.lists(st.tuples(models, st.integers(0, 1000)), min_size=1, max_size=5))
def test_a_merge_is_the_weighted_mean(pairs):
    ms, weights = [m for m, _ in pairs], [w for _, w in pairs]
    if not any(weights):
        with pytest.raises(ValueError, match="not all 0"):
            merge(ms, weights)
        return
    exact = [float(sum(Fraction(float(m[i])) * w for m, w in pairs) / sum(weights)) for i in range(3)]
    np.testing.assert_allclose(merge(ms, weights), exact, rtol=1e-6, atol=1e-12)


def test_a_model_without_weight_does_not_spoil_a_merge():
    spoilt = np.array([math.nan, math.inf], np.float32)
    assert merge([spoilt, np.array([1.0, 2.0], np.float32)], [0, 3]).tolist() == [1.0, 2.0]
    one = np.ones(2, np.float32)
    for ms, weights in (([one], [1, 2]), ([one, one], [1, -1]), ([], []), ([one, np.ones(3, np.float32)], [1, 1])):
        with pytest.raises(ValueError, match=r"weights|merged"):
            merge(ms, weights)


def test_norm():
    assert norm(np.array([3.0, -4.0], np.float32)) == 5.0
    assert norm(np.full(4, 1e30, np.float32)) == pytest.approx(2e30)  # float32 would overflow


# ------------------------------------------------------------------ zones, block by block


def test_a_zone_in_which_nobody_trained_a_block_leaves_it_to_the_others():
    last = np.array([1, 1, 5, 5], np.float32)
    east, west = np.array([3, 3, 5, 5], np.float32), np.array([1, 1, 9, 9], np.float32)
    merged = merge_blocks(last, [east, west], [(10, 0), (0, 1)], (2, 2))
    assert merged.tolist() == [3, 3, 9, 9]  # by samples, west's ten times fewer would hardly show
    assert merge_blocks(last, [east, west], [(3, 0), (1, 0)], (2, 2)).tolist() == [2.5, 2.5, 5, 5]


@given(st.integers(1, 4), st.integers(0, 99), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_blocks_that_weigh_alike_merge_as_whole_models_do(zones, seed, sizes):
    dice = np.random.default_rng(seed)
    models = [dice.standard_normal(sum(sizes)).astype(np.float32) for _ in range(zones)]
    samples, last = dice.integers(1, 10**6, zones).tolist(), dice.standard_normal(sum(sizes)).astype(np.float32)
    merged = merge_blocks(last, models, [[n] * len(sizes) for n in samples], sizes)
    assert merged.tobytes() == merge(models, samples).tobytes()


def test_what_weighs_nothing_stays_bit_for_bit():
    last = np.array([-0.0, np.nan, 1e-45], np.float32)
    assert merge_blocks(last, [np.ones(3, np.float32)], [(0, 0)], (2, 1)).tobytes() == last.tobytes()
    assert merge_blocks(last, [], [], (2, 1)).tobytes() == last.tobytes()


@pytest.mark.parametrize(
    ("models", "weights", "sizes"), [(1, [(1,)], (3,)), (2, [(1, 1)], (1, 1)), (1, [(1, 1, 1)], (1, 1))]
)
def test_lengths_that_do_not_fit_are_an_error_of_the_caller(models, weights, sizes):
    with pytest.raises(ValueError, match="blocks"):
        merge_blocks(np.zeros(2, np.float32), [np.zeros(2, np.float32)] * models, weights, sizes)
