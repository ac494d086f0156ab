"""H by hand, M against brute force, and the targets that follow."""

from itertools import product

import numpy as np
import pytest

from learning.modular.assignment import EASIER, SMOOTHING, assign, matrix, targets

SHEET = np.array([[0.40, 0.30, 0.20, 0.10], [0.35, 0.35, 0.10, 0.20], [0.10, 0.20, 0.50, 0.20]])


def brute(h, most_load, most_modules) -> float | None:
    """Of all masks of modules that sub-tasks use."""
    best = None
    for bits in product((0, 1), repeat=h.size):
        m = np.array(bits).reshape(h.shape)
        rows = m.sum(axis=1)
        if (
            (h * m).sum(axis=0).max() <= most_load + 1e-9
            and rows.min() >= 1
            and rows.max() <= most_modules
            and not m[h == 0].any()
        ):
            best = max(best or 0.0, float((h * m).sum()))
    return best


# ------------------------------------------------------------------ H


def test_h_is_each_sub_task_s_load_by_module():
    """Sub-task 0: modules 0 and 1, then 0 and 2, k = 2; sub-task 1: 3 and 0."""
    routes = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]], bool)
    h = matrix(routes, np.array([0, 0, 1]), 2)
    assert h.tolist() == [[0.5, 0.25, 0.25, 0.0], [0.5, 0.0, 0.0, 0.5]]


@pytest.mark.parametrize(
    ("subtasks", "number", "words"),
    [
        ([0, 0, 0], 2, r"sub-tasks \[1\] have no sample"),
        ([0, 1, 2], 2, "sub-tasks are 0 to 1, not 0 to 2"),
        ([0, 1], 2, "routes of shape .* and sub-tasks"),
    ],
)
def test_h_of_what_cannot_be_is_refused(subtasks, number, words):
    with pytest.raises(ValueError, match=words):
        matrix(np.ones((3, 4), bool), np.array(subtasks), number)


# ------------------------------------------------------------------ M


@pytest.mark.parametrize(("most_load", "objective"), [(0.75, 2.10), (0.50, 1.75)])
def test_the_sheet_s_example(most_load, objective):
    mask, kept = assign(SHEET, most_load, 2)
    assert kept == most_load
    assert (SHEET * mask).sum() == pytest.approx(objective)
    assert objective == pytest.approx(brute(SHEET, most_load, 2))


@pytest.mark.parametrize("seed", range(12))
def test_m_is_brute_force_on_small_ones(seed):
    rng = np.random.default_rng(seed)
    h = rng.random((3, 4)) * (rng.random((3, 4)) < 0.8) + np.eye(3, 4) * 0.01
    h /= h.sum(axis=1, keepdims=True)
    most_load, most_modules = float(rng.uniform(0.3, 1.2)), int(rng.integers(1, 4))
    mask, kept = assign(h, most_load, most_modules)
    tried = most_load
    while (best := brute(h, tried, most_modules)) is None:
        tried *= EASIER
    assert kept == pytest.approx(tried)
    assert (h * mask).sum() == pytest.approx(best, abs=1e-5)
    assert (h * mask).sum(axis=0).max() <= kept + 1e-5
    assert 1 <= mask.sum(axis=1).min() <= mask.sum(axis=1).max() <= most_modules
    assert not mask[h == 0].any()


def test_where_no_m_can_be_the_load_may_grow_until_one_can():
    """Two sub-tasks, each of one and the same module: its load is 2, and κ1 began at 0.5."""
    mask, kept = assign(np.array([[1.0, 0.0], [1.0, 0.0]]), 0.5, 1)
    assert mask.tolist() == [[True, False]] * 2
    assert kept == pytest.approx(0.5 * EASIER**7)
    assert kept / EASIER < 2 <= kept


def test_κ1_begins_at_half_more_than_the_mean_load_but_not_below_one_sub_task_s_share():
    even = np.full((8, 4), 0.25)
    assert assign(even, k=4)[1] == pytest.approx(1.5 * 8 / 4)
    assert assign(np.full((1, 16), 1 / 16), k=4)[1] == 0.25


@pytest.mark.parametrize(
    ("h", "most_load", "most_modules", "words"),
    [
        ([[0.0, 0.0], [0.5, 0.5]], None, 4, "not all 0"),
        ([[-0.1, 1.1]], None, 4, "loads from 0 on"),
        ([[np.nan, 1.0]], None, 4, "loads from 0 on"),
        ([[0.5, 0.5]], 0.0, 4, "κ1 and κ2 are above 0"),
        ([[0.5, 0.5]], None, 0, "κ1 and κ2 are above 0"),
    ],
)
def test_m_of_what_cannot_be_is_refused(h, most_load, most_modules, words):
    with pytest.raises(ValueError, match=words):
        assign(np.array(h), most_load, most_modules)


# ------------------------------------------------------------------ targets


def test_targets_are_the_rows_of_p_with_a_little_for_the_others():
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1]], bool)
    h = np.array([[0.3, 0.1, 0.4, 0.2], [0.25, 0.25, 0.25, 0.25]])
    got = targets(h, mask)
    assert got[0].tolist() == pytest.approx(
        [0.75 * (1 - SMOOTHING), 0.25 * (1 - SMOOTHING), SMOOTHING / 2, SMOOTHING / 2]
    )
    assert got[1].tolist() == [0.25] * 4
    assert got.sum(axis=1).tolist() == pytest.approx([1, 1])
    with pytest.raises(ValueError, match="needs a module that it uses"):
        targets(h, np.zeros((2, 4), bool))
