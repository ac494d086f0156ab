"""Other work comes as often as was asked, takes what it may, and makes runs longer; a fleet counts who has some."""

import pytest

from device_sim.busy import LEAST, MOST, Busy
from device_sim.fleet import Fleet
from device_sim.population import Population
from olearning.roles import population
from schemas.messages import FleetReport
from schemas.topics import GLOBAL, read, topic
from streams.memory import Memory
from tests.plane import NS, Arithmetic, Plane, spec


def test_it_comes_as_often_as_asked_and_takes_what_it_may():
    shares = [Busy("d", 0.3, 1_000, seed=4)(1_000 * n) for n in range(3_000)]
    taken = [x for x in shares if x]
    assert 0.27 < len(taken) / len(shares) < 0.33
    assert all(LEAST <= x <= MOST for x in taken)
    assert min(taken) < 0.25 < 0.75 < max(taken)
    again = Busy("d", 0.3, 1_000, seed=4)
    assert [again(1_000 * n + 999) for n in range(50)] == shares[:50], "it lasts its span, and is the same each time"
    assert [Busy("e", 0.3, 1_000, seed=4)(1_000 * n) for n in range(50)] != shares[:50]
    assert not any(Busy("d", 0.0, 1_000)(1_000 * n) for n in range(50))


def test_devices_have_some_as_their_fleet_was_told():
    assert all(d.busy is None for d in Population("z", 3).devices())
    a, b = population("z", {"count": "2", "day-seconds": "48", "busy": "1"}).devices()
    assert a.busy
    assert b.busy
    assert (a.busy(0), a.busy(1_999)) == (a.busy(1_000), a.busy(1_000)) != (0.0, 0.0), "for an hour of a day of 48 s"
    assert a.busy(0) != a.busy(2_000)
    assert a.busy(0) != b.busy(0)
    with pytest.raises(ValueError, match="busy is a share of their time from 0 to 1, not 2"):
        Population("z", 1, busy=2.0)


def run(busy: float) -> tuple[int, int]:
    """When a task is over, and of how many devices the fleet says then that they have other work."""
    plane = Plane(Memory(seed=2), zones=("east",), devices=0)
    crowd = Population("east", 6, busy=busy).devices()
    plane.host("some", lambda life: Fleet(NS, "east", "some", life, crowd, Arithmetic(), plane.manner))
    plane.submit(spec(epochs=1, rounds=1))
    assert plane.memory.run(lambda: plane.ended("toy"), 60_000)
    end = plane.memory.now
    plane.memory.run(limit=2_000)
    records = plane.memory.records(topic(NS, GLOBAL, "metrics").name)
    return end, [m for r in records if isinstance(m := read(r.topic, r.value, r.headers), FleetReport)][-1].busy


def test_a_fleet_says_how_many_have_some_and_their_runs_take_longer():
    (free, nobody), (slow, all_) = run(0.0), run(1.0)
    assert (nobody, all_) == (0, 6)
    assert slow > free
