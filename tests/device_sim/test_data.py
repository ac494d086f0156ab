"""Data by name, and shares that are disjoint, cover all and leave nobody without."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.data import LEAST, Dataset, UnknownData, data, held_out, load, share


def rows(x: np.ndarray) -> list[bytes]:
    return sorted(row.tobytes() for row in x)


def numbered(n: int, classes: int = 5) -> Dataset:
    """Sample i is the number i: whose it became can be read off it."""
    x = np.arange(n, dtype=np.float32)[:, None]
    y = np.arange(n) % classes
    return Dataset(name="numbered", x=x, y=y, test_x=x.copy(), test_y=y.copy())


def test_digits():
    d = load("digits", {})
    assert d is load("digits", {"devices": 7, "alpha": 0.1})
    assert (len(d.y), len(d.test_y)) == (1438, 359)
    assert (d.x.dtype, d.y.dtype, d.x.shape[1]) == (np.float32, np.int64, 64)
    assert (d.x.min(), d.x.max()) == (0.0, 1.0)
    parts = np.bincount(d.test_y) / (np.bincount(d.y) + np.bincount(d.test_y))
    assert len(parts) == 10
    assert abs(parts - 0.2).max() < 0.01
    assert not set(rows(d.x)) & set(rows(d.test_x))
    with pytest.raises(ValueError, match="read-only"):
        d.x[0] = 1


def test_held_out_samples_are_always_the_same():
    x, y = np.arange(50.0)[:, None], np.arange(50) % 3
    a, b = held_out("a", x, y), held_out("b", x, y)
    assert a.test_x.tobytes() == b.test_x.tobytes()
    assert rows(np.concatenate([a.x, a.test_x])) == rows(x.astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.floats(0.02, 100), st.integers(0, 5), st.integers(60, 400))
def test_shares_are_disjoint_cover_all_and_leave_nobody_without(devices, alpha, seed, n):
    d = numbered(n)
    args = {"devices": devices, "alpha": alpha, "seed": seed, "other": "ignored"}
    shares = [share(d, i, args) for i in range(devices)]
    assert sorted(np.concatenate([x[:, 0] for x, _ in shares]).tolist()) == list(range(n))
    assert all((x[:, 0] % 5 == y).all() for x, y in shares)
    assert min(len(y) for _, y in shares) >= min(LEAST, n // devices)


def test_shares_are_the_same_each_time_and_others_for_another_seed():
    def split(d: Dataset, **args) -> list[list[float]]:
        return [share(d, i, {"devices": 10, **args})[0][:, 0].tolist() for i in range(10)]

    one = split(numbered(300))
    assert split(numbered(300)) == one
    assert split(numbered(300), seed=1) != one
    assert split(numbered(300), alpha=0.4) != one
    d = numbered(300)
    assert share(d, 3, {})[0] is share(d, 3, {"devices": 40, "alpha": 0.5, "seed": 0})[0]


def test_a_small_alpha_means_few_classes_a_device():
    def most(alpha: float) -> float:
        d = load("digits", {})
        ys = [share(d, i, {"alpha": alpha})[1] for i in range(40)]
        return float(np.mean([np.bincount(y).max() / len(y) for y in ys]))

    assert most(0.05) > 0.6 > most(0.5) > 0.25 > most(1000.0)


def test_who_is_unknown_is_told_what_is_known():
    with pytest.raises(UnknownData, match="'mnist' is known here; known: digits"):
        load("mnist", {})
    with pytest.raises(ValueError, match="takes devices, alpha, seed; not alfa"):
        load("digits", {"alfa": 1})


@pytest.mark.parametrize(
    ("device", "args", "words"),
    [
        (40, {}, "device 40 is not one of the 40"),
        (-1, {}, "device -1"),
        (0, {"devices": 0}, "devices must"),
        (0, {"devices": 101}, "devices must be a whole number from 1 to the 100 samples"),
        (0, {"devices": "4"}, "devices must"),
        (0, {"alpha": 0}, "alpha must"),
        (0, {"alpha": float("nan")}, "alpha must"),
        (0, {"alpha": "x"}, "alpha must"),
        (0, {"seed": -1}, "seed must"),
    ],
)
def test_bad_splits_are_refused_in_clear_words(device, args, words):
    with pytest.raises(ValueError, match=words):
        share(numbered(100), device, args)


def test_data_cannot_be_registered_over_others_or_take_the_splits_arguments():
    with pytest.raises(ValueError, match="already"):
        data("digits")(lambda: numbered(9))
    with pytest.raises(ValueError, match="cannot take seed"):
        data("mine")(lambda seed: numbered(seed))
    with pytest.raises(UnknownData):
        load("mine", {})


def test_labels_must_match():
    x = np.zeros((3, 1), np.float32)
    with pytest.raises(ValueError, match="labels"):
        Dataset(name="odd", x=x, y=np.zeros(2, np.int64), test_x=x, test_y=np.zeros(3, np.int64))
