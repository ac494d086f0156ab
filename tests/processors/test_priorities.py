"""What comes first, why, and how many aggregators: pure functions, against a server of fixed capacity."""

from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.priorities import PATIENCE, STEADY, Demand, Steady, band, order, reasons, wanted

MB = 1_000_000


def demand(task: str, rate: float = 0, bytes: int = 0, waited: int = 0, blocks: int = 1, tenant: str = "") -> Demand:
    return Demand(task, rate, band(rate), blocks, bytes, waited, tenant)


def names(*demands: Demand, patience: int = PATIENCE) -> list[str]:
    return [d.task for d in order(demands, patience)]


# ------------------------------------------------------------------ worked examples


def test_the_higher_arrival_rate_comes_first():
    slow, fast = demand("a", rate=1 * MB, bytes=1), demand("b", rate=9 * MB, bytes=100 * MB)
    assert names(slow, fast) == ["b", "a"]
    why = reasons(order([slow, fast]))
    assert why == {
        "b": "9.0 MB/s arrive; next a: 1.0 MB/s arrive",
        "a": "1.0 MB/s arrive; before it b: 9.0 MB/s arrive",
    }


def test_rates_of_one_band_are_equal_and_the_least_work_comes_first():
    much, little = demand("a", rate=8.3 * MB, bytes=5 * MB), demand("b", rate=5 * MB, bytes=2 * MB)
    assert band(5 * MB) != band(4 * MB)
    assert much.band != demand("", rate=8.4 * MB).band == little.band + 1
    assert names(much, little) == ["b", "a"]
    assert reasons(order([much, little]))["b"] == "2.0 MB to aggregate; next a: 5.0 MB to aggregate"


def test_why_is_said_of_tasks_of_one_tenant():
    a, b, c = demand("a", bytes=1, tenant="x"), demand("b", bytes=2, tenant="y"), demand("c", bytes=3, tenant="x")
    assert reasons(order([c, b, a])) == {
        "a": "1 B to aggregate; next c: 3 B to aggregate",
        "b": "the only one of its tenant",
        "c": "3 B to aggregate; before it a: 1 B to aggregate",
    }


def test_who_waited_too_long_comes_before_all_the_longest_wait_first():
    loud = demand("a", rate=9 * MB)
    old, older = demand("b", waited=PATIENCE), demand("c", waited=2 * PATIENCE)
    assert names(loud, old, older) == ["c", "b", "a"]
    assert reasons(order([loud, old]))["b"] == "its oldest block waited 10.0 s; next a: no block waited 10 s"
    assert names(loud, demand("b", waited=PATIENCE - 1)) == ["a", "b"]
    assert names(loud, demand("b", waited=PATIENCE, blocks=0)) == ["a", "b"]  # nothing of it waits any more
    assert names(old, demand("d", waited=PATIENCE + 900, bytes=1), older) == ["c", "b", "d"]  # about the same wait


def test_one_task_alone_and_none():
    assert reasons(order([demand("a")])) == {"a": "the only one"}
    assert reasons(order([])) == {}
    assert reasons(order([demand("b"), demand("a")])) == {
        "a": "by name; next b: by name",
        "b": "by name; before it a: by name",
    }


def test_a_band_is_left_only_when_the_rate_is_well_beyond_it():
    assert [band(x) for x in (0, 0.9, 1, 1.9, 2, 3.9, 4)] == [0, 0, 1, 1, 2, 2, 3]
    b = band(1000)
    assert band(1030, b) == band(1200, b) == band(500, b) == b
    assert band(1300, b) == band(1300) == b + 1
    assert band(400, b) == band(400) == b - 1
    assert band(0, b) == 0


# ------------------------------------------------------------------ one order

DEMANDS = st.lists(
    st.builds(
        demand,
        task=st.sampled_from([f"t{i}" for i in range(9)]),
        rate=st.sampled_from([0, 1, 1.5, 3, 1e6, 1.1e6]),
        bytes=st.sampled_from([0, 1, 5, 10**9]),
        waited=st.sampled_from([0, PATIENCE - 1, PATIENCE, PATIENCE + 900, 3 * PATIENCE]),
        blocks=st.integers(0, 1),
    ),
    unique_by=lambda d: d.task,
)


@given(DEMANDS, st.randoms(use_true_random=False))
def test_the_order_is_total_and_the_same_however_it_is_asked(demands: list[Demand], dice: Random):
    right = order(demands)
    assert sorted(d.task for d in right) == sorted(d.task for d in demands)
    shuffled = demands[:]
    dice.shuffle(shuffled)
    assert order(shuffled) == right
    assert reasons(right).keys() == {d.task for d in demands}
    for i, a in enumerate(right):  # each pair stands as it would stand alone: so it is transitive, too
        for b in right[i + 1 :]:
            assert order([b, a]) == [a, b]
            mine, its = reasons([a, b])[a.task].split(f"; next {b.task}: ")
            assert (mine == its) == (mine == "by name")  # the words say a difference, or that there is none


# ------------------------------------------------------------------ a server of fixed capacity


def serve(arrivals: list[list[int]], capacity: int, patience: int) -> list[tuple[int, int]]:
    """Each tick (a second) blocks of a byte land, the order is made anew, and `capacity` blocks are done, first things first.
    Of each block: how long it waited, and how many lay there when it landed or came within the patience."""
    queues: list[list[tuple[int, int]]] = [[] for _ in arrivals[0]]
    out, now = [], 0
    while now < len(arrivals) or any(queues):
        landing = arrivals[now] if now < len(arrivals) else [0] * len(queues)
        there = sum(map(len, queues)) + sum(map(sum, arrivals[now : now + patience // 1000 + 1]))
        for q, n in zip(queues, landing, strict=True):
            q += [(now, there)] * n
        demands = [
            Demand(str(i), n, band(n), len(q), len(q), 1000 * (now - q[0][0]) if q else 0)
            for i, (q, n) in enumerate(zip(queues, landing, strict=True))
        ]
        left = capacity
        for d in order(demands, patience):
            q = queues[int(d.task)]
            out += [(now - landed, there) for landed, there in q[:left]]
            left, q[:] = left - len(q[:left]), q[left:]
        now += 1
    return out


ARRIVALS = st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), min_size=1, max_size=25)


@given(ARRIVALS, st.integers(1, 5), st.integers(1, 8))
def test_nothing_starves(arrivals: list[list[int]], capacity: int, patience: int):
    """Beyond the patience a block waits for what landed before that, and at most a tick for each other task's newer blocks."""
    for waited, there in serve(arrivals, capacity, 1000 * patience):
        assert waited <= patience + 1 + there / capacity + len(arrivals[0])


def test_without_the_bound_it_would_starve():
    """The control: a flood comes for as long as it likes, and a single block waits to its end."""
    flood = [[4, 1]] + [[4, 0]] * 200
    assert max(w for w, _ in serve(flood, 4, 10**9)) == 201
    assert max(w for w, _ in serve(flood, 4, 5_000)) <= 8


@given(st.lists(st.integers(1, 50), min_size=2, max_size=5), st.integers(1, 9))
def test_least_work_first_has_the_least_mean_time_to_completion(work: list[int], capacity: int):
    def mean(sequence: list[int]) -> float:
        """When a task is done, on average, if one is done after the other."""
        done = [sum(sequence[: i + 1]) / capacity for i in range(len(sequence))]
        return sum(done) / len(done)

    ours = mean([d.bytes for d in order([demand(f"t{i}", bytes=w) for i, w in enumerate(work)])])
    everything = [mean(list(p)) for p in permutations(work)]
    assert ours == pytest.approx(min(everything))
    first_come = mean(work)
    assert ours <= first_come + 1e-9
    if work == sorted(work, reverse=True) and len(set(work)) > 1:
        assert ours < first_come


# ------------------------------------------------------------------ how many aggregators


@pytest.mark.parametrize(
    ("arriving", "backlog", "capacity", "number"),
    [(0, 0, 100, 1), (100, 0, 100, 1), (101, 0, 100, 2), (100, 1000, 100, 2), (0, 1001, 100, 2), (10**9, 0, 100, 8)],
)
def test_as_many_as_the_load_calls_for(arriving: float, backlog: int, capacity: float, number: int):
    assert wanted(arriving, backlog, capacity, most=8, drain=10) == number


def test_more_at_once_fewer_only_after_a_while():
    steady = Steady()
    assert [steady.after(n, t) for t, n in ((0, 2), (1, 5), (2, 3), (3, 4))] == [2, 5, 5, 5]
    assert steady.after(1, STEADY) == 5
    assert steady.after(1, STEADY + 1) == 4  # the five are gone, the four are not
    assert steady.after(1, STEADY + 3) == 1
    assert steady.after(7, STEADY + 4) == 7
    assert len(steady.seen) == 1
