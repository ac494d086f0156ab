"""What goes on while faults happen: sentinel deltas and real training, each in rounds that wait for all their devices.

Device i of the sentinels always sends a one in coordinate i. So from a round's base to its model each coordinate of the
zone's own devices grows by exactly one device's share: 0 is a lost delta, 2 a doubled one. A device's training is a
function of its seed, so the same task gives the same bits whatever happens to the plane.

The two tasks belong to two tenants, who share devices by a policy that is changed again and again while all this goes on, and one of
them wants phones that the other's devices need not be.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import numpy as np

import olearning
from device_sim.device import Device
from device_sim.fleet import Fleet, Manner
from olearning.roles import Role
from olearning.tasks import parse_task
from processors.submitter import Submitter
from processors.wisher import Wisher
from schemas.blocks import Layout, Tensor, layout
from schemas.messages import Announcement
from schemas.sharing import SHARING, Needs, Quota, Sharing
from schemas.task import Epochs, Rounds, TaskSpec
from tests.chaos.watch import Vector, Watch

SENTINELS, DIGITS = "sentinels", "digits"
ZONES = ("east", "west")
FILE = Path(olearning.__file__).with_name("digits.toml")
P, SEED = 4, 3
EACH = {SENTINELS: 8, DIGITS: 4}
"""Devices of a zone. Powers of two: their shares are exact."""
LONG = 3_600
TENANTS = {SENTINELS: "watch", DIGITS: "learn"}
PHONE = {"cpu": 8.0, "ram": 8.0}
"""What sentinels report; their task needs as much, and the other devices have less, or say nothing."""
POLICIES = ("max-min", "irs", "fifo", "reward", "srsf")
WISH = 120_000
"""ms that a word of a tenant may take to be dealt with, whatever fails meanwhile."""


@dataclass(frozen=True)
class Work:
    """How much of it: epochs × rounds in each zone. `training`: do devices train for real, too."""

    epochs: int = 2
    rounds: int = 3
    training: bool = True
    aggregators: int = 2
    commit_ms: int = 300
    slowest_ms: int = 1_500

    @property
    def tasks(self) -> tuple[str, ...]:
        return (SENTINELS, DIGITS) if self.training else (SENTINELS,)

    def spec(self, task: str) -> TaskSpec:
        n = EACH[task]
        rounds = Rounds(n, over_commit=1.0, minimum=n, deadline_s=LONG, lease_s=LONG)
        epochs = Epochs(self.epochs, self.rounds, deadline_s=LONG)
        if task == DIGITS:
            return msgspec.structs.replace(parse_task(FILE), rounds=rounds, epochs=epochs, tenant=TENANTS[DIGITS])
        return TaskSpec(
            SENTINELS,
            model="none",
            data="none",
            rounds=rounds,
            epochs=epochs,
            tenant=TENANTS[SENTINELS],
            needs=Needs(public=PHONE),
        )

    def words(self, namespace: str) -> list[Wisher]:
        """What the tenants may have, and the first policy."""
        out = [
            Wisher(
                namespace,
                tenant,
                lambda t, w=weight: msgspec.structs.replace(t, weight=w, quota=Quota(tasks=1, devices=100)),  # type: ignore[misc]
                WISH,
            )
            for weight, tenant in enumerate(TENANTS.values(), start=1)
        ]
        return [*out, self.policy(namespace, 0)]

    def policy(self, namespace: str, n: int) -> Wisher:
        """The n-th policy by which devices are shared."""
        return Wisher(namespace, SHARING, Sharing(POLICIES[n % len(POLICIES)], by=f"word {n}"), WISH)

    def submitters(self, namespace: str) -> list[Submitter]:
        """They have these tasks admitted, one after the other."""
        out = []
        for task in self.tasks:
            shape, start = (
                version_0()
                if task == DIGITS
                else (
                    layout((Tensor("a", (len(ZONES) * EACH[SENTINELS],)),)),
                    np.zeros(len(ZONES) * EACH[SENTINELS], np.float32),
                )
            )
            out.append(Submitter(namespace, "chaos", self.spec(task), shape, start, SEED, 120_000))
        return out

    def roles(self, namespace: str) -> list[Role]:
        """Of each that coordinates two: when one stands still the other takes over. Fleets that train are roles, too."""
        p = {"partitions": str(P)}
        out = []
        for n in "ab":
            out.append(Role("global", f"global-{n}", namespace, options={"zones": ",".join(ZONES), **p}))
            out.append(Role("scheduler", f"scheduler-{n}", namespace, options=p))
            out += [Role("zone", f"zone-{z}-{n}", namespace, z, p) for z in ZONES]
        for z in ZONES:
            for i in range(self.aggregators):
                out.append(
                    Role(
                        "aggregator", f"aggregator-{z}-{i}", namespace, z, p | {"commit-interval": str(self.commit_ms)}
                    )
                )
        for i, z in enumerate(ZONES if self.training else ()):
            n = EACH[DIGITS]
            options = {"count": str(n), "first": str(i * n), "day-seconds": "0", "seed": str(SEED), "resend": "0.2"}
            out.append(Role("fleet", f"fleet-{z}", namespace, z, options | p))
        return out

    def fleets(self, namespace: str) -> list[Fleet]:
        """The sentinels: they train nothing, and live in the test's own process."""
        out = []
        for i, z in enumerate(ZONES):
            n = EACH[SENTINELS]
            devices = [Device(f"sentinel-{k}", k, abilities=PHONE) for k in range(i * n, (i + 1) * n)]
            manner = Manner(training=(200, self.slowest_ms), reaction=100, resend=0.3)
            out.append(Fleet(namespace, z, f"sentinels-{z}", "chaos", devices, Sentinel(), manner))
        return out


@cache
def version_0() -> tuple[Layout, Vector]:
    """The digits model before any training. Loads torch the first time."""
    from device_sim.learner import prepare

    shape, start, _ = prepare(parse_task(FILE), SEED)
    return shape, start


@dataclass(frozen=True)
class One:
    delta: np.ndarray
    samples: int = 1
    loss_sum: float = 0.0


class Sentinel:
    """What device i always learns: a one in coordinate i."""

    def objection(self, a: Announcement) -> str:
        return "" if a.task == SENTINELS else "only sentinels here"

    def size(self, a: Announcement, device: Device) -> tuple[int, int]:
        return 1, 2

    def run(self, a: Announcement, device: Device, base: Vector) -> One:
        return One(np.eye(len(base), dtype=np.float32)[device.number])


# ------------------------------------------------------------------ what must be true of a run


@dataclass
class Account:
    """What became of every sentinel delta of a run, and whatever is not as it must be."""

    sent: int
    lost: list[str]
    doubled: list[str]
    wrong: list[str]

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)


def account(watch: Watch, work: Work) -> Account:
    out = Account(0, [], [], [f"the books: {b}" for b in watch.broken])
    n = EACH[SENTINELS]
    for zone, round, base, model in watch.bases(SENTINELS):
        i = ZONES.index(zone)
        grown = (model - base) * n
        out.sent += n
        own = grown[i * n : (i + 1) * n]
        share = np.median(own) or 1.0
        where = f"round {round} of zone {zone}"
        out.lost += [f"sentinel {i * n + k} in {where}" for k in np.flatnonzero(own < 0.5 * share)]
        out.doubled += [f"sentinel {i * n + k} in {where}" for k in np.flatnonzero(own > 1.5 * share)]
        if not np.array_equal(np.flatnonzero(grown), range(i * n, (i + 1) * n)) or (own != 1).any():
            out.wrong.append(f"{where} made of {n} sentinels: {grown.tolist()}")
    for task in work.tasks:
        wanted = [(z, task, k) for z in ZONES for k in range(1, work.epochs * work.rounds + 1)]
        wanted += [("global", task, k) for k in range(work.epochs + 1)]
        if missing := [w for w in wanted if w not in watch.models]:
            out.wrong.append(f"no model of {missing[:4]}")
    final = watch.models.get(("global", SENTINELS, work.epochs))
    if final is not None and (final * 2 * n != work.epochs * work.rounds).any():
        out.wrong.append(f"the last global model of the sentinels: {(final * 2 * n).tolist()}")
    return out


def differing(one: Watch, other: Watch) -> list[str]:
    """The models of two runs that have not the same bits: every zone's rounds, every epoch."""
    keys = sorted(one.models.keys() | other.models.keys())
    empty = np.zeros(0, np.float32)
    return [f"{t} {n} of {z}" for z, t, n in keys
            if one.models.get((z, t, n), empty).tobytes() != other.models.get((z, t, n), empty).tobytes()]  # fmt: skip
