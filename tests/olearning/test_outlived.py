"""Topics of tasks that are over go when nobody can miss them, and no others; who comes late with a delta harms nobody."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

import olearning.outlived
from device_sim.device import TRAINING
from olearning.outlived import Outlived, outlived
from processors.steerer import Change, Steerer
from schemas.topics import topic
from streams.memory import Memory
from tests.olearning import over
from tests.olearning.over import KEPT
from tests.plane import NS, spec


class World(over.World):
    def drop(self, age: int = 0, dry: bool = False) -> list[Outlived]:
        async def topics() -> set[str]:
            return set(self.memory.topics)

        async def remove(name: str) -> None:
            del self.memory.topics[name]

        cluster = SimpleNamespace(remove=remove)
        kafka: Any = SimpleNamespace(clock=lambda: self.memory.now, topics=topics, cluster=lambda name: cluster)

        async def go() -> list[Outlived]:
            return [t async for t in outlived(kafka, self.view, age, dry)]

        return asyncio.run(go())

    def deltas(self) -> set[str]:
        return {name for name in self.memory.topics if ".deltas." in name}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(olearning.outlived, "KEPT", KEPT)
    return World(Memory(seed=2), devices=2)


def named(task: str) -> set[str]:
    return {topic(NS, z, "deltas", task).name for z in ("east", "west")}


def test_those_of_tasks_that_are_over_long_enough_go_and_no_others(world):
    world.age(world.drop)
    assert world.drop(age=3_600_000) == []
    would = world.drop(dry=True)
    assert {t.topic for t in would} == named("one") <= world.deltas()
    assert {(t.zone, t.task, t.since) for t in would} == {
        (z, "one", world.zone(z).over["one"].time) for z in world.zones
    }
    assert world.drop() == would
    assert world.deltas() == named("two") | named("three")
    assert world.drop() == []
    world.memory.run(limit=10_000)
    assert not [h.stopped for h in world.memory.hosts if h.stopped and not h.stopped.ok]
    assert world.view.snapshot(world.memory.now).task("one").state == "ended"


def test_its_name_is_not_used_again_and_no_topic_of_it_is_made(world):
    world.train("one")
    world.memory.run(limit=KEPT)
    assert world.drop()
    told = world.submit(spec("one"))
    assert world.memory.run(lambda: told.stopped is not None, 60_000)
    assert not told.stopped.ok
    assert "names are never used again" in told.stopped.reason
    assert world.deltas() == set()


def test_an_edge_that_was_asleep_drops_a_delta_for_it_and_goes_on(world):
    fleet = world.hosts["fleet-east"]
    world.submit(spec("one", demand=2, minimum=1, epochs=1, rounds=9, deadline_s=20, lease_s=10))
    busy = lambda: any(j.state == TRAINING for d in fleet.processor.devices for j in d.jobs.values())  # noqa: E731
    assert world.memory.run(busy, 20_000)
    fleet.freeze()
    world.memory.host(lambda life: Steerer(NS, "one", Change("stop"), "ann"))
    assert world.memory.run(lambda: world.ended("one") and "one" in world.zone("east").over, 60_000)
    world.memory.run(limit=KEPT + 1_000)
    assert {t.topic for t in world.drop()} == named("one")
    fleet.thaw()
    world.train("two")
    assert fleet.stopped is None
    assert fleet.processor.outboxes["east"].sent > 2, "what was trained for the task that is over went nowhere"
    assert world.deltas() == named("two")
