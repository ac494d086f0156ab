"""Tenants share a zone's devices: plans made and announced, registrations held to them, to needs and to quotas; times that are over.

Devices are played by hand. What a policy decides is in `tests/learning`; here it is what the zone makes of it.
"""

from itertools import pairwise
from typing import Any

from msgspec.structs import replace

from learning.sharing import policy
from olearning.waiting import shortage, zone_waits
from processors import plans, quotas
from processors.crowd import FEW, LAST, LATELY, MOST, Crowd
from processors.quotas import LATER, SOON, Allowance, part
from processors.selector import RETRY
from schemas.facts import (
    LEADERSHIP,
    Admitted,
    Closed,
    EpochOpened,
    Founded,
    Lost,
    Opened,
    SharingSet,
    TaskAdmitted,
    TaskUpdated,
    TenantSet,
    ZoneJoined,
)
from schemas.messages import Admission, Announcement, CheckIn, Objection, Refusal, Registration
from schemas.sets import bitmap
from schemas.sharing import PLAN, Needs, Quota, Sharing, SharingPlan, Tenant
from schemas.task import Epochs, Limits, Rounds, TaskSpec
from schemas.topics import DAY, GLOBAL, task_topics, topic
from schemas.wire import encode
from streams.ledger import Globe, Spent, Zone
from streams.processor import Follow, Record
from tests.processors.rig import LAYOUT, NS, RULES, SIZES, P, Rig, Z, blocks, changed
from tests.streams.book import MANIFEST, Book, claim

ANY = Needs()
STRONG, WEAK = {"ram": 8.0, "cpu": 9.0}, {"ram": 2.0}


class Shared(Rig):
    """Task t of tenant default, and others by `task`."""

    def __init__(self, **more: Any):
        super().__init__(**more)
        self.said = 0

    def globally(self, *facts: Any) -> None:
        for fact in facts:
            self.put(topic(NS, GLOBAL, "ledger"), fact)
        self.memory.run(limit=500)

    def policy(self, name: str, **args: Any) -> None:
        self.said += 1
        self.globally(SharingSet(1, self.said, Sharing(name, args)))

    def tenant(self, name: str, **quota: int) -> None:
        self.said += 1
        self.globally(TenantSet(1, self.said, Tenant(name, quota=Quota(**quota))))

    def task(self, name: str, tenant: str, needs: Needs = ANY, **rules: Any) -> None:
        for t in task_topics(NS, Z, name):
            self.memory.create(t.name, P)
        spec = TaskSpec(name, "m", "d", tenant, rounds=Rounds(**{**RULES, **rules}), epochs=Epochs(1, 9), needs=needs,
                        limits=Limits(heaviest=1000))  # fmt: skip
        manifest = self.model_zero()
        self.globally(TaskAdmitted(1, spec, LAYOUT, manifest, (Z,)), EpochOpened(1, name, 1, manifest))
        self.until(lambda: name in self.zone.tasks)

    def ask(self, device: str, task: str, abilities: dict[str, float] | None = None, n: int = 1) -> Admission | Refusal:
        """What a device is told of its wish."""
        before = len(self.messages("admissions"))
        self.put(topic(NS, Z, "registrations"), Registration(device, task, n, abilities or {}), device)
        self.until(lambda: len(self.messages("admissions")) > before, 3_000)
        return next(m for m in self.messages("admissions")[::-1] if (m.device, m.task) == (device, task))

    def admissions(self) -> list[Any]:
        name = topic(NS, Z, "admissions").name
        return sorted((r for p in range(P) for r in self.memory.records(name, p)), key=lambda r: r.timestamp)

    def check_in(self, *devices: str, abilities: dict[str, float]) -> None:
        for d in devices:
            self.put(topic(NS, Z, "checkins"), CheckIn(d, abilities), d)
        self.memory.run(limit=2_000)

    def plans(self, partition: int = 0) -> list[SharingPlan]:
        name = topic(NS, Z, "announcements").name
        found = [m for r in self.memory.records(name, partition) if r.key == PLAN for m in [self.message(r)]]
        return [m for i, m in enumerate(found) if i == 0 or m != found[i - 1]]

    @staticmethod
    def message(record: Record) -> Any:
        from schemas.topics import read

        return read(record.topic, record.value, record.headers)

    def closed(self, n: int = 1, task: str = "t") -> str:
        self.until(lambda: any((f.task, f.round) == (task, n) for f in self.facts(Closed)))
        return next(f.why for f in self.facts(Closed) if (f.task, f.round) == (task, n))

    @property
    def plan(self) -> SharingPlan | None:
        return self.leader.processor.selector.plans.plan  # type: ignore[attr-defined]


def shared(**more: Any) -> Shared:
    made = Shared(**{"deadline_s": 600.0, "lease_s": 300.0, "demand": 6, **more})
    made.until(lambda: made.at(1, "open"))
    return made


def settled(r: Shared) -> Shared:
    """Nothing is forgiven any more."""
    r.memory.run(limit=plans.GRACE + 1_000)
    return r


# ------------------------------------------------------------------ plans


def test_where_nobody_set_a_policy_there_is_no_plan_and_nothing_is_asked_of_devices():
    r = settled(shared())
    assert r.plans() == []
    assert isinstance(r.ask("a", "t"), Admission)
    assert ("test.z.checkins", 0) not in r.leader.positions


def test_a_plan_is_announced_in_every_partition_and_registrations_are_held_to_it():
    r = shared()
    r.task("u", "acme", deadline_s=600.0)
    r.policy("fifo")
    r = settled(r)
    for p in range(P):
        (plan,) = r.plans(p)
        assert (plan.policy, [t.tasks for t in plan.rules[0].turns]) == ("fifo", [("t", "u")])
    r.task("v", "acme", deadline_s=600.0)
    r.memory.run(limit=plans.EVERY)
    assert [t.tasks for t in r.plans()[-1].rules[0].turns] == [("t", "u", "v")]
    assert isinstance(r.ask("a", "v"), Admission)
    r.policy("reward")
    assert r.plans()[-1].chosen


def test_a_task_that_the_plan_gives_to_others_is_refused_in_words(monkeypatch):
    r = shared()
    r.task("u", "acme", deadline_s=600.0)
    monkeypatch.setattr(plans, "plan", only("t"))
    r.policy("fifo")
    r = settled(r)
    refused = r.ask("a", "u")
    assert (refused.reason, refused.retry_ms) == ("the plan gives devices like this one to other tasks", RETRY)
    assert isinstance(r.ask("a", "t"), Admission)


def only(*tasks: str, meets: tuple = ()) -> Any:
    """A policy that gives all devices these tasks."""
    from schemas.sharing import Rule, Turn

    def plan(name: str, args: Any, market: Any, zone: str, at: int) -> SharingPlan:
        return SharingPlan(zone, at, name, (Rule((Turn(1.0, tasks),), meets),))

    return plan


def test_who_follows_the_plan_before_is_forgiven_for_a_while(monkeypatch):
    r = shared()
    r.task("u", "acme", deadline_s=600.0)
    monkeypatch.setattr(plans, "plan", only("t"))
    r.policy("fifo")
    settled(r)
    monkeypatch.setattr(plans, "plan", only("u"))
    r.policy("fifo")
    assert isinstance(r.ask("a", "t"), Admission)
    settled(r)
    assert "to other tasks" in r.ask("b", "t").reason
    assert isinstance(r.ask("b", "u"), Admission)


def test_a_plan_is_made_at_most_once_a_second_and_said_only_if_it_differs(monkeypatch):
    r = shared()
    made = []

    def counting(*a: Any) -> SharingPlan:
        made.append(r.memory.now)
        return only("t")(*a)

    monkeypatch.setattr(plans, "plan", counting)
    r.policy("fifo")
    for i in range(40):
        r.put(topic(NS, Z, "registrations"), Registration(f"phone-{i}", "t", 1), f"phone-{i}")
        r.memory.run(limit=100)
    assert all(b - a >= plans.EVERY for a, b in pairwise(made))
    assert 3 <= len(made) <= 6
    assert len(r.plans()) == 1
    before = len(made)
    r.memory.run(limit=30_000)
    assert all(b - a >= plans.RARELY for a, b in pairwise(made[before:])), "nothing changed, but time passes"
    assert len(made) >= before + 5


def test_the_market_is_what_the_folds_and_the_check_ins_say(monkeypatch):
    r = shared(demand=2, over_commit=2.0, minimum=1)
    markets = []

    def looking(name: str, args: Any, market: Any, zone: str, at: int) -> SharingPlan:
        markets.append(market)
        return only("t", "u")(name, args, market, zone, at)

    monkeypatch.setattr(plans, "plan", looking)
    r.tenant("acme", devices=1)
    r.policy("fifo", bias=2)
    r.task("u", "acme", Needs(public={"ram": 4.0}), demand=5, deadline_s=600.0)
    r.check_in("a", "b", abilities=STRONG)
    r.check_in("c", abilities=WEAK)
    r.ask("a", "t")
    r.memory.run(limit=1_500)
    m = markets[-1]
    assert [(j.task, j.tenant, j.wanted, j.got, j.rounds, j.of) for j in m.jobs] == [
        ("t", "default", 4, 1, 0, 9), ("u", "acme", 5, 0, 0, 9),
    ]  # fmt: skip
    assert (m.jobs[0].service, m.jobs[1].needs) == (1, {"ram": 4.0})
    assert m.devices.tolist() == [[9, 8, 0, 0, 0], [9, 8, 0, 0, 0], [0, 2, 0, 0, 0]]
    assert m.able({"ram": 4.0}).tolist() == [True, True, False]
    assert dict(m.granted) == {"default": 1}
    r.ask("b", "u", STRONG)
    r.memory.run(limit=1_500)
    assert [j.task for j in markets[-1].jobs] == ["t"], "acme has all that it may have"


def test_a_policy_of_someone_s_own_that_fails_stops_nobody(monkeypatch):
    def fails(*_: Any) -> Any:
        raise KeyError("luck")

    r = shared()
    monkeypatch.setitem(policy._known, "mine", policy._Known(fails, {}))
    r.policy("mine")
    settled(r)
    assert r.plan.chosen
    assert isinstance(r.ask("a", "t"), Admission)
    (said,) = [m for m in r.messages("metrics", GLOBAL) if isinstance(m, Objection)]
    assert said.reason.startswith("devices of zone z choose by reward: sharing policy 'mine' failed")
    assert "luck" in said.reason


def test_it_says_so_once_even_if_it_fails_in_other_words_each_time(monkeypatch):
    tries = iter(range(1_000))

    def fails(*_: Any) -> SharingPlan:
        raise policy.PolicyFailed(f"try {next(tries)}")

    monkeypatch.setattr(plans, "plan", fails)
    r = shared()
    r.policy("fifo")
    r.memory.run(limit=30_000)
    assert next(tries) > 3
    assert len([m for m in r.messages("metrics", GLOBAL) if isinstance(m, Objection)]) == 1


def test_a_plan_offers_no_place_that_is_not_given_yet():
    """An asynchronous task whose free places are fewer than it refills."""
    r = shared(demand=2, over_commit=3.0, refill=4, staleness=3, minimum=1)
    r.task("u", "acme", deadline_s=600.0)
    r.policy("fifo")
    for d in "abcdef":
        r.ask(d, "t")
    r.send(*blocks("a", r.slot(1, "a")))
    settled(r)
    t = r.zone.tasks["t"]
    assert not t.filling
    assert r.plan
    assert [turn.tasks for rule in r.plan.rules for turn in rule.turns] == [("u",)]


def test_who_leads_next_makes_the_plan_anew_and_reads_the_check_ins_again():
    r = shared()
    r.policy("fifo")
    r.check_in("a", "b", abilities=STRONG)
    before = r.plan
    r.leader.crash()
    r.memory.run(limit=3_000)
    r.leader.restart()
    r.until(lambda: r.plan is not None)
    r.memory.run(limit=3_000)
    assert replace(r.plan, at=0) == replace(before, at=0)
    assert r.plan.at >= before.at
    assert len(r.leader.processor.selector.plans.crowd.seen) == 2


def test_a_policy_changed_in_the_middle_of_a_round_holds_from_its_fact_on(monkeypatch):
    r = shared()
    r.task("u", "acme", deadline_s=600.0)
    monkeypatch.setattr(plans, "plan", lambda name, *a: only({"one": "t", "two": "u"}[name])(name, *a))
    r.policy("one")
    settled(r)
    assert isinstance(r.ask("a", "t"), Admission)
    r.policy("two")
    settled(r)
    assert [p.policy for p in r.plans()] == ["one", "two"]
    assert "to other tasks" in r.ask("b", "t").reason
    assert isinstance(r.ask("a", "t"), Admission), "who has a slot keeps it"
    monkeypatch.undo()
    r.policy("reward")
    assert isinstance(r.ask("b", "t"), Admission)
    assert r.plans()[-1].chosen


# ------------------------------------------------------------------ needs


def test_what_a_task_needs_is_announced_and_compared_with_what_a_device_reports():
    r = shared()
    r.task("u", "acme", Needs(public={"ram": 6.0, "cpu": 3.0}, private={"samples": 50.0}), deadline_s=600.0)
    said = [a.needs for a in r.messages("announcements") if isinstance(a, Announcement) and a.task == "u"]
    assert said
    assert all(n == Needs(public={"ram": 6.0, "cpu": 3.0}, private={"samples": 50.0}) for n in said)
    refused = r.ask("a", "u", {"ram": 4.0, "cpu": 3.0})
    assert (refused.reason, refused.retry_ms) == ("this task needs ram 6 or more", LATER)
    assert r.ask("b", "u").reason == "this task needs cpu 3 or more and ram 6 or more"
    assert isinstance(r.ask("c", "u", {"ram": 6.0, "cpu": 3.0}), Admission)


# ------------------------------------------------------------------ quotas


def test_devices_at_once():
    r = shared()
    r.tenant("acme", devices=2)
    r.task("u", "acme", deadline_s=600.0)
    r.task("v", "acme", deadline_s=600.0)
    assert isinstance(r.ask("a", "u"), Admission)
    assert isinstance(r.ask("b", "v"), Admission)
    refused = r.ask("c", "u")
    assert refused.reason == "quota of tenant acme: its 2 devices at once in this zone are at work"
    assert refused.retry_ms == SOON
    assert isinstance(r.ask("c", "t"), Admission), "another tenant's"
    deltas = topic(NS, Z, "deltas", "u")
    for b in blocks("a", 0):
        r.put(deltas, changed(b, task="u"), "a")
    r.until(lambda: r.zone.tasks["u"].rounds[1].done)
    assert isinstance(r.ask("c", "u"), Admission), "a is done"


def test_many_at_once_get_no_more_than_the_quota():
    r = shared()
    r.tenant("acme", devices=3)
    r.task("u", "acme", demand=6, deadline_s=600.0)
    for i in range(6):
        r.put(topic(NS, Z, "registrations"), Registration(f"p-{i}", "u", 1), f"p-{i}")
    r.memory.run(limit=2_000)
    assert len(r.zone.tasks["u"].rounds[1].devices) == 3
    assert {f.task for f in r.facts(Admitted)[-1].slots} <= {"u"}


def test_devices_of_a_task_that_stands_still_are_given_back_when_their_leases_are_over():
    """Until a person says what is to become of the loss they would keep their tenant's other tasks from any."""
    r = shared(lease_s=5.0)
    r.task("u", "default", deadline_s=600.0)
    r.tenant("default", devices=1)
    assert isinstance(r.ask("a", "t"), Admission)
    begins = r.zone.tasks["t"].next[0]
    r.put(topic(NS, Z, "ledger"), Lost(r.zone.leader.token, LEADERSHIP, "t", "gone", ranges={0: (begins, begins + 1)}))
    r.until(lambda: r.zone.tasks["t"].loss is not None)
    assert isinstance(r.ask("b", "u"), Refusal)
    r.memory.run(limit=10_000)
    assert r.zone.tasks["t"].rounds[1].lapsed == {0}
    assert isinstance(r.ask("b", "u"), Admission)


def test_between_two_rounds_of_an_asynchronous_task_its_devices_are_still_at_work():
    r = shared(demand=1, over_commit=3.0, refill=1, staleness=5, minimum=1)
    r.task("u", "default", deadline_s=600.0)
    r.tenant("default", devices=3)
    for d in "abc":
        assert isinstance(r.ask(d, "t"), Admission)
    r.send(*blocks("a", r.slot(1, "a")))
    most = 0
    while r.zone.tasks["t"].round < 2 or r.zone.tasks["t"].state != "open":
        for d in "xyz":
            r.put(topic(NS, Z, "registrations"), Registration(d, "u", 1), d)
        r.memory.run(limit=5)
        most = max(most, quotas.working(r.zone).get("default", 0))
    assert most == 3
    assert len(r.zone.tasks["u"].rounds[1].devices) == 1, "that of a, who is done"


def test_bytes_a_day():
    r = shared()
    r.task("u", "acme", deadline_s=600.0)
    cost = next(f.cost for f in r.facts(Opened) if f.task == "u")
    assert cost == 4 * sum(SIZES) + 4 * sum(SIZES), "the model as float32, and the delta as int32"
    r.tenant("acme", bytes=2 * cost + 1)
    assert isinstance(r.ask("a", "u"), Admission)
    assert isinstance(r.ask("b", "u"), Admission)
    refused = r.ask("c", "u")
    assert refused.reason == (
        f"quota of tenant acme: {2 * cost} of {2 * cost + 1} bytes a day in this zone are used, a device takes {cost}"
    )
    assert refused.retry_ms == LATER
    assert isinstance(r.ask("a", "u"), Admission), "it has its slot"
    assert isinstance(r.ask("c", "t"), Admission)


def test_a_day_that_has_room_for_a_part_alone_still_has_the_task_in_the_plan():
    r = shared()
    r.policy("fifo")
    r.task("u", "acme", deadline_s=600.0, partial=True)
    r.until(lambda: any(f.task == "u" for f in r.facts(Opened)))
    least, whole = 8 * SIZES[0], 8 * sum(SIZES)
    for bytes, there in ((whole, True), (whole - 1, True), (least, True), (least - 1, False)):
        r.tenant("acme", bytes=bytes)
        settled(r)
        globe = r.leader.processor.globe.state  # type: ignore[attr-defined]
        lack = shortage(globe.tasks["u"], r.zone, None, Allowance(globe, r.zone, Z, r.memory.now))
        assert bool(r.plan and any("u" in turn.tasks for rule in r.plan.rules for turn in rule.turns)) is there
        assert ("quota of tenant acme" not in lack) is there
    r.tenant("acme", bytes=least)
    settled(r)
    r.put(topic(NS, Z, "registrations"), Registration("a", "u", 1, blocks=bitmap((0,), len(SIZES))), "a")
    r.until(lambda: r.zone.tasks["u"].rounds[1].devices == ("a",))
    settled(r)
    assert "quota of tenant acme" in r.ask("b", "u").reason


def test_another_day_other_bytes_and_who_is_refused_late_in_the_day_waits_for_it():
    book, _ = globe(bytes=100)
    zone = Zone(spent={"acme": Spent(day=3, bytes=90)})
    for now, over in ((3 * DAY, LATER), (4 * DAY - 5_000, 5_000), (4 * DAY, 0)):
        assert Allowance(book.state, zone, "z", now).over("acme", 11)[1] == over
    assert Allowance(book.state, zone, "z", 3 * DAY).over("acme", 10) == ("", 0)


def globe(**quota: int) -> tuple[Book, int]:
    """Three zones, and a quota for acme."""
    book = Book(Globe())
    book.ok(Founded("g", GLOBAL, 1))
    token = claim(book, LEADERSHIP)
    book.ok(*(ZoneJoined(token, name, f"ledger-{name}", 4) for name in "abc"))
    book.ok(TenantSet(token, 1, Tenant("acme", quota=Quota(**quota))))
    return book, token


def world(*tasks: tuple[str, str, tuple[str, ...]], paused: tuple[str, ...] = (), **quota: int) -> Globe:
    """A globe with tasks (name, tenant, zones), each in its first epoch."""
    book, token = globe(**quota)
    for n, (task, tenant, zones) in enumerate(tasks):
        one = TaskSpec(task, "m", "d", tenant)
        book.ok(TaskAdmitted(token, one, LAYOUT, MANIFEST, zones))
        book.ok(EpochOpened(token, task, 1, MANIFEST))
        if task in paused:
            book.ok(TaskUpdated(token, task, 10 + n, one, "pause"))
    return book.state


def test_a_quota_is_split_over_the_zones_in_which_the_tenant_has_open_tasks():
    g = world(("t", "acme", ("a", "b", "c")), devices=8, bytes=100)
    assert [(q.devices, q.bytes) for q in (part(g, "acme", z) for z in "abc")] == [(3, 34), (3, 33), (2, 33)]
    g = world(("t", "acme", ("a",)), ("u", "acme", ("a", "c")), ("v", "beta", ("b",)), devices=8)
    assert [part(g, "acme", z).devices for z in "ac"] == [4, 4]
    assert part(g, "beta", "b") == Quota(), "no limit"
    assert [part(world(("t", "acme", ("a", "b", "c")), devices=2), "acme", z).devices for z in "abc"] == [1, 1, 1]


def test_a_paused_task_keeps_no_part_of_the_quota_from_those_that_run():
    tasks = ("t", "acme", ("a",)), ("u", "acme", ("b", "c"))
    g = world(*tasks, devices=12)
    assert [part(g, "acme", z).devices for z in "abc"] == [4, 4, 4]
    g = world(*tasks, paused=("u",), devices=12)
    parts = [part(g, "acme", z).devices for z in "abc"]
    assert parts == [12, 4, 4], "rounds that were open when it was paused are finished with what they had"
    g = world(*tasks, paused=("t", "u"), devices=12)
    assert [part(g, "acme", z).devices for z in "abc"] == [4, 4, 4]


# ------------------------------------------------------------------ times that are over


def timed(**more: Any) -> Shared:
    return shared(**{"demand": 4, "minimum": 2, "deadline_s": 60.0, "lease_s": 8.0, **more})


def deliver(r: Shared, *devices: str, n: int = 1) -> None:
    for d in devices:
        r.send(*blocks(d, r.slot(n, d), n))


def test_nobody_came():
    r = timed(fill_s=3.0)
    assert r.closed() == "nobody came"
    opened, closed = (
        next(x for x in r.memory.records("test.z.ledger") if isinstance(self_of(x), k)) for k in (Opened, Closed)
    )
    assert 3_000 <= closed.timestamp - opened.timestamp < 3_500
    assert r.finalised(1).manifest is None
    r.until(lambda: r.at(2, "open"))


def self_of(record: Record) -> Any:
    return Shared.message(record)


def test_too_few_devices():
    r = timed(fill_s=3.0)
    r.admit(1, ["a"])
    assert r.closed() == "too few devices"
    assert r.finalised(1).manifest is None


def test_with_enough_the_round_goes_on_without_taking_more_and_keeps_what_comes():
    r = timed(fill_s=3.0)
    r.admit(1, ["a", "b", "c"])
    r.memory.run(limit=3_500)
    refused = r.ask("d", "t")
    assert (refused.reason, refused.retry_ms) == ("the round takes no more devices", RETRY)
    deliver(r, "a", "b")
    r.memory.run(limit=2_000)
    assert r.at(1, "open"), "c has its slot, and still may deliver"
    assert r.closed() == "all who came are done", "c's lease is over"
    final = r.finalised(1)
    assert (final.devices, bool(final.manifest)) == (2, True)


def test_the_execution_time_out_counts_from_when_all_places_are_taken():
    r = timed(serve_s=5.0, lease_s=30.0)
    r.memory.run(limit=10_000)
    r.admit(1, ["a", "b", "c", "d"])
    began = r.memory.now
    deliver(r, "a", "b", "d")
    assert r.closed() == "execution time-out"
    assert 4_500 <= r.memory.now - began <= 6_500
    assert r.finalised(1).devices == 3


def test_or_from_when_the_scheduling_time_is_over():
    r = timed(fill_s=3.0, serve_s=4.0, lease_s=30.0)
    r.admit(1, ["a", "b", "c"])
    deliver(r, "a")
    assert r.closed() == "execution time-out"
    assert 7_000 <= r.memory.now <= 10_000
    assert r.finalised(1).manifest is None, "one, and two are needed at least: as with any other end"


def test_in_an_asynchronous_round_too_and_its_devices_go_on_into_the_next():
    r = timed(demand=3, over_commit=4 / 3, minimum=1, refill=1, staleness=2, serve_s=4.0, lease_s=30.0)
    r.admit(1, ["a", "b", "c", "d"])
    deliver(r, "a", "b")
    assert r.closed() == "execution time-out"
    assert r.finalised(1).devices == 2
    r.admit(2, ["e", "f"])
    assert r.round(2).full_at, "c and d have their places still"
    deliver(r, "c", "d")
    assert r.closed(2) == "execution time-out"
    assert r.finalised(2).devices == 2


def test_without_time_outs_a_round_waits_for_its_deadline():
    r = timed(deadline_s=20.0)
    r.admit(1, ["a", "b", "c"])
    deliver(r, "a", "b")
    assert r.closed() == "deadline"


def test_the_tenant_ends_it():
    r = timed(deadline_s=600.0, lease_s=300.0)
    r.admit(1, ["a", "b", "c"])
    deliver(r, "a", "b")
    r.until(lambda: len(r.round(1).done) == 2)
    spec = r.leader.processor.globe.state.tasks["t"].spec
    r.globally(TaskUpdated(1, "t", 7, spec, "run", enough={"another": 9}))
    assert r.at(1, "open")
    r.globally(TaskUpdated(1, "t", 8, spec, "run", enough={Z: 1}))
    assert r.closed() == "the tenant ended it"
    assert r.finalised(1).devices == 2
    r.until(lambda: r.at(2, "open"))
    r.memory.run(limit=2_000)
    assert r.at(2, "open"), "that was round 1"


def test_a_dead_device_s_slot_comes_back_and_the_plan_has_the_task_again():
    """Propius' fourth defect (platforms.md §3.7): there `amount` only grows."""
    r = timed(demand=2, minimum=2, lease_s=3.0)
    r.policy("fifo")
    r.admit(1, ["a", "b"])
    r.memory.run(limit=1_500)
    assert r.plan.rules == (), "it is full"
    assert r.ask("c", "t").reason == "the round is full"
    deliver(r, "a")
    r.memory.run(limit=4_000)  # b is dead
    assert [t.tasks for t in r.plan.rules[0].turns] == [("t",)]
    assert isinstance(r.ask("c", "t"), Admission)
    deliver(r, "c")
    assert r.finalised(1).devices == 2


# ------------------------------------------------------------------ who came lately


def test_what_a_full_round_and_one_that_takes_no_more_wait_for_is_said():
    def words(r: Shared) -> str:
        g = r.leader.processor.globe.state  # type: ignore[attr-defined]
        lack = shortage(g.tasks["t"], r.zone, None, Allowance(g, r.zone, Z, r.memory.now))
        return zone_waits(g.tasks["t"], r.zone, Z, [], [], {"idle": 9}, {Z: r.zone}, r.memory.now, lack)

    r = shared(demand=2, over_commit=1.0)
    r.tenant("default", devices=2)
    assert isinstance(r.ask("a", "t"), Admission)
    assert words(r) == "waiting for 2 of 2 devices"
    assert isinstance(r.ask("b", "t"), Admission)
    assert words(r) == "waiting for 2 of 2 devices", "not for the quota: all are at work"
    r = shared(demand=6, fill_s=5.0, minimum=2)
    for d in "ab":
        r.ask(d, "t")
    r.memory.run(limit=10_000)
    assert words(r) == "waiting for 6 of 6 devices: it takes no more, and waits for the 2 at work"


def checked_in(crowd: Crowd, device: str, at: int, **abilities: float) -> None:
    crowd.checkin(Record(crowd.topic, 0, 0, device, encode(CheckIn(device, abilities)), at))


def crowd() -> Crowd:
    made = Crowd(NS, Z, "zone")
    assert list(made.follow(2))
    return made


def test_a_device_counts_once_and_as_it_was_last():
    c = crowd()
    for at, ram in ((1, 2.0), (2, 3.0), (3, 4.0)):
        checked_in(c, "a", at, ram=ram)
    checked_in(c, "b", 4, cpu=1.0)
    assert c.abilities(10).tolist() == [[0, 4, 0, 0, 0], [1, 0, 0, 0, 0]]
    c.checkin(Record(c.topic, 0, 0, "a", encode(CheckIn("a", gone=True)), 5))
    assert len(c.abilities(10)) == 1


def test_those_of_the_last_five_minutes_if_they_are_enough_else_the_last_thousand():
    c = crowd()
    for i in range(LAST + 100):
        checked_in(c, f"old-{i}", i, ram=1.0)
    for i in range(FEW - 1):
        checked_in(c, f"new-{i}", LATELY + 5_000, ram=2.0)
    now = LATELY + 5_001
    assert (len(c.abilities(now)), (c.abilities(now)[:, 1] == 2).sum()) == (LAST, FEW - 1)
    checked_in(c, "one-more", LATELY + 5_000, ram=2.0)
    assert len(c.abilities(now)) == FEW


def test_memory_is_bounded():
    c = crowd()
    for i in range(MOST + 50):
        checked_in(c, f"d-{i}", i)
    assert len(c.seen) == MOST
    assert "d-49" not in c.seen


def test_nonsense_changes_nothing_and_who_stops_forgets():
    c = crowd()
    checked_in(c, "a", 1, ram=1.0)
    for key, value in (("a", b"\xff"), ("another", encode(CheckIn("b")))):
        c.checkin(Record(c.topic, 0, 0, key, value, 2))
    assert list(c.seen) == ["a"]
    list(c.end())
    checked_in(c, "b", 3)
    assert c.seen == {}
    assert c.abilities(5).shape == (0, 5)


def test_it_begins_a_little_before_the_end():
    c = Crowd(NS, Z, "zone")
    (ends,) = c.follow(2)
    follows = list(c.ended(ends.tag[1], {0: 5, 1: 10 * LAST}))
    assert [(f.partition, f.offset) for f in follows if isinstance(f, Follow)] == [(0, 0), (1, 9 * LAST)]
    assert [f.offset for f in c.skip(ends.tag[1], 1, (9_500, 10_000)) if isinstance(f, Follow)] == [9_500]
    assert list(c.ended(ends.tag[1] + 1, {0: 5})) == [], "an answer to an older question"
