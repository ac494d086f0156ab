"""A plane that runs for years: what its processes keep does not grow with the tasks that are over."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from olearning.view import View
from schemas.messages import Evaluation
from schemas.topics import GLOBAL, topic
from streams.ledger import snapshot
from streams.memory import Memory
from streams.processor import send
from tests.plane import NS, Plane, spec

OURS = ("processors", "device_sim", "streams", "olearning", "learning", "tests")
BOUNDED = ("._made", ".events", ".curves", ".losses", "._over", ".accuracy", "._seen")
"""Which have limits of their own, of steps, events, tasks and letters: `Offers.MOST`, `MOST_EVENTS`, `MOST_OVER`, `Letters.add`."""


def holds(of: Any, path: str, seen: set[int]) -> Iterator[tuple[str, int]]:
    """By where it is, how much each container holds that an object keeps. Folds are left out."""
    if id(of) in seen or isinstance(of, msgspec.Struct):
        return
    seen.add(id(of))
    if isinstance(of, dict | set | list | deque):
        yield path, len(of)
        for x in of.values() if isinstance(of, dict) else () if isinstance(of, set) else of:
            yield from holds(x, path + "[]", seen)
    elif type(of).__module__.split(".")[0] in OURS:
        names = [*getattr(of, "__dict__", ()), *getattr(of, "__slots__", ())]
        for name in names:
            yield from holds(getattr(of, name, None), f"{path}.{name}", seen)


def kept(plane: Plane) -> dict[str, int]:
    out: dict[str, int] = {}
    for name, host in plane.hosts.items():
        for path, n in holds(host.processor, name, set()):
            out[path] = out.get(path, 0) + n
    return {path: n for path, n in out.items() if not any(x in path for x in BOUNDED)}


def train(plane: Plane, *tasks: str) -> None:
    for task in tasks:
        plane.submit(spec(task, demand=2, epochs=1, rounds=1, deadline_s=20, lease_s=10))
        assert plane.memory.run(lambda task=task: plane.ended(task), 100_000)
        said = Evaluation("eval", plane.memory.now, task, 1, 1, 0.5, 0.5, 9)
        plane.memory.append(send(topic(NS, GLOBAL, "evaluations"), said, task))
        plane.memory.append(send(topic(NS, GLOBAL, "tasks"), b"what is no submission", task))
    plane.memory.run(limit=15_000)


def test_what_processes_keep_does_not_grow_with_the_tasks_that_are_over():
    plane = Plane(Memory(seed=1), zones=("east",), devices=2, scheduler=True)
    plane.standbys()
    plane.host("view", lambda life: View(NS, plane.zones))
    train(plane, *(f"first-{i}" for i in range(4)))
    before = kept(plane)
    train(plane, *(f"second-{i}" for i in range(8)))
    after = kept(plane)
    assert len(before) > 100, "else this looks at nothing"
    assert {path: (before.get(path, 0), n) for path, n in after.items() if n > before.get(path, 0)} == {}
    for scope in (GLOBAL, "east"):
        fold = plane.globe() if scope == GLOBAL else plane.zone(scope)
        assert (len(fold.over), fold.tasks) == (12, {})
        assert len(snapshot(fold)) < 1_000 + 150 * 12
