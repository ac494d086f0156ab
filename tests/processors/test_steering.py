"""Tasks that run are paused, go on, are changed and stopped (OLearning §4.1, Configurator): by later records of them."""

from collections.abc import Callable

from msgspec.structs import replace

from processors.steerer import Change, Steerer
from schemas.facts import EpochClosed, Finalised, Merged, Opened, Retired, TaskEnded, TaskUpdated
from schemas.task import Epochs, Server, Training, Upload
from schemas.topics import GLOBAL, read, topic
from streams.memory import Memory
from tests.plane import NS, Plane, spec

SPEC = replace(spec(deadline_s=100, lease_s=50), epochs=Epochs(count=3, rounds=4, deadline_s=60))


def of(plane: Plane, kind: type, zone: str = GLOBAL) -> list:
    return [f for f in plane.facts(zone) if isinstance(f, kind)]


def running(rounds: int = 2) -> Plane:
    """With so many rounds done in zone east."""
    plane = Plane(Memory(seed=2))
    plane.submit(SPEC)
    until(plane, lambda: _round(plane) > rounds)
    return plane


def _round(plane: Plane) -> int:
    t = plane.hosts["zone-east"].processor.zone.tasks.get("toy")
    return t.round if t else 0


def until(plane: Plane, holds: Callable[[], bool], limit: int = 400_000) -> None:
    assert plane.memory.run(holds, limit)


def steer(plane: Plane, change: Change, task: str = "toy", by: str = "ann") -> tuple[bool, str]:
    host = plane.memory.host(lambda life: Steerer(NS, task, change, by))
    until(plane, lambda: host.stopped is not None, 60_000)
    assert host.stopped
    return host.stopped.ok, host.stopped.reason


def test_a_paused_task_finishes_what_is_open_and_goes_on_when_told():
    plane = running()
    ok, said = steer(plane, Change("pause"))
    assert (ok, "is paused" in said) == (True, True)
    plane.memory.run(limit=30_000)
    before = {z: (len(of(plane, Opened, z)), len(of(plane, Finalised, z))) for z in plane.zones}
    assert all(opened == done for opened, done in before.values()), "what was open is finished"
    plane.memory.run(limit=120_000)  # longer than the epoch's deadline: a paused one does not end
    assert {z: (len(of(plane, Opened, z)), len(of(plane, Finalised, z))) for z in plane.zones} == before
    assert of(plane, EpochClosed) == []
    assert steer(plane, Change("run"))[0]
    until(plane, lambda: plane.ended("toy"))
    assert len(of(plane, Merged)) == 3
    assert [f.by for f in of(plane, TaskUpdated)] == ["ann", "ann"]


def test_a_stopped_task_ends_with_what_the_zones_have():
    plane = running()
    assert steer(plane, Change("stop")) == (True, "toy stops: its epoch ends now with what the zones have")
    until(plane, lambda: plane.ended("toy"), 20_000)
    assert [f.why for f in of(plane, EpochClosed)] == ["stop"]
    assert [f.why for f in of(plane, TaskEnded)] == ["stopped by ann"]
    (merged,) = of(plane, Merged)
    assert merged.manifest, "the rounds that were done are in a model"
    until(plane, lambda: all(of(plane, Retired, z) for z in plane.zones), 60_000)
    assert steer(plane, Change("run")) == (False, "toy has ended: stopped by ann")


def test_a_paused_task_can_be_stopped():
    plane = running()
    assert steer(plane, Change("pause"))[0]
    assert steer(plane, Change("stop"))[0]
    until(plane, lambda: plane.ended("toy"), 20_000)


def test_settings_hold_from_the_next_round_and_epoch_on():
    plane = running()
    new = replace(
        SPEC,
        training=Training(epochs=2),
        rounds=replace(SPEC.rounds, demand=4, minimum=4),
        epochs=Epochs(count=2, rounds=5, deadline_s=300),
    )
    ok, said = steer(plane, Change(spec=new))
    assert ok, said
    at = _round(plane)
    until(plane, lambda: plane.ended("toy"))
    demands = [f.demand for f in of(plane, Opened, "east")]
    assert demands[:at] == [6] * at
    assert set(demands[at:]) == {4}
    assert len(of(plane, Merged)) == 2
    assert len(of(plane, Finalised, "east")) == 10


def test_all_devices_of_a_round_train_alike_though_the_task_changes_in_its_midst():
    """Announcements are repeated while a round lasts: those of the round that was open say what held when it opened."""
    plane = Plane(Memory(seed=2), devices=3)  # too few: the first round lasts to its deadline
    plane.submit(replace(SPEC, rounds=replace(SPEC.rounds, deadline_s=30)))
    until(plane, lambda: _round(plane) == 1)
    assert steer(plane, Change(spec=replace(SPEC, training=Training(epochs=2))))[0]
    until(plane, lambda: _round(plane) == 2)
    plane.memory.run(limit=1_000)
    log = topic(NS, "east", "announcements").name
    said = [read(r.topic, r.value, r.headers) for r in plane.memory.records(log, 0)]
    assert len([a for a in said if a.round == 1]) > 3
    assert {a.training.epochs for a in said if a.round == 1} == {SPEC.training.epochs}
    assert {a.training.epochs for a in said if a.round == 2} == {2}


def test_what_cannot_change_is_refused_in_words_and_the_task_runs_on():
    plane = running()
    for change, what in (
        (replace(SPEC, server=Server("fedyogi")), "server"),
        (replace(SPEC, upload=Upload("int8")), "upload"),
        (replace(SPEC, zones=("east",)), "zones"),
        (replace(SPEC, rounds=replace(SPEC.rounds, staleness=1)), "rounds.staleness"),
    ):
        ok, said = steer(plane, Change(spec=change))
        assert not ok
        assert said.startswith(f"toy stays as it was: {what} cannot change")
    ok, said = steer(plane, Change(spec=replace(SPEC, epochs=Epochs(zones=3))))
    assert (ok, "more than the 2 zones" in said) == (False, True)
    assert of(plane, TaskUpdated) == []
    until(plane, lambda: plane.ended("toy"))
    assert len(of(plane, Merged)) == 3


def test_a_task_that_is_not_there_cannot_be_steered():
    plane = running()
    assert steer(plane, Change("pause"), "wine") == (False, "there is no task wine; there: toy")


def test_another_coordinator_goes_on_where_the_first_was():
    """The change is in the ledger; the record in `global.tasks` alone is none."""
    plane = running()
    assert steer(plane, Change("pause"))[0]
    for name in ("global", "zone-east", "zone-west"):
        plane.hosts[name].crash()
        plane.hosts[name].restart()
    plane.memory.run(limit=10_000)
    rounds = len(of(plane, Opened, "east"))
    plane.memory.run(limit=60_000)
    assert len(of(plane, Opened, "east")) == rounds
    assert steer(plane, Change("run"))[0]
    until(plane, lambda: plane.ended("toy"))
    assert len(of(plane, Merged)) == 3


def test_what_was_refused_does_not_stand_in_the_way_of_the_next_change():
    """The last record of the task is not what holds for it."""
    plane = running()
    assert not steer(plane, Change(spec=replace(SPEC, server=Server("fedyogi"))))[0]
    assert steer(plane, Change("pause")) == (True, "toy is paused: it opens no round and no epoch until it goes on")
    assert steer(plane, Change("stop"))[0]
    assert [f.spec.server for f in of(plane, TaskUpdated)] == [SPEC.server] * 2
    until(plane, lambda: plane.ended("toy"), 20_000)


def test_who_steers_a_task_that_ends_meanwhile_is_told_so():
    plane = running()
    host = plane.memory.host(lambda life: Steerer(NS, "toy", Change("pause"), "bob"))
    until(plane, lambda: host.processor.sent, 5_000)
    plane.hosts["global"].processor.configurator.submitted.clear()  # it ended before it read this
    plane.hosts["global"].processor.configurator.submission = lambda record: iter(())
    until(plane, lambda: host.stopped is not None, 400_000)
    until(plane, lambda: plane.ended("toy"), 1_000)
    assert (host.stopped.ok, host.stopped.reason) == (False, "toy has ended: all 3 epochs are done")
