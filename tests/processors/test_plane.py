"""A whole plane in memory: zones, epochs, aggregators, fleets; and crashes, freezes and copies at any point of it.

The devices' work is arithmetic, so what the model must be is computed here from scratch in plain numpy, and compared bit for
bit. Every fault schedule comes from a seed, which a failure names.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import numpy as np
import pytest

from device_sim.device import Device
from device_sim.fleet import Fleet, Manner
from device_sim.pseudonym import pseudonym, seed_of
from processors.aggregator import Aggregator
from processors.globe import GlobalCoordinator
from processors.zone import ZoneCoordinator
from schemas.facts import LEADERSHIP, Admitted, Claimed, Closed, Committed, Finalised, Merged, Opened
from schemas.topics import GLOBAL, parse, read, topic
from streams import ledger
from streams.memory import Memory
from streams.processor import Send, send
from tests.plane import LAYOUT, NS, START, Arithmetic, Plane, spec

ROUNDS, EPOCHS, DEVICES = 3, 2, 6
ZONES = ("east", "west")
PATIENT = {"deadline_s": 100, "lease_s": 50}
"""Every round waits for all six devices, whatever crashes: so every run must give the same bits."""

# ------------------------------------------------------------------ what the model must be

Who = Callable[[str, int, int], Iterable[str]]
"""Whose block counts: zone, round, block -> device IDs."""


def everyone(zone: str, n: int, block: int) -> Iterable[str]:
    return [f"{zone}-{k}" for k in range(DEVICES)]


def oracle(task: str = "toy", seed: int = 1, zones: Iterable[str] = ZONES, epochs: int = EPOCHS, who: Who = everyone):
    """FedAvg within zones, merged by samples between them, from what `tests.plane.Arithmetic` says a device's training is."""
    model = START
    cuts = np.split(np.arange(len(START)), np.cumsum(LAYOUT.sizes)[:-1])
    for epoch in range(epochs):
        results, weights = [], []
        for zone in sorted(zones):
            local, weight = model, 0
            for n in range(epoch * ROUNDS + 1, (epoch + 1) * ROUNDS + 1):
                new = local.copy()
                for i, cut in enumerate(cuts):
                    total, samples = np.zeros(len(cut), np.int64), 0
                    for device in who(zone, n, i):
                        dice = seed_of(seed, device, task, n)
                        noise = np.random.default_rng(dice).standard_normal(len(START)).astype(np.float32)
                        units = (0.1 * noise - 0.1 * local)[cut].astype(np.float64) * (1 + dice % 50) * 2**24
                        e = 0  # rounded once, to the finest multiple of a power of two that fits int32
                        while np.abs(np.rint(units / 2**e)).max() >= 2**31:
                            e += 1
                        total += np.rint(units / 2**e).astype(np.int64) * 2**e
                        samples += 1 + dice % 50
                    if samples:
                        new[cut] = local[cut].astype(np.float64) + total * 2.0**-24 / samples
                local, weight = new, weight + samples
            results.append(local.astype(np.float64) * weight)
            weights.append(weight)
        model = (sum(results) / sum(weights)).astype(np.float32)
    return model


RIGHT = oracle()


def check(plane: Plane, task: str = "toy", model: np.ndarray = RIGHT) -> None:
    """The model, and everything on the way to it: no round or version twice, every device once, nobody gave up."""
    assert plane.model(task).tobytes() == model.tobytes(), "another model"
    for zone in plane.zones:
        said = [f for f in plane.facts(zone) if getattr(f, "task", "") == task]
        for kind in (Opened, Closed, Finalised):
            assert [f.round for f in said if isinstance(f, kind)] == list(range(1, ROUNDS * EPOCHS + 1)), kind
        assert all(f.manifest and f.devices == DEVICES for f in said if isinstance(f, Finalised))
        counted = sum(f.counts.counted for f in said if isinstance(f, Committed))
        assert counted == DEVICES * len(LAYOUT.sizes) * ROUNDS * EPOCHS
        for s in range(plane.partitions):
            stretches = [f.stretches[s] for f in said if isinstance(f, Committed) and s in f.stretches]
            assert [x.start for x in stretches] == [0, *(x.end for x in stretches)][: len(stretches)]
    assert [f.epoch for f in plane.facts(GLOBAL) if isinstance(f, Merged) and f.task == task] == list(
        range(1, EPOCHS + 1)
    )
    assert {n: h.stopped for n, h in plane.hosts.items() if h.stopped} == {}


def finish(plane: Plane, limit: int = 200_000) -> None:
    assert plane.memory.run(lambda: plane.ended("toy"), limit), "it does not end"


# ------------------------------------------------------------------ without faults


@pytest.mark.parametrize("aggregators", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 7])
def test_two_zones_two_epochs_bit_for_bit(aggregators, seed):
    plane = Plane(Memory(seed=seed, latency=(1, 1 + 20 * bool(seed))), aggregators=aggregators)
    submitter = plane.submit(spec(**PATIENT))
    finish(plane)
    check(plane)
    assert submitter.stopped
    assert submitter.stopped.ok


def test_another_seed_of_the_task_is_another_model():
    plane = Plane(Memory())
    plane.submit(spec(**PATIENT), seed=2)
    finish(plane)
    check(plane, model=oracle(seed=2))
    assert oracle(seed=2).tobytes() != RIGHT.tobytes()


def test_two_tasks_share_devices_and_disturb_each_other_in_nothing():
    plane = Plane(Memory())
    plane.submit(spec(**PATIENT))
    plane.submit(spec("other", **PATIENT), seed=5)
    assert plane.memory.run(lambda: plane.ended("toy") and plane.ended("other"), 400_000)
    check(plane)
    check(plane, "other", oracle("other", seed=5))


def test_topics_carry_what_the_table_says():
    """Every record of a run is a message its topic is declared to carry; no task or tenant meets a raw device ID."""
    plane = Plane(Memory())
    plane.submit(spec(**PATIENT))
    finish(plane)
    seen = set()
    for name, partitions in plane.memory.topics.items():
        for p in range(len(partitions)):
            for r in plane.memory.records(name, p):
                read(name, r.value, r.headers)
                seen.add(parse(name).kind.what)
                assert not any(
                    f"{zone}-{k}".encode() in (r.value or b"") for zone in ZONES for k in range(2, DEVICES)
                )  # agg-east-0 is no device
    assert seen >= {"tasks", "ledger", "models", "checkins", "announcements", "registrations", "admissions", "deltas",
                    "partials", "receipts", "metrics"}  # fmt: skip


# ------------------------------------------------------------------ chaos


def add_standbys(plane: Plane) -> None:
    plane.host("global-b", lambda life: GlobalCoordinator(NS, ZONES, plane.partitions, "global-b", life))
    for zone in ZONES:
        name = f"zone-{zone}-b"
        plane.host(
            name, lambda life, z=zone, n=name: ZoneCoordinator(NS, z, plane.partitions, n, life)
        )  # fmt: skip


def chaos(seed: int, quiet_after: int = 60) -> None:
    """A plane under a schedule of crashes, freezes and late copies; odd seeds have standby coordinators."""
    dice = Random(seed)
    memory = Memory(seed=seed, latency=(1, 10))
    plane = Plane(memory, manner=Manner(training=(50, 400), reaction=100, report=500, resend=0.3))
    if seed % 2:
        add_standbys(plane)
    # A copy of an append may come much later, and out of turn.
    memory.network = lambda host, s: [memory.delay()] + ([memory.delay() * 5] if dice.random() < 0.05 else [])
    plane.submit(spec(**PATIENT))
    roles = [n for n in plane.hosts if not n.startswith("fleet")]
    globes = [n for n in roles if n.startswith("global")]

    def ended() -> bool:
        return any(
            t.state == "ended"
            for n in globes
            if (t := plane.hosts[n].processor.globe.tasks.get("toy"))  # type: ignore[attr-defined]
        )

    for step in range(quiet_after + 140):
        if memory.run(ended, 100):
            break
        if step < quiet_after:
            host, throw = plane.hosts[dice.choice(roles)], dice.random()
            if throw < 0.25 and host.alive:
                host.crash()
            elif throw < 0.4 and host.alive and not host.frozen:
                host.freeze()
        for host in plane.hosts.values():
            if not host.alive and not host.stopped and dice.random() < 0.5:
                host.restart()
            elif host.frozen and (step >= quiet_after or dice.random() < 0.1):
                host.thaw()
    assert ended(), "it does not end"
    check(plane)


@pytest.mark.parametrize("seed", range(1, 41))
def test_chaos_changes_no_bit(seed):
    chaos(seed)


def goes_red(seeds: Iterable[int]) -> bool:
    """Whether any of these schedules ends in something else than what must be."""
    for seed in seeds:
        try:
            chaos(seed)
        except Exception as e:  # a processor that trips over what cannot be is found out as well
            print(f"seed {seed}: {e!r:.200}")
            return True
    return False


def test_control_bitmaps_ignored_at_take_over(monkeypatch):
    """An aggregator that takes a shard over and does not ask what was counted before."""

    def ignorant(self, task, work, t):
        work.bitmaps.loaded |= {c.offset for r in t.rounds.values() for c in r.commits}
        return ()

    monkeypatch.setattr(Aggregator, "_load", ignorant)
    assert goes_red(range(1, 41))


def test_control_no_tile_rule(monkeypatch):
    strict = ledger._require
    lax = lambda holds, reason: None if "is committed up to" in reason else strict(holds, reason)  # noqa: E731
    monkeypatch.setattr(ledger, "_require", lax)
    assert goes_red(range(1, 41))


def test_control_commits_of_whoever_for_whatever_round(monkeypatch):
    """Neither the tile nor the token nor the segment rule."""
    strict = ledger._require
    guards = ("is committed up to", "is not that of shard", "is in round")
    lax = lambda holds, reason: None if any(g in reason for g in guards) else strict(holds, reason)  # noqa: E731
    monkeypatch.setattr(ledger, "_require", lax)
    assert goes_red(range(1, 41))


# ------------------------------------------------------------------ killed at the n-th input


def kill(name: str, n: int) -> None:
    plane = Plane(Memory(seed=n), manner=Manner(training=(50, 300), reaction=50, report=500, resend=0.2))
    plane.submit(spec(**PATIENT))
    host = plane.hosts[name]
    assert plane.memory.run(lambda: host.handled >= n or plane.ended("toy"), 200_000)
    assert host.handled == n, "choose an earlier point: it was over by then"
    host.crash()
    plane.memory.run(limit=Random(n).choice((0, 20, 1500)))  # back before, or after, its session is over
    host.restart()
    finish(plane)
    check(plane)


def points(name: str, upto: int, count: int = 15) -> list[Any]:
    dice = Random(name)
    return [pytest.param(name, n, id=f"{name}@{n}") for n in sorted(dice.sample(range(1, upto), count))]


@pytest.mark.parametrize(
    ("name", "n"), [*points("zone-east", 195, 25), *points("global", 195, 15), *points("agg-east-0", 150, 25)]
)
def test_killed_at_any_point_changes_no_bit(name, n):
    kill(name, n)


# ------------------------------------------------------------------ fleets that die


def own_fleet(plane: Plane, zone: str, first: int, count: int) -> Any:
    """A fleet whose devices forget everything when it dies."""

    def make(life: str) -> Fleet:
        devices = [Device(f"{zone}-{k}", k) for k in range(first, first + count)]
        return Fleet(NS, zone, f"own-{first}", life, devices, Arithmetic(), plane.manner)

    plane.host(f"own-{zone}-{first}", make)
    return plane.hosts[f"own-{zone}-{first}"]


def counted_by(plane: Plane, ids: list[str]) -> Who:
    """Whose blocks the receipts say were counted."""
    names = {pseudonym(i, "east", "default", Manner().salt): i for i in ids}
    found = defaultdict(set)
    for p in range(plane.partitions):
        for r in plane.memory.records(f"{NS}.east.receipts", p):
            m: Any = read(r.topic, r.value, r.headers)
            if m.outcome == "counted":
                found[m.round, m.block].add(names[m.device])
    return lambda zone, n, block: sorted(found[n, block])


def test_a_fleet_that_dies_and_comes_back_changes_no_bit():
    """Its devices register again, get the same slots, and send again: each counts once."""
    for when in (60, 150, 260, 700):
        plane = Plane(Memory(seed=when), zones=("east",), devices=0)
        fleet = own_fleet(plane, "east", 0, DEVICES)
        plane.submit(spec(**PATIENT))
        assert plane.memory.run(lambda plane=plane: "toy" in plane.zone("east").tasks, 10_000)
        plane.memory.run(limit=when)
        fleet.crash()
        plane.memory.run(limit=30)
        fleet.restart()
        finish(plane)
        check(plane, model=oracle(zones=("east",)))


def test_places_of_a_dead_fleet_are_given_again():
    slow = Manner(training=(400, 2000), reaction=50, report=500)
    plane = Plane(Memory(seed=3), zones=("east",), devices=0, manner=slow)
    fleet = own_fleet(plane, "east", 0, DEVICES)
    plane.submit(spec(deadline_s=100, lease_s=3))
    zone = plane.hosts["zone-east"].processor
    assert plane.memory.run(lambda: "toy" in zone.zone.tasks and bool(zone.zone.tasks["toy"].rounds[1].done), 9_000)
    fleet.crash()
    own_fleet(plane, "east", 10, DEVICES)
    finish(plane)
    first = next(f for f in plane.facts("east") if isinstance(f, Finalised))
    lapsed = [x for f in plane.facts("east") if isinstance(f, Admitted) for x in f.lapsed]
    slots = [x for f in plane.facts("east") if isinstance(f, Admitted) for x in f.slots if x.round == 1]
    ids = [f"east-{k}" for k in (*range(6), *range(10, 16))]
    who = counted_by(plane, ids)
    done = set(who("east", 1, 0)) & set(ids[:6])
    assert first.devices == DEVICES
    assert 0 < len(done) < DEVICES
    assert len(lapsed) == DEVICES - len(done)  # of the dead
    assert [x.slot for x in slots] == list(range(DEVICES + len(lapsed)))
    assert plane.model("toy").tobytes() == oracle(zones=("east",), who=who).tobytes()


def test_k_of_n_when_nobody_takes_the_places_of_the_dead():
    slow = Manner(training=(400, 900), reaction=50, report=500)
    plane = Plane(Memory(seed=4), zones=("east",), devices=2, manner=slow)
    fleet = own_fleet(plane, "east", 2, 4)
    plane.submit(spec(minimum=2, deadline_s=4, lease_s=1))
    zone = plane.hosts["zone-east"].processor
    assert plane.memory.run(lambda: "toy" in zone.zone.tasks and len(zone.zone.tasks["toy"].rounds[1].devices) == 6)
    fleet.crash()
    finish(plane)
    finals = [f for f in plane.facts("east") if isinstance(f, Finalised)]
    assert [f.devices for f in finals] == [2] * ROUNDS * EPOCHS
    assert {f.why for f in plane.facts("east") if isinstance(f, Closed)} == {"deadline"}
    who = counted_by(plane, [f"east-{k}" for k in range(6)])
    assert plane.model("toy").tobytes() == oracle(zones=("east",), who=who).tobytes()


def test_an_epoch_ends_without_a_zone_that_is_dead():
    plane = Plane(Memory(seed=5))
    plane.hosts["fleet-west"].crash()
    task = spec(**PATIENT)
    task = type(task)(
        task="toy", model="m", data="none", rounds=task.rounds, epochs=type(task.epochs)(EPOCHS, ROUNDS, 20.0)
    )
    plane.submit(task)
    finish(plane)
    assert plane.model("toy").tobytes() == oracle(zones=("east",)).tobytes()


# ------------------------------------------------------------------ the global leader's lead


def test_answers_to_an_earlier_global_leadership_do_not_disturb_a_later_one():
    plane = Plane(Memory(seed=1))
    models = topic(NS, GLOBAL, "models").name
    plane.submit(spec(**PATIENT))
    leader = plane.hosts["global"].processor
    assert plane.memory.run(lambda: leader.globe.tasks.get("toy") is not None)
    plane.memory.network = lambda host, s: [900 if s.topic == models else plane.memory.delay()]
    assert plane.memory.run(lambda: any(a[0] == "block" for a in leader.requests.open.values()), 200_000)
    claim = Claimed("another", "1", {LEADERSHIP: leader.globe.leader.token})
    plane.memory.append(send(topic(NS, GLOBAL, "ledger"), claim))
    finish(plane)
    check(plane)


# ------------------------------------------------------------------ garbage

GARBAGE = [b"\xff\xfe garbage", b"", None, b"\x81\xa4type\xa7nothing", b"\x93\x01\x02\x03", b"\xdf" + b"\x00" * 9]


def litter(plane: Plane) -> dict[tuple[str, int, int], bytes | None]:
    """Garbage into every partition of every topic there is."""
    out = {}
    for name, partitions in list(plane.memory.topics.items()):
        for p in range(len(partitions)):
            for value in GARBAGE:
                out[(name, *plane.memory.append(Send(name, value, "x", p)))] = value  # type: ignore[arg-type]
    return out


def test_garbage_on_every_topic_changes_no_bit():
    plane = Plane(Memory(seed=6))
    litter(plane)  # before anything is founded
    plane.submit(spec(**PATIENT))
    zone, globe = plane.hosts["zone-east"].processor, plane.hosts["global"].processor
    dropped: dict = {}
    for n in (1, 4):
        assert plane.memory.run(lambda n=n: "toy" in zone.zone.tasks and zone.zone.tasks["toy"].round >= n, 50_000)
        dropped |= litter(plane)
    assert zone.token
    assert globe.token
    finish(plane)
    check(plane)
    plane.memory.run(limit=1_000)
    letters: list[Any] = []
    for r in plane.memory.records(f"{NS}.global.dead-letters"):
        if r.key != "x":
            letters.append(read(r.topic, r.value, r.headers))
    found = {(x.topic, x.partition, x.offset): x for x in letters}
    read_by_a_role = {"ledger", "tasks", "registrations", "deltas"}
    wanted = {k: v for k, v in dropped.items() if parse(k[0]).kind.what in read_by_a_role}
    assert {parse(name).kind.what for name, _, _ in wanted} == read_by_a_role
    assert wanted.keys() <= found.keys()
    assert all(found[k].value == v and found[k].reason for k, v in wanted.items())
    assert not any(parse(x.topic).kind.what == "dead-letters" for x in letters)
