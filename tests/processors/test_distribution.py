"""Models out to edges and deltas in from them, in a plane in memory: differences change no bit, credits spread a burst and hold up
nobody."""

from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace as changed

from device_sim.device import Device
from device_sim.fleet import Manner
from device_sim.outbox import STALE
from processors.submitter import Submitter
from schemas.blocks import BESIDE, Manifest, Tensor, layout
from schemas.facts import Finalised, Merged
from schemas.messages import Announcement, Credits, FleetReport
from schemas.task import Distribute, Server
from schemas.topics import GLOBAL, read, topic
from streams.memory import Memory
from streams.processor import send
from tests.plane import NS, Arithmetic, Done, Plane, spec
from tests.processors.test_scheduled_plane import Slow

LAYOUT = layout((Tensor("w", (3000,)), Tensor("b", (500,), group="head")))
START = np.random.default_rng(1).standard_normal(3500).astype(np.float32)


class Gentle(Arithmetic):
    """Training that changes values by a thousandth or so."""

    def run(self, a: Announcement, device: Device, base: np.ndarray) -> Done:
        done = super().run(a, device, base)
        return Done(done.delta / 100, done.samples, done.loss_sum)


class Wide(Plane):
    """Models of two blocks that are long enough for differences."""

    def submit(self, spec: Any, seed: int = 1) -> Any:
        for name in self.hosts:
            if name.startswith("fleet"):
                self.hosts[name].processor.learner = Gentle()  # type: ignore[attr-defined]
        return self.memory.host(lambda life: Submitter(NS, life, spec, LAYOUT, START, seed))


LONG = {"deadline_s": 300.0, "lease_s": 100.0}


def trained(differences: bool, **more: Any) -> Wide:
    p = Wide(Memory(seed=2))
    p.submit(changed(spec(**LONG), distribute=Distribute(differences), **more))
    assert p.memory.run(lambda: p.ended("toy"), 300_000)
    p.memory.run(limit=2_000)
    assert not [h.stopped for h in p.memory.hosts if h.stopped and not h.stopped.ok]
    return p


def versions(p: Plane, zone: str, kind: type = Finalised) -> list[Manifest]:
    return [f.manifest for f in p.facts(zone) if isinstance(f, kind) and f.manifest]


def fetched(p: Plane) -> int:
    return sum(p.hosts[f"fleet-{z}"].processor.edge.fetched for z in p.zones)  # type: ignore[attr-defined]


@pytest.mark.parametrize("server", [Server(), Server("fedadam"), Server("fedadam", at="globe")])
def test_versions_as_differences_have_the_same_bits_and_edges_fetch_less(server):
    without, with_them = (trained(on, server=server) for on in (False, True))
    assert without.model("toy").tobytes() == with_them.model("toy").tobytes()
    for zone in without.zones:
        a, b = versions(without, zone), versions(with_them, zone)
        assert [[p.checksum for p in m.blocks] for m in a] == [[p.checksum for p in m.blocks] for m in b]
        assert all(m.differences == () for m in a)
        assert any(any(m.differences) for m in b)
    assert any(m.differences for m in versions(with_them, GLOBAL, Merged))
    assert fetched(with_them) < 0.9 * fetched(without)


def test_an_edge_fetches_each_version_once_and_hands_it_to_all():
    p = trained(False)
    metrics = [read(r.topic, r.value) for r in p.memory.records(f"{NS}.{GLOBAL}.metrics")]
    for zone in p.zones:
        edge = p.hosts[f"fleet-{zone}"].processor.edge  # type: ignore[attr-defined]
        said = [m for m in metrics if isinstance(m, FleetReport) and m.zone == zone][-1]
        assert (said.fetched, said.handed) == (edge.fetched, edge.handed)
        assert said.handed == 6 * 6 * START.nbytes  # six devices, six rounds
        assert 6 * START.nbytes < said.fetched < 6 * (START.nbytes + 400)  # a record has a little more than its values


@pytest.mark.parametrize("victim", ["zone-east", "global"])
def test_a_leader_that_dies_while_differences_are_written_leaves_the_same_bits(victim):
    right = trained(True).model("toy").tobytes()
    for after in range(3):
        p = Wide(Memory(seed=2))
        p.submit(changed(spec(**LONG), distribute=Distribute(True)))
        name = topic(NS, "east" if victim == "zone-east" else GLOBAL, "models").name
        assert p.memory.run(partial(written, p, name, after + 1), 300_000)
        p.hosts[victim].crash()
        p.memory.run(limit=1_500)
        p.hosts[victim].restart()
        assert p.memory.run(partial(p.ended, "toy"), 300_000)
        assert p.model("toy").tobytes() == right


def written(p: Plane, name: str, least: int) -> bool:
    """Whether so many differences are in the log."""
    records = (r for s in range(p.partitions) for r in p.memory.records(name, s))
    return sum((r.key or "").endswith(BESIDE) for r in records) >= least


# ------------------------------------------------------------------ credits

DEVICES = 400
BURST = 2 * DEVICES
"""Blocks of a round, all at about the same time: 8 s of work for two aggregators."""


class Crowd(Plane):
    """One zone whose aggregators take 20 ms a block. `peak`: by round, the most blocks that lay unread."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peak: dict[int, int] = {}

    def watch(self) -> bool:
        t = self.hosts["zone-east"].processor.zone.tasks.get("toy")  # type: ignore[attr-defined]
        if t and t.round:
            name, read_to = topic(NS, "east", "deltas", "toy").name, 0
            for n in range(self.aggregators):
                positions = self.hosts[f"agg-east-{n}"].positions
                read_to += sum(at for (what, _), at in positions.items() if what == name)
            end = sum(self.memory.span(name, s)[1] for s in range(self.partitions))
            if read_to:
                self.peak[t.round] = max(self.peak.get(t.round, 0), end - read_to)
        return self.ended("toy")


def crowd(scheduler: bool, rogue: int | None = None, killed: bool = False, **more: Any) -> Crowd:
    """A task to its end. `rogue`: somebody says all the time that edges may send so much; `killed`: the scheduler is, for good, as soon as
    deltas wait for credit, and its last word is that none may be sent."""
    manner = Manner(training=(1_000, 1_500), reaction=50, report=500, together=DEVICES)
    p = Crowd(
        Slow(seed=3), zones=("east",), partitions=4, aggregators=2, devices=DEVICES, manner=manner, scheduler=scheduler
    )
    p.submit(spec(demand=DEVICES, epochs=1, rounds=3, **{"deadline_s": 120.0, "lease_s": 100.0} | more))
    while not p.memory.run(p.watch, 100):
        assert p.memory.now < 400_000
        if rogue is not None and p.memory.now % 1_000 < 100:
            say(p, rogue)
        if killed and p.hosts["fleet-east"].processor.outboxes["east"].waiting:  # type: ignore[attr-defined]
            p.hosts["scheduler"].crash()
            killed, rogue = False, None
            say(p, 0)
    assert not [h.stopped for h in p.memory.hosts if h.stopped and not h.stopped.ok]
    return p


def say(p: Plane, rate: int) -> None:
    """Credits of that rate."""
    c = Credits("somebody", "east", p.memory.now, rate, {}, rate, "")
    p.memory.append(send(topic(NS, "east", "credits"), c, key="east"))


@cache
def free() -> Crowd:
    return crowd(scheduler=False)


def test_credits_spread_a_burst_and_rounds_take_no_longer():
    with_them, without = crowd(scheduler=True), free()
    assert all(without.peak[n] > 0.75 * BURST for n in (1, 2, 3))
    assert all(with_them.peak[n] < 0.5 * BURST for n in (2, 3))  # in the first, nobody knew what aggregators manage
    assert with_them.memory.now < 1.1 * without.memory.now
    assert with_them.model("toy").tobytes() == without.model("toy").tobytes()


def test_no_credit_at_all_delays_and_loses_nothing():
    """Who says that nothing may be sent, again and again, is obeyed as far as leases allow."""
    p = crowd(scheduler=False, rogue=0, lease_s=20.0)
    assert p.model("toy").tobytes() == free().model("toy").tobytes()
    assert {f.devices for f in p.facts("east") if isinstance(f, Finalised)} == {DEVICES}
    assert p.memory.now < free().memory.now + 3 * 10_000 + 1_000  # three rounds, half a lease each


def test_a_scheduler_that_dies_holds_up_nobody():
    p = crowd(scheduler=True, killed=True)
    assert not p.hosts["scheduler"].alive
    assert p.memory.now < free().memory.now + STALE + 2_000
    assert p.model("toy").tobytes() == free().model("toy").tobytes()


def test_credits_hold_no_delta_beyond_the_execution_time_out() -> None:
    """The edge has a credit of nothing, again and again; the lease is longer than the round waits."""
    p = Plane(
        Memory(seed=1),
        zones=("east",),
        aggregators=1,
        devices=6,
        manner=Manner(training=(1_000, 1_500), reaction=50, report=500),
    )
    p.submit(spec(demand=6, epochs=1, rounds=2, minimum=1, serve_s=10.0, deadline_s=120.0, lease_s=60.0))
    while not p.memory.run(lambda: p.ended("toy"), 500) and p.memory.now < 200_000:
        say(p, 0)
    assert [f.devices for f in p.facts("east") if isinstance(f, Finalised)] == [6, 6]
