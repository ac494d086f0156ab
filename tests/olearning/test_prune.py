"""Versions that nobody needs are deleted while a plane trains, and no bit of a model changes by it."""

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import olearning.prune
from olearning.prune import Pruned, prune
from olearning.view import View
from schemas.facts import Finalised, Lost
from schemas.topics import GLOBAL, topic
from streams.models import Lost as Gone
from streams.models import look_up
from tests.plane import NS, Archive, Plane, spec

AGE, SHORT = 2_000, 300


class Cluster:
    """What is asked of a cluster, asked of a log in memory."""

    def __init__(self, memory: Archive):
        self.memory = memory

    async def starts(self, name: str) -> dict[int, int]:
        return {p: self.memory.span(name, p)[0] for p in range(len(self.memory.topics[name]))}

    async def since(self, name: str, at: int) -> dict[int, tuple[int, int]]:
        ends = {p: self.memory.span(name, p)[1] for p in range(len(self.memory.topics[name]))}
        young = lambda p: (r.offset for r in self.memory.records(name, p) if r.timestamp >= at)  # noqa: E731
        return {p: (next(young(p), end), end) for p, end in ends.items()}

    async def cut(self, name: str, partition: int, offset: int) -> None:
        self.memory.cut(name, partition, offset)


class World(Plane):
    """A plane, and a view of it that has read to the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.view: Any = self.memory.host(lambda life: View(NS, self.zones)).processor

    def prune(self, age: int = AGE, dry: bool = False, ended: int | None = None) -> dict[tuple[str, int], Pruned]:
        kafka: Any = SimpleNamespace(clock=lambda: self.memory.now, cluster=lambda name: Cluster(self.memory))

        async def go() -> list[Pruned]:
            return [p async for p in prune(kafka, self.view, age, dry, ended)]

        return {(p.topic, p.partition): p for p in asyncio.run(go())}

    def train(self, *tasks: str, pruned: int = AGE) -> int:
        """Submit and run to the end, pruning what is so old twice a second, or never; how many records went."""
        for task in tasks:
            self.submit(spec(task, epochs=4, rounds=3, deadline_s=20, lease_s=10))
        gone = 0
        for _ in range(400):
            self.memory.run(limit=500)
            if pruned:
                gone += sum(p.cut - p.start for p in self.prune(pruned).values())
            if all(self.ended(t) for t in tasks):
                return gone
        raise AssertionError("it does not end")


def left(world: World, scope: str) -> int:
    """Records that its log of models still holds."""
    name = topic(NS, scope, "models").name
    return sum(len(world.memory.records(name, p)) for p in range(len(world.memory.topics[name])))


def model(world: World, task: str) -> np.ndarray:
    """The last version, of what the log still has."""
    kept, name = world.globe().over[task].model, topic(NS, GLOBAL, "models").name
    return look_up(kept, partial(world.memory.records, name))


def test_models_are_bit_for_bit_those_of_a_plane_that_keeps_all():
    kept, world = World(Archive()), World(Archive())
    kept.train("toy", "other", pruned=0)
    assert world.train("toy", "other") > 50
    for task in ("toy", "other"):
        assert model(world, task).tobytes() == model(kept, task).tobytes()
    assert left(world, "east") < left(kept, "east") / 3
    assert not [f for z in world.zones for f in world.facts(z) if isinstance(f, Lost)]


def test_who_forgets_what_ledgers_name_is_found_out(monkeypatch):
    """A control: were the ledgers not asked, zones would lose what they train from."""
    assert World(Archive()).train("toy", pruned=SHORT) > 0
    monkeypatch.setattr(olearning.prune, "manifests", lambda globe, zones: iter(()))
    with pytest.raises(AssertionError, match="it does not end"):
        World(Archive()).train("toy", pruned=SHORT)


def test_of_a_task_that_is_over_the_last_version_stays_and_its_zones_keep_nothing():
    world = World(Archive())
    world.train("toy", pruned=0)
    world.memory.run(limit=AGE + 5_000)
    before, last = {z: left(world, z) for z in (GLOBAL, *world.zones)}, world.model("toy")
    would = world.prune(dry=True)
    assert {z: left(world, z) for z in before} == before
    assert world.prune() == would
    assert [left(world, z) for z in world.zones] == [0, 0]
    models, version = topic(NS, GLOBAL, "models").name, world.globe().over["toy"].model.version
    (held,) = (p for p in would.values() if p.held)
    assert (held.topic, held.held) == (models, f"a ledger names version {version} of toy")
    assert 0 < left(world, GLOBAL) < before[GLOBAL]
    assert model(world, "toy").tobytes() == last.tobytes()


def test_what_came_of_tasks_that_are_over_for_long_goes_if_it_is_said():
    """Both lie in one partition: what came of the first held all that lies behind it."""
    world, models = World(Archive(), partitions=1), topic(NS, GLOBAL, "models").name
    world.train("one", pruned=0)
    world.memory.run(limit=4 * AGE)
    world.train("two", pruned=0)
    world.submit(spec("three", epochs=9, rounds=9))
    world.memory.run(limit=2 * AGE)
    one, two = world.globe().over["one"], world.globe().over["two"]
    two_model = model(world, "two").tobytes()
    (held,) = (p.held for p in world.prune().values() if p.topic == models)
    assert held == f"a ledger names version {one.model.version} of one"
    (kept,) = (p for p in world.prune(ended=world.memory.now - one.time).values() if p.topic == models)
    assert kept.held == held, "it is not over for so long yet"
    before = left(world, GLOBAL)
    (gone,) = (p for p in world.prune(ended=world.memory.now - one.time - 1).values() if p.topic == models)
    assert gone.held == f"a ledger names version {two.model.version} of two"
    assert left(world, GLOBAL) < before / 2
    assert model(world, "two").tobytes() == two_model
    with pytest.raises(Gone, match=f"block 0 of the last version, {one.model.version}, is not there"):
        model(world, "one")


def test_versions_that_are_young_stay_whoever_names_them():
    world = World(Archive())
    world.train("toy", pruned=0)
    assert not [p for p in world.prune(age=3_600_000).values() if p.cut > p.start]
    assert {p.held for p in world.prune(age=3_600_000).values() if p.end > p.start} == {"what follows is younger"}


def test_results_that_wait_for_the_globe_stay():
    """However long it is away; and then it goes on as if nothing had been."""
    kept, world = World(Archive()), World(Archive())
    kept.train("toy", pruned=0)
    world.submit(spec("toy", epochs=4, rounds=3, deadline_s=20, lease_s=10))
    assert world.memory.run(lambda: any(isinstance(f, Finalised) for f in world.facts("east")), 60_000)
    world.hosts["global"].crash()
    world.memory.run(limit=10 * AGE)
    pruned = world.prune()
    waits = {p.held for (name, _), p in pruned.items() if name != topic(NS, GLOBAL, "models").name}
    assert waits == {"the globe has not taken toy's results"}
    assert not [p for (name, _), p in pruned.items() if name != topic(NS, GLOBAL, "models").name and p.cut > p.start]
    world.hosts["global"].restart()
    world.train()
    assert world.memory.run(lambda: world.ended("toy"), 200_000)
    assert model(world, "toy").tobytes() == model(kept, "toy").tobytes()
