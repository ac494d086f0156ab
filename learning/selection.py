"""Which zones take part in an epoch of a task (OLearning §4.1: the Global Selector "evaluates and prioritizes the contributions of
different zones for each task"; the paper gives no rule). Pure."""

from collections.abc import Mapping
from math import ceil


def participants(contributions: Mapping[str, float], waited: Mapping[str, int], most: int) -> tuple[str, ...]:
    """The `most` zones (0: all) that contribute most, in the order of their names.

    `waited`: by zone, how many epochs in a row went without it. Who waited for ⌈n / most⌉ epochs comes before all others, longest
    first: so every zone's data come in again and again, and a contribution that changed while it waited shows. Ties go by name.
    """
    if most < 0:
        raise ValueError(f"zones that take part are 0 (all) or more, not {most}")
    n = len(contributions)
    if not most or most >= n:
        return tuple(sorted(contributions))
    due = ceil(n / most)

    def rank(zone: str) -> tuple[int, float, str]:
        wait = waited.get(zone, 0)
        return (-wait if wait >= due else 0, -contributions[zone], zone)

    return tuple(sorted(sorted(contributions, key=rank)[:most]))
