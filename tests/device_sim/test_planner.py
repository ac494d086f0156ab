"""A device's plan: what no plan may do, what each has at least, and when no solver is asked."""

import math
from itertools import permutations, product
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from device_sim import planner
from device_sim.planner import Offer, Planned, make
from learning import knapsack
from learning.rewards import profit, reward

NEVER = 10**9
WORK = 0.02


def offer(task: str, worth: float, time: int, deadline: int = NEVER) -> Offer:
    """An offer whose reward, by eqs. 4 and 5, is `worth`."""
    return Offer(task, 3, math.expm1(worth / (1 - worth)), 1.0, time, deadline)


def worth(o: Offer) -> float:
    return reward(profit(o.zone_reward, o.quality))


def total(plan) -> float:
    return math.fsum(p.reward for p in plan)


def faults(now: int, offers, windows, plan) -> list[str]:
    """What is wrong with a plan, said without the planner's help."""
    by_task, found = {o.task: o for o in offers}, []
    if len({p.task for p in plan}) < len(plan):
        found.append("twice")
    for p in plan:
        o = by_task[p.task]
        if (p.round, p.reward, p.end_ms - p.start_ms) != (o.round, worth(o), o.time_ms):
            found.append("another task")
        if p.end_ms > o.deadline_ms:
            found.append("late")
        if p.start_ms < now or not any(start <= p.start_ms and p.end_ms <= end for start, end in windows):
            found.append("outside")
    if any(p.start_ms < q.end_ms and q.start_ms < p.end_ms for i, p in enumerate(plan) for q in plan[:i]):
        found.append("overlap")
    return found


def in_order(o: Offer, order: str):
    density = (-worth(o) / o.time_ms, -worth(o), o.deadline_ms, o.task)
    return (o.deadline_ms, *density) if order == "deadline" else density


def lie(start: int, end: int, these, order: str) -> bool:
    """Whether all these, in order from the start on, end in time."""
    at = start
    for o in sorted(these, key=lambda o: in_order(o, order)):
        at += o.time_ms
        if at > min(end, o.deadline_ms):
            return False
    return True


def greedy(now: int, offers, windows, order: str) -> float:
    """By reward a time, each into the earliest window where all still end in time: the plain reading of it."""
    free = [(max(start, now), end) for start, end in sorted(windows)]
    inside: list[list[Offer]] = [[] for _ in free]
    for o in sorted(offers, key=lambda o: in_order(o, "density")):
        for (start, end), these in zip(free, inside, strict=True):
            if lie(start, end, [*these, o], order):
                these.append(o)
                break
    return math.fsum(worth(o) for these in inside for o in these)


def brute(now: int, offers, windows, order: str) -> float:
    """The most that any plan has in which tasks lie in this order."""
    free, best = [(max(start, now), end) for start, end in windows], 0.0
    for where in product([None, *range(len(free))], repeat=len(offers)):
        these = [[o for o, at in zip(offers, where, strict=True) if at == i] for i in range(len(free))]
        if all(lie(start, end, t, order) for (start, end), t in zip(free, these, strict=True)):
            best = max(best, math.fsum(worth(o) for t in these for o in t))
    return best


rewards = st.sampled_from([0.0, 0.01, 0.3, 0.3, 0.35, 0.99]) | st.floats(0.01, 0.99)
orders = st.sampled_from(planner.ORDERS)
steps = st.sampled_from([0, 5, planner.STEPS])
"""Without a search, with one that is cut short, with the whole."""


@st.composite
def days(draw, most: int = 7, windows: int = 3, binding: bool = True):
    """now, offers, windows: the first may be gone or have begun; too little room for all; deadlines anywhere."""
    at, there = draw(st.integers(-25, 5)), []
    for length in draw(st.lists(st.integers(1, 30), min_size=1, max_size=windows)):
        there.append((at, at + length))
        at += length + draw(st.integers(0, 3))
    deadlines = st.integers(-2, 60) | st.sampled_from([8, 20, 20, NEVER]) if binding else st.just(NEVER)
    some = draw(st.lists(st.tuples(rewards, st.integers(1, 16), deadlines), max_size=most))
    offers = [offer(f"t{i}", *o) for i, o in enumerate(some)]
    return 0, offers, draw(st.permutations(there))


# ------------------------------------------------------------------ what holds for every plan


@given(days(), orders, steps)
@example((0, [offer("a", 0.5, 5, 5), offer("b", 0.4, 5, 6)], [(-10, 6), (6, 20)]), "density", 0)
def test_no_plan_has_a_fault_and_none_is_worse_than_greedy(day, order, steps):
    with patch.object(planner, "STEPS", steps):
        plan = make(*day, order, work=WORK)
    assert not faults(*day, plan)
    assert [p.start_ms for p in plan] == sorted(p.start_ms for p in plan)
    assert total(plan) >= greedy(*day, order)


@pytest.mark.parametrize(
    ("plan", "fault"),
    [
        ([("a", 0, 4), ("b", 3, 8)], "overlap"),
        ([("a", 0, 4), ("a", 4, 8)], "twice"),
        ([("b", 8, 13)], "outside"),
        ([("a", -1, 3)], "outside"),
        ([("b", 5, 10)], "late"),
        ([("b", 0, 4)], "another task"),
    ],
)
def test_control_each_fault_is_found(plan, fault):
    offers = [offer("a", 0.5, 4), offer("b", 0.25, 5, 9)]
    of = {o.task: worth(o) for o in offers}
    assert faults(0, offers, [(-5, 10)], [Planned(t, 3, s, e, of[t]) for t, s, e in plan]) == [fault] or (
        fault == "outside" and fault in faults(0, offers, [(-5, 10)], [Planned(t, 3, s, e, of[t]) for t, s, e in plan])
    )


@given(days(most=4, windows=2), orders)
def test_few_tasks_get_the_best_plan_there_is(day, order):
    assert total(make(*day, order, work=WORK)) == pytest.approx(brute(*day, order), rel=1e-9)


@given(days(binding=False), orders, steps)
def test_without_deadlines_it_is_as_good_as_the_knapsack(day, order, steps):
    now, offers, windows = day
    slots = [max(0, end - max(start, now)) for start, end in windows]
    known, times = [worth(o) for o in offers], [o.time_ms for o in offers]
    best = knapsack.total(known, times, slots, knapsack.plan(known, times, slots, work=WORK))
    with patch.object(planner, "STEPS", steps):
        assert total(make(*day, order, work=WORK)) >= best - 1e-9


@given(days(), orders, steps, st.randoms())
def test_the_same_plan_each_time_in_whatever_order_offers_and_windows_come(day, order, steps, dice):
    now, offers, windows = day
    mixed, turned = dice.sample(offers, len(offers)), dice.sample(windows, len(windows))
    with patch.object(planner, "STEPS", steps):
        assert make(now, mixed, turned, order, work=WORK) == make(now, offers, windows, order, work=WORK)


# ------------------------------------------------------------------ what it chooses


@pytest.mark.parametrize("steps", [0, planner.STEPS])
def test_better_than_greedy_by_search_and_by_the_knapsack(steps, monkeypatch):
    monkeypatch.setattr(planner, "STEPS", steps)
    for last, end in [(NEVER, 10), (10, 1_000)]:  # for the knapsack a window ends with the last deadline
        offers = [offer("dense", 0.3, 4, last), offer("left", 0.35, 5, last), offer("right", 0.35, 5, last)]
        assert greedy(0, offers, [(0, end)], "deadline") == pytest.approx(0.65)
        plan = make(0, offers, [(0, end)])
        assert {p.task for p in plan} == {"left", "right"}
        assert total(plan) == pytest.approx(0.7)


@pytest.mark.parametrize("steps", [0, planner.STEPS])
def test_a_window_ends_with_the_last_deadline_not_with_the_first(steps, monkeypatch):
    monkeypatch.setattr(planner, "STEPS", steps)
    offers = [
        offer("dense", 0.3, 4, 20),
        offer("left", 0.35, 5, 20),
        offer("right", 0.35, 5, 20),
        offer("soon", 0.9, 1, 3),
    ]
    assert [p.task for p in make(0, offers, [(0, 11)])] == ["soon", "left", "right"]


@pytest.mark.parametrize("steps", range(6))  # what a search found that was cut short is no worse
@pytest.mark.parametrize(
    ("some", "windows", "reached"),
    [
        # The second window ends for it with the last deadline; else it would put there what ends too late.
        ([(0.8, 6, 6), (0.2, 3, 10), (0.7, 1, 10), (0.1, 7, 10)], [(0, 6), (8, 15)], 1.5),
        # It puts the second task into the second window, too late; filled up, that lies in the first.
        ([(0.1, 5, 10), (0.8, 1, 10), (0.5, 6, NEVER)], [(0, 10), (10, 19)], 1.4),
        # It puts the best two there, too late, and the others where these should lie: greedy's plan is kept.
        ([(0.1, 3, 6), (0.6, 8, 10), (0.7, 2, 10), (0.1, 4, NEVER)], [(0, 12), (12, 23)], 1.4),
    ],
)
def test_the_knapsack_where_deadlines_bind(some, windows, reached, steps, monkeypatch):
    monkeypatch.setattr(planner, "STEPS", steps)
    offers = [offer(f"t{i}", *o) for i, o in enumerate(some)]
    assert total(make(0, offers, windows)) == pytest.approx(reached)
    assert brute(0, offers, windows, "deadline") == pytest.approx(reached)


def test_many_tasks_are_not_searched(monkeypatch):
    monkeypatch.setattr(planner, "_searched", None)
    offers = [offer(f"t{i}", 0.5, 10) for i in range(planner.SEARCHED + 1)]
    assert len(make(0, offers, [(0, 55)])) == 5
    with pytest.raises(TypeError):
        make(0, offers[1:], [(0, 55)])


def test_a_search_of_as_many_as_may_be_is_not_too_deep():
    offers = [offer(f"t{i}", 0.01 + i / 1000, 10 + i % 3) for i in range(planner.SEARCHED)]
    assert len(make(0, offers, [(0, 10 * planner.SEARCHED)], work=WORK)) > 0.9 * planner.SEARCHED


def test_order_within_a_window():
    offers = [offer("dense", 0.5, 4, 100), offer("soon", 0.4, 4, 50)]
    assert [p.task for p in make(0, offers, [(0, 10)], "deadline")] == ["soon", "dense"]
    assert [p.task for p in make(0, offers, [(0, 10)], "density")] == ["dense", "soon"]


def test_by_deadline_both_are_met_and_by_density_one():
    offers = [offer("dense", 0.5, 4, 10), offer("soon", 0.4, 4, 4)]
    assert [p.task for p in make(0, offers, [(0, 10)], "deadline")] == ["soon", "dense"]
    assert [p.task for p in make(0, offers, [(0, 10)], "density")] == ["dense"]


def test_what_ends_too_late_makes_the_least_worth_give_way():
    """The knapsack puts all three into the one window, which ends with the last deadline; two can be in time."""
    laid = planner._Laid(0, 20)
    for rank, (worth_, time, deadline) in enumerate([(0.2, 5, 6), (0.1, 2, 10), (0.6, 5, 10)]):
        laid.force(planner._Job(str(rank), 0, worth_, time, deadline, rank))
    assert [j.task for j in laid.jobs] == ["0", "2"]
    laid.force(planner._Job("in vain", 0, 0.9, 3, 2, 9))  # could not be in time even alone
    assert [j.task for j in laid.jobs] == ["0", "2"]
    assert laid.room == 10


def test_a_task_lies_in_the_window_before_its_deadline():
    assert make(5, [offer("a", 0.5, 4, 9)], [(50, 90), (0, 10)]) == (Planned("a", 3, 5, 9, worth(offer("a", 0.5, 4))),)
    assert make(6, [offer("a", 0.5, 4, 9)], [(50, 90), (0, 10)]) == ()


def test_replanning_goes_on_with_what_is_left():
    offers = [offer("a", 0.5, 4), offer("b", 0.4, 4), offer("c", 0.3, 4)]
    assert [p.task for p in make(0, offers, [(0, 9)])] == ["a", "b"]
    assert [(p.task, p.start_ms) for p in make(1, offers[1:], [(0, 9)])] == [("b", 1), ("c", 5)]  # "a" was refused
    assert [(p.task, p.start_ms) for p in make(5, offers[1:], [(0, 9)])] == [("b", 5)]  # "a" ran, and took a ms more


# ------------------------------------------------------------------ when nothing is to be chosen


EASY = [
    [offer("a", 0.5, 4)],
    [offer("a", 0.5, 5), offer("b", 0.1, 5)],
    [offer("a", 0.5, 5), offer("b", 0.1, 9), offer("c", 0.9, 5)],
    [offer("a", 0.5, 5), offer("long", 0.9, 11), offer("late", 0.9, 2, 1), offer("nothing", 0.0, 1)],
]


@pytest.mark.parametrize("offers", EASY)
def test_where_all_has_a_place_nothing_is_searched_or_solved(offers, monkeypatch):
    monkeypatch.setattr(planner, "_searched", None)
    monkeypatch.setattr(knapsack, "plan", None)
    assert len(make(0, offers, [(0, 10), (20, 30)])) == sum(o.task in "abc" for o in offers)


def test_control_where_not_it_is_and_what_the_search_proved_is_not_solved(monkeypatch):
    crowded = (0, [offer(t, 0.5, 6) for t in "abc"], [(0, 10), (20, 30)])
    monkeypatch.setattr(knapsack, "plan", None)
    assert len(make(*crowded)) == 2
    monkeypatch.setattr(planner, "STEPS", 1)
    with pytest.raises(TypeError):
        make(*crowded)
    assert len(make(*crowded, work=0)) == 2


@pytest.mark.parametrize("windows", [[], [(0, 5)], [(5, 5)]])
def test_no_time_no_plan(windows):
    assert make(5, [offer("a", 0.5, 1)], windows) == ()
    assert make(0, [], windows) == ()


# ------------------------------------------------------------------ what cannot be


@pytest.mark.parametrize(
    ("offers", "windows", "order", "words"),
    [
        ([], [(0, 5)], "reward", "no order 'reward'.*known: deadline, density"),
        ([], [(0, 5), (4, 9)], "density", "overlap: one ends at 5 ms, and another starts at 4"),
        ([], [(5, 4)], "density", "from 5 to 4 ms ends before it starts"),
        ([offer("a", 0.5, 1)] * 2, [(0, 5)], "deadline", "two offers of one task"),
        ([offer("a", 0.5, 0)], [(0, 5)], "deadline", "task a is a whole number of ms, 1 or more, not 0"),
        ([offer("a", 0.5, 1.5)], [(0, 5)], "deadline", "a whole number of ms"),
        ([Offer("a", 1, math.nan, 1.0, 1, 9)], [(0, 5)], "deadline", "a zone reward is a number"),
    ],
)
def test_what_cannot_be_is_said(offers, windows, order, words):
    with pytest.raises(ValueError, match=words):
        make(0, offers, windows, order)


def test_windows_that_touch_do_not_overlap():
    assert len(make(0, [offer("a", 0.5, 5), offer("b", 0.5, 5)], [(0, 5), (5, 10)])) == 2


def test_earliest_deadline_first_meets_all_deadlines_if_any_order_does():
    """Jackson's rule, which the order relies on, by all orders of all of these."""
    offers = [offer(str(i), 0.1 * (1 + i), time, last) for i, (time, last) in enumerate([(3, 9), (2, 3), (4, 9)])]
    assert any(_met(these) for these in permutations(offers))
    assert len(make(0, offers, [(0, 9)])) == 3


def _met(offers) -> bool:
    at = 0
    for o in offers:
        at += o.time_ms
        if at > o.deadline_ms:
            return False
    return True
