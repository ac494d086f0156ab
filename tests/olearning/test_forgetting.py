"""Of tasks that are over long enough topics keep nothing; of all others, and under all other keys, what they had."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

import olearning.outlived
from olearning.forgetting import Forgetting, Forgotten
from olearning.outlived import over_before
from olearning.view import View
from processors.submitter import Submitter
from schemas.facts import TaskAdmitted
from schemas.messages import Evaluation
from schemas.sharing import PLAN, SharingPlan
from schemas.task import Submission
from schemas.topics import GLOBAL, topic
from streams.memory import Host, Memory
from streams.processor import send
from tests.olearning import over
from tests.olearning.over import KEPT
from tests.plane import LAYOUT, NS, START, spec

TASKS, EVALUATIONS = (topic(NS, GLOBAL, what) for what in ("tasks", "evaluations"))


class World(over.World):
    def begin(self, age: int = 0, dry: bool = False) -> Host:
        return self.memory.host(lambda life: Forgetting(self.view, over_before(self.memory.now, age), dry))

    def forget(self, age: int = 0, dry: bool = False) -> list[Forgotten]:
        host = self.begin(age, dry)
        assert self.memory.run(lambda: host.stopped is not None, 20_000)
        assert host.stopped.ok, host.stopped.reason
        return host.processor.found

    def train(self, task: str) -> None:
        super().train(task)
        self.score(task)

    def score(self, task: str) -> None:
        self.memory.append(send(EVALUATIONS, Evaluation("eval", self.memory.now, task, 1, 1, 0.5, 0.5, 9), task))

    def logs(self) -> list[tuple[str, int]]:
        """The partitions of all topics in which the last record of a task is kept."""
        names = [TASKS.name, EVALUATIONS.name, *(topic(NS, z, "announcements").name for z in self.zones)]
        return [(name, p) for name in names for p in range(len(self.memory.topics[name]))]

    def last(self) -> dict[str, set[tuple[str, int]]]:
        """By key, where a record of it is kept."""
        out: dict[str, set[tuple[str, int]]] = {}
        for log in self.logs():
            for r in self.memory.records(*log):
                there = out.setdefault(r.key or "", set())
                (there.discard if r.tombstone else there.add)(log)
        return out

    def tombstones(self) -> Counter[tuple[str, int, str]]:
        found = (r for log in self.logs() for r in self.memory.records(*log) if r.tombstone)
        return Counter((r.topic, r.partition, r.key or "") for r in found)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(olearning.outlived, "KEPT", KEPT)
    world = World(Memory(seed=2), devices=2)
    for z in world.zones:
        for p in range(world.partitions):
            world.memory.append(send(topic(NS, z, "announcements"), SharingPlan(z, 0, "reward", chosen=True), PLAN, p))
    return world


def test_records_of_tasks_that_are_over_long_enough_go_and_no_others(world):
    world.age(world.forget)
    world.score("three")
    assert world.forget(age=3_600_000) == []
    before = world.last()
    assert before["one"] == before["two"] == before["three"] == set(world.logs())
    would = world.forget(dry=True)
    assert {(x.topic, x.task, x.tombstones) for x in would} == {
        (TASKS.name, "one", 1),
        (EVALUATIONS.name, "one", 1),
        *((topic(NS, z, "announcements").name, "one", world.partitions) for z in world.zones),
    }
    overs = {GLOBAL: world.globe(), **{z: world.zone(z) for z in world.zones}}
    assert all(x.since == overs[x.zone].over["one"].time for x in would)
    assert world.tombstones() == {}, "it was a dry run"
    assert world.forget() == would
    assert world.last() == before | {"one": set()}
    assert before[PLAN] == set(world.logs()[2:])
    assert world.forget() == []
    assert world.tombstones() == dict.fromkeys(((*log, "one") for log in world.logs()), 1)


def test_where_there_is_no_record_there_is_no_tombstone(world):
    """Nobody scored it, and it ran in one zone alone."""
    world.submit(replace(spec("one", demand=2, epochs=1, rounds=1), zones=("east",)))
    assert world.memory.run(lambda: world.ended("one"), 100_000)
    world.memory.run(limit=KEPT + 2_000)
    assert {x.topic for x in world.forget()} == {TASKS.name, topic(NS, "east", "announcements").name}


@pytest.mark.parametrize("landed", [0, 1, 5, 9])
def test_who_was_killed_in_the_midst_runs_again_and_writes_what_is_missing(world, landed):
    world.train("one")
    world.train("two")
    world.memory.run(limit=KEPT)
    first = world.begin()
    assert world.memory.run(lambda: world.tombstones().total() >= landed and first.processor.written, 20_000)
    first.crash()
    world.memory.run(limit=1_000)
    there = world.tombstones()
    assert landed <= there.total() < 2 * len(world.logs()), "else nothing is missing"
    assert sum(x.tombstones for x in world.forget()) == 2 * len(world.logs()) - there.total()
    assert world.tombstones() == dict.fromkeys(((*log, task) for log in world.logs() for task in ("one", "two")), 1)


LATE: dict[str, Callable[[World], object]] = {
    "a submission": lambda w: w.memory.append(send(TASKS, Submission(spec("one"), LAYOUT, manifest(w)), "one")),
    "a score": lambda w: w.score("one"),
}


def manifest(world: World) -> Any:
    return next(f.manifest for f in world.facts(GLOBAL) if isinstance(f, TaskAdmitted))


@pytest.mark.parametrize("late", LATE)
def test_what_comes_late_of_it_is_left_out_and_goes_the_next_time(world, late):
    """Just before the tombstones, which lie behind it then, or after them."""
    world.train("one")
    world.memory.run(limit=KEPT)
    said = world.globe()
    host = world.begin()
    assert world.memory.run(lambda: host.processor.written, 20_000)
    LATE[late](world)
    assert world.memory.run(lambda: host.stopped is not None, 20_000)
    world.memory.run(limit=2_000)
    LATE[late](world)
    world.memory.run(limit=2_000)
    (again,) = world.forget()
    assert (again.task, again.tombstones) == ("one", 1)
    assert world.last()["one"] == set()
    assert world.globe().over == said.over
    assert world.globe().tasks == {}
    assert not [h.stopped for h in world.hosts.values() if h.stopped]


def compact(world: World) -> None:
    """Leave of each key the last record, and nothing of what has a tombstone, as a broker does in time."""
    for name, p in world.logs():
        log = world.memory.topics[name][p]
        last = {s.key: i for i, s in enumerate(log)}
        for i, s in enumerate(log):
            if s.value is None or last[s.key] != i:
                s.key = s.value = None


def test_a_plane_that_never_heard_of_it_refuses_its_name_and_trains_others(world):
    """Everything starts anew when the broker has deleted records and tombstones alike."""
    world.train("one")
    world.memory.run(limit=KEPT)
    assert world.forget()
    compact(world)
    assert not [r for log in world.logs() for r in world.memory.records(*log) if r.key == "one"]
    for host in world.hosts.values():
        host.crash()
        host.restart()
    view = world.memory.host(lambda life: View(NS, world.zones)).processor
    told = world.memory.host(lambda life: Submitter(NS, life, spec("one"), LAYOUT, START))
    world.train("two")
    assert "names are never used again" in told.stopped.reason
    assert view.snapshot(world.memory.now).task("one").state == "ended"
    again = world.forget()  # who leads now has said the last word again, as of all that ended lately
    assert {(x.topic, x.task) for x in again} == {(topic(NS, z, "announcements").name, "one") for z in world.zones}
    world.memory.run(limit=KEPT)
    assert {x.task for x in world.forget()} == {"two"}
    assert world.memory.records(topic(NS, GLOBAL, "dead-letters").name) == []
    assert not [h.stopped for h in world.hosts.values() if h.stopped]


def test_what_cannot_be_read_is_said(world):
    world.train("one")
    world.memory.run(limit=KEPT)
    del world.memory.topics[EVALUATIONS.name]
    host = world.begin()
    assert world.memory.run(lambda: host.stopped is not None, 60_000)
    assert (host.stopped.ok, host.stopped.reason) == (False, f"prune: topic {EVALUATIONS.name} does not exist")
