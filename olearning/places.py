"""Where tasks stand in a sharing policy's plan, from the plan that a zone announces, and the same in words."""

from dataclasses import dataclass

from olearning.snapshot import Place
from schemas.sharing import UNSAID, SharingPlan


@dataclass(frozen=True)
class Places:
    """A plan as far as it says who comes first: by task its least and its largest place. A large plan is gone through once."""

    plan: SharingPlan
    found: dict[str, tuple[int, int]]

    def of(self, task: str) -> Place:
        first, last = self.found.get(task, (0, 0))
        return Place(self.plan.policy, first, last, len(self.found), self.plan.chosen)


def places(plan: SharingPlan) -> Places:
    """Over all turns, since the devices of different rules, and those that drew another turn, take tasks in different orders."""
    found: dict[str, tuple[int, int]] = {}
    for rule in plan.rules:
        for turn in rule.turns:
            for n, task in enumerate(turn.tasks, 1):
                first, last = found.get(task, (n, n))
                found[task] = min(first, n), max(last, n)
    return Places(plan, found)


def place_words(p: Place | None, policy: str) -> str:
    """For a person; `policy`: what the global ledger says, by which the next plan will be made."""
    if p is None:
        return f"no plan by {policy} heard yet"
    if p.chosen:  # by another policy than `reward` where that failed, or is not known in the zone
        return f"devices choose{'' if p.policy == UNSAID.policy else ' by reward'}, under {p.policy}"
    if not p.first:
        return f"not in the plan, under {p.policy}"
    some = nth(p.first) if p.first == p.last else f"{nth(p.first)} to {nth(p.last)}"
    return f"{some} of {p.of}, under {p.policy}"


def nth(n: int) -> str:
    """1st, 2nd, 3rd, 4th, …, 11th, …, 21st."""
    return f"{n}{'th' if n % 100 in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"
