"""The device's plan: numbers worked for the research sheet, brute force, and what no plan may do."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from learning import knapsack
from learning.knapsack import STEPS, Found, Plan, bound, by_slot, exact, greedy, plan, quick, solve, stages, total
from learning.planning import drawn

# Martello and Toth's example, and the sample that comes with OR-Tools.
BOOK = ([80, 20, 60, 40, 60, 60, 65, 25, 30], [40, 10, 40, 30, 50, 50, 55, 25, 40], [100, 150])
SAMPLE = (
    [10, 30, 25, 50, 35, 30, 15, 40, 30, 35, 45, 10, 20, 30, 25],
    [48, 30, 42, 36, 36, 48, 42, 42, 36, 24, 30, 30, 42, 36, 36],
    [100] * 5,
)

rewards = st.just(0.0) | st.floats(0.01, 1)


@st.composite
def problems(draw, most: int = 5, slots: int = 3, longest: int = 20):
    tasks = draw(st.lists(st.tuples(rewards, st.integers(1, longest)), max_size=most))
    return [r for r, _ in tasks], [t for _, t in tasks], draw(st.lists(st.integers(0, 25), max_size=slots))


def feasible(times, slots, plan: Plan) -> bool:
    """Eq. 7, written in another way than `total` does it."""
    inside = [(t, i) for t, i in enumerate(plan) if i is not None]
    return all(sum(times[t] for t, at in inside if at == i) <= there for i, there in enumerate(slots))


def brute(rewards, times, slots) -> float:
    every = (p for p in product([None, *range(len(slots))], repeat=len(times)) if feasible(times, slots, p))
    return max(math.fsum(r for r, i in zip(rewards, p, strict=True) if i is not None) for p in every)


def step(rewards) -> float:
    """What the solver's rounding may cost."""
    return len(rewards) * max(rewards, default=0) / STEPS


# ------------------------------------------------------------------ what a plan is worth


def test_total_adds_up_what_is_planned():
    assert total([1.0, 2.0, 4.0], [5, 5, 5], [10, 5], (0, None, 1)) == 5
    assert total([], [], [], ()) == 0
    assert total([0.1] * 10, [1] * 10, [10], (0,) * 10) == 1.0  # rounded once


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ((0, 0), r"slot 0 take 12, and it has 10"),
        ((None, 1), r"slot 1 take 7, and it has 6"),
        ((0, 2), r"task 1 is in slot 2, and there are 2"),
        ((-1, None), r"task 0 is in slot -1"),
        ((0,), r"a plan for 1 tasks, and there are 2"),
    ],
)
def test_control_a_plan_that_cannot_be_is_found(plan, words):
    with pytest.raises(ValueError, match=words):
        total([1.0, 1.0], [5, 7], [10, 6], plan)


@given(problems(), st.randoms())
def test_total_and_the_plain_reading_of_eq_7_agree(problem, dice):
    rewards, times, slots = problem
    any_plan = tuple(dice.choice([None, *range(len(slots))]) for _ in times)
    if feasible(times, slots, any_plan):
        total(rewards, times, slots, any_plan)
    else:
        with pytest.raises(ValueError, match="the tasks in slot"):
            total(rewards, times, slots, any_plan)


@pytest.mark.parametrize(
    ("rewards", "times", "slots", "words"),
    [
        ([1.0], [], [5], "1 rewards and 0 times"),
        ([math.nan], [1], [5], "the reward of task 0"),
        ([math.inf], [1], [5], "the reward of task 0"),
        ([1.0, -0.5], [1, 1], [5], "the reward of task 1 .* not -0.5"),
        ([1.0], [0], [5], "the time of task 0 .* from 1"),
        ([1.0], [1.5], [5], "the time of task 0 is a whole number"),
        ([1.0], [1], [5, -1], "slot 1 .* not -1"),
        ([1.0], [1], [math.nan], "slot 0"),
        ([1.0], [2**41], [5], "the time of task 0"),
    ],
)
def test_bad_input_is_said_in_words(rewards, times, slots, words):
    for call in (plan, greedy, solve, bound):
        with pytest.raises(ValueError, match=words):
            call(rewards, times, slots)


def test_numpys_integers_are_whole_numbers_too():
    problem = np.array([0.5, 0.25, 0.3]), np.array([5, 6, 5]), np.array([10, 6])
    best = plan(*problem)
    assert best == solve(*problem, hint=best).plan
    assert total(*problem, best) == pytest.approx(1.05)


# ------------------------------------------------------------------ greedy


def test_the_book_s_example_step_by_step():
    assert [total(*BOOK, p) for p in stages(*BOOK)] == [320, 320, 345, 350]
    assert total(*BOOK, greedy(*BOOK)) == 350 == total(*BOOK, solve(*BOOK).plan)
    assert bound(*BOOK) == pytest.approx(355.4545, abs=1e-4)


def test_the_sample_of_or_tools():
    assert total(*SAMPLE, greedy(*SAMPLE)) == 385
    best, proven = solve(*SAMPLE)
    assert (total(*SAMPLE, best), proven) == (395, True)
    assert total(*SAMPLE, plan(*SAMPLE)) == 395
    assert bound(*SAMPLE) == pytest.approx(416.6667, abs=1e-4)


def test_an_exchange_makes_room_for_what_is_worth_most():
    """5 and 2 swap slots, and of 6 (worth 9, the denser) and 7 (worth 10) the latter comes into the 8 that are free then."""
    problem = [7, 9, 10, 5, 1], [5, 6, 7, 6, 2], [5, 10]
    assert [total(*problem, p) for p in stages(*problem)] == [17, 8, 18, 18]


def test_replacing_goes_on_until_nothing_changes():
    """10 comes for 8, at 17; and then the 8 that is free again for 7."""
    problem = [7, 10, 8, 8], [7, 11, 6, 9], [7, 11]
    assert [total(*problem, p) for p in stages(*problem)] == [15, 15, 15, 18]


def test_control_spreading_may_lose_and_greedy_does_not():
    """The reason why `greedy` looks at every step. Tried until there is one."""
    for problem in (drawn(seed, 12, 3) for seed in range(200)):
        first, spread, *later = (total(*problem, p) for p in stages(*problem))
        if max([spread, *later]) < first:
            assert total(*problem, greedy(*problem)) == first
            return
    pytest.fail("no step ever lost: why keep the best of them?")


@given(problems(most=12, slots=4))
def test_greedy_is_feasible_between_its_first_step_and_the_bound(problem):
    rewards, times, slots = problem
    every = [total(*problem, p) for p in stages(*problem)]
    found = greedy(*problem)
    assert feasible(times, slots, found)
    assert total(*problem, found) == max(every)
    assert max(every) <= bound(*problem) * (1 + 1e-12)
    assert all(i is None for i, reward in zip(found, rewards, strict=True) if not reward)


@given(problems(most=12, slots=4), st.randoms())
def test_the_order_of_tasks_and_slots_changes_no_bit_of_greedy_s_total(problem, dice):
    rewards, times, slots = problem
    tasks = dice.sample(range(len(times)), len(times))
    other = [rewards[t] for t in tasks], [times[t] for t in tasks], dice.sample(slots, len(slots))
    assert total(*other, greedy(*other)) == total(*problem, greedy(*problem))
    assert bound(*other) == pytest.approx(bound(*problem), rel=1e-12)


# ------------------------------------------------------------------ exact


@given(problems(most=8, slots=1), st.integers(0, 60))
@example(([3e-310, 2e-310, 2e-310], [6, 5, 5], []), 10)
@settings(max_examples=60)
def test_exact_is_brute_force(problem, slot):
    rewards, times, _ = problem
    one = exact(rewards, times, slot)
    assert one is not None
    assert total(rewards, times, [slot], one) == pytest.approx(brute(rewards, times, [slot]), rel=1e-12)


@pytest.mark.parametrize("unit", [1, 1000])
def test_exact_is_the_solver_s_optimum_in_seconds_and_in_ms(unit):
    for seed in range(2):
        rewards, times, _ = drawn(seed, 60, 1)
        times = [t * unit - seed for t in times]
        one, by_solver = exact(rewards, times, 3600 * unit), solve(rewards, times, [3600 * unit])
        assert one is not None
        assert by_solver.proven
        found, best = (total(rewards, times, [3600 * unit], p) for p in (one, by_solver.plan))
        assert best - 1e-12 <= found <= best + step(rewards)


def test_control_greedy_may_be_below_exact():
    """So the comparisons with it say something."""
    assert any(total(*p, greedy(*p)) < total(*p, plan(*p)) for p in (drawn(seed, 60, 1) for seed in range(10)))


def test_exact_gives_up_where_it_would_take_too_many_states():
    rewards, times, _ = drawn(0, 60, 1)
    assert exact(rewards, times, 3600, states=10) is None


# ------------------------------------------------------------------ the solver


@given(problems())
@example(([], [], []))
@example(([0.5], [30], [25]))
@settings(max_examples=30)
def test_plan_and_solver_are_brute_force_on_small_ones(problem):
    rewards, times, slots = problem
    best = brute(*problem)
    by_solver = solve(*problem)
    assert by_solver.proven
    for found in (by_solver.plan, plan(*problem)):
        assert feasible(times, slots, found)
        assert best - step(rewards) - 1e-12 <= total(*problem, found) <= best + 1e-12


@given(problems(most=10, slots=3), st.randoms())
@settings(max_examples=20)
def test_the_order_of_tasks_changes_no_total(problem, dice):
    rewards, times, slots = problem
    tasks = dice.sample(range(len(times)), len(times))
    other = [rewards[t] for t in tasks], [times[t] for t in tasks], slots
    assert total(*other, plan(*other)) == pytest.approx(total(*problem, plan(*problem)), abs=step(rewards) + 1e-12)


def test_without_time_there_is_no_plan_and_with_a_hint_there_is():
    problem = drawn(1, 60, 10)
    hint = greedy(*problem)
    assert solve(*problem, work=0.0) == Found((None,) * 60, False)
    assert solve(*problem, hint, work=0.0) == Found(hint, False)
    assert plan(*problem, work=0.0) == quick(*problem).plan


def test_a_hint_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="slot 0 take 12"):
        solve([1.0, 1.0], [5, 7], [10], (0, 0))


def test_limited_by_work_the_plan_is_the_same_and_not_below_greedy_s():
    problem = drawn(2, 60, 10)
    first, again = (plan(*problem, work=0.05) for _ in range(2))
    assert first == again
    assert feasible(*problem[1:], first)
    assert total(*problem, greedy(*problem)) <= total(*problem, first) <= bound(*problem)


# ------------------------------------------------------------------ the choice


@pytest.fixture
def asked(monkeypatch):
    """Who was asked for a plan; the solver finds nothing."""
    calls = []

    def no_solver(rewards, times, slots, hint, seconds, work):
        calls.append("solve")
        return Found(hint, False)

    def noted(*args):
        calls.append("exact")
        return exact(*args)

    monkeypatch.setattr(knapsack, "solve", no_solver)
    monkeypatch.setattr(knapsack, "exact", noted)
    return calls


@pytest.mark.parametrize(
    ("tasks", "slots", "who"), [(60, 1, ["exact"]), (60, 5, ["exact"] * 5 + ["solve"]), (2, 50, [])]
)
def test_who_makes_the_plan(asked, tasks, slots, who):
    """One slot: exact. Where all tasks fit, greedy's plan is best."""
    problem = drawn(3, tasks, slots)
    found = plan(*problem)
    assert asked == who
    assert total(*problem, found) >= total(*problem, greedy(*problem))


def test_exact_goes_on_from_a_plan_that_is_known():
    problem = ([0.3, 0.35, 0.35], [4, 5, 5], 10)
    for known in [None, (0, 0, None), (None, None, None), (None, 0, 0)]:
        assert exact(*problem, found=known) == (None, 0, 0)
    with pytest.raises(ValueError, match="take 14"):
        exact(*problem, found=(0, 0, 0))


@pytest.mark.parametrize(
    ("tasks", "slots", "below", "who"),
    [
        *((n, m, share + 1e-6, True) for m, n, share in knapsack.TABLE),
        *((n, m, share - 1e-6, False) for m, n, share in knapsack.TABLE if share),
        (26, 5, 0.009, False),
        (25, 6, 0.009, False),
        (60, 6, 0.019, False),
        (201, 20, 0.03, False),
        (200, 21, 0.03, False),
        (301, 2, 0.5, False),
        (301, 60, 0.5, False),
        (60, 70, 0.5, False),
    ],
)
def test_the_solver_is_asked_by_slots_tasks_and_what_it_could_gain(asked, monkeypatch, tasks, slots, below, who):
    problem = drawn(3, tasks, slots)
    found = quick(*problem).plan
    reached = total(*problem, found)
    monkeypatch.setattr(knapsack, "bound", lambda *args: reached / (1 - below))
    assert plan(*problem) == found
    assert ("solve" in asked) == who


def test_slots_too_short_for_any_task_do_not_count(asked):
    rewards, times, slots = [0.6, 0.5, 0.5, 0.0], [6, 5, 5, 1], [4, 10, 3]
    assert plan(rewards, times, slots) == (None, 1, 1, None)
    assert asked == ["exact"]


def test_one_slot_with_too_many_states_goes_to_the_solver(asked, monkeypatch):
    monkeypatch.setattr(knapsack, "exact", lambda *args: None)
    problem = drawn(4, 60, 1)
    assert by_slot(*problem) == Found(greedy(*problem), False)
    assert plan(*problem) == greedy(*problem)
    assert asked == ["solve"]


# ------------------------------------------------------------------ slot by slot


@given(problems(most=12, slots=4))
def test_by_slot_is_feasible_and_quick_the_better_of_it_and_greedy(problem):
    rewards, times, slots = problem
    found, chosen = by_slot(*problem), quick(*problem)
    assert feasible(times, slots, found.plan)
    assert all(i is None for i, reward in zip(found.plan, rewards, strict=True) if not reward)
    reached = [total(*problem, p) for p in (greedy(*problem), found.plan)]
    assert total(*problem, chosen.plan) in (max(reached), reached[0])
    assert total(*problem, chosen.plan) == max(reached) or reached[0] >= bound(*problem)


@given(problems())
@settings(max_examples=60)
def test_what_is_said_to_be_proven_is_brute_force(problem):
    for found in (by_slot(*problem), quick(*problem)):
        if found.proven:
            assert total(*problem, found.plan) == pytest.approx(brute(*problem), rel=1e-12)


def test_it_is_proven_where_one_slot_alone_holds_a_task_and_not_else():
    assert by_slot([3.0, 4.0, 5.0], [5, 5, 6], [10, 4, 3]) == Found((0, 0, None), True)
    assert by_slot([3.0, 4.0, 5.0], [5, 5, 6], [10, 5]) == Found((None, 1, 0), False)


def test_each_slot_is_filled_exactly_the_smallest_first():
    rewards, times, slots = drawn(5, 60, 2)
    small, large = sorted(range(2), key=lambda i: slots[i])
    found = by_slot(rewards, times, slots).plan
    best = exact(rewards, times, slots[small])
    assert best is not None
    assert [t for t, i in enumerate(found) if i == small] == [t for t, i in enumerate(best) if i == 0]
    assert large in found


def test_control_neither_greedy_nor_slot_by_slot_is_always_better():
    """The reason why `quick` looks at both."""
    ahead = set()
    for problem in (drawn(seed, 30, 3) for seed in range(30)):
        one, other = (total(*problem, p) for p in (greedy(*problem), by_slot(*problem).plan))
        ahead |= {"greedy"} if one > other else {"by_slot"} if other > one else set()
    assert ahead == {"greedy", "by_slot"}


def test_with_many_tasks_and_slots_it_is_nearer_to_the_bound_than_greedy():
    problem = drawn(0, 80, 20)
    assert total(*problem, quick(*problem).plan) > 1.01 * total(*problem, greedy(*problem))
