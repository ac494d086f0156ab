"""IRS, intersection resource scheduling (Venn, arXiv 2312.08298, Algorithm 1; `baselines.md` §1 and its edge cases).

Scarce groups get their devices first; then an abundant group takes a scarcer group's devices if its own queue is longer for its supply.
Inside a group the smallest demand goes first. What comes out is an owner for each signature; devices that its jobs leave idle go
to the other groups, the scarcest first (ours: Venn's would wait).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from learning.sharing.groups import Marks, Supply, everyone, supply
from learning.sharing.policy import Market, policy
from schemas.sharing import Rule
from schemas.wire import Scalar

Float64 = npt.NDArray[np.float64]


@policy("irs")
def irs(settings: Mapping[str, Scalar], market: Market) -> Sequence[Rule]:
    """The last rule is all that is needed where nothing was taken over: a device's scarcest group is the first in it."""
    of = supply(market)
    if not of.groups:
        return []
    marks, owner = Marks(of), owners(of)
    rules = [
        Rule(turns=everyone(in_turn(of, int(owner[s]), s)).turns, meets=marks.meets(s), lacks=marks.lacks(s))
        for s in np.flatnonzero(owner != of.member.argmax(axis=1)).tolist()
    ]
    return [*rules, everyone([task for group in of.groups for task in group.tasks])]


def in_turn(of: Supply, owner: int, signature: int) -> list[str]:
    """For devices with this signature: the owner's tasks, then the others' that they can serve, the scarcest first."""
    order = [owner, *(g for g in np.flatnonzero(of.member[signature]).tolist() if g != owner)]
    return [task for g in order for task in of.groups[g].tasks]


def owners(of: Supply) -> npt.NDArray[np.int64]:
    """By signature (s,) the index of the group that has its devices."""
    owner = of.member.argmax(axis=1).astype(np.int64)  # scarce first
    real = np.bincount(owner, weights=of.count, minlength=len(of.groups)).astype(np.int64)
    queue = [len(group.jobs) for group in of.groups]
    demand = [np.array([job.open for job in group.jobs], np.float64) for group in of.groups]
    share = [np.full(queue[g], max(1, real[g]), np.float64) for g in range(len(of.groups))]
    merged: set[int] = set()
    lively = [g for g, group in enumerate(of.groups) if group.eligible]
    for g in reversed(lively):  # abundant first
        if g in merged:
            continue
        for h in reversed([h for h in lively if h < g and h not in merged]):  # nearest first
            moved = (owner == h) & of.member[:, g]  # only what g may use
            if not (take := int(of.count[moved].sum())):
                continue
            wait = float((demand[h] / share[h]).sum())
            if not _affected(demand[g], share[g], wait) / max(1, real[g]) > queue[h] / max(1, real[h]):
                break
            owner[moved] = g
            real[g] += take
            real[h] -= take
            share[g] = share[g] + take
            if real[h]:
                share[h] = np.full(len(demand[h]), real[h], np.float64)  # h lives on with the rest
            else:
                share[g], demand[g] = np.append(share[g], share[h]), np.append(demand[g], demand[h])
                queue[g] += queue[h]
                merged.add(h)
    return owner


def _affected(demand: Float64, share: Float64, limit: float) -> int:
    """How many of the first jobs are served while the other group waits so long: the one that crosses does not count (as Venn)."""
    waits = np.cumsum(demand / share)
    return len(demand) if waits[-1] <= limit else int((waits < limit).sum())
