"""Weighted max-min between tenants (`baselines.md` §2), and a job policy inside each.

Devices at work count: who has least for its weight is next. Shares are those of the devices that come while a plan holds, not of all
in the window. Else a tenant that wants little beside one that wants very much would be given little of each second's devices, and
be as late as the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil

import numpy as np

from learning.sharing.flow import fill
from learning.sharing.groups import Marks, Supply, everyone, fitting, supply
from learning.sharing.policy import Market, policy, rules
from schemas.sharing import ABILITIES, Rule, Turn
from schemas.wire import Scalar

WITHIN = ("fifo", "random", "srsf", "srtf", "las", "irs")
"""Policies that know devices by their groups alone, and give a device one turn."""


@policy("max-min", settings={"within": "irs", "ahead": 0.02})
def max_min(settings: Mapping[str, Scalar], market: Market) -> Sequence[Rule]:
    """`within`: how a tenant's tasks share what it has. `ahead`: how much of the window's devices come while a plan holds."""
    within, ahead = str(settings["within"]), float(settings["ahead"])
    if within not in WITHIN:
        raise ValueError(f"within is one of {', '.join(WITHIN)}, not {within!r}")
    if not 0 < ahead <= 1:
        raise ValueError(f"ahead is above 0 and at most 1, not {ahead:g}")
    of = supply(market)
    if not of.groups:
        return []
    shares = Shares(market, of, ahead)
    inside = {
        tenant: rules(within, {}, replace(market, jobs=[job for job in market.jobs if job.tenant == tenant]))
        for tenant in shares.tenants
    }
    like = np.array([_like(of, signature) for signature in of.member]).reshape(-1, len(ABILITIES))
    first = {tenant: fitting(said, like).tolist() for tenant, said in inside.items()}
    turns: dict[tuple[int, ...], tuple[Turn, ...]] = {}
    made = []
    marks = Marks(of)
    for s in np.argsort(-of.member.sum(axis=1), kind="stable").tolist():  # who can serve more comes first
        key = (int(shares.kind[s]), *(first[tenant][s] for tenant in shares.tenants))
        if key not in turns:
            lists = {tenant: inside[tenant][first[tenant][s]].turns[0].tasks for tenant in shares.tenants}
            turns[key] = tuple(_turns(shares.of(s), lists, shares.order))
        made.append((of.member[s], key, Rule(turns=turns[key], meets=marks.meets(s))))
    last = everyone([task for tenant in shares.order for task in inside[tenant][-1].turns[0].tasks])
    return [*_few(made), last]


class Shares:
    """`tenants` by name; `order`: who has least for its weight comes first; `of(s)`: by tenant the share in the devices of a signature."""

    def __init__(self, market: Market, of: Supply, ahead: float):
        self.tenants = sorted({job.tenant for group in of.groups for job in group.jobs})
        jobs = [
            (g, self.tenants.index(job.tenant), job.open) for g, group in enumerate(of.groups) for job in group.jobs
        ]
        weight = np.array([market.weights.get(t, 1.0) for t in self.tenants])
        held = np.array([market.granted.get(t, 0) for t in self.tenants], np.float64)
        demand = np.zeros(len(self.tenants), np.int64)
        serves = np.zeros((len(of.groups), len(self.tenants)), np.bool_)
        for g, t, room in jobs:
            demand[t] += room
            serves[g, t] = True
        able = (of.member.astype(np.int64) @ serves.astype(np.int64)) > 0
        kinds, self.kind = np.unique(able, axis=0, return_inverse=True)
        self.kind = self.kind.reshape(-1)
        counts = np.bincount(self.kind, weights=of.count, minlength=len(kinds)).astype(np.int64)
        wanted = np.array([ceil(d / ahead) for d in demand.tolist()], np.int64)
        self.given, _ = fill(counts, kinds, weight, wanted, np.floor(held / ahead).astype(np.int64))
        self.able = kinds
        level = (held / weight).tolist()
        self.order = [
            self.tenants[t] for t in sorted(range(len(self.tenants)), key=lambda t: (level[t], self.tenants[t]))
        ]

    def of(self, signature: int) -> dict[str, float]:
        """Where nobody is given any, since all want less: to whoever has least."""
        k = int(self.kind[signature])
        total = int(self.given[k].sum())
        if not total:
            least = next(t for t in self.order if self.able[k, self.tenants.index(t)])
            return {least: 1.0}
        return {t: int(n) / total for t, n in zip(self.tenants, self.given[k], strict=True) if n}


def _like(of: Supply, signature: np.ndarray) -> np.ndarray:
    """What a device of this signature has at least, in the order of `ABILITIES`."""
    return np.max([b for g in np.flatnonzero(signature) for b in of.groups[g].needs], axis=0)


def _turns(shares: Mapping[str, float], lists: Mapping[str, Sequence[str]], order: Sequence[str]) -> list[Turn]:
    """A turn for each tenant that has a share: its own tasks, then the others', whoever has least first."""
    return [
        Turn(share=share, tasks=tuple(task for t in (tenant, *(o for o in order if o != tenant)) for task in lists[t]))
        for tenant, share in shares.items()
    ]


def _few(made: Sequence[tuple[np.ndarray, object, Rule]]) -> list[Rule]:
    """Without rules whose devices get the same turns, by their key, from the next one that fits them."""
    kept: list[tuple[int, object, Rule]] = []  # the last first
    for signature, key, rule in reversed(made):
        mask = int.from_bytes(np.packbits(signature).tobytes(), "big")
        following = next((k for other, k, _ in reversed(kept) if not other & ~mask), None)
        if following != key:
            kept.append((mask, key, rule))
    return [rule for _, _, rule in reversed(kept)]
