"""Weighted max-min between tenants: worked examples, what makes a division fair, and how a plan says it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.sharing.flow import Flow, fill
from learning.sharing.policy import Job, Market, plan
from schemas.sharing import ABILITIES, SharingPlan


@pytest.mark.parametrize(
    ("supply", "able", "weight", "demand", "parts"),
    [
        ([1000], ["ABC"], [1, 2, 1], [100, 1000, 1000], [100, 600, 300]),
        ([300, 200, 100], ["ABC", "BC", "C"], [1, 1, 2], [500, 120, 1000], [160, 120, 320]),
        ([400, 100, 100], ["AB", "BC", "C"], [1, 1, 2], [1000, 1000, 1000], [200, 200, 200]),
        ([10], ["ABC"], [1, 1, 1], [9, 9, 9], [4, 3, 3]),  # the rest goes by name
        ([10], ["AB"], [3, 1], [99, 99], [8, 2]),  # 7.5 and 2.5
        ([10], ["ABC"], [1, 1, 1], [2, 2, 2], [2, 2, 2]),  # there is enough for all
        ([0, 5], ["A", "B"], [1, 1], [4, 4], [0, 4]),
    ],
)
def test_worked_examples(supply, able, weight, demand, parts):
    can = np.array([[t in who for t in "ABC"[: len(weight)]] for who in able])
    given_, exact = fill(supply, can, weight, demand)
    assert given_.sum(axis=0).tolist() == parts
    assert np.abs(exact - parts).max() < 1


def test_who_has_devices_already_comes_after_who_has_none():
    one = np.ones((1, 2), np.bool_)
    assert fill([30], one, [1, 1], [99, 99], [20, 0])[0].tolist() == [[5, 25]]
    assert fill([10], one, [1, 1], [99, 99], [20, 0])[0].tolist() == [[0, 10]]
    assert fill([30], one, [2, 1], [99, 99], [20, 0])[0].tolist() == [[13, 17]]  # 33.3 and 16.7 in all


@st.composite
def divisions(draw):
    tenants, supplies = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    able = np.array(
        draw(
            st.lists(st.lists(st.booleans(), min_size=tenants, max_size=tenants), min_size=supplies, max_size=supplies)
        )
    )
    some = lambda of: draw(st.lists(of, min_size=tenants, max_size=tenants))  # noqa: E731
    supply = draw(st.lists(st.integers(0, 60), min_size=supplies, max_size=supplies))
    weights = some(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]))
    return supply, able, weights, some(st.integers(0, 80)), some(st.integers(0, 30))


def reaches(supply, able, parts) -> bool:
    """Whether there is a division with these parts."""
    flow = Flow(np.asarray(supply, np.float64), able)
    return all(flow.give(t, float(part)) is None for t, part in enumerate(parts))


def gains(supply, able, weight, demand, held, part) -> list[int]:
    """Tenants that could have more while only those lose who are better off than they."""
    level = (np.asarray(held) + part) / np.asarray(weight)
    step = 1e-3
    found = []
    for t in range(len(part)):
        if part[t] + step <= demand[t]:
            other = np.where(level <= level[t] + 1e-6, part, 0)
            other[t] = part[t] + step
            if reaches(supply, able, other):
                found.append(t)
    return found


@settings(max_examples=300)
@given(divisions())
def test_none_can_gain_without_one_with_less_or_as_little_losing(of):
    supply, able, weight, demand, held = of
    given_, part = fill(supply, able, weight, demand, held)
    assert reaches(supply, able, part)
    assert not gains(supply, able, weight, demand, held, part)
    assert (part <= np.asarray(demand) + 1e-9).all()
    # in whole numbers: what is there, to who can use it, each within one of its part, and no less in all
    assert (given_.sum(axis=1) <= supply).all()
    assert not given_[~able].any()
    assert (given_ >= 0).all()
    assert np.abs(given_.sum(axis=0) - part).max() < 1 + 1e-6
    assert given_.sum() == pytest.approx(part.sum(), abs=1e-6)


def test_control_an_unfair_division_is_seen():
    supply, able, weight, demand = [10], np.ones((1, 2), np.bool_), [1.0, 1.0], [9, 9]
    assert gains(supply, able, weight, demand, [0, 0], np.array([6.0, 4.0])) == [1]
    assert gains(supply, able, weight, demand, [0, 0], np.array([5.0, 4.0])) == [0, 1]
    assert gains(supply, able, weight, demand, [0, 0], np.array([5.0, 5.0])) == []


# ------------------------------------------------------------------ as a plan


def job(task: str, tenant: str, wanted: int, since: int = 0, needs=None) -> Job:
    return Job(task, tenant, needs or {}, wanted, 0, since)


def market(*jobs: Job, devices=1000, weights=None, granted=None) -> Market:
    return Market(jobs, np.full((devices, len(ABILITIES)), 9.0), weights or {}, granted or {})


def shares(made: SharingPlan, device=None) -> dict[str, float]:
    """By first task of a turn its share, for such a device."""
    rule = next(r for r in made.rules if r.fits(device or dict.fromkeys(ABILITIES, 9.0)))
    return {turn.tasks[0]: round(turn.share, 3) for turn in rule.turns}


def test_shares_go_by_weight_and_a_tenant_s_tasks_by_the_policy_within():
    of = market(job("big", "a", 900, 1), job("small", "a", 50, 2), job("other", "b", 900, 3), weights={"a": 3.0})
    assert shares(plan("max-min", {}, of, "z", 1)) == {"small": 0.75, "other": 0.25}
    assert shares(plan("max-min", {"within": "fifo"}, of, "z", 1)) == {"big": 0.75, "other": 0.25}


def test_what_a_tenant_leaves_the_others_take():
    made = plan("max-min", {}, market(job("x", "a", 9), job("y", "b", 9), job("z", "c", 9)), "z", 1)
    for turn in made.rules[0].turns:
        assert sorted(turn.tasks) == ["x", "y", "z"]


def test_who_has_least_for_its_weight_is_next():
    of = market(job("x", "a", 900), job("y", "b", 900), granted={"a": 100, "b": 0})
    assert shares(plan("max-min", {}, of, "z", 1)) == {"y": 1.0}
    of = replace(of, weights={"a": 10.0}, granted={"a": 100, "b": 50})
    assert shares(plan("max-min", {}, of, "z", 1)) == {"x": 1.0}


def test_a_tenant_that_wants_little_is_not_late_beside_one_that_wants_very_much():
    """With the shares of all the window's devices it would be: 100 of 1,000, so a tenth of each second's."""
    of = market(job("small", "a", 100), job("noisy", "b", 100_000))
    assert shares(plan("max-min", {}, of, "z", 1)) == {"small": 0.5, "noisy": 0.5}
    assert shares(plan("max-min", {"ahead": 1.0}, of, "z", 1)) == {"small": 0.1, "noisy": 0.9}


def test_devices_that_only_one_can_use_are_its_own_and_it_gets_less_of_the_others():
    """400 weak ones that a can use alone, 600 strong ones: b gets most of the strong ones."""
    devices = np.array([[1.0] * 5] * 400 + [[9.0] * 5] * 600)
    of = Market([job("x", "a", 9000), job("y", "b", 9000, needs={"cpu": 5.0})], devices, {}, {})
    made = plan("max-min", {"ahead": 1.0}, of, "z", 1)
    assert shares(made) == {"x": pytest.approx(1 / 6, abs=1e-3), "y": pytest.approx(5 / 6, abs=1e-3)}
    assert shares(made, dict.fromkeys(ABILITIES, 1.0)) == {"x": 1.0}


def test_over_many_plans_tenants_have_what_their_weights_say():
    """Devices come one by one, a new plan for every five; none comes back."""
    weights, granted = {"a": 1.0, "b": 2.0, "c": 1.0}, Counter({"a": 60})
    rng = np.random.default_rng(0)
    for _ in range(100):
        jobs = [job("x", "a", 9000), job("y", "b", 9000), job("z", "c", 30 - granted["c"])]
        of = market(*(j for j in jobs if j.open), weights=weights, granted=granted)
        rule = plan("max-min", {}, of, "z", 1).rules[0]
        for turn in rng.choice(len(rule.turns), 5, p=[t.share for t in rule.turns]):
            granted[{"x": "a", "y": "b", "z": "c"}[rule.turns[turn].tasks[0]]] += 1
    assert granted["c"] in range(30, 35)
    assert granted["a"] == pytest.approx(177, abs=12)
    assert granted["b"] == pytest.approx(353, abs=12)
