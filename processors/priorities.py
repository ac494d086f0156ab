"""What comes first, and how many aggregators it takes (OLearning §6, real-time aggregated task scheduling). Pure functions.

Order of a tenant's tasks, the first criterion that differs decides; between tenants shares do (`processors/shares.py`):

1. whose oldest block has waited for the patience, or twice, or more often, comes first, the most often before all: so nothing
   starves, and under too great a load the order is that of a queue, in steps of the patience;
2. the higher arrival rate, in bands of powers of two: measured rates are never equal (§6, criterion 1);
3. fewer bytes that are not aggregated yet: shortest first is the least mean time to completion (§6, criterion 2);
4. the name, so that there is always one order.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

PATIENCE = 10_000
"""ms that a task's oldest block waits for others that came later, about."""
LEEWAY = 1.25
"""A rate leaves its band only when it is this far beyond the band's end, so that one near an end does not go to and fro."""
DRAIN = 10.0
"""Seconds in which the backlog should be done."""
STEADY = 60_000
"""ms for which the highest number of aggregators called for stands: more come at once, fewer only if they do for so long."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What is known of a task in a zone: bytes a second that arrive and their band, blocks and bytes that are not aggregated,
    ms that the oldest of these has waited, and whose it is."""

    task: str
    rate: float
    band: int
    blocks: int
    bytes: int
    waited: int
    tenant: str = ""


def band(rate: float, before: int = 0) -> int:
    """The power of two a rate lies in: 0 below 1, n for [2^(n-1), 2^n). `before`: the band it was in."""
    if before and 2 ** (before - 1) / LEEWAY <= rate < 2**before * LEEWAY:
        return before
    return int(rate).bit_length()


def order(demands: Iterable[Demand], patience: int = PATIENCE) -> list[Demand]:
    """The demands, what comes first at the front. Tasks are named once."""
    return sorted(demands, key=lambda d: [key for key, _ in _criteria(d, patience)])


def reasons(ordered: list[Demand], patience: int = PATIENCE) -> dict[str, str]:
    """By task why it stands before its tenant's next one; the last, why after the one before."""
    out = {}
    for d in ordered:
        mates = [x for x in ordered if x.tenant == d.tenant]
        i = mates.index(d)
        last = i + 1 == len(mates)
        other = mates[i - 1 if last else i + 1]
        if other is d:
            out[d.task] = "the only one of its tenant" if len(ordered) > 1 else "the only one"
            continue
        pairs = zip(_criteria(d, patience), _criteria(other, patience), strict=True)
        mine, its = next((a[1], b[1]) for a, b in pairs if a[0] != b[0])
        out[d.task] = f"{mine}; {'before it' if last else 'next'} {other.task}: {its}"
    return out


def _criteria(d: Demand, patience: int) -> tuple[tuple[float | str, str], ...]:
    """Each criterion of a task: what is compared, smallest first, and the same in words."""
    late = d.waited // patience if d.blocks else 0
    waited = f"its oldest block waited {d.waited / 1000:.1f} s" if late else f"no block waited {patience / 1000:g} s"
    return (
        (-late, waited),
        (-d.band, f"{size(d.rate)}/s arrive"),
        (d.bytes, f"{size(d.bytes)} to aggregate"),
        (d.task, "by name"),
    )


def size(n: float) -> str:
    """Bytes as a person says them."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= one:
            return f"{n / one:.1f} {unit}"
    return f"{n:.0f} B"


# ------------------------------------------------------------------ how many aggregators


def wanted(arriving: float, backlog: int, capacity: float, most: int, drain: float = DRAIN) -> int:
    """How many aggregators take what arrives and do the backlog in `drain` seconds; `most`: shards, each has one holder.
    Bytes a second, bytes, bytes a second of one aggregator, which must be known (above 0)."""
    return max(1, min(most, math.ceil((arriving + backlog / drain) / capacity)))


@dataclass
class Steady:
    """A number that rises at once and falls only when it was lower for `STEADY` ms: starting and stopping costs replay.
    (Kubernetes' autoscaler steadies itself in the same way.)"""

    seen: deque[tuple[int, int]] = field(default_factory=deque)

    def after(self, n: int, now: int) -> int:
        while self.seen and self.seen[0][0] <= now - STEADY:
            self.seen.popleft()
        while self.seen and self.seen[-1][1] <= n:
            self.seen.pop()
        self.seen.append((now, n))
        return self.seen[0][1]


def in_words(arriving: float, backlog: int, capacity: float, drain: float = DRAIN) -> str:
    words = f"{size(arriving)}/s arrive and {size(backlog)} wait, to be done in {drain:g} s"
    return f"{words}; one aggregator does {size(capacity)}/s"
