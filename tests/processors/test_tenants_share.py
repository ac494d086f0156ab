"""Whole planes in memory whose tenants share devices by a policy: who gets how many, and that no slot is lost on the way."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from device_sim.device import Device, Habit
from device_sim.fleet import Fleet, Manner
from schemas.facts import Admitted, Closed, Opened
from schemas.sharing import SHARING, Needs, Quota, Sharing, Tenant
from schemas.topics import GLOBAL, topic
from streams.ledger import Ledger, Zone
from streams.memory import Memory
from streams.processor import send
from tests.device_sim.test_device import Knows, Windows
from tests.plane import NS, Arithmetic, Plane, spec

FREE_MS, EVERY_MS, RUN_MS = 2_500, 60_000, 1_500
"""A device is free for one run, once a minute."""


class Stream(Plane):
    """One zone, through which devices pass: `n` of them, evenly, each for one run a minute; every `strong`th has RAM 8, all others 4."""

    def __init__(self, n: int = 300, strong: int = 5, seed: int = 1):
        super().__init__(Memory(seed=seed), zones=("east",), aggregators=1, devices=0)
        devices = []
        for k in range(n):
            begin = k * EVERY_MS // n
            free = Windows([(begin + m * EVERY_MS, begin + m * EVERY_MS + FREE_MS) for m in range(20)])
            ram = 8.0 if k % strong == 0 else 4.0
            knows = {"nights": free, "outlook": Knows(free), "habit": Habit(horizon_ms=EVERY_MS // 2)}
            devices.append(Device(f"d-{k}", k, abilities={"ram": ram}, **knows))
        self.ram = {k: d.abilities["ram"] for k, d in enumerate(devices)}
        manner = Manner(training=(RUN_MS, RUN_MS), reaction=100, report=500)
        self.host("stream", lambda life: Fleet(NS, "east", "stream", life, devices, Arithmetic(), manner))
        self.memory.run(limit=1_000)

    def say(self, *wishes: Tenant | Sharing) -> None:
        for w in wishes:
            self.memory.append(send(topic(NS, GLOBAL, "tenants"), w, w.tenant if isinstance(w, Tenant) else SHARING))
        self.memory.run(limit=500)

    def task(self, name: str, tenant: str, demand: int, needs: Needs | None = None, **more: Any) -> None:
        made = spec(name, demand, epochs=1, rounds=500, minimum=1, **{"deadline_s": 300, "lease_s": 20, **more})
        self.submit(replace(made, tenant=tenant, needs=needs or Needs()))
        self.memory.run(limit=1_000)

    def given(self, since: int = 0) -> Counter[str]:
        """By task, the slots given from then on (ms)."""
        out: Counter[str] = Counter()
        self.folding(
            lambda z, f, at: out.update(s.task for s in f.slots) if isinstance(f, Admitted) and at >= since else None
        )
        return out

    def folding(self, look: Callable[[Zone, Any, int], None]) -> None:
        """Look at each accepted fact, and the fold after it."""
        ledger: Ledger[Zone] = Ledger(Zone())
        for r in self.ledger("east"):
            fact, void = ledger.feed(r)
            if not void:
                look(ledger.state, fact, r.timestamp)

    def waits(self, task: str) -> list[float]:
        """How long (s) the rounds took that closed, from their opening."""
        opened, out = {}, []

        def look(z: Zone, f: Any, at: int) -> None:
            if isinstance(f, Opened) and f.task == task:
                opened[f.round] = at
            if isinstance(f, Closed) and f.task == task:
                out.append((at - opened[f.round]) / 1000)

        self.folding(look)
        return out


def test_two_tenants_share_devices_by_weight():
    """Five devices come each second, and both tenants want more than there are. Weighted 2 to 1 they get 2 to 1, within a sixth; by
    equal weights the same, each its half."""
    shares = {}
    for weight in (2.0, 1.0):
        p = Stream()
        p.say(Tenant("gold", weight), Tenant("silver", 1.0), Sharing("max-min"))
        p.task("g", "gold", 100)
        p.task("s", "silver", 100)
        began = p.memory.now
        p.memory.run(limit=60_000)
        given = p.given(began + 5_000)
        assert sum(given.values()) > 220, "few devices are idle"
        shares[weight] = given["g"] / sum(given.values())
    print(shares)
    assert shares[2.0] == pytest.approx(2 / 3, rel=1 / 6)
    assert shares[1.0] == pytest.approx(1 / 2, rel=1 / 6)


def test_a_task_with_scarce_needs_gets_its_devices_under_irs():
    """Every fifth device will do for it. First come first served, the task that takes anyone takes these as well."""
    waits = {}
    for policy in ("fifo", "irs"):
        p = Stream()
        p.say(Sharing(policy))
        p.task("any", "gold", 60)
        p.task("picky", "silver", 10, Needs(public={"ram": 8.0}))
        p.memory.run(limit=80_000)
        done = p.waits("picky")
        assert len(p.waits("any")) >= 2
        waits[policy] = sum(done) / len(done) if done else 80.0
        for r in p.zone("east").tasks["picky"].rounds.values():
            assert r.devices
        names = {
            p.hosts["stream"].processor._name(d, "east", "silver"): d.number
            for d in p.hosts["stream"].processor.devices
        }  # type: ignore[attr-defined]
        held: set[int] = set()
        p.folding(
            lambda z, f, at, held=held, names=names: (
                held.update(names[s.device] for s in f.slots if s.task == "picky") if isinstance(f, Admitted) else None
            )
        )
        assert {p.ram[k] for k in held} == {8.0}
    print(waits)
    assert waits["irs"] < 0.7 * waits["fifo"]


def test_never_more_devices_at_once_than_the_quota():
    p = Stream()
    p.say(Tenant("gold", 1.0, Quota(devices=3)), Sharing("irs"))
    p.task("g", "gold", 40)
    p.task("h", "gold", 40)
    p.task("s", "silver", 40)
    p.memory.run(limit=60_000)
    most: Counter[str] = Counter()

    def look(z: Zone, f: Any, at: int) -> None:
        from processors.quotas import working

        for tenant, n in working(z).items():
            most[tenant] = max(most[tenant], n)

    p.folding(look)
    assert most["gold"] == 3
    assert most["silver"] > 3
    assert p.given()["g"] + p.given()["h"] > 20, "and these all the time"


def test_a_policy_changed_in_mid_run():
    p = Stream()
    p.say(Sharing("fifo"))
    p.task("first", "gold", 200)
    p.task("second", "silver", 200)
    p.memory.run(limit=30_000)
    before, then = p.given(), p.memory.now
    assert before["second"] == 0, "the first takes all"
    p.say(Sharing("max-min"))
    p.memory.run(limit=40_000)
    after = p.given(then + 3_000)
    assert after["second"] > after["first"], "it had none before"
    p.say(Sharing("reward"))
    then = p.memory.now
    p.memory.run(limit=30_000)
    assert p.given(then)
