"""A simulation without one of the mechanisms of OLearning's selector, to see what it is good for: the same processors and devices, with
another function, or less knowledge, in its place.

    contribution  a zone's share is 1/n of the task's n zones, whatever eq. 1 says
    progress      of every round is 1, as it is of a task's first two (eq. 2)
    boost         a task that starved is worth no more than one that did not (§4.2)
    quality       of all data is `QUALITY`, on every device and for every task (eq. 3)
    forecast      a device knows whether it is free, not for how long: it takes it that it stays free (§5.2)
"""

from collections.abc import Collection

from device_sim.device import Device
from learning.rewards import boosted, zone_reward
from olearning.scenario import Mechanism
from processors import zone_leader
from processors.zone_leader import Appraisal
from schemas.facts import Worth
from schemas.messages import Announcement
from streams.ledger import GlobalTask, ZoneTask

QUALITY = 50.0
"""About that of twenty samples of ten classes before the first run: 20 · ln 10."""


def appraisal(without: Collection[Mechanism]) -> Appraisal:
    """What rounds are worth to a zone's devices, as `processors.zone_leader.worth` says it, but for what is left out."""

    def worth(zone: str, g: GlobalTask, t: ZoneTask | None) -> Worth:
        whole = zone_leader.worth(zone, g, t)
        share = 1 / len(g.zones) if "contribution" in without else whole.contribution
        made = 1.0 if "progress" in without else whole.progress
        announced = zone_reward(share, made)
        reward = announced if "boost" in without else boosted(announced, whole.starved)
        return Worth(share, made, whole.starved, reward)

    return worth


def same_quality(device: Device, a: Announcement) -> float:
    """All data are alike."""
    return QUALITY


def plain(devices: Collection[Device], without: Collection[Mechanism]) -> None:
    """Take from devices what is left out."""
    for d in devices:
        if "quality" in without:
            d.appraise = same_quality
        if "forecast" in without:
            d.learns = None
