"""When an epoch ends, and which zones take part (OLearning §4.2; `schemas.task.Epochs`)."""

import pytest
from msgspec.structs import replace

from learning.rewards import Measured, progress
from processors.steerer import Change, Steerer
from schemas.facts import Admitted, EpochClosed, EpochOpened, Finalised, Merged, Opened, Taken, TaskRefused
from schemas.task import BadTask, Epochs, parse
from schemas.topics import GLOBAL
from streams.memory import Memory
from tests.plane import NS, Plane, spec

PATIENT = {"deadline_s": 100, "lease_s": 5}


def begin(epochs: Epochs, away: str = "", zones: tuple[str, ...] = ("east", "west"), **more) -> Plane:
    """A plane whose fleet in zone `away` never comes."""
    plane = Plane(Memory(seed=5), zones=zones)
    if away:
        plane.hosts[f"fleet-{away}"].crash()
    plane.submit(replace(spec(**(PATIENT | more)), epochs=epochs))
    return plane


def whole(epochs: Epochs, **more) -> Plane:
    plane = begin(epochs, **more)
    assert plane.memory.run(lambda: plane.ended("toy"), 4_000_000), "it does not end"
    return plane


def of(plane: Plane, kind: type, zone: str = GLOBAL) -> list:
    return [f for f in plane.facts(zone) if isinstance(f, kind)]


def times(plane: Plane, kind: type, zone: str = GLOBAL) -> list[int]:
    """When the ledger got these facts (ms)."""
    return [r.timestamp for r, f in zip(plane.ledger(zone), plane.all_facts(zone), strict=True) if isinstance(f, kind)]


def test_whoever_does_not_lead_keeps_nothing_of_a_task_that_is_over():
    plane = begin(Epochs(count=2, rounds=2))
    plane.standbys()
    assert plane.memory.run(lambda: plane.ended("toy"), 200_000)
    plane.memory.run(limit=2_000)
    assert all("toy" in plane.zone(z).over for z in plane.zones)
    kept = {name: plane.hosts[name].processor.leader.finals for name in ("global", "global-b")}
    assert kept == {"global": {}, "global-b": {}}


def test_without_a_deadline_it_waits_for_all_zones():
    plane = begin(Epochs(count=1, rounds=2, deadline_s=0), away="west")
    plane.memory.run(limit=60_000)  # three times the deadline of the next test
    assert of(plane, EpochClosed) == []
    assert len(of(plane, Finalised, "east")) == 2
    plane.hosts["fleet-west"].restart()
    assert plane.memory.run(lambda: plane.ended("toy"), 4_000_000)
    assert [f.why for f in of(plane, EpochClosed)] == ["rounds"]
    assert {u.zone for f in of(plane, Taken) for u in f.updates} == {"east", "west"}


def test_at_the_deadline_it_ends_with_the_zones_that_have_something():
    plane = whole(Epochs(count=1, rounds=2, deadline_s=20), away="west")
    assert [f.why for f in of(plane, EpochClosed)] == ["deadline"]
    assert {u.zone for f in of(plane, Taken) for u in f.updates} == {"east"}
    assert times(plane, EpochClosed)[0] - times(plane, EpochOpened)[0] >= 20_000


def test_a_zone_without_an_update_was_where_the_epoch_began():
    """Its contribution is that of the model it has: the last global one."""
    plane = whole(Epochs(count=1, rounds=2, deadline_s=20), away="west")
    assert of(plane, Merged)[0].contributions == {"east": 0.0, "west": 1.0}


def test_with_enough_zones_it_does_not_wait_for_the_rest():
    plane = whole(Epochs(count=2, rounds=2, deadline_s=0, enough=1), away="west")
    assert [f.why for f in of(plane, EpochClosed)] == ["enough", "enough"]
    assert times(plane, EpochClosed)[-1] - times(plane, EpochOpened)[0] < 100_000


def test_a_window_of_time_takes_as_many_rounds_as_there_is_time_for():
    plane = whole(Epochs(count=2, rounds=1000, deadline_s=0, window_s=10))
    assert [f.why for f in of(plane, EpochClosed)] == ["window", "window"]
    for opened, closed in zip(times(plane, EpochOpened), times(plane, EpochClosed), strict=True):
        assert 10_000 <= closed - opened < 13_000
    for zone in plane.zones:
        rounds = of(plane, Finalised, zone)
        assert len(rounds) > 10
        assert all(f.manifest for f in rounds)
        assert [f.round for f in of(plane, Opened, zone)] == list(range(1, len(rounds) + 1))
    # Every round's samples are in a merge: none came too late for its epoch.
    done = sum(f.samples for z in plane.zones for f in of(plane, Finalised, z))
    assert sum(f.samples for f in of(plane, Merged)) == done


def test_in_a_window_no_round_outlives_it():
    """With a zone whose devices are away: its round ends when the window does, and the epoch with it."""
    plane = whole(Epochs(count=1, rounds=1000, deadline_s=0, window_s=10), away="west")
    assert times(plane, EpochClosed)[0] - times(plane, EpochOpened)[0] < 13_000
    assert [f.manifest for f in of(plane, Finalised, "west")] == [None]


def test_some_zones_take_part_and_each_has_its_turn():
    zones = ("asia", "europe", "mars")
    plane = whole(Epochs(count=6, rounds=1, deadline_s=0, zones=1), zones=zones)
    part = [f.zones for f in of(plane, EpochOpened)]
    assert all(len(p) == 1 for p in part)
    assert {z for p in part for z in p} == set(zones)
    for f in of(plane, EpochOpened):
        here = {z for z in zones if any(o.epoch == f.epoch for o in of(plane, Opened, z))}
        assert here == set(f.zones)


def test_more_zones_than_there_are_are_refused():
    plane = begin(Epochs(zones=3))
    plane.memory.run(limit=5_000)
    assert [f.reason for f in of(plane, TaskRefused)] == ["epochs.zones (3) is more than the 2 zones of the task"]


@pytest.mark.parametrize(
    ("epochs", "words"),
    [
        ({"window_s": 100, "deadline_s": 50}, "make it more than epochs.window_s"),
        ({"zones": 2, "enough": 3}, "more than the epochs.zones that take part"),
        ({"deadline_s": -1}, "deadline_s"),
    ],
)
def test_a_task_file_that_cannot_be_is_refused(epochs, words):
    with pytest.raises(BadTask, match=words):
        parse({"task": "t", "model": "m", "data": "d", "epochs": epochs})


def test_what_a_zone_did_too_late_for_its_epoch_is_stale_by_one():
    """West's last round is over when its epoch is; in the next epoch west does nothing else, so this is its update."""
    plane = begin(Epochs(count=2, rounds=2, deadline_s=30), deadline_s=25, minimum=1)
    west, zone = plane.hosts["fleet-west"], plane.hosts["zone-west"]
    assert plane.memory.run(lambda: sum(len(f.slots) for f in of(plane, Admitted, "west")) == 6, 60_000)
    zone.freeze()  # what its devices send lies in the log; the round is finalised later
    assert plane.memory.run(lambda: len(of(plane, EpochClosed)) == 1, 100_000)
    west.crash()
    plane.hosts["zone-west"].thaw()
    assert plane.memory.run(lambda: plane.ended("toy"), 400_000)
    late = [f for f in of(plane, Finalised, "west") if f.manifest]
    opened = {o.round: o.epoch for o in of(plane, Opened, "west")}
    assert late, "it came"
    assert {opened[f.round] for f in late} == {1}
    (update,) = [u for f in of(plane, Taken) if f.epoch == 2 for u in f.updates if u.zone == "west"]
    assert update.manifest == late[-1].manifest


def test_a_zones_progress_is_that_after_the_round_it_is_taken_with():
    """Whatever the zone did beyond the epoch's end before a leader took it."""
    plane = begin(Epochs(count=1, rounds=50, deadline_s=0))
    assert plane.memory.run(lambda: len(of(plane, Finalised, "east")) >= 4, 400_000)
    assert steer_stop(plane)
    for _ in range(20_000):
        if of(plane, EpochClosed):
            break
        plane.memory.run(limit=1)
    assert of(plane, Taken) == []
    plane.hosts["global"].crash()
    plane.memory.run(limit=30_000)
    plane.hosts["global"].restart()
    assert plane.memory.run(lambda: plane.ended("toy"), 400_000)
    (closed,) = of(plane, EpochClosed)
    for f in of(plane, Taken):
        for u in f.updates:
            done = of(plane, Finalised, u.zone)
            a, b = (Measured(x.norm, x.loss / 1e6 / x.samples) for x in done if x.round in (u.round - 1, u.round))
            assert len(done) > u.round, "else this shows nothing"
            assert u.progress == progress([a, b])
    assert closed.why == "stop"


def steer_stop(plane: Plane) -> bool:
    host = plane.memory.host(lambda life: Steerer(NS, "toy", Change("stop"), "ann"))
    return plane.memory.run(lambda: host.processor.sent, 5_000)


def test_a_window_too_short_for_a_lease_is_refused():
    """No round would ever open in it."""
    plane = begin(Epochs(window_s=4, deadline_s=0))
    plane.memory.run(limit=5_000)
    (refused,) = of(plane, TaskRefused)
    assert refused.reason.startswith(
        "epochs.window_s (4) is shorter than rounds.lease_s (5), so no round would ever open"
    )


@pytest.mark.parametrize("days", [4, 5])
def test_a_round_that_outlasts_its_sums_is_refused(days):
    """Partials are kept for seven days: what was counted first would be gone when the round is finalised."""
    plane = Plane(Memory())
    host = plane.submit(spec(deadline_s=86_400.0 * days))
    assert plane.memory.run(lambda: host.stopped, 20_000)
    assert host.stopped.ok is (days == 4)
    assert (
        days == 4
        or "rounds.deadline_s (432000) is more than 403200: partial sums are kept for 7 days" in host.stopped.reason
    )
