"""A plane in memory whose aggregators have more to read than they can: what the scheduler changes, and what it never does."""

from functools import cache, partial
from random import Random
from typing import Any

from msgspec.structs import replace as changed

from processors.aggregator import Aggregator
from processors.scheduler import Scheduler
from processors.shares import TURN
from schemas.facts import Finalised
from schemas.messages import Priorities, SchedulerReport
from schemas.topics import read, topic
from streams.memory import Host, Memory, Partition
from streams.processor import Send, send
from tests.plane import NS, Plane, spec

PACE = 20
"""ms that a block takes an aggregator."""
GARBAGE = b"\xff" * 190
"""About as long as a block."""
WORK = {"big": 1_200, "large": 1_200, "small": 150}
"""Records without sense that lie in the log of each task before its first delta: they must be read."""


class Slow(Memory):
    """Blocks come to a host one at a time, each after the one before is dealt with."""

    def __init__(self, **more: Any):
        super().__init__(**more)
        self.free: dict[Host, int] = {}

    def _hand_over(self, host: Host, tp: Partition) -> None:
        if ".deltas." in tp[0]:
            if (busy := self.free.get(host, 0) - self.now) > 0:
                self._for(host, busy, lambda: self._hand_over(host, tp))
                return
            self.free[host] = self.now + PACE
        super()._hand_over(host, tp)


class Loaded(Plane):
    """`began`: when its aggregators did, in ms. `work`: by task."""

    began = 0
    work = WORK


def plane(task_oriented: bool = False, work: dict[str, int] = WORK, turn: int = TURN, **more: Any) -> Loaded:
    """One zone whose tasks have all been sent their deltas, behind much that is in the way. A task's name begins with its tenant's,
    if it has one."""
    p = Loaded(Slow(seed=3), zones=("east",), partitions=2, aggregators=0)
    p.work = work
    p.hosts["fleet-east"].crash()
    for task in work:
        s = spec(task, epochs=1, rounds=2, **{"deadline_s": 3600.0, "lease_s": 3600.0} | more)
        p.submit(changed(s, tenant=task.partition("-")[0] if "-" in task else "default"))
    east = p.hosts["zone-east"].processor
    assert p.memory.run(lambda: len(east.zone.tasks) == len(work), 20_000)
    for task, n in work.items():
        for i in range(n):
            p.memory.append(Send(topic(NS, "east", "deltas", task).name, GARBAGE, None, i % 2))
    p.hosts["fleet-east"].restart()
    p.memory.run(limit=3_000)
    p.began = p.memory.now
    for n in range(2):
        make = partial(Aggregator, NS, "east", f"agg-{n}", commit_interval=200, report_interval=500)
        p.host(f"agg-{n}", lambda life, make=make: make(life=life, task_oriented=task_oriented, turn=turn))
    return p


def schedule(p: Loaded, **more: Any) -> Loaded:
    p.host("scheduler", lambda life: Scheduler(NS, "scheduler", life, **more))
    return p


def to_the_end(p: Loaded) -> tuple[dict[str, int], dict[str, bytes]]:
    """ms until each task had its first model, and the bits of its last."""
    assert p.memory.run(lambda: all(p.ended(task) for task in p.work), 600_000), {
        t: p.zone("east").tasks[t] for t in p.work
    }
    assert not [h.stopped for h in p.memory.hosts if h.stopped and not h.stopped.ok]
    facts = [(r.timestamp, read(r.topic, r.value)) for r in p.memory.records(f"{NS}.east.ledger")]
    first = {f.task: at - p.began for at, f in reversed(facts) if isinstance(f, Finalised)}
    return first, {task: p.model(task).tobytes() for task in p.work}


@cache
def alone() -> tuple[dict[str, int], dict[str, bytes]]:
    return to_the_end(plane())


@cache
def scheduled() -> tuple[Loaded, dict[str, int], dict[str, bytes]]:
    p = schedule(plane())
    return p, *to_the_end(p)


def test_the_least_work_is_done_first_and_nobody_is_later_for_it():
    without, models = alone()
    _, done, same = scheduled()
    assert done["small"] < 0.7 * without["small"]
    assert sum(done.values()) < 0.85 * sum(without.values())
    assert max(done.values()) <= 1.05 * max(without.values())  # what there is to do takes as long in any order
    assert same == models


def test_it_said_why_and_how_many_aggregators_it_takes():
    p, _, _ = scheduled()
    orders = [read(r.topic, r.value) for r in p.memory.records(f"{NS}.east.priorities")]
    first = next(o for o in orders if isinstance(o, Priorities) and len(o.order) == len(WORK))
    assert first.order[0] == "small"
    assert "to aggregate; next" in first.why["small"]
    reports = [
        m for r in p.memory.records(f"{NS}.global.metrics") if isinstance(m := read(r.topic, r.value), SchedulerReport)
    ]
    busy = [r for r in reports if r.capacity]
    assert {r.workers for r in busy} == {2}
    assert {r.wanted for r in busy} == {2}  # as many as there are shards, and more would do it sooner
    right = len(GARBAGE) * 1000 / PACE
    assert 0.8 * right < busy[5].capacity < 1.2 * right


def test_whatever_it_says_and_whenever_it_dies_the_models_have_the_same_bits():
    """Orders at random, at every moment, from one who has no right to; and a scheduler that is killed again and again."""
    p, dice = schedule(plane()), Random(5)
    ended = lambda: all(p.ended(task) for task in WORK)  # noqa: E731
    while not p.memory.run(ended, dice.randint(1, 700)):
        order = tuple(dice.sample([*WORK, "none-such"], dice.randint(0, 4)))
        p.memory.append(send(topic(NS, "east", "priorities"), Priorities("x", "east", 0, order, {}), key="east"))
        if dice.random() < 0.2:
            p.hosts["scheduler"].crash()
        elif not p.hosts["scheduler"].alive:
            p.hosts["scheduler"].restart()
    done, same = to_the_end(p)
    assert same == alone()[1]
    assert max(done.values()) <= 1.3 * max(alone()[0].values())  # no order keeps an aggregator idle


def test_task_oriented_the_same_bits():
    _, same = to_the_end(plane(task_oriented=True))
    assert same == alone()[1]


def test_task_oriented_rounds_end_at_their_deadline_with_whom_there_is():
    p = plane(task_oriented=True, demand=9, minimum=3, deadline_s=60.0)
    to_the_end(p)
    assert {f.devices for f in p.facts("east") if isinstance(f, Finalised)} == {6}
