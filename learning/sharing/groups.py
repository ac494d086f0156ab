"""Groups of jobs, and the signatures of devices: which groups a device can serve (Venn, arXiv 2312.08298).

Jobs with the same needs are a group. Groups that the same devices of the window can serve are one supply, hence one group: between
them a tie would leave one with nothing. What a policy decides by signature becomes rules here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from learning.sharing.policy import Job, Market, able
from schemas.sharing import ABILITIES, Bounds, Rule, Turn, amounts

Amounts = tuple[float, ...]
"""Bounds in the order of `ABILITIES`; 0 where there are none."""


def bounds(of: Amounts) -> Bounds:
    return {name: least for name, least in zip(ABILITIES, of, strict=True) if least}


@dataclass(frozen=True)
class Group:
    """`needs`: one, or those of several that are one supply; the largest first. `jobs` have room, the least first. `eligible`: devices
    of the window that can serve it."""

    needs: tuple[Amounts, ...]
    jobs: tuple[Job, ...]
    eligible: int

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(job.task for job in self.jobs)


@dataclass(frozen=True)
class Supply:
    """`groups`, the scarcest first. A signature is a row: `member` (s, groups) says which groups its devices can serve, `count` (s,)
    how many devices of the window have it; `of` (n,) is each device's signature, or -1 if it can serve none."""

    groups: tuple[Group, ...]
    member: npt.NDArray[np.bool_]
    count: npt.NDArray[np.int64]
    of: npt.NDArray[np.int64]


def least_first(jobs: Iterable[Job]) -> tuple[Job, ...]:
    """By what they still want, then by registration."""
    return tuple(sorted(jobs, key=lambda job: (job.open, job.since, job.task)))


def supply(market: Market) -> Supply:
    """Ties in `eligible`: the stricter needs first, then the larger by the order of `ABILITIES`; so it is the same for any order of
    the jobs and of the devices."""
    by_needs: dict[Amounts, list[Job]] = {}
    for job in market.jobs:
        if job.open:
            by_needs.setdefault(amounts(job.needs), []).append(job)
    needs = sorted(by_needs, reverse=True)  # what is at least as large everywhere comes before
    columns = np.asfortranarray(market.devices)
    able = np.ones((len(needs), len(columns)), np.bool_)
    for row, least in zip(able, needs, strict=True):
        for k, amount in enumerate(least):
            if amount:
                row &= columns[:, k] >= amount
    same: dict[bytes, list[int]] = {}
    for i, row in enumerate(able):
        same.setdefault(np.packbits(row).tobytes() if row.any() else b"%d" % i, []).append(i)
    merged = sorted(same.values(), key=lambda at: int(able[at[0]].sum()))  # stable: ties stay in the order of needs
    groups = tuple(
        Group(
            needs=tuple(needs[i] for i in at),
            jobs=least_first(job for i in at for job in by_needs[needs[i]]),
            eligible=int(able[at[0]].sum()),
        )
        for at in merged
    )
    return Supply(groups, *_signatures(able[[at[0] for at in merged]]))


def _signatures(
    able: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """`Supply`'s `member`, `count` and `of`: the distinct columns of (groups, devices), without that of nothing."""
    packed = np.packbits(able, axis=0)
    packed = np.concatenate([packed, np.zeros((-len(packed) % 8, packed.shape[1]), np.uint8)])
    words = np.ascontiguousarray(packed.T).view(np.uint64)
    if words.shape[1] == 1:
        found, of, count = np.unique(words[:, 0], return_inverse=True, return_counts=True)
        found = found[:, None]
    else:
        found, of, count = np.unique(words, axis=0, return_inverse=True, return_counts=True)
    member = np.unpackbits(np.ascontiguousarray(found).view(np.uint8), axis=1, count=len(able)).astype(np.bool_)
    some = member.any(axis=1)
    number = np.where(some, np.cumsum(some) - 1, -1)
    return member[some], count[some].astype(np.int64), number[of.reshape(-1)].astype(np.int64)


# ------------------------------------------------------------------ rules


def everyone(tasks: Sequence[str]) -> Rule:
    """All devices take the first of these that has room; each task's own needs are asked anyway."""
    return Rule(turns=(Turn(share=1.0, tasks=tuple(tasks)),))


def fitting(rules: Sequence[Rule], devices: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """By device (n,) the index of the first rule that fits it, or -1; `devices` as `Market` has them."""
    found = np.full(len(devices), -1)
    columns = np.asfortranarray(devices)
    for n, rule in enumerate(rules):
        fits = found < 0
        for least in rule.meets:
            fits &= able(columns, least)
        for least in rule.lacks:
            fits &= ~able(columns, least)
        found[fits] = n
    return found


class Marks:
    """Each signature's bounds, without those that others of them imply."""

    def __init__(self, of: Supply):
        self.needs = [b for group in of.groups for b in group.needs]
        amount = np.array(self.needs).reshape(len(self.needs), len(ABILITIES))
        covers = np.asarray((amount[:, None] >= amount[None]).all(axis=2))  # who meets the row's meets the column's
        covers &= ~np.eye(len(covers), dtype=np.bool_)
        met = np.repeat(of.member, [len(group.needs) for group in of.groups], axis=1)
        self._meets = met & ~(met.astype(np.int32) @ covers.astype(np.int32) > 0) & (amount > 0).any(axis=1)
        self._lacks = ~met & ~((~met).astype(np.int32) @ covers.T.astype(np.int32) > 0)

    def meets(self, signature: int) -> tuple[Bounds, ...]:
        """What all devices with it have, and with `lacks` no others of those that are known."""
        return tuple(bounds(self.needs[i]) for i in np.flatnonzero(self._meets[signature]))

    def lacks(self, signature: int) -> tuple[Bounds, ...]:
        """What none of them has."""
        return tuple(bounds(self.needs[i]) for i in np.flatnonzero(self._lacks[signature]))
