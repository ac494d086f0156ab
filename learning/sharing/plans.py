"""From a policy's name to a plan."""

from collections.abc import Mapping, Sequence

from learning.sharing.policy import Market
from schemas.sharing import Rule, SharingPlan, Turn
from schemas.wire import Scalar

REWARD = "reward"
"""Devices choose, by what rounds are worth to them (OLearning §5.2): what holds where nobody said anything."""


def fifo(settings: Mapping[str, Scalar], market: Market) -> Sequence[Rule]:
    """Every device takes the first task it can do, in the order in which they were admitted."""
    order = tuple(j.task for j in sorted(market.jobs, key=lambda j: j.since))
    return (Rule((Turn(1.0, order),)),) if order else ()


def plan(name: str, args: Mapping[str, Scalar], market: Market, zone: str, at: int) -> SharingPlan:
    """What the policy of that name makes of a market. Raises `ValueError` for one that is not known."""
    if name == REWARD:
        return SharingPlan(zone, at, name, chosen=True)
    if name != "fifo":
        raise ValueError(f"no policy {name!r} is known here")
    return SharingPlan(zone, at, name, tuple(fifo(args, market)))
