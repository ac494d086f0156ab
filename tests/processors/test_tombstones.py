"""Who reads a tombstone takes it for what it is: nothing is kept under its key any more, and a task stands as the ledger says."""

import pytest
from msgspec.structs import replace

from olearning.simulation import Observer
from olearning.view import View
from processors.steerer import Change, Steerer
from schemas.facts import TaskAdmitted, TaskRefused
from schemas.messages import Evaluation
from schemas.topics import GLOBAL, topic
from streams.memory import Memory
from streams.processor import Record, Send, send
from tests.plane import NS, Plane, spec


def bury(plane: Plane, *tasks: str) -> None:
    """Tombstones for all that is kept of these tasks."""
    for task in tasks:
        for scope, what in ((GLOBAL, "tasks"), (GLOBAL, "evaluations"), *((z, "announcements") for z in plane.zones)):
            name = topic(NS, scope, what).name
            for p in range(len(plane.memory.topics[name])):
                plane.memory.append(Send(name, None, task, p))


def trained(tombstones: bool) -> Plane:
    """Two tasks, one after the other; in the midst of the second everything starts anew and reads all from the start."""
    plane = Plane(Memory(seed=3))
    plane.standbys()
    plane.submit(spec("one", epochs=1, rounds=1))
    assert plane.memory.run(lambda: plane.ended("one"), 60_000)
    for task in ("one", "two"):
        said = Evaluation("eval", plane.memory.now, task, 1, 1, 0.5, 0.5, 9)
        plane.memory.append(send(topic(NS, GLOBAL, "evaluations"), said, task))
    plane.submit(spec("two", epochs=2, rounds=2))
    assert plane.memory.run(lambda: "two" in plane.zone("west").tasks, 60_000)
    if tombstones:
        bury(plane, "one", "two")
    plane.memory.run(limit=2_000)
    for host in plane.hosts.values():
        host.crash()
        host.restart()
    assert plane.memory.run(lambda: plane.ended("two"), 300_000)
    return plane


@pytest.fixture(scope="module")
def plane() -> Plane:
    return trained(tombstones=True)


def test_they_stop_nobody_and_are_no_dead_letters(plane):
    assert not [h.stopped for h in plane.hosts.values() if h.stopped]
    assert plane.memory.records(topic(NS, GLOBAL, "dead-letters").name) == []


def test_they_change_no_task_not_even_one_that_runs(plane):
    assert plane.model("two").tobytes() == trained(tombstones=False).model("two").tobytes()
    assert [f.spec.task for f in plane.facts(GLOBAL) if isinstance(f, TaskAdmitted)] == ["one", "two"]
    assert plane.globe().over["two"].why == "all 2 epochs are done"
    assert not [f for f in plane.all_facts(GLOBAL) if isinstance(f, TaskRefused)]


def test_a_name_that_was_over_stays_refused_and_its_task_cannot_be_steered(plane):
    told = plane.submit(spec("one"))
    steered = plane.memory.host(lambda life: Steerer(NS, "one", Change("stop"), "ann"))
    assert plane.memory.run(lambda: bool(told.stopped and steered.stopped), 60_000)
    assert "names are never used again" in told.stopped.reason
    assert "one has ended" in steered.stopped.reason


def test_a_task_that_runs_can_still_be_steered():
    plane = Plane(Memory(seed=3))
    plane.submit(spec("toy", epochs=9, rounds=9))
    assert plane.memory.run(lambda: "toy" in plane.zone("west").tasks, 60_000)
    bury(plane, "toy")
    told = plane.memory.host(lambda life: Steerer(NS, "toy", Change("stop"), "ann"))
    assert plane.memory.run(lambda: told.stopped is not None and plane.ended("toy"), 60_000)
    assert told.stopped.ok, told.stopped.reason


def test_they_are_read_as_the_end_of_the_topic_is():
    """Whether a tenant is silent is known once all that there is was read: up to a tombstone, too."""
    plane = Plane(Memory(seed=3))
    plane.submit(replace(spec("toy", epochs=9, rounds=9), silent_s=5.0))
    assert plane.memory.run(lambda: "toy" in plane.globe().tasks, 60_000)
    plane.memory.append(Send(topic(NS, GLOBAL, "tasks").name, None, "other", 0))
    assert plane.memory.run(lambda: plane.ended("toy"), 60_000)
    assert "silence" in plane.globe().over["toy"].why


def test_they_are_no_sign_that_a_leader_lives():
    plane = Plane(Memory(seed=3))
    view = plane.memory.host(lambda life: View(NS, plane.zones)).processor
    assert plane.memory.run(lambda: view.caught_up, 20_000)
    for zone in plane.zones:
        plane.hosts[f"zone-{zone}"].crash()
    plane.memory.run(limit=1_000)
    before = dict(view.announced)
    bury(plane, "one")
    plane.memory.run(limit=1_000)
    assert view.announced == before


def test_who_watches_a_simulation_leaves_them_out():
    observer = Observer({})
    assert [*observer.handle(Record(observer.evaluations, 0, 0, "toy", None, 0), 0)] == []
    assert observer.epochs == {}


def test_a_record_without_a_value_is_one_where_the_last_of_each_key_is_kept():
    assert Record(f"{NS}.global.tasks", 0, 0, "toy", None, 0).tombstone
    assert not Record(f"{NS}.global.tasks", 0, 0, "toy", b"", 0).tombstone
    assert not Record(f"{NS}.east.receipts", 0, 0, "toy", None, 0).tombstone
