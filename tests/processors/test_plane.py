"""A whole plane in memory: zones, epochs, aggregators, fleets; a kill at any of its inputs, fleets that die, garbage.

The devices' work is arithmetic, so what the model must be is computed from scratch in plain numpy (`tests.chaos.oracle`), and
compared bit for bit. Schedules of faults that a seed draws are in `tests/chaos`, kills at every effect in `test_crash_points.py`.
"""

from collections import defaultdict
from collections.abc import Iterable
from random import Random
from typing import Any

import numpy as np
import pytest

from device_sim.device import Device
from device_sim.fleet import Fleet, Manner
from device_sim.pseudonym import pseudonym
from schemas.facts import (
    LEADERSHIP,
    Admitted,
    Claimed,
    Closed,
    Committed,
    EpochClosed,
    Finalised,
    Merged,
    Opened,
    Taken,
)
from schemas.task import Epochs
from schemas.topics import GLOBAL, compacted, parse, read, topic
from streams.memory import Memory
from streams.processor import Send, send
from tests.chaos.oracle import Who, trained
from tests.plane import LAYOUT, NS, Arithmetic, Plane, spec
from tests.some import some

ROUNDS, EPOCHS, DEVICES = 3, 2, 6
ZONES = ("east", "west")
PATIENT = {"deadline_s": 100, "lease_s": 50}
"""Every round waits for all six devices, whatever crashes: so every run must give the same bits."""

# ------------------------------------------------------------------ what the model must be


def everyone(zone: str, n: int, block: int) -> Iterable[str]:
    return [f"{zone}-{k}" for k in range(DEVICES)]


def oracle(task: str = "toy", seed: int = 1, zones: Iterable[str] = ZONES, epochs: int = EPOCHS, who: Who = everyone):
    return trained(task, seed, zones, epochs, ROUNDS, who)


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
    ("name", "n"), some([*points("zone-east", 195, 25), *points("global", 195, 15), *points("agg-east-0", 150, 25)], 12)
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
                for block in m.blocks:
                    found[m.round, block].add(names[m.device])
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


def test_a_leader_that_starts_after_the_deadline_first_reads_what_the_zones_did():
    memory = Memory(seed=1)
    plane = Plane(memory)
    task = spec(epochs=1, rounds=3)
    plane.submit(type(task)(task="toy", model="m", data="none", rounds=task.rounds, epochs=Epochs(1, 3, 60.0)))
    assert memory.run(lambda: any(t.state == "open" for t in plane.globe().tasks.values()), 20_000)
    host = plane.hosts["global"]
    host.crash()

    def done() -> bool:
        tasks = [plane.zone(z).tasks.get("toy") for z in ZONES]
        return all(t and t.merged_rounds == 3 for t in tasks)

    assert memory.run(done, 60_000)
    memory.run(limit=70_000)
    real = memory._pump

    def slowly(to, tp):  # 1 ms for each record of a zone's ledger
        if to is not host or tp[0] not in {f"{NS}.{z}.ledger" for z in ZONES}:
            real(to, tp)
        elif to.alive and tp in to.positions and tp not in to.pumping and to.positions[tp] < memory.span(*tp)[1]:
            to.pumping.add(tp)
            memory._for(to, 1, lambda: memory._hand_over(to, tp))

    memory._pump = slowly
    host.restart()
    assert memory.run(lambda: plane.ended("toy"), 60_000)
    assert [f.why for f in plane.facts(GLOBAL) if isinstance(f, EpochClosed)] == ["rounds"]
    assert plane.model("toy").tobytes() == oracle(epochs=1).tobytes()


def test_a_round_that_is_late_for_its_epoch_weighs_in_no_later_one():
    """The zone began anew from the global model: what the late round did is in nothing that is merged."""
    memory = Memory(seed=1)
    plane = Plane(memory)
    task = spec(rounds=3)
    plane.submit(type(task)(task="toy", model="m", data="none", rounds=task.rounds, epochs=Epochs(2, 3, 5.0)))
    west = plane.hosts["zone-west"]

    def third() -> bool:
        t = plane.zone("west").tasks.get("toy")
        return bool(t and t.round == 3)

    assert memory.run(third, 60_000)
    west.freeze()
    assert memory.run(lambda: any(isinstance(f, EpochClosed) for f in plane.facts(GLOBAL)), 60_000)
    memory.run(limit=50)
    west.thaw()
    assert memory.run(lambda: plane.ended("toy"), 60_000)
    epoch = {f.round: f.epoch for f in plane.facts("west") if isinstance(f, Opened)}
    finals = [f for f in plane.facts("west") if isinstance(f, Finalised) and f.manifest]
    (second,) = (
        u for f in plane.facts(GLOBAL) if isinstance(f, Taken) and f.epoch == 2 for u in f.updates if u.zone == "west"
    )
    assert second.samples == sum(f.samples for f in finals if epoch[f.round] == 2 and f.round <= second.round)
    assert any(epoch[f.round] == 1 and f.round == 3 for f in finals)  # else this shows nothing


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
                out[(name, *plane.memory.append(Send(name, value, "x", p)))] = value
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
    tombstones = {k for k, v in dropped.items() if v is None and compacted(k[0])}
    assert tombstones.isdisjoint(found)
    wanted = {k: v for k, v in dropped.items() if parse(k[0]).kind.what in read_by_a_role and k not in tombstones}
    assert {parse(name).kind.what for name, _, _ in wanted} == read_by_a_role
    assert wanted.keys() <= found.keys()
    assert all(found[k].value == v and found[k].reason for k, v in wanted.items())
    assert not any(parse(x.topic).kind.what == "dead-letters" for x in letters)
