"""How good a device's plans are, and what they cost in time: OLearning's Figs. 7 and 8 (§7.2).

    olearning bench plan --json

Problems are those of `learning.planning`, and each is planned in each of its ways. Best known is the best of these plans; if none is
proven optimal, CP-SAT goes on from it for a minute. No plan is above `knapsack.bound`, the limit of each line; its peer is the best
known. A time is that of a call, so with building the model; OR-Tools is imported before, which takes a process 1 to 2 s, once.
"""

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

from benchmarks.line import Line, Report
from learning.knapsack import SECONDS, Found, Plan, bound, solve, total
from learning.planning import TIMES, Problem, drawn, ways

SLOTS = (1, 5, 10, 20, 50)
TASKS = (10, 25, 50, 100, 150, 200, 300)
BEST_SECONDS = 60.0
LIMITS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""CP-SAT's limits of Fig. 8 [s]."""
CAPPED = frozenset((m, n) for m in (5, 20, 50) for n in (50, 150, 300))
FIG_8 = ("greedy", "unhinted", "hinted")
"""Slots and tasks of Fig. 8, and its ways."""


class Tried(NamedTuple):
    """One problem in one way."""

    plan: Plan
    proven: bool
    reward: float
    seconds: float
    cpu: float = 0.0


def tried(problem: Problem, way: Callable[[], Found]) -> Tried:
    began, cpu = time.perf_counter(), time.process_time()
    found = way()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Tried(*found, total(*problem, found.plan), seconds, cpu)


def best(problem: Problem, known: Collection[Tried], seconds: float) -> Tried:
    """The best known: one of these, or what CP-SAT makes of the best of them."""
    first = max(known, key=lambda t: (t.reward, t.proven))
    if any(t.proven for t in known) or first.reward >= bound(*problem):
        return first._replace(proven=True)
    return tried(problem, lambda: solve(*problem, first.plan, seconds))


# ------------------------------------------------------------------ all of it


def longest(
    slots: Collection[int],
    tasks: Collection[int],
    seeds: int,
    best_seconds: float,
    seconds: float = SECONDS,
    limits: Collection[float] = LIMITS,
    capped: Collection[tuple[int, int]] = CAPPED,
) -> float:
    """Seconds that `run` takes with these arguments if no solver ends before its limit, but for building models."""
    cases = [(m, n) for m in slots for n in tasks]
    several = sum(m > 1 for m, _ in cases)
    fig_8 = sum(c in capped for c in cases) * 2 * sum(limits)
    return seeds * (3 * seconds * len(cases) + best_seconds * several + fig_8)


def run(
    report: Report,
    slots: Sequence[int] = SLOTS,
    tasks: Sequence[int] = TASKS,
    seeds: int = 1,
    best_seconds: float = BEST_SECONDS,
    span: tuple[int, int] = TIMES,
    seconds: float = SECONDS,
    limits: Sequence[float] = LIMITS,
    capped: Collection[tuple[int, int]] = CAPPED,
) -> None:
    """A line `plan m=… tasks=… times=…` for each size (Fig. 7), and `within … seconds=…` for some (Fig. 8): means over the problems
    of that size."""
    solve([1.0], [1], [1])  # imports OR-Tools
    for m, n in ((m, n) for m in slots for n in tasks):
        problems = [drawn(seed, n, m, span) for seed in range(seeds)]
        rows = [_row(p, seconds) for p in problems]
        within = {s: [_row(p, s, FIG_8) for p in problems] for s in (limits if (m, n) in capped else ())}
        every = [[t for row in of_seed for t in row.values()] for of_seed in zip(rows, *within.values(), strict=True)]
        of = _Size(problems, [best(p, known, best_seconds) for p, known in zip(problems, every, strict=True)])
        settings = {"seconds": seconds, "best_seconds": best_seconds, "best_proven": sum(t.proven for t in of.best)}
        size = f"m={m} tasks={n} times={span[0]}-{span[1]}"
        report(of.line(f"plan {size}", "plan", rows, settings))
        for s, some in within.items():
            report(of.line(f"within {size} seconds={s:g}", "hinted", some, {"seconds": s}))


def _row(problem: Problem, seconds: float, names: Collection[str] = ()) -> dict[str, Tried]:
    return {name: tried(problem, way) for name, way in ways(problem, seconds).items() if name in names or not names}


@dataclass(frozen=True)
class _Size:
    problems: list[Problem]
    best: list[Tried]

    def line(self, case: str, of: str, rows: list[dict[str, Tried]], settings: dict[str, float]) -> Line:
        """`share`: of the best known's reward, by way. `took`: seconds. `proven`: how often CP-SAT said that none is better.
        `cpu`: of these seconds, how much this process had a core; `load`: of the machine in the last minute."""
        every = [t for row in rows for t in row.values()]
        reward = {name: mean(row[name].reward for row in rows) for name in rows[0]}
        known = mean(t.reward for t in self.best)
        about = settings | {
            "seeds": len(rows),
            "share": {name: round(x / known, 5) for name, x in reward.items()},
            "took": {name: round(mean(row[name].seconds for row in rows), 5) for name in reward},
            "proven": {name: sum(row[name].proven for row in rows) for name in reward if name.endswith("hinted")},
            "cpu": round(sum(t.cpu for t in every) / sum(t.seconds for t in every), 3),
            "load": round(os.getloadavg()[0], 2),
        }
        limit = mean(bound(*p) for p in self.problems)
        return Line("plan", case, reward[of], "reward", limit, about, "best known", known)
