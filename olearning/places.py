"""Where a task stands in a sharing policy's plan, from the plan that its zone announces, and the same in words."""

from olearning.snapshot import Place
from schemas.sharing import UNSAID, SharingPlan, Turn


def place(plan: SharingPlan, task: str) -> Place:
    """Its place over all turns that name it: the devices of different rules, and those that drew another turn, take tasks in different
    orders."""
    if plan.chosen:
        return Place(plan.policy, chosen=True)
    turns: list[Turn] = [turn for rule in plan.rules for turn in rule.turns]
    found = [turn.tasks.index(task) + 1 for turn in turns if task in turn.tasks]
    of = len({name for turn in turns for name in turn.tasks})
    return Place(plan.policy, min(found, default=0), max(found, default=0), of)


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
