"""Which tasks a device does in its free time: the 0-1 multiple knapsack (OLearning §5.2, eqs. 6 to 8). Pure functions.

    max Σ_t Σ_i reward_t · reg(t, slot_i)                          (8)
        Σ_i reg(t, slot_i) ≤ 1             for each task t         (6)
        Σ_t time_t · reg(t, slot_i) ≤ slot_i   for each slot i     (7)

Eq. 7 is printed with the sum over the slots; it runs over the tasks ("the total time of tasks in a slot", says the text).

Times and slots are whole numbers of one unit (seconds, ms): round a task's time up and a slot down. Rewards are floats, 0 or
more. A plan names for each task the index of its slot, or None. A task without reward, or longer than every slot, is left out.

`plan` is what devices call: the better of `greedy` and `by_slot`, and where that may gain, what `solve` (CP-SAT) makes of it. All
give the same plan for the same arguments, but for `solve` under a limit in seconds.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from learning.solver import solver

Plan = tuple[int | None, ...]


class Found(NamedTuple):
    """A plan, and whether it was proven that none is better, to the step that rewards are rounded to."""

    plan: Plan
    proven: bool


TABLE = (
    # slots, tasks, share
    (5, 25, 0.0),
    (5, 300, 0.01),
    (20, 50, 0.01),
    (20, 200, 0.02),
    (50, 150, 0.025),
    (50, 300, 0.04),
)
"""Where `plan` asks CP-SAT: the first row with as many slots and tasks holds, and `quick`'s plan must be further below the bound than
this share. To greedy's plan 2 s of it add there 0.5 % more reward or above, elsewhere less, as `olearning bench plan` measured
(docs/performance.md; tests/benchmarks/test_plan.py looks). Problems of the first row take ms. Larger ones than the last were not
measured: `quick` does them."""
SECONDS = 2.0
"""CP-SAT's limit, as in the paper's Fig. 7."""
STATES = 2_000_000
"""`exact` gives up beyond so many states, of 9 bytes each."""
STEPS = 1_000_000
"""CP-SAT takes rewards as whole numbers: multiples of the largest reward divided by this."""
LONGEST = 2**40
"""No time and no slot is longer; of ms, that is 34 years."""
LARGEST = 1e100
"""No reward is larger: sums of them are finite. Those of eq. 5 are below 1."""


def total(rewards: Sequence[float], times: Sequence[int], slots: Sequence[int], plan: Plan) -> float:
    """The plan's reward (eq. 8). Raises `ValueError`, in words, if it is not feasible (eqs. 6 and 7).

    That a task is in one slot at most (eq. 6) is in the form of a plan. The sum is rounded once, so the order of the tasks changes
    no bit.
    """
    _check(rewards, times, slots)
    if len(plan) != len(times):
        raise ValueError(f"a plan for {len(plan)} tasks, and there are {len(times)}")
    used = [0] * len(slots)
    for task, slot in enumerate(plan):
        if slot is None:
            continue
        if not 0 <= slot < len(slots):
            raise ValueError(f"task {task} is in slot {slot}, and there are {len(slots)}")
        used[slot] += times[task]
    for i, (taken, there) in enumerate(zip(used, slots, strict=True)):
        if taken > there:
            raise ValueError(f"the tasks in slot {i} take {taken}, and it has {there}")
    return math.fsum(r for r, slot in zip(rewards, plan, strict=True) if slot is not None)


def bound(rewards: Sequence[float], times: Sequence[int], slots: Sequence[int]) -> float:
    """No plan has more reward than this: all slots as one, filled by density, the last task in part (the LP bound of the surrogate
    relaxation, Martello and Toth 1981)."""
    packing, left, parts = _Packing(rewards, times, slots), sum(slots), []
    for reward, time in zip(packing.rewards, packing.times, strict=True):
        parts.append(reward * min(1.0, left / time))
        left -= time
        if left <= 0:
            break
    return math.fsum(parts)


# ------------------------------------------------------------------ the choice


def plan(
    rewards: Sequence[float],
    times: Sequence[int],
    slots: Sequence[int],
    seconds: float = SECONDS,
    work: float | None = None,
) -> Plan:
    """The plan of a device. Limits as in `solve`; with `work`, the same plan on every machine."""
    found, proven = quick(rewards, times, slots)
    if proven:
        return found
    worth = [time for reward, time in zip(rewards, times, strict=True) if reward > 0]
    able = [slot for slot in slots if slot >= min(worth)]
    below = next((share for m, n, share in TABLE if len(able) <= m and len(worth) <= n), 1.0)
    if total(rewards, times, slots, found) < (1 - below) * bound(rewards, times, slots):
        return solve(rewards, times, slots, found, seconds, work).plan
    return found


def quick(rewards: Sequence[float], times: Sequence[int], slots: Sequence[int]) -> Found:
    """The better plan of `greedy` and `by_slot`: what there is without the solver. Proven where it reaches the bound, above all
    where everything fits, and where one slot alone holds any task."""
    found = greedy(rewards, times, slots)
    reached = total(rewards, times, slots, found)
    if reached >= bound(rewards, times, slots):
        return Found(found, True)
    other = by_slot(rewards, times, slots)
    return other if total(rewards, times, slots, other.plan) > reached else Found(found, other.proven)


# ------------------------------------------------------------------ greedy


def greedy(rewards: Sequence[float], times: Sequence[int], slots: Sequence[int]) -> Plan:
    """The best of the plans of `stages`."""
    return max(stages(rewards, times, slots), key=lambda plan: total(rewards, times, slots, plan))


def stages(rewards: Sequence[float], times: Sequence[int], slots: Sequence[int]) -> Iterator[Plan]:
    """The plans after each step of MTHM (Martello and Toth, Knapsack Problems, 1990, ch. 6; Algorithm 632, 1985):

    fill, the smallest slot first, by reward a time; spread the tasks over the slots anew, so that room lies together;
    exchange two tasks of two slots for room that a third fits into; replace a task by others that are worth more.
    The second may lose reward, therefore `greedy` looks at all. About n·m + n² operations a step.
    """
    packing = _Packing(rewards, times, slots)
    for step in (packing.fill, packing.spread, packing.exchange, packing.replace):
        step()
        yield packing.plan()
        if not packing.out():
            return


OUT = -1


class _Packing:
    """Tasks, best reward a time first, in slots, smallest first. Below, a task and a slot are their places in these orders.
    Ties go by reward, time and index: tasks that differ are always in one order, whatever order they were given in."""

    def __init__(self, rewards: Sequence[float], times: Sequence[int], slots: Sequence[int]):
        _check(rewards, times, slots)
        longest = max(slots, default=0)
        worth = [t for t in range(len(times)) if rewards[t] > 0 and times[t] <= longest]
        self.number = len(rewards)
        self.tasks = sorted(worth, key=lambda t: (-rewards[t] / times[t], -rewards[t], times[t], t))
        self.slots = sorted(range(len(slots)), key=lambda i: (slots[i], i))
        self.rewards, self.times = [rewards[t] for t in self.tasks], [times[t] for t in self.tasks]
        self.room = [slots[i] for i in self.slots]
        self.at = [OUT] * len(self.tasks)

    def plan(self) -> Plan:
        where = {t: self.slots[at] for t, at in zip(self.tasks, self.at, strict=True) if at != OUT}
        return tuple(where.get(t) for t in range(self.number))

    def out(self) -> list[int]:
        return [t for t, at in enumerate(self.at) if at == OUT]

    def put(self, t: int, slot: int) -> None:
        if self.at[t] != OUT:
            self.room[self.at[t]] += self.times[t]
        if slot != OUT:
            self.room[slot] -= self.times[t]
        self.at[t] = slot

    def fill(self) -> None:
        out = self.out()
        for slot in range(len(self.room)):
            for t in out:
                if self.at[t] == OUT and self.times[t] <= self.room[slot]:
                    self.put(t, slot)

    def spread(self) -> None:
        inside = [t for t, at in enumerate(self.at) if at != OUT]
        for t in inside:
            self.put(t, OUT)
        first, m = 0, len(self.room)
        for t in reversed(inside):
            for slot in (i % m for i in range(first, first + m)):
                if self.times[t] <= self.room[slot]:
                    self.put(t, slot)
                    first = slot + 1
                    break
        self.fill()

    def exchange(self) -> None:
        out, times = self.out(), self.times
        if len(self.room) < 2:
            return
        for j, k in combinations(range(len(times)), 2):
            if not out:
                return
            if self.at[j] == self.at[k] or OUT in (self.at[j], self.at[k]):
                continue
            heavy, light = (j, k) if times[j] > times[k] else (k, j)
            here, there, more = self.at[heavy], self.at[light], times[heavy] - times[light]
            if more > self.room[there]:
                continue
            fit = [t for t in out if times[t] <= self.room[here] + more]
            if fit:
                new = max(fit, key=lambda t: self.rewards[t])
                for t, slot in ((light, OUT), (heavy, there), (light, here), (new, here)):
                    self.put(t, slot)
                out.remove(new)

    def replace(self) -> None:
        changed = True
        while changed:
            changed = False
            for j in reversed(range(len(self.tasks))):
                slot = self.at[j]
                if slot == OUT:
                    continue
                instead, room = [], self.room[slot] + self.times[j]
                for t in self.out():
                    if self.times[t] <= room:
                        instead.append(t)
                        room -= self.times[t]
                # A sum that is rounded once is above a number only if the true sum is: so this ends.
                if math.fsum(self.rewards[t] for t in instead) > self.rewards[j]:
                    self.put(j, OUT)
                    for t in instead:
                        self.put(t, slot)
                    changed = True


# ------------------------------------------------------------------ exact, for one slot


def exact(
    rewards: Sequence[float], times: Sequence[int], slot: int, states: int = STATES, found: Plan | None = None
) -> Plan | None:
    """The best plan for one slot (0, or None, for each task), exact but for the rounding of sums; None if that takes more than
    `states` states: then ask `solve`, or take `greedy`'s. `found`: a plan that is known already, else `greedy`'s is made.

    Dynamic programming over pairs of time used and reward won that no other pair beats in both (Nemhauser and Ullmann 1969);
    of these only those stay from which the LP bound reaches at least the plan found. The number of pairs after a task is at
    most slot + 1; in practice a few dozen, whether times are seconds or ms.
    """
    packing = _Packing(rewards, times, [slot])
    found = greedy(rewards, times, [slot]) if found is None else found
    known = total(rewards, times, [slot], found)
    n, largest = len(packing.tasks), max(packing.rewards, default=1.0)
    time = np.array(packing.times, np.int64)
    reward = np.array(packing.rewards) / largest  # else quotients and bounds of tiny ones lose their digits
    times_to, rewards_to = (np.concatenate([[0], np.cumsum(a)]) for a in (time, reward))  # of the first k tasks
    density = np.append(reward / time, 0.0)

    used, won = np.zeros(1, np.int64), np.zeros(1)
    ways, seen = [], 0
    for i in range(n):
        fits = np.flatnonzero(used + time[i] <= slot)
        used, won = np.append(used, used[fits] + time[i]), np.append(won, won[fits] + reward[i])
        before = np.append(np.arange(used.size - fits.size), fits)
        taken = np.arange(used.size) >= used.size - fits.size
        by_time = np.lexsort((-won, used))
        used, won = used[by_time], won[by_time]
        left = slot - used
        k = np.searchsorted(times_to, times_to[i + 1] + left, side="right") - 1  # so many of the first tasks still fit
        more = rewards_to[k] - rewards_to[i + 1] + (left - (times_to[k] - times_to[i + 1])) * density[k]
        keep = won + more >= known / largest * (1 - 1e-9)  # sums are rounded: rather too many
        keep[1:] &= won[1:] > np.maximum.accumulate(won)[:-1]
        used, won, by_time = used[keep], won[keep], by_time[keep]
        ways.append((before[by_time].astype(np.int32), taken[by_time]))
        seen += used.size
        if seen > states:
            return None

    best: list[int | None] = [None] * len(rewards)
    at = int(np.argmax(won))
    for t, (before, taken) in zip(reversed(packing.tasks), reversed(ways), strict=True):
        if taken[at]:
            best[t] = 0
        at = int(before[at])
    return tuple(best) if total(rewards, times, [slot], tuple(best)) > known else found


def by_slot(rewards: Sequence[float], times: Sequence[int], slots: Sequence[int]) -> Found:
    """Each slot by `exact`, the smallest first, of the tasks that are left: the small tasks find their place before the large slots,
    which hold any, are filled. Where `exact` gives up, that slot is `greedy`'s. Proven if one slot alone holds any task."""
    _check(rewards, times, slots)
    at: list[int | None] = [None] * len(rewards)
    gone_through = []
    for i in sorted(range(len(slots)), key=lambda i: (slots[i], i)):
        left = [t for t, slot in enumerate(at) if slot is None and rewards[t] > 0 and times[t] <= slots[i]]
        if not left:
            continue
        some = [rewards[t] for t in left], [times[t] for t in left]
        one = exact(*some, slots[i])
        gone_through.append(one is not None)
        for t, inside in zip(left, one or greedy(*some, [slots[i]]), strict=True):
            if inside is not None:
                at[t] = i
    return Found(tuple(at), len(gone_through) == sum(gone_through) <= 1)


# ------------------------------------------------------------------ the solver


def solve(
    rewards: Sequence[float],
    times: Sequence[int],
    slots: Sequence[int],
    hint: Plan | None = None,
    seconds: float = SECONDS,
    work: float | None = None,
    seed: int = 0,
) -> Found:
    """The best plan that CP-SAT finds within a limit; with a hint, never a worse one than that. Without one it may find none in
    time: then the plan is empty.

    The limit is `seconds` of the clock, building the model not counted; or `work`, in the solver's own measure (about a second of a
    fast core each), and then the same arguments give the same plan on every machine. One worker, a fixed seed.

    A reward is rounded to a multiple of the largest one / `STEPS`; so a proven plan of n tasks is at most n · largest / `STEPS`
    below the optimum. Needs OR-Tools, which devices have and the plane has not.
    """
    empty: Plan = (None,) * len(rewards)
    if hint is None:
        _check(rewards, times, slots)
    else:
        total(rewards, times, slots, hint)
    pairs = [
        (t, i)
        for t, (reward, time) in enumerate(zip(rewards, times, strict=True))
        for i, slot in enumerate(slots)
        if reward > 0 and time <= slot
    ]
    if not pairs:
        return Found(empty, True)

    from ortools.sat.python import cp_model  # late: `learning/solver.py` says why

    model = cp_model.CpModel()
    x = {pair: model.new_bool_var("") for pair in pairs}
    of_task: dict[int, list[int]] = {}
    of_slot: dict[int, list[int]] = {}
    for t, i in pairs:
        of_task.setdefault(t, []).append(i)
        of_slot.setdefault(i, []).append(t)
    for t, here in of_task.items():
        model.add_at_most_one(x[t, i] for i in here)
    for i, these in of_slot.items():
        model.add(cp_model.LinearExpr.weighted_sum([x[t, i] for t in these], [times[t] for t in these]) <= slots[i])
    largest = max(rewards[t] for t in of_task)
    worth = {t: round(rewards[t] / largest * STEPS) for t in of_task}
    model.maximize(cp_model.LinearExpr.weighted_sum(list(x.values()), [worth[t] for t, _ in pairs]))
    if hint is not None:
        for (t, i), chosen in x.items():
            model.add_hint(chosen, hint[t] == i)

    asked = solver(work, seconds, seed)
    status = asked.solve(model)
    best = empty
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        where = {t: i for (t, i), chosen in x.items() if asked.boolean_value(chosen)}
        best = tuple(where.get(t) for t in range(len(rewards)))
    if hint is not None and total(rewards, times, slots, hint) >= total(rewards, times, slots, best):
        best = hint
    return Found(best, status == cp_model.OPTIMAL)


def _check(rewards: Sequence[float], times: Sequence[int], slots: Sequence[int]) -> None:
    if len(rewards) != len(times):
        raise ValueError(f"{len(rewards)} rewards and {len(times)} times: each task has one of both")
    for t, reward in enumerate(rewards):
        if not 0 <= reward <= LARGEST:  # nor is NaN
            raise ValueError(f"the reward of task {t} is a number from 0 to {LARGEST:g}, not {reward}")
    for what, least, values in (("the time of task", 1, times), ("slot", 0, slots)):
        for i, value in enumerate(values):
            if not isinstance(value, int | np.integer) or not least <= value <= LONGEST:
                raise ValueError(f"{what} {i} is a whole number from {least} to 2^40, not {value}")
