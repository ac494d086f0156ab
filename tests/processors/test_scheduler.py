"""What the scheduler makes of the reports: rates by landing, each shard once; what it says, and when it keeps silent."""

from typing import Any

import pytest
from msgspec.structs import replace as changed

from processors.landed import MOST, Landed
from processors.loads import SILENT, Loads
from processors.scheduler import AGAIN, Scheduler
from schemas.blocks import Manifest, Place
from schemas.facts import LEADERSHIP, Claimed, Founded, TaskAdmitted, TenantSet, ZoneJoined
from schemas.messages import AggregatorReport, FleetReport, Priorities, SchedulerReport, TaskLoad, Waiting
from schemas.sharing import Tenant
from schemas.topics import GLOBAL, topic, zone_topics
from schemas.wire import decode
from streams.memory import Memory
from streams.processor import Answer, Send, send
from tests.plane import LAYOUT, NS, spec

SIZE = 1000


def report(
    at: int,
    ends: dict[int, int],
    read: dict[int, int] | None = None,
    source: str = "a",
    tokens: int = 1,
    task: str = "t",
    **more: Any,
) -> AggregatorReport:
    """A block is `SIZE` bytes; `read`: to where shards are read, else to their ends."""
    waiting = {s: Waiting((read or ends)[s], end, more.get("ms", 0)) for s, end in ends.items()}
    unread = sum(w.end - w.start for w in waiting.values())
    load = TaskLoad(task, 1, more.get("blocks", 0), more.get("blocks", 0) * SIZE, {}, unread, waiting, SIZE)
    return AggregatorReport(source, "east", at, dict.fromkeys(ends, tokens), (load,))


def only(loads: Loads) -> Any:
    (d,) = loads.demands({})
    return d


# ------------------------------------------------------------------ loads


def test_the_rate_is_that_of_landing_whether_it_is_read_or_not():
    loads, idle = Loads(), Loads()
    for second in range(30):
        ends = {0: 500 + 20 * second, 1: 10 * second}
        loads.hear(report(1000 * second, ends), 1000 * second)
        idle.hear(report(1000 * second, ends, {0: 500, 1: 0}), 1000 * second)
    assert only(loads).rate == only(idle).rate == pytest.approx(30 * SIZE, rel=0.01)
    assert (only(loads).blocks, only(idle).blocks, only(idle).bytes) == (0, 30 * 29, 30 * 29 * SIZE)


def test_what_lay_there_before_it_was_looked_at_did_not_just_arrive():
    loads = Loads()
    loads.hear(report(1000, {0: 10**6}, {0: 0}), 0)
    loads.hear(report(2000, {0: 10**6}, {0: 0}), 0)
    assert only(loads).rate == 0
    assert only(loads).blocks == 10**6


def test_copies_late_reports_and_those_of_a_dead_holder_change_nothing():
    loads = Loads()
    loads.hear(report(1000, {0: 10, 1: 5}, {0: 0, 1: 0}, "a", 1), 0)
    loads.hear(report(2000, {0: 20, 1: 5}, {0: 5, 1: 0}, "a", 1), 1000)
    before = only(loads)
    for again in (report(2000, {0: 20, 1: 5}, {0: 5, 1: 0}), report(1500, {0: 90, 1: 5}, {0: 0, 1: 0})):
        loads.hear(again, 1100)
        assert only(loads) == before
    loads.hear(report(7000, {0: 30}, {0: 5}, "b", 9), 2000)  # b took shard 0; its clock is another
    assert only(loads).blocks == 25 + 5
    assert only(loads).rate == before.rate  # nothing is known of when that landed
    loads.hear(report(3000, {0: 99, 1: 6}, {0: 0, 1: 6}, "a", 1), 3000)  # a zombie, for shard 0
    assert only(loads).blocks == 25


def test_what_nobody_speaks_of_is_forgotten():
    loads = Loads()
    loads.hear(report(1000, {0: 10}, {0: 0}, "a"), 1000)
    loads.hear(report(1000, {1: 10}, {1: 0}, "b"), 9000)
    loads.forget(1000 + SILENT)
    assert (only(loads).blocks, list(loads.aggregators)) == (10, ["b"])
    loads.forget(9000 + SILENT)
    assert loads.demands({}) == []


def test_capacity_is_what_one_does_while_it_has_more_than_it_can_do():
    loads = Loads()
    loads.hear(report(1000, {0: 1000}, {0: 0}), 0)
    loads.hear(report(3000, {0: 1000}, {0: 400}, blocks=400), 0)
    assert loads.capacity == 200 * SIZE
    loads.hear(report(4000, {0: 1000}, {0: 1000}, blocks=1000), 0)  # it came to the end: perhaps it waited then
    loads.hear(report(5000, {0: 1100}, {0: 1000}, blocks=1010), 0)
    loads.hear(report(6000, {0: 1100}, {0: 1000}, blocks=0), 0)  # a new life
    assert loads.capacity == 200 * SIZE
    loads.hear(report(3000, {0: 1000}, {0: 400}, blocks=400), 0)  # a copy that lands late
    loads.hear(report(7000, {0: 1900}, {0: 1100}, blocks=100), 0)
    assert loads.capacity == (200 - 25) * SIZE


# ------------------------------------------------------------------ since when


def test_since_when_something_lies_unread():
    log = Landed()
    assert log.waiting(0, 5, 100) == Waiting(5, 5, 0)
    log.answered({0: 5, 1: 9}, {0: 5}, 1000)
    log.answered({0: 7, 1: 9}, {0: 5}, 2000)
    log.answered({0: 9, 1: 9}, {0: 5}, 3000)
    assert log.waiting(0, 5, 3500) == Waiting(5, 9, 1500)
    assert log.waiting(0, 7, 3500) == Waiting(7, 9, 500)
    assert log.waiting(0, 9, 3500) == Waiting(9, 9, 0)
    log.answered({0: 9}, {0: 7}, 4000)
    assert log.waiting(0, 7, 5000) == Waiting(7, 9, 2000)
    log.answered({0: 9}, {0: 5}, 6000)  # it is read again: as far as is known, since the oldest that is known
    assert log.waiting(0, 5, 6000).ms == 3000
    for i in range(10 * MOST):
        log.answered({0: 10 + i}, {0: 5}, 7000 + i)
    assert len(log._seen[0]) <= MOST
    assert log.waiting(0, 5, 8000).ms == 5000


# ------------------------------------------------------------------ the role


class Zone:
    """A global ledger with one zone, a scheduler (or two), and a hand that writes reports."""

    def __init__(self, schedulers: int = 1, **more: Any):
        self.memory = Memory(seed=1)
        for zone in (GLOBAL, "east"):
            for t in zone_topics(NS, zone):
                self.memory.create(t.name, t.partitions(4))
        self.ledger = topic(NS, GLOBAL, "ledger")
        place = Manifest(topic(NS, GLOBAL, "models").name, 0, (Place(0, 0, "m", 0),) * len(LAYOUT.sizes))
        admitted = [
            TaskAdmitted(1, changed(spec(t), tenant=tenant), LAYOUT, place, ("east",))
            for t, tenant in {"t": "acme", "u": "acme", "v": "labs"}.items()
        ]
        founded = Founded("g", GLOBAL, 4), Claimed("g", "1", {LEADERSHIP: 0}), ZoneJoined(1, "east", "z", 4)
        self.put(self.ledger, *founded, *admitted)
        self.hosts = [
            self.memory.host(lambda life, n=n: Scheduler(NS, f"s{n}", life, **more))  # type: ignore[misc]
            for n in range(schedulers)
        ]
        self.memory.run(limit=1_500)

    def put(self, to: Any, *messages: Any) -> None:
        for m in messages:
            self.memory.append(send(to, m))

    def say(self, *reports: AggregatorReport) -> None:
        self.put(topic(NS, GLOBAL, "metrics"), *reports)
        self.memory.run(limit=1_100)

    def orders(self) -> list[Priorities]:
        return [decode(r.value, (Priorities,)) for r in self.memory.records(f"{NS}.east.priorities")]

    def reports(self) -> list[SchedulerReport]:
        records = self.memory.records(f"{NS}.{GLOBAL}.metrics")
        kinds = (SchedulerReport, AggregatorReport)
        return [m for r in records if isinstance(m := decode(r.value, kinds), SchedulerReport)]


def both(at: int, **more: Any) -> list[AggregatorReport]:
    """Task t has much to do, task u little, each on shards of an aggregator of its own."""
    return [report(at, {0: 90}, {0: 0}, "a", **more), report(at, {1: 9}, {1: 0}, "b", task="u", **more)]


def test_it_says_the_order_and_why_again_while_it_holds():
    z = Zone()
    z.say(*both(1000))
    (first,) = z.orders()
    assert (first.source, first.zone, first.order) == ("s0", "east", ("u", "t"))
    assert first.why["u"] == "9.0 kB to aggregate; next t: 90.0 kB to aggregate"
    z.memory.run(limit=3 * AGAIN)
    assert {o.order for o in z.orders()} == {("u", "t")}
    assert 3 <= len(z.orders()) <= 5
    z.memory.run(limit=SILENT)
    assert z.orders()[-1].order == ()  # nothing is known any more
    said = len(z.orders())
    z.memory.run(limit=3 * AGAIN)
    assert len(z.orders()) == said


def test_it_says_what_tenants_weigh_as_soon_as_the_ledger_does():
    z = Zone()
    z.say(*both(1000), report(1000, {2: 9}, {2: 0}, "c", task="v"))
    assert (z.orders()[-1].order, z.orders()[-1].weights) == (("u", "v", "t"), {})
    for tenant, weight in {"acme": 3.0, "labs": 1.0, "nobody": 9.0}.items():
        z.put(z.ledger, TenantSet(1, 1, Tenant(tenant, weight)))
    z.say(*both(2000))
    assert z.orders()[-1].weights == {"acme": 3.0}  # of those that have a task here, if it is not 1
    assert z.orders()[-1].order == ("u", "v", "t")  # who weighs more does not come first: shares are another thing
    assert z.orders()[-1].why["v"] == "the only one of its tenant"


def test_it_hears_what_waits_in_a_zone_at_edges_of_others():
    z = Zone()
    here, there = (
        topic(NS, GLOBAL, "metrics"),
        FleetReport("b", "west", 1, {}, 0, 0, waiting=9, elsewhere={"east": 5, "mars": 7}),
    )
    z.put(here, FleetReport("a", "east", 1, {}, 0, 0, waiting=15), there)
    z.memory.run(limit=500)
    edges = z.hosts[0].processor.edges  # type: ignore[attr-defined]
    assert edges.keys() == {"east"}, "zones that joined"
    assert edges["east"].credits("s", 1000.0, 0, 9).shares == {"a": 1500, "b": 500}


def test_who_waits_too_long_comes_first():
    z = Zone(patience=5_000)
    z.say(*both(1000, ms=4_000))
    assert z.orders()[-1].order == ("u", "t")
    z.say(report(2000, {0: 90}, {0: 0}, "a", ms=6_000))
    assert z.orders()[-1].order == ("t", "u")
    assert "waited 6.0 s; next u: no block waited 5 s" in z.orders()[-1].why["t"]


def test_it_says_how_many_aggregators_the_load_calls_for():
    z = Zone()
    z.say(report(1000, {0: 1000}, {0: 0}))
    assert (z.reports()[-1].workers, z.reports()[-1].wanted, z.reports()[-1].capacity) == (1, 1, 0)
    assert "not known" in z.reports()[-1].why
    z.say(report(2000, {0: 1000}, {0: 10}, blocks=10))
    assert (z.reports()[-1].capacity, z.reports()[-1].backlog) == (10 * SIZE, 990 * SIZE)
    assert z.reports()[-1].wanted == 4  # 99 kB/s would do it in time: ten, but there are four shards
    assert z.reports()[-1].why == "0 B/s arrive and 990.0 kB wait, to be done in 10 s; one aggregator does 10.0 kB/s"


def test_one_speaks_and_another_goes_on_when_it_dies():
    z = Zone(schedulers=2)
    z.say(*both(1000))
    (speaker,) = {o.source for o in z.orders()}
    dead = next(h for h in z.hosts if h.processor.name == speaker)
    dead.crash()
    z.memory.run(limit=5_000)
    assert len({o.source for o in z.orders()}) == 2
    dead.restart()
    z.memory.run(limit=5_000)
    assert z.orders()[-1].order == ("u", "t")
    assert not any(h.stopped for h in z.hosts)


def test_garbage_and_zones_that_never_joined_are_nothing_to_it():
    z = Zone()
    z.memory.append(Send(topic(NS, GLOBAL, "metrics").name, b"\xff"))
    z.say(changed(report(1000, {0: 9}, {0: 0}), zone="mars"))
    assert z.hosts[0].processor.zones == {}
    z.say(report(1000, {0: 9}, {0: 0}))
    assert z.orders()[-1].order == ("t",)


def test_metrics_that_are_cut_under_it_are_read_on_from_where_they_end():
    z = Scheduler(NS, "s", "1")
    name = topic(NS, GLOBAL, "metrics").name
    list(z.start(0))
    (follow,) = z.handle(Answer("metrics", {0: 7}), 0)
    (again,) = z.handle(Answer(follow.tag, (9, 12), "gone"), 0)
    assert (again.topic, again.offset, again.tag) == (name, 12, follow.tag)
