"""What a device does in its free windows, and when: the knapsack's choice (OLearning §5.2), laid in order. A pure function.

The knapsack says which task goes into which window; within a window tasks run one after the other, and which is first is a
policy, `order`. It knows no deadlines. Here a task may lie in a window only if, run in that order, it and all behind it end by
their deadlines and by the window's end. By that rule up to three plans are made, each better than the one before or dropped:

1. greedy: tasks by reward a time, each into the earliest window it can lie in. If all have a place, that is it;
2. a search through all plans, cut short after `STEPS`. If it came to its end, none is better;
3. the knapsack's, for which a window ends with the last deadline that can be met there. Its tasks are laid in order; where one
   would end too late, the least worth of those up to it is left out whose time makes up for that. Then greedy goes on with all
   that is left.

So no plan has less reward than greedy's, and where no deadline binds none has less than `learning.knapsack.plan`'s.

Reality differs (a refusal, a slow run, another announcement): call `make` again with what is left.
"""

import math
from bisect import bisect
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from learning import knapsack
from learning.rewards import profit, reward

ORDERS = ("deadline", "density")
"""Within a window: earliest deadline first, which meets all deadlines if any order does (Jackson 1955); or most reward a time
first, so that least is lost when a window ends sooner than forecast."""

STEPS = 2_000
"""The search gives up after so many steps, of 2 µs with 20 tasks and 15 µs with 100. With one window it has nearly always ended by
then, with three most times up to ten tasks. For these the knapsack takes longer, and where deadlines differ it loses 3 to 5 %."""
SEARCHED = 200
"""No search for more tasks than this: it would not end, and goes as deep as there are tasks."""
ROUNDING = 1 + 1e-12
"""A plan is better only by more than sums may be off."""

Window = tuple[int, int]


class Offer(NamedTuple):
    """A round that is open to this device: what was announced (zone reward, deadline in epoch ms), and what only the device knows:
    the quality of its data (eq. 3) and how long a run takes (`device_sim.estimate`; whole ms, 1 or more)."""

    task: str
    round: int
    zone_reward: float
    quality: float
    time_ms: int
    deadline_ms: int


class Planned(NamedTuple):
    """A run from `start_ms` to `end_ms`, in epoch ms, and its reward (eq. 5)."""

    task: str
    round: int
    start_ms: int
    end_ms: int
    reward: float


def make(
    now: int,
    offers: Sequence[Offer],
    windows: Sequence[Window],
    order: str = "deadline",
    seconds: float = knapsack.SECONDS,
    work: float | None = None,
) -> tuple[Planned, ...]:
    """The plan, in order of time: no two runs overlap, each lies in one window and ends by its deadline, no task is twice.

    `windows` are the longest free windows [start, end) in epoch ms, in any order, none over another; what of them lies before
    `now` is gone. Offers without reward, or that fit in no window by their deadline, are left out. The solver's limits are those of
    `learning.knapsack.plan`: with `work`, the same arguments give the same plan on every machine, and with 0 the knapsack is not
    asked at all: for simulations of many devices. Raises `ValueError` for two offers of one task, windows that overlap or end before
    they start, an unknown order, and times and rewards that cannot be.
    """
    if order not in ORDERS:
        raise ValueError(f"no order {order!r} of tasks is known; known: {', '.join(ORDERS)}")
    free = _free(now, windows)
    jobs = _jobs(offers, free, order)
    best = [_Laid(start, end) for start, end in free]
    if _fill(best, jobs):
        best = [laid for laid in best if any(laid.fits(job) for job in jobs)]  # the others are empty, and stay so
        for laid in best:
            laid.until(max(job.deadline for job in jobs if laid.fits(job)))
        proven = False
        if len(jobs) <= SEARCHED:
            best, proven = _searched(jobs, best)
        if not proven and work != 0:
            other = _chosen(jobs, best, seconds, work)
            if _worth(other) > _worth(best):
                best = other
    return tuple(planned for laid in best for planned in laid.planned())


class _Job(NamedTuple):
    """An offer; `rank` is its place in the order within a window."""

    task: str
    round: int
    reward: float
    time: int
    deadline: int
    rank: int = 0


class _Laid:
    """A window, and what lies in it: one after the other by rank, from the start on, without gaps."""

    def __init__(self, start: int, end: int):
        self.start, self.end, self.room = start, end, end - start
        self.jobs: list[_Job] = []

    def fits(self, job: _Job) -> bool:
        """Whether it could lie here alone."""
        return self.start + job.time <= min(self.end, job.deadline)

    def until(self, last: int) -> None:
        self.room -= max(0, self.end - last)
        self.end = min(self.end, last)

    def take(self, job: _Job) -> bool:
        """Lay it in, if it and all behind it still end in time."""
        if job.time > self.room:
            return False
        place = bisect(self.jobs, job.rank, key=_rank)
        at = self.start + sum(before.time for before in self.jobs[:place])
        for each in (job, *self.jobs[place:]):
            at += each.time
            if at > each.deadline:
                return False
        self.jobs.insert(place, job)
        self.room -= job.time
        return True

    def force(self, job: _Job) -> None:
        """Lay it in behind the others; if then it ends too late, leave out the least worth of all that make up for that."""
        self.jobs.append(job)
        self.room -= job.time
        late = self.end - self.room - min(job.deadline, self.end)
        if late > 0:
            enough = [job, *(j for j in self.jobs if j.time >= late)]
            self.leave(min(enough, key=lambda j: (j.reward, -j.time, j.rank)))

    def leave(self, job: _Job) -> None:
        self.jobs.remove(job)
        self.room += job.time

    def planned(self) -> Iterable[Planned]:
        at = self.start
        for job in self.jobs:
            yield Planned(job.task, job.round, at, at + job.time, job.reward)
            at += job.time


def _rank(job: _Job) -> int:
    return job.rank


def _free(now: int, windows: Sequence[Window]) -> list[Window]:
    """What is left of the windows, in order of time."""
    free, last = [], None
    for start, end in sorted(windows):
        if end < start:
            raise ValueError(f"a window from {start} to {end} ms ends before it starts")
        if last is not None and start < last:
            raise ValueError(f"two windows overlap: one ends at {last} ms, and another starts at {start}")
        last = end
        if end > now:
            free.append((max(start, now), end))
    return free


def _jobs(offers: Sequence[Offer], free: Sequence[Window], order: str) -> list[_Job]:
    """The offers worth something that fit in a window by their deadline, most reward a time first."""
    if len({o.task for o in offers}) != len(offers):
        raise ValueError("two offers of one task: a device runs a task in one round at a time")
    jobs = []
    for task, round, zone_reward, quality, time, deadline in offers:
        if not isinstance(time, int) or time < 1:
            raise ValueError(f"the time of a run of task {task} is a whole number of ms, 1 or more, not {time}")
        worth = reward(profit(zone_reward, quality))
        if worth > 0 and any(start + time <= end and start + time <= deadline for start, end in free):
            jobs.append(_Job(task, round, worth, time, deadline))
    if len(jobs) < 2:
        return jobs
    jobs.sort(key=lambda j: (-j.reward / j.time, -j.reward, j.deadline, j.task))
    ranks = range(len(jobs))
    if order == "deadline":
        ranked = sorted(ranks, key=lambda i: (jobs[i].deadline, i))
        for rank, i in enumerate(ranked):
            jobs[i] = jobs[i]._replace(rank=rank)
        return jobs
    return [job._replace(rank=rank) for rank, job in zip(ranks, jobs, strict=True)]


def _fill(laid: Sequence[_Laid], jobs: Iterable[_Job]) -> list[_Job]:
    """Greedy: each job into the first window that takes it. Returns those that no window took."""
    return [job for job in jobs if not any(window.take(job) for window in laid)]


def _searched(jobs: Sequence[_Job], known: Sequence[_Laid]) -> tuple[list[_Laid], bool]:
    """The best plan found in `STEPS` steps, from the known one on, and whether there is none better: each job in each window or in
    none, depth first, while the LP bound of what is left (all room as one, filled by density) leads beyond the best so far. What may
    lie in a window with others may lie there without them, so none is missed."""
    laid = [_Laid(window.start, window.end) for window in known]
    times = [0, *accumulate(job.time for job in jobs)]
    rewards = [0.0, *accumulate(job.reward for job in jobs)]
    best, left = [list(window.jobs) for window in known], STEPS
    least = _worth(known) * ROUNDING

    def search(first: int, worth: float, room: int) -> None:
        nonlocal best, least, left
        left -= 1
        if worth > least:
            best, least = [list(window.jobs) for window in laid], worth * ROUNDING
        for i in range(first, len(jobs)):
            job = jobs[i]
            k = bisect(times, times[i] + room) - 1  # the jobs up to here would fit whole
            bound = worth + rewards[k] - rewards[i]
            if k < len(jobs):
                bound += (times[i] + room - times[k]) * jobs[k].reward / jobs[k].time
            if bound <= least or left <= 0:
                return
            for window in laid:
                if window.take(job):
                    search(i + 1, worth + job.reward, room - job.time)
                    window.leave(job)

    search(0, 0.0, sum(window.room for window in laid))
    for window, inside in zip(laid, best, strict=True):
        window.jobs = inside
    return laid, left > 0


def _chosen(jobs: Sequence[_Job], windows: Sequence[_Laid], seconds: float, work: float | None) -> list[_Laid]:
    """The knapsack's choice, laid in order, without what would end too late, and filled up."""
    laid = [_Laid(window.start, window.end) for window in windows]
    slots = [window.room for window in laid]
    plan = knapsack.plan([job.reward for job in jobs], [job.time for job in jobs], slots, seconds, work)
    for job, slot in sorted(zip(jobs, plan, strict=True), key=lambda pair: pair[0].rank):
        if slot is not None:
            laid[slot].force(job)
    inside = {job.task for window in laid for job in window.jobs}
    _fill(laid, [job for job in jobs if job.task not in inside])
    return laid


def _worth(laid: Iterable[_Laid]) -> float:
    return math.fsum(job.reward for window in laid for job in window.jobs)
