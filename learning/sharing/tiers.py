"""IRS with tiers (Venn, `VennMatchScheduler`; Propius' `tier_num`): a group's first job takes devices of one speed, where that pays.

A round waits for its slowest devices. Restricted to one of V tiers of speed, it waits V times as long for its devices, and less for
their results. With `c` = response time / scheduling time, and `g` = the tier's response time / that of the slowest tier, it is
restricted iff V + g·c < c + 1. The tier is drawn anew for each round. How fast a device is, the plane knows by its CPU score alone.

The other tiers' devices go to the group's next job, and the restricted one is in no other group's turns either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from learning.sharing.groups import Marks, Supply, everyone, supply
from learning.sharing.irs import in_turn, owners
from learning.sharing.policy import Job, Market, policy
from schemas.sharing import ABILITIES, Rule
from schemas.wire import Scalar

CPU = ABILITIES.index("cpu")


@dataclass(frozen=True)
class Tier:
    """CPU scores from `least` on, below `most` (0: no limit)."""

    task: str
    least: float
    most: float


@policy("irs-tiers", settings={"tiers": 2})
def irs_tiers(settings: Mapping[str, Scalar], market: Market) -> Sequence[Rule]:
    """Tiers hold equal numbers of the devices that the group has."""
    if not 1 <= int(settings["tiers"]) <= 16:
        raise ValueError(f"tiers is a number from 1 to 16, not {settings['tiers']}")
    of = supply(market)
    if not of.groups:
        return []
    owner = owners(of)
    chosen = {g: tier for g in range(len(of.groups)) if (tier := _tier(int(settings["tiers"]), market, of, owner, g))}
    held = {tier.task for tier in chosen.values()}
    marks, rules = Marks(of), []
    for s, g in enumerate(owner.tolist()):
        tier = chosen.get(g)
        if tier is None and g == of.member[s].argmax():
            continue  # the last rule says the same
        free = [task for task in in_turn(of, g, s) if task not in held]
        meets, lacks = marks.meets(s), marks.lacks(s)
        if tier:
            above, below = ([{"cpu": score}] if score else [] for score in (tier.least, tier.most))
            rules.append(Rule(everyone([tier.task, *free]).turns, meets=(*meets, *above), lacks=(*lacks, *below)))
        rules.append(Rule(everyone(free).turns, meets=meets, lacks=lacks))
    last = [task for group in of.groups for task in group.tasks]
    return [*rules, everyone([task for task in last if task not in held])]


def _tier(tiers: int, market: Market, of: Supply, owner: np.ndarray, g: int) -> Tier | None:
    """The tier that the group's first job is to have in this round; None: any."""
    job = of.groups[g].jobs[0]
    if tiers < 2 or not job.fill_s or not job.serve_s or _late(job, tiers):
        return None
    signatures = np.flatnonzero(owner == g)
    scores = np.sort(market.devices[np.isin(of.of, signatures), CPU])
    if len(scores) < tiers:
        return None
    least = [float(scores[len(scores) * (tiers - 1 - u) // tiers]) for u in range(tiers)]  # the fastest tier first
    u = market.draw(job.task, job.round) % tiers
    quotient = least[-1] / least[u] if least[u] else 1.0
    if not pays(tiers, quotient, job.serve_s, job.fill_s):
        return None
    return Tier(job.task, least[u] if u < tiers - 1 else 0.0, least[u - 1] if u else 0.0)


def pays(tiers: int, quotient: float, serve_s: float, fill_s: float) -> bool:
    """Whether a round with one tier alone is over sooner. `quotient`: the tier's response time over the slowest's."""
    c = serve_s / fill_s
    return tiers + quotient * c < c + 1


def _late(job: Job, tiers: int) -> bool:
    """Restricted it would miss its deadline, or its tier has not given all by half of the scheduling time-out."""
    if job.deadline_s and tiers * job.fill_s + job.serve_s >= job.deadline_s:
        return True
    within = job.fill_within_s or job.deadline_s
    return bool(within) and job.waits_s > within / 2
