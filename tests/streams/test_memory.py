"""The log in memory, as far as the contract (`test_contract.py`) leaves it open: seeds, faults, the virtual clock."""

from random import Random
from typing import Any

import pytest

from device_sim.fleet import Manner
from schemas.topics import topic
from streams.memory import Memory
from streams.processor import Ends, Follow, Membership, Send, Stop, Tick
from tests.plane import Plane, spec
from tests.streams.worlds import Probe

T = topic("test", "z", "receipts").name


def memory(seed: int = 1, **more: Any) -> Memory:
    m = Memory(seed=seed, **more)
    m.create(T, 2)
    return m


def sends(n: int) -> tuple[Send, ...]:
    return tuple(Send(T, b"%d" % i, partition=0, tag=i) for i in range(n))


# ------------------------------------------------------------------ seeds


def world_of(seed: int) -> dict[str, list[list[tuple]]]:
    """All records of a run with crashes and freezes."""
    m = Memory(seed=seed, latency=(1, 10))
    plane, dice = Plane(m, manner=Manner(training=(50, 300), reaction=50, report=200, resend=0.3)), Random(seed)
    plane.submit(spec(epochs=1, deadline_s=100, lease_s=50))
    for _ in range(30):
        m.run(limit=100)
        name = dice.choice([n for n in plane.hosts if not n.startswith("fleet")])
        host = plane.hosts[name]
        if not host.alive:
            host.restart()
        elif host.frozen:
            host.thaw()
        elif dice.random() < 0.5:
            host.crash()
        else:
            host.freeze()
    return {
        name: [[(s.key, s.value, s.timestamp, s.headers) for s in log] for log in partitions]
        for name, partitions in m.topics.items()
    }


def test_the_same_seed_gives_the_same_run_record_for_record():
    one, two, other = world_of(5), world_of(5), world_of(6)
    assert one == two
    assert one != other
    assert sum(len(log) for partitions in one.values() for log in partitions) > 200


# ------------------------------------------------------------------ crashes


def landed_after_crash(seed: int, loss: float) -> set[int]:
    m = memory(seed, loss=loss, latency=(5, 50))
    host = m.host(lambda life: Probe(first=sends(30)))
    host.crash()
    m.run(limit=1000)
    return {int(s.value or b"") for s in m.topics[T][0]}


def test_a_crash_loses_appends_under_way_by_the_seed():
    assert landed_after_crash(1, loss=0.0) == set(range(30))
    assert landed_after_crash(1, loss=1.0) == set()
    some = landed_after_crash(1, loss=0.5)
    assert 0 < len(some) < 30
    assert landed_after_crash(1, loss=0.5) == some
    assert landed_after_crash(2, loss=0.5) != some


def test_what_landed_before_the_crash_stays_and_no_answer_reaches_the_next_life():
    m = memory()
    probes: list[Probe] = []

    def make(life: str) -> Probe:
        probes.append(Probe(name=life, first=sends(5) if not probes else ()))
        return probes[-1]

    host = m.host(make)
    m.run(lambda: len(m.topics[T][0]) == 5)
    host.crash()
    host.restart()
    m.run(limit=1000)
    assert len(m.topics[T][0]) == 5
    assert [p.name for p in probes] == ["life-0-1", "life-0-2"]
    assert all(isinstance(x, Tick) for x in probes[1].inputs)
    with pytest.raises(AssertionError, match="it lives"):
        host.restart()


def test_the_dead_handle_nothing():
    m = memory()
    probe = Probe(first=(Follow(T, 0, 0), *sends(3)))
    host = m.host(lambda life: probe)
    m.run(lambda: len(probe.records) == 1)
    host.crash()
    seen = len(probe.inputs)
    m.run(limit=1000)
    assert (len(probe.inputs), host.handled) == (seen, seen)


# ------------------------------------------------------------------ freezing


def test_the_frozen_stand_still_and_miss_nothing():
    m = memory()
    probe = Probe(first=(Follow(T, 0, 0), Ends("asked", T)))
    host = m.host(lambda life: probe)
    host.freeze()
    m.host(lambda life: Probe(first=sends(10)))
    m.run(limit=5_000)
    assert probe.inputs == []
    host.thaw()
    m.run(lambda: len(probe.records) == 10)
    assert probe.offsets() == list(range(10))
    assert probe.answer("asked").value == {0: 0, 1: 0}  # as it was when it asked
    assert min(probe.nows) >= 5_000


def test_what_the_frozen_sent_before_still_lands():
    m = memory(latency=(10, 10))
    host = m.host(lambda life: Probe(first=sends(3)))
    host.freeze()
    m.run(limit=100)
    assert len(m.topics[T][0]) == 3


def test_the_frozen_lose_their_seats_and_learn_of_it_late():
    m = memory(session_timeout=500)
    group = Membership("g", T)
    a, b = Probe(name="a", membership=group), Probe(name="b", membership=group)
    frozen = m.host(lambda life: a)
    m.host(lambda life: b)
    m.run(lambda: a.seats is not None and b.seats is not None and len(a.seats) == len(b.seats) == 1)
    had = a.seats
    frozen.freeze()
    m.run(limit=400)
    assert b.seats is not None
    assert len(b.seats) == 1  # its session is not over
    m.run(limit=200)
    assert b.seats == {0, 1}
    assert a.seats == had  # it believes itself in office
    frozen.thaw()
    m.run(lambda: b.seats is not None and len(b.seats) == 1, 1000)
    m.run(limit=100)
    assert a.seats is not None
    assert a.seats | b.seats == {0, 1}


def test_a_short_freeze_costs_no_seat():
    m = memory(session_timeout=500)
    a = Probe(name="a", membership=Membership("g", T))
    host = m.host(lambda life: a)
    m.run(limit=100)
    host.freeze()
    m.run(limit=300)
    host.thaw()
    m.run(limit=2_000)
    assert [x.seats for x in a.inputs if not isinstance(x, Tick)] == [{0, 1}]


# ------------------------------------------------------------------ network and clock


def test_copies_land_as_often_as_the_network_says_and_are_answered_once():
    m = memory()
    m.network = lambda host, send: [5, 50, 20]
    probe = Probe(first=sends(1))
    m.host(lambda life: probe)
    m.run(limit=200)
    assert [s.timestamp for s in m.topics[T][0]] == [5, 20, 50]
    assert [x.value for x in probe.inputs if not isinstance(x, Tick)] == [(0, 0)]


def test_a_record_bears_the_brokers_time():
    m = memory(latency=(30, 30))
    m.host(lambda life: Probe(first=(Send(T, b"x", partition=0),)))
    m.run(limit=100)
    assert m.topics[T][0][0].timestamp == 30


def test_the_clock_jumps_and_stops_at_the_limit():
    m = memory(start=1_000)
    assert m.run(limit=86_400_000)
    assert m.now == 86_401_000
    assert not m.run(lambda: False, 500)
    assert m.now == 86_401_500


def test_leaving_in_good_order_hands_the_seats_over_at_once():
    m = memory(session_timeout=60_000)
    a, b = (Probe(name=n, membership=Membership("g", T)) for n in "ab")
    hosts = [m.host(lambda life, p=p: p) for p in (a, b)]  # type: ignore[misc]
    m.run(limit=100)
    hosts[0].close()
    m.run(lambda: b.seats == {0, 1}, 100)
    assert b.seats == {0, 1}
    assert hosts[0].stopped == Stop("closed", ok=True)
