"""What benchmarks and experiments plan, and in which ways: OLearning's §7.2. Pure functions.

As in the paper, m slots of 1 to 10 minutes each and rewards of 0.01 to 1, uniform. It says nothing about times of tasks: here 0.5
to 5 minutes, uniform, in whole seconds, unless asked otherwise. A mean slot then holds two mean tasks, so up to some 2 m tasks there
is room for all, and that is what its figures show: greedy as good as the optimum at a large m and few tasks, and not beyond.
"""

from collections.abc import Callable, Sequence
from random import Random

from learning.knapsack import SECONDS, Found, Plan, by_slot, greedy, plan, solve

Problem = tuple[list[float], list[int], list[int]]
"""Rewards, times and slots, as in `learning.knapsack`; times in seconds."""

TIMES = (30, 300)
"""Of tasks, the least and the most [s]."""


def drawn(seed: int, tasks: int, slots: int, span: tuple[int, int] = TIMES) -> Problem:
    """A problem as the module says; the same for the same arguments."""
    dice = Random(f"{seed} {tasks} {slots}")
    return (
        [dice.uniform(0.01, 1) for _ in range(tasks)],
        [dice.randint(*span) for _ in range(tasks)],
        [dice.randint(60, 600) for _ in range(slots)],
    )


def by_reward(rewards: Sequence[float], times: Sequence[int], slots: Sequence[int]) -> Plan:
    """The paper's baseline, "reward-maximizing greedy", read to the letter: the largest reward first, into the first slot that
    holds it. What it cites there is Martello and Toth's, `greedy`."""
    room, at = list(slots), dict[int, int]()
    for t in sorted(range(len(times)), key=lambda t: -rewards[t]):
        for slot, left in enumerate(room):
            if times[t] <= left:
                at[t] = slot
                room[slot] -= times[t]
                break
    return tuple(at.get(t) for t in range(len(times)))


def ways(problem: Problem, seconds: float = SECONDS, work: float | None = None) -> dict[str, Callable[[], Found]]:
    """Ways to plan, by name, the limits as in `knapsack.solve`. `unhinted` is the paper's MKP, `hinted` the same told greedy's plan;
    `plan` is what devices do."""
    return {
        "by_reward": lambda: Found(by_reward(*problem), False),
        "greedy": lambda: Found(greedy(*problem), False),
        "by_slot": lambda: by_slot(*problem),
        "unhinted": lambda: solve(*problem, seconds=seconds, work=work),
        "hinted": lambda: solve(*problem, greedy(*problem), seconds, work),
        "plan": lambda: Found(plan(*problem, seconds, work), False),
    }
