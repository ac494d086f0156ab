"""How much reward a device's plan has: OLearning's Figs. 7 and 8 (§7.2).

    olearning experiment planning --out DIR

Fig. 7: the total reward of MKP (CP-SAT), greedy and Max over the number of tasks, for m slots. Fig. 8: MKP's over its limit, 0 where
it has no plan by then. Problems and ways to plan are `learning.planning`'s: slots and rewards as in the paper; times of tasks, which
it does not give, of 0.5 to 5 minutes. Greedy is read in both ways, by reward and as Martello and Toth's.

Ours: `by_slot`, and `plan`, which devices call and which chooses by the problem, as the paper asks for.

Where ours differs. A limit is in CP-SAT's own measure of work, about a second of a free core each, and not by the clock: so the same
seed has the same reward on every machine, however busy. One worker; the paper's machine has 20 threads, and it does not say how many
were used. Max is the best known: of all these ways, and if none is proven, of CP-SAT that goes on from the better of greedy's plan and
`by_slot`'s for `MOST` (the paper: 60 s). `bound` is what no plan can reach.
"""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean
from typing import Any

from experiments.asked import Asked
from experiments.drawing import COLOURS, band, markdown, panels, save, spread
from learning.knapsack import SECONDS, Found, bound, quick, solve, total
from learning.planning import Problem, drawn, ways

SLOTS = (5, 20, 50)
TASKS = (50, 100, 150, 200, 300)
LIMITED = (50, 150, 300)
"""Tasks of Fig. 8."""
LIMITS = (0.1, 0.2, 0.5, 1.0, SECONDS)
"""MKP's in Fig. 8; the last is that of Fig. 7."""
MOST = 10.0
"""Max' limit."""
QUICK = {"slots": (3,), "tasks": (10, 20), "limited": (20,), "limits": (0.001, 0.1), "most": 0.2}

WAYS = {
    "by_reward": ("greedy by reward", COLOURS[1]),
    "greedy": ("greedy (Martello, Toth)", COLOURS[4]),
    "unhinted": ("MKP", COLOURS[5]),
    "hinted": ("MKP, hint", COLOURS[0]),
    "by_slot": ("slot by slot", COLOURS[3]),
    "plan": ("our choice", COLOURS[2]),
    "max": ("Max", COLOURS[6]),
}
SOLVERS = ("unhinted", "hinted", "plan")
"""Ways under a limit."""

Rewards = dict[str, float]
"""A problem's, by way; `bound` among them."""


def run(asked: Asked) -> None:
    """Fig. 7 and Fig. 8 as one picture, and the table."""
    sizes: dict[str, Any] = QUICK if asked.quick else {}
    slots, tasks = sizes.get("slots", SLOTS), sizes.get("tasks", TASKS)
    limits, limited = sizes.get("limits", LIMITS), sizes.get("limited", LIMITED)
    of: dict[tuple[int, int], list[Rewards]] = {(m, n): [] for m in slots for n in tasks}
    within: dict[tuple[int, int], list[list[float]]] = {(m, n): [] for m in slots for n in limited}
    for seed in range(asked.seeds):
        for m, n in of:
            asked.say(f"seed {seed}: {m} slots, {n} tasks")
            problem = Planned(asked, seed, n, m)
            of[m, n].append(problem.rewards(limits[-1], sizes.get("most", MOST)))
            if n in limited:
                within[m, n].append(problem.within(limits))
    _draw(asked, of, within, limits)
    (asked.out / "table.md").write_text(table(of) + "\n" + table_of_choice(of))


class Planned:
    """A problem, and the runs with it."""

    def __init__(self, asked: Asked, seed: int, tasks: int, slots: int):
        self.problem: Problem = drawn(seed, tasks, slots)
        self.runs, self.about = asked.runs, {"seed": seed, "slots": slots, "tasks": tasks}

    def rewards(self, limit: float, most: float) -> Rewards:
        """Of each way, of Max and the bound."""
        found = {way: self.reward(way, limit if way in SOLVERS else None) for way in ways(self.problem)}
        known = max(f["reward"] for f in found.values())
        if not any(f["proven"] for f in found.values()):
            known = max(known, self.reward("max", most)["reward"])
        rewards = {way: f["reward"] for way, f in found.items()}
        return rewards | {"max": known, "bound": bound(*self.problem)}

    def within(self, limits: Sequence[float]) -> list[float]:
        """MKP's under each limit, the least first. A longer one changes nothing once none can be better."""
        rewards: list[float] = []
        found = {"reward": 0.0, "proven": False}
        for limit in limits:
            found = found if found["proven"] else self.reward("unhinted", limit)
            rewards.append(found["reward"])
        return rewards

    def reward(self, way: str, limit: float | None) -> dict[str, Any]:
        """What a way came to: its `reward`, and whether it is `proven` that no plan has more."""
        work = partial(self._max, limit) if way == "max" else ways(self.problem, work=limit)[way]
        return self.runs.of(self.about | {"way": way, "work": limit}, partial(self._worth, work))

    def _max(self, limit: float | None) -> Found:
        return solve(*self.problem, quick(*self.problem).plan, work=limit)

    def _worth(self, work: Callable[[], Found]) -> dict[str, Any]:
        found = work()
        return {"reward": round(total(*self.problem, found.plan), 9), "proven": found.proven}


# ------------------------------------------------------------------ what is shown


def _draw(asked: Asked, of: Any, within: Any, limits: Sequence[float]) -> None:
    slots = sorted({m for m, _ in of})
    figure, axes = panels(2, len(slots))
    for m, above, below in zip(slots, *axes, strict=True):
        tasks = sorted(n for at, n in of if at == m)
        for way, (label, colour) in WAYS.items():
            lines = [[row[way] for row in of_seed] for of_seed in zip(*(of[m, n] for n in tasks), strict=True)]
            style = {"linestyle": "--"} if way == "max" else {"marker": "o", "markersize": 3}
            band(above, tasks, lines, color=colour, label=label, **style)
        above.set(title=f"m = {m}", xlabel="tasks", ylim=(0, None))
        for colour, (n, lines) in zip(
            COLOURS, ((n, lines) for (at, n), lines in within.items() if at == m), strict=False
        ):
            band(below, limits, lines, color=colour, marker="o", markersize=3, label=f"MKP, {n} tasks")
            for way, dots in (("by_reward", ":"), ("greedy", "--"), ("plan", "-.")):
                level = mean(row[way] for row in of[m, n])
                below.axhline(level, color=colour, linestyle=dots, linewidth=1, label=f"{WAYS[way][0]}, {n}")
        below.set(title=f"m = {m}", xlabel="MKP's limit [work, about s]", xscale="log", ylim=(0, None))
    for row in axes:
        row[0].set_ylabel("total reward")
        row[-1].legend(fontsize=6)
    save(figure, asked.out / "planning")


def table(of: dict[tuple[int, int], list[Rewards]]) -> str:
    """Total reward by size and way."""
    head = ["m", "tasks", *(label for label, _ in WAYS.values()), "bound"]
    return markdown(
        head, ([m, n, *(spread([r[way] for r in rows], 2) for way in (*WAYS, "bound"))] for (m, n), rows in of.items())
    )


def table_of_choice(of: dict[tuple[int, int], list[Rewards]]) -> str:
    """Our choice against the better of greedy and MKP, problem by problem [%]."""
    rows = []
    for m in sorted({m for m, _ in of}):
        gains = [gain(row) for (at, _), some in of.items() if at == m for row in some]
        rows.append(
            [
                m,
                len(gains),
                sum(g < -TINY for g in gains),
                *(f"{x:+.2f}" for x in (min(gains), mean(gains), max(gains))),
            ]
        )
    return markdown(["m", "problems", "our choice is below in", "least [%]", "mean", "most"], rows)


TINY = 1e-4
"""CP-SAT rounds rewards: as much [%] is no difference."""


def gain(row: Rewards) -> float:
    """How far our choice is above the better of MKP and either greedy [%]."""
    return 100 * (row["plan"] / max(row[way] for way in ("by_reward", "greedy", "unhinted")) - 1)
