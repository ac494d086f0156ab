"""Sentinel deltas through real processes on real Kafka, while every role is killed, and stopped past its session and woken.

Device i always sends a one in coordinate i, and every round waits for all devices. So from one round's model to the next each
coordinate grows by exactly one device's share: 0 is a lost delta, 2 a doubled one.
"""

import asyncio
import secrets
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_sim.device import Device
from device_sim.fleet import Fleet, Manner
from olearning.planes import Processes
from olearning.roles import Role
from processors.aggregator import Aggregator
from processors.globe import GlobalCoordinator
from processors.submitter import Submitter
from processors.zone import ZoneCoordinator
from schemas.blocks import Manifest, Tensor, layout
from schemas.facts import Committed, Finalised, Merged
from schemas.messages import Announcement
from schemas.task import Epochs, Rounds, TaskSpec
from schemas.topics import GLOBAL, zone_topics
from streams.ledger import Globe, Ledger, Zone, identity
from streams.memory import Memory
from streams.models import assemble, fetch
from streams.processor import Answer, Effect, Follow, Input, Membership, Record, Requests, Stop

ZONE, P, SESSION = "east", 4, 3_000
DEVICES = 16
"""A power of two: a share of one sixteenth is exact."""
EPOCHS, ROUNDS = 2, 6
LAYOUT = layout((Tensor("a", (8,)), Tensor("b", (8,), group="head")))
SPEC = TaskSpec(
    task="sentinels",
    model="none",
    data="none",
    rounds=Rounds(DEVICES, over_commit=1.0, minimum=DEVICES, deadline_s=120, lease_s=120),
    epochs=Epochs(EPOCHS, ROUNDS),
)


@dataclass(frozen=True)
class One:
    delta: np.ndarray
    samples: int = 1
    loss_sum: float = 0.0


class Sentinel:
    """What device i always learns: a one in coordinate i."""

    def objection(self, a: Announcement) -> str:
        return ""

    def size(self, a: Announcement, device: Device) -> tuple[int, int]:
        return 1, 2

    def run(self, a: Announcement, device: Device, base: np.ndarray) -> One:
        return One(np.eye(DEVICES, dtype=np.float32)[device.number])


def fleet(namespace: str, life: str) -> Fleet:
    devices = [Device(f"sentinel-{i}", i) for i in range(DEVICES)]
    manner = Manner(training=(300, 1_500), reaction=100, resend=0.3)
    return Fleet(namespace, ZONE, "sentinels", life, devices, Sentinel(), manner)


def submitter(namespace: str, life: str) -> Submitter:
    return Submitter(namespace, life, SPEC, LAYOUT, np.zeros(DEVICES, np.float32), 1)


class Watch:
    """Reads the ledgers; when the task is over it fetches every round's model, and stops."""

    membership: Membership | None = None
    name, tick = "watch", 100

    def __init__(self, namespace: str):
        self.zone: Ledger[Zone] = Ledger(Zone())
        self.globe: Ledger[Globe] = Ledger(Globe())
        self.topics: dict[str, Ledger] = {
            f"{namespace}.{ZONE}.ledger": self.zone,
            f"{namespace}.global.ledger": self.globe,
        }
        self.accepted: list[Any] = []
        self.requests = Requests()
        self.models: dict[int, np.ndarray] = {}
        self.broken: list[str] = []

    def start(self, now: int) -> Iterator[Effect]:
        yield from (Follow(name, 0, 0) for name in self.topics)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        if isinstance(event, Record):
            fact, void = self.topics[event.topic].feed(event)
            if not void:
                self.accepted.append(fact)
            for name, t in self.zone.state.tasks.items():
                self.broken += [f"{name} {n} at {event.offset}" for n in t.rounds if not identity(t, n)]
            if SPEC.task in self.globe.state.over and not self.requests.last:
                for f in self.finals:
                    assert f.manifest
                    yield fetch(f.manifest, self.requests, f.round, f.manifest)
        elif isinstance(event, Answer):
            n, manifest = self.requests.close(event.tag)
            assert isinstance(manifest, Manifest)
            self.models[n] = assemble(manifest, event.value)
            if not self.requests.open:
                yield Stop("it is over", ok=True)

    @property
    def finals(self) -> list[Finalised]:
        return [f for f in self.accepted if isinstance(f, Finalised)]

    def round(self) -> tuple[int, int]:
        """The open round and how many slots it has."""
        t = self.zone.state.tasks.get(SPEC.task)
        return (t.round, len(t.rounds[t.round].devices)) if t and t.state == "open" else (0, 0)

    def holder(self, role: str) -> str:
        """The name of the one at work: the leader, or the aggregator that holds most shards."""
        if role == "global":
            return self.globe.state.leader.holder
        if role == "zone":
            return self.zone.state.leader.holder
        holders = [h.holder for h in self.zone.state.shards]
        return max(sorted(set(holders)), key=holders.count)


def check(watch: Watch) -> None:
    """Each device once in every round; every round and epoch once; the identity held after every fact."""
    last = np.zeros(DEVICES, np.float32)
    assert sorted(watch.models) == list(range(1, EPOCHS * ROUNDS + 1))
    for n, model in sorted(watch.models.items()):
        grown = (model - last) * DEVICES
        lost, doubled = np.flatnonzero(grown == 0).tolist(), np.flatnonzero(grown >= 2).tolist()
        assert np.all(grown == 1), f"round {n}: lost {lost}, doubled {doubled}: {grown.tolist()}"
        last = model
    assert [f.round for f in watch.finals] == sorted(watch.models)
    assert [f.epoch for f in watch.accepted if isinstance(f, Merged)] == list(range(1, EPOCHS + 1))
    assert sum(f.counts.counted for f in watch.accepted if isinstance(f, Committed)) == DEVICES * 2 * len(watch.models)
    assert not watch.broken


# ------------------------------------------------------------------ on Kafka

FAULTS = [
    ("aggregator", signal.SIGKILL),
    ("aggregator", signal.SIGSTOP),
    ("zone", signal.SIGKILL),
    ("zone", signal.SIGSTOP),
    ("aggregator", signal.SIGKILL),
]
"""Who is next, and what happens to it once all devices have their slots in a round; one a round."""
AT_MERGES = {ROUNDS: ("global", signal.SIGKILL), 2 * ROUNDS: ("global", signal.SIGSTOP)}
"""The same in an epoch's last round, so that its merge is another's."""


def roles(namespace: str) -> list[Role]:
    """Two of each: when one stands still the other takes over."""
    p = {"partitions": str(P)}
    out = []
    for n in "ab":
        out.append(Role("global", f"global-{n}", namespace, options={"zones": ZONE, **p}))
        out.append(Role("zone", f"zone-{n}", namespace, ZONE, p))
        out.append(Role("aggregator", f"aggregator-{n}", namespace, ZONE, p | {"commit-interval": "200"}))
    return out


async def run(bootstrap: str, folder: Path) -> tuple[Watch, list[str]]:
    namespace = f"sentinels-{secrets.token_hex(4)}"
    said: list[str] = []
    plane = Processes(bootstrap, folder, said.append, SESSION, 0.5)
    watch, left, merges, done = Watch(namespace), list(FAULTS), dict(AT_MERGES), []
    waking: dict[str, float] = {}
    last = 0

    def wake() -> None:
        for name in [n for n, at in waking.items() if time.monotonic() >= at]:
            plane.children[name].send_signal(signal.SIGCONT)
            del waking[name]

    devices: asyncio.Task[Stop] | None = None
    try:
        await plane.start(roles(namespace))
        watching = asyncio.create_task(plane.host(lambda life: watch))
        devices = asyncio.create_task(plane.host(lambda life: fleet(namespace, life)))
        submitted = await plane.host(lambda life: submitter(namespace, life))
        assert submitted.ok, submitted.reason
        end = time.monotonic() + 200
        while not watching.done():
            assert time.monotonic() < end, f"not over in time, in round {watch.round()}; done: {done}; said: {said}"
            assert not devices.done(), devices.result().reason
            wake()
            n, slots = watch.round()
            if n > last and slots == DEVICES:
                last = n
                asleep = {name.split("-")[0] for name in waking}
                if n in merges:
                    role, how = merges.pop(n)
                elif left and left[0][0] not in asleep:
                    role, how = left.pop(0)
                else:
                    continue
                name = watch.holder(role)
                plane.children[name].send_signal(how)
                if how == signal.SIGSTOP:
                    waking[name] = time.monotonic() + 2 * SESSION / 1000
                done.append(f"{n}: {name} {how.name}")
            await asyncio.sleep(0.01)
        assert watching.result().ok, watching.result().reason
    finally:
        for name in waking:
            plane.children[name].send_signal(signal.SIGCONT)
        if devices:
            devices.cancel()
            await asyncio.wait({devices})
        await plane.stop()
    assert (left, merges) == ([], {}), f"not all faults had their turn; these had: {done}"
    return watch, done


@pytest.mark.kafka
@pytest.mark.timeout(280)
def test_every_role_killed_and_stopped_loses_and_doubles_nothing(broker: str, tmp_path: Path) -> None:
    watch, done = asyncio.run(run(broker, tmp_path))
    print(*done, sep="\n")
    check(watch)


# ------------------------------------------------------------------ the checker is one


def simulated() -> Watch:
    """The same in memory, with an aggregator that crashes again and again."""
    memory = Memory(seed=3)
    for z in (GLOBAL, ZONE):
        for t in zone_topics("calm", z):
            memory.create(t.name, t.partitions(P))
    memory.host(lambda life: GlobalCoordinator("calm", [ZONE], P, "global", life))
    memory.host(lambda life: ZoneCoordinator("calm", ZONE, P, "zone", life))
    hosts = [memory.host(lambda life, n=n: Aggregator("calm", ZONE, f"agg-{n}", life, 200)) for n in range(2)]  # type: ignore[misc]
    memory.host(lambda life: fleet("calm", life))
    memory.host(lambda life: submitter("calm", life))
    watch = Watch("calm")
    watching = memory.host(lambda life: watch)
    for step in range(600):
        if memory.run(lambda: watching.stopped is not None, 100):
            return watch
        host = hosts[step % 2]
        if step % 11 == 5 and host.alive:
            host.crash()
            memory.run(limit=20)
            host.restart()
    raise AssertionError("it does not end")


def test_the_same_in_memory() -> None:
    check(simulated())


def test_control_a_doubled_sentinel_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """An aggregator that takes over and does not ask what was counted before."""

    def ignorant(self: Aggregator, task: str, work: Any, t: Any) -> tuple:
        work.bitmaps.loaded |= {c.offset for r in t.rounds.values() for c in r.commits}
        return ()

    monkeypatch.setattr(Aggregator, "_load", ignorant)
    monkeypatch.setattr("streams.ledger.chains.require", lambda holds, why: None)  # nor does the fold look
    with pytest.raises(AssertionError):
        check(simulated())


@pytest.mark.parametrize(("value", "word"), [(0, "lost [3]"), (2, "doubled [3]")])
def test_control_one_wrong_coordinate_is_named(value: int, word: str) -> None:
    watch = Watch("none")
    for n in range(1, EPOCHS * ROUNDS + 1):
        watch.models[n] = np.full(DEVICES, n / DEVICES, np.float32)
        watch.models[n][3] = ((n - 1) + value if n == 5 else n) / DEVICES
    with pytest.raises(AssertionError, match=word.replace("[", r"\[").replace("]", r"\]")):
        check(watch)
