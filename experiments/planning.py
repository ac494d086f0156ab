"""How much reward a device's plan has: OLearning's Figs. 7 and 8 (§7.2).

    olearning experiment planning --out DIR

Fig. 7: the total reward of MKP (CP-SAT), greedy and Max over the number of tasks, for m slots. Fig. 8: MKP's over its limit, 0 where
it has no plan by then. Problems and ways to plan are `learning.planning`'s: slots and rewards as in the paper; times of tasks, which
it does not give, of 0.5 to 5 minutes. Greedy is read in both ways, by reward and as Martello and Toth's.

Ours: `by_slot`, and `plan`, which devices call and which chooses by the problem, as the paper asks for.

Where ours differs. A limit is in CP-SAT's own measure of work, about a second of a free core each, and not by the clock: so the same
seed has the same reward on every machine, however busy. One worker; the paper's machine has 20 threads, and it does not say how many
were used. Max is the best known: of all these ways, and if none is proven, of CP-SAT that goes on from `quick`'s plan for `MOST`.
`bound` is what no plan can reach.

All problems are planned in one way after another; the longest, Max, comes last, and what there is before it is shown already.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.asked import Asked
from experiments.drawing import COLOURS, band, markdown, panels, save, spread
from experiments.record import Runs
from learning.knapsack import SECONDS, Found, bound, quick, solve, total
from learning.planning import Problem, drawn, ways

SLOTS = (5, 20, 50)
TASKS = (50, 100, 150, 200, 300)
LIMITED = (50, 150, 300)
"""Tasks of Fig. 8."""
LIMITS = (0.1, 0.2, 0.5, 1.0, SECONDS)
"""MKP's in Fig. 8; the last is Fig. 7's."""
MOST = 60.0
"""Max' limit."""
QUICK = {"slots": (3,), "tasks": (10, 20), "limited": (20,), "limits": (0.001, 0.1), "most": 0.2}

FREE, SOLVERS = ("by_reward", "greedy", "by_slot"), ("unhinted", "plan", "hinted")
"""Ways without and with a limit."""
WAYS = {
    "by_reward": ("greedy by reward", COLOURS[1]),
    "greedy": ("greedy (Martello, Toth)", COLOURS[4]),
    "unhinted": ("MKP", COLOURS[5]),
    "hinted": ("MKP, hint", COLOURS[0]),
    "by_slot": ("slot by slot", COLOURS[3]),
    "plan": ("our choice", COLOURS[2]),
    "max": ("Max", COLOURS[6]),
}


class Planned:
    """A problem, and what was found for it: `rewards` by way, and MKP's by its limit, `curve`."""

    def __init__(self, runs: Runs, seed: int, slots: int, tasks: int):
        self.runs, self.seed, self.slots, self.tasks = runs, seed, slots, tasks
        self.problem: Problem = drawn(seed, tasks, slots)
        self.rewards: dict[str, float] = {}
        self.curve: dict[float, float] = {}
        self.proven = False

    def by(self, way: str, limit: float | None) -> None:
        """Plan in a way."""
        found = self._run(way, limit)
        self.rewards[way] = found["reward"]
        self.proven |= found["proven"]

    def within(self, limits: Sequence[float]) -> None:
        """MKP under each limit, the least first. A longer one changes nothing once no plan can be better."""
        found = {"reward": 0.0, "proven": False}
        for limit in limits:
            found = found if found["proven"] else self._run("unhinted", limit)
            self.curve[limit] = found["reward"]

    def most(self, limit: float) -> None:
        """Look for the best known."""
        known = max(self.rewards.values())
        self.rewards["max"] = known if self.proven else max(known, self._run("max", limit)["reward"])

    def _run(self, way: str, limit: float | None) -> dict[str, Any]:
        """The `reward` of a way's plan, and whether it is `proven` that none has more."""

        def work() -> dict[str, Any]:
            found = (ways(self.problem, work=limit) | {"max": partial(self._max, limit)})[way]()
            return {"reward": round(total(*self.problem, found.plan), 9), "proven": found.proven}

        settings = {"seed": self.seed, "slots": self.slots, "tasks": self.tasks, "way": way, "work": limit}
        found: dict[str, Any] = self.runs.of(settings, work)
        return found

    def _max(self, limit: float | None) -> Found:
        return solve(*self.problem, quick(*self.problem).plan, work=limit)


Sizes = Mapping[tuple[int, int], Sequence[Planned]]
"""By slots and tasks the problems, one a seed."""


def run(asked: Asked) -> None:
    """Fig. 7 and Fig. 8 as one picture, and the table."""
    size: dict[str, Any] = QUICK if asked.quick else {}
    limits, limited = size.get("limits", LIMITS), size.get("limited", LIMITED)
    of = {
        (m, n): [Planned(asked.runs, seed, m, n) for seed in range(asked.seeds)]
        for m in size.get("slots", SLOTS)
        for n in size.get("tasks", TASKS)
    }
    steps: list[tuple[str, Callable[[Planned], None]]]
    steps = [(way, partial(Planned.by, way=way, limit=None)) for way in FREE]
    steps += [(way, partial(Planned.by, way=way, limit=limits[-1])) for way in SOLVERS]
    steps.append(("limits", lambda planned: planned.within(limits if planned.tasks in limited else ())))
    _take(of, steps, asked)
    show(of, asked.out)
    _take(of, [("max", partial(Planned.most, limit=size.get("most", MOST)))], asked)
    show(of, asked.out)


def _take(of: Sizes, steps: Sequence[tuple[str, Callable[[Planned], None]]], asked: Asked) -> None:
    for name, step in steps:
        asked.say(f"{sum(map(len, of.values()))} problems: {name}")
        for some in of.values():
            for planned in some:
                step(planned)


# ------------------------------------------------------------------ what is shown


def show(of: Sizes, out: Path) -> None:
    """What there is so far."""
    draw(of, out / "planning")
    (out / "table.md").write_text(table(of) + "\n" + table_of_choice(of))


def draw(of: Sizes, to: Path) -> None:
    """Above Fig. 7, below Fig. 8: a panel for each m."""
    slots = sorted({m for m, _ in of})
    figure, axes = panels(2, len(slots))
    for m, above, below in zip(slots, *axes, strict=True):
        some = {n: all_of for (at, n), all_of in of.items() if at == m}
        for way, (label, colour) in WAYS.items():
            there = {n: all_of for n, all_of in some.items() if all(way in p.rewards for p in all_of)}
            lines = zip(*([p.rewards[way] for p in all_of] for all_of in there.values()), strict=True)
            style = {"linestyle": "--"} if way == "max" else {"marker": "o", "markersize": 3}
            band(above, list(there), list(lines), color=colour, label=label, **style)
        above.set(title=f"m = {m}", xlabel="tasks")
        drawn = {n: all_of for n, all_of in some.items() if all(p.curve for p in all_of)}
        for colour, (n, all_of) in zip(COLOURS, drawn.items(), strict=False):
            curves = [list(p.curve.values()) for p in all_of]
            band(below, list(all_of[0].curve), curves, color=colour, marker="o", markersize=3, label=f"MKP, {n} tasks")
            for way, dots in (("greedy", "--"), ("plan", ":")):
                level = mean(p.rewards[way] for p in all_of)
                below.axhline(level, color=colour, linestyle=dots, linewidth=1, label=f"{WAYS[way][0]}, {n}")
        below.set(title=f"m = {m}", xlabel="MKP's limit [work, about s]", xscale="log", ylim=(0, None))
    for row in axes:
        row[0].set_ylabel("total reward")
    axes[0, -1].legend(fontsize=6)
    if any(p.curve for all_of in of.values() for p in all_of):
        axes[1, 0].legend(fontsize=6, loc="lower right")
    save(figure, to)


def table(of: Sizes) -> str:
    """Total reward by size and way, and the bound."""
    head = ["m", "tasks", *(label for label, _ in WAYS.values()), "no plan has more"]
    rows = []
    for (m, n), some in of.items():
        rewards = ([p.rewards[way] for p in some if way in p.rewards] for way in WAYS)
        rows.append([m, n, *(spread(values, 2) for values in rewards), spread([bound(*p.problem) for p in some], 2)])
    return markdown(head, rows)


def table_of_choice(of: Sizes) -> str:
    """Our choice against the better of greedy and MKP, problem by problem [%]."""
    rows: list[list[object]] = []
    for m in sorted({m for m, _ in of}):
        some = [p.rewards for (at, _), all_of in of.items() for p in all_of if at == m]
        gains = [gain(rewards) for rewards in some if {"plan", "unhinted"} <= rewards.keys()]
        if gains:
            below = sum(g < -ROUNDING for g in gains)
            rows.append([m, len(gains), below, *(f"{x:+.2f}" for x in (min(gains), mean(gains), max(gains)))])
    return markdown(["m", "problems", "our choice has less in", "least [%]", "mean", "most"], rows)


ROUNDING = 0.002
"""CP-SAT sees rewards in steps of a millionth, so of 300 tasks worth 20 a proven plan may be so much off [%]."""


def gain(rewards: Mapping[str, float]) -> float:
    """How far our choice is above the better of MKP and greedy, either of them [%]."""
    return 100 * (rewards["plan"] / max(rewards[way] for way in ("by_reward", "greedy", "unhinted")) - 1)
