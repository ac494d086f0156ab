"""Tenants and the sharing policy as the global coordinator sets them: quotas, eligibility, silence; and that no restart loses any of it."""

from collections import Counter
from functools import cache
from typing import Any

import pytest
from msgspec.structs import replace

from device_sim.fleet import Manner
from processors.globe import GlobalCoordinator
from processors.steerer import Change, Steerer
from processors.submitter import Submitter
from processors.tenancy import MOST
from schemas.facts import (
    Closed,
    Finalised,
    SharingSet,
    TaskAdmitted,
    TaskEnded,
    TaskRefused,
    TaskUpdated,
    TenantSet,
    WishRefused,
)
from schemas.messages import CheckIn, Standing, TenantsReport
from schemas.sharing import SHARING, Needs, Quota, Sharing, Tenant
from schemas.task import Rounds, Submission, TaskSpec
from schemas.topics import GLOBAL, read, topic
from schemas.wire import Message, encode
from streams.memory import Host, Memory
from streams.processor import Ends, Send, send
from tests.plane import LAYOUT, NS, START, Plane, spec
from tests.processors.test_crash_points import MODES, Doomed, kind_of

TENANTS = topic(NS, GLOBAL, "tenants")
ACME = Tenant(tenant="acme", weight=2.0, quota=Quota(tasks=2), by="ann")


def plane(**more: Any) -> Plane:
    """Without devices: what is admitted stays open."""
    made = Plane(Memory(seed=3), zones=("east", "west"), partitions=2, aggregators=0, devices=0, **more)
    made.memory.run(limit=3_000)
    return made


def say(p: Plane, wish: Message, key: str) -> int:
    return p.memory.append(send(TENANTS, wish, key))[1]


def of(p: Plane, kind: type) -> list[Any]:
    return [f for f in p.facts(GLOBAL) if isinstance(f, kind)]


def submitted(p: Plane, task: str, tenant: str = "acme", **more: Any) -> tuple[bool, str]:
    host = p.submit(replace(spec(task), tenant=tenant, **more))
    return verdict(p, host)


def verdict(p: Plane, host: Host) -> tuple[bool, str]:
    assert p.memory.run(lambda: host.stopped is not None, 120_000)
    assert host.stopped
    return host.stopped.ok, host.stopped.reason


def steer(p: Plane, change: Change, task: str = "toy") -> tuple[bool, str]:
    return verdict(p, p.memory.host(lambda life: Steerer(NS, task, change, "ann")))


# ------------------------------------------------------------------ what tenants say


def test_a_tenant_and_a_policy_are_set():
    p = plane()
    at = say(p, ACME, "acme"), say(p, Sharing(policy="max-min", by="ann"), SHARING)
    p.memory.run(limit=1_000)
    globe = p.globe()
    assert (globe.tenant("acme"), globe.tenants["acme"].submission) == (ACME, at[0])
    assert (globe.sharing.sharing.policy, globe.sharing.submission) == ("max-min", at[1])
    p.memory.run(limit=20_000)
    assert (len(of(p, TenantSet)), len(of(p, SharingSet))) == (1, 1)


@pytest.mark.parametrize(
    ("wish", "key", "why"),
    [
        (Sharing(policy="lottery"), SHARING, "no sharing policy 'lottery' is known here; known: "),
        (Sharing(policy="reward", args={"tiers": 4}), SHARING, "tiers"),
        (Sharing(policy="reward"), "acme", "a sharing policy has the key .sharing, not acme"),
        (ACME, "labs", "it is about tenant acme, and its key is labs"),
        (ACME, SHARING, "it is about tenant acme, and its key is .sharing"),
        (replace(ACME, quota=Quota(bytes=MOST + 1)), "acme", "more than anyone can count"),
    ],
)
def test_what_cannot_hold_is_refused_in_words_and_changes_nothing(wish, key, why):
    p = plane()
    say(p, ACME, "acme")
    p.memory.run(limit=1_000)
    at = say(p, wish, key)
    p.memory.run(limit=1_000)
    (refused,) = of(p, WishRefused)
    assert (refused.submission, refused.key) == (at, key)
    assert why in refused.reason
    assert p.globe().tenants.keys() == {"acme"}
    assert p.globe().tenant("acme") == ACME
    assert p.globe().sharing is None


def test_what_cannot_be_read_is_a_dead_letter_and_what_came_before_it_holds():
    p = plane()
    say(p, ACME, "acme")
    p.memory.append(Send(TENANTS.name, b"\xff", "acme", 0))
    say(p, replace(ACME, weight=0.0), "acme")
    p.memory.append(send(TENANTS, ACME, None, 0))
    p.memory.append(send(TENANTS, ACME, "x" * 201, 0))
    p.memory.run(limit=1_000)
    assert p.globe().tenant("acme") == ACME
    assert of(p, WishRefused) == []
    assert len(p.memory.records(topic(NS, GLOBAL, "dead-letters").name)) == 4


def test_records_of_a_tenant_hold_in_their_order_and_a_bad_one_takes_none_with_it():
    p = plane()
    p.hosts["global"].crash()
    for weight in (1.0, 2.0, 3.0):
        say(p, replace(ACME, weight=weight), "acme")
    say(p, replace(ACME, tenant="labs"), "acme")
    p.hosts["global"].restart()
    p.memory.run(limit=20_000)
    assert [f.tenant.weight for f in of(p, TenantSet)] == [1.0, 2.0, 3.0]
    assert len(of(p, WishRefused)) == 1
    assert p.globe().tenant("acme").weight == 3.0


# ------------------------------------------------------------------ quotas


def test_a_task_beyond_the_quota_is_refused_with_how_many_are_open():
    p = plane()
    say(p, ACME, "acme")
    p.memory.run(limit=1_000)
    assert submitted(p, "toy")[0]
    assert submitted(p, "more")[0]
    ok, why = submitted(p, "third")
    assert not ok
    assert why.startswith("third is refused: tenant acme may have 2 open tasks and has 2 (toy, more): wait until")
    assert "olearning tenant set acme --tasks 3" in why
    assert submitted(p, "others", "labs")[0], "it is acme's quota"
    assert steer(p, Change("stop"))[0]
    assert p.memory.run(lambda: "toy" in p.globe().over, 20_000)
    assert submitted(p, "third")[0], "an ended task is not open, and the name is free"


def test_of_many_at_the_same_moment_no_more_get_in_than_the_quota_allows():
    for seed in range(5):
        p = Plane(Memory(seed=seed, latency=(1, 300)), partitions=2, aggregators=0, devices=0)
        say(p, ACME, "acme")
        p.memory.run(limit=10_000)
        hosts = [p.submit(replace(spec(f"t{n}"), tenant="acme")) for n in range(6)]
        said = [verdict(p, h) for h in hosts]
        assert sum(ok for ok, _ in said) == 2, said
        assert all(ok or "has 2 (" in why for ok, why in said)


def test_a_quota_below_what_is_open_refuses_new_tasks_alone():
    p = plane()
    assert submitted(p, "toy")[0]
    assert submitted(p, "more")[0]
    say(p, replace(ACME, quota=Quota(tasks=1)), "acme")
    p.memory.run(limit=1_000)
    assert p.globe().tenant("acme").quota.tasks == 1
    assert "may have 1 open task and has 2 (toy, more)" in submitted(p, "third")[1]
    assert steer(p, Change("pause"))[0], "what runs can be changed as before"
    assert steer(p, Change("run"))[0]
    assert {t.state for t in p.globe().tasks.values()} == {"open"}


def test_a_task_of_which_no_device_may_move_the_model_is_refused():
    p = plane()
    cost = 2 * 4 * sum(LAYOUT.sizes)
    say(p, replace(ACME, quota=Quota(bytes=cost - 1)), "acme")
    p.memory.run(limit=1_000)
    ok, why = submitted(p, "toy")
    assert not ok
    assert f"a device of the task may move {cost} bytes in a round" in why
    say(p, replace(ACME, quota=Quota(bytes=2 * cost - 1)), "acme")
    p.memory.run(limit=1_000)
    ok, why = submitted(p, "toy")
    assert not ok
    assert f"each of 2 zones has its part, {cost - 1:,}" in why, "no zone could ever admit a device"
    say(p, replace(ACME, quota=Quota(bytes=2 * cost)), "acme")
    p.memory.run(limit=1_000)
    assert submitted(p, "toy")[0]


def test_what_a_tenant_says_at_length_stops_nobody():
    """A record as large as Kafka takes, and a reason that repeats what was said: the fact must fit a record all the same."""
    p = plane()
    say(p, Sharing("max-min", {"within": "\x00" * 60_000}), SHARING)
    say(p, Sharing("fifo", {"within": "x" * 100_000}), SHARING)
    p.memory.run(limit=2_000)
    (refused,) = p.globe().wishes.values()
    assert len(encode(refused)) < 10_000
    letters = [read(r.topic, r.value, r.headers) for r in p.memory.records(topic(NS, GLOBAL, "dead-letters").name)]
    assert [x.reason for x in letters] == ["what a tenant says has at most 65536 bytes"]


def test_a_round_that_is_to_end_ends_though_another_word_comes_before_anybody_looks():
    """Of a task only the last record is ever dealt with."""
    p = plane()
    assert submitted(p, "toy")[0]
    p.memory.run(limit=5_000)
    before = {z: p.zone(z).tasks["toy"].round for z in ("east", "west")}
    p.hosts["global"].crash()
    words = [p.memory.host(lambda life, c=c: Steerer(NS, "toy", c, "ann")) for c in (Change(ends=()),)]
    p.memory.run(limit=2_000)
    words.append(p.memory.host(lambda life: Steerer(NS, "toy", Change(), "bob")))
    p.memory.run(limit=2_000)
    p.hosts["global"].restart()
    p.memory.run(limit=10_000)
    assert all(w.stopped and w.stopped.ok for w in words)
    assert p.globe().tasks["toy"].enough == before


# ------------------------------------------------------------------ eligibility


def checkin(p: Plane, zone: str, devices: int, **abilities: float) -> None:
    for n in range(devices):
        name = f"{zone}-{n}-{len(abilities)}"
        p.memory.append(send(topic(NS, zone, "checkins"), CheckIn(name, abilities), name))


def test_a_task_that_no_device_seen_can_do_is_refused_with_the_bound():
    p = plane()
    checkin(p, "east", 3, ram=6.0, cpu=9.0)
    checkin(p, "west", 2, ram=8.0)
    p.memory.run(limit=1_000)
    ok, why = submitted(p, "toy", needs=Needs(public={"ram": 16.0, "cpu": 1.0}))
    assert (ok, why) == (
        False,
        "toy is refused: needs.public: none of the 5 devices seen within a day in east, west has ram 16 or more",
    )
    assert submitted(p, "toy", needs=Needs(public={"ram": 8.0}))[0]
    ok, why = submitted(p, "more", zones=("east",), needs=Needs(public={"ram": 8.0}))
    assert "none of the 3 devices seen within a day in east has ram 8 or more" in why


def test_where_no_device_was_seen_yet_a_task_is_admitted():
    p = plane()
    checkin(p, "west", 2, ram=8.0)
    p.memory.run(limit=1_000)
    assert submitted(p, "toy", zones=("east",), needs=Needs(public={"ram": 16.0}))[0]


def test_private_needs_are_no_concern_of_the_plane():
    p = plane()
    checkin(p, "east", 1, ram=8.0)
    p.memory.run(limit=1_000)
    assert submitted(p, "toy", needs=Needs(private={"samples": 1e9}))[0]


def test_a_new_leader_reads_all_check_ins_before_it_says_that_nobody_can():
    """The one device that can is the last that it comes to."""
    p = plane()
    checkin(p, "east", 300, ram=1.0)
    checkin(p, "east", 1, ram=16.0, cpu=9.0)
    p.memory.run(limit=2_000)
    p.hosts["global"].crash()
    host = p.submit(replace(spec(), zones=("east",), needs=Needs(public={"ram": 16.0})))
    p.memory.run(limit=1_000)
    p.hosts["global"].restart()
    assert verdict(p, host)[0]


# ------------------------------------------------------------------ silence


def test_a_task_whose_tenant_is_silent_is_stopped_and_says_so():
    p = plane()
    assert submitted(p, "toy", silent_s=30.0)[0]
    assert submitted(p, "lasting")[0]
    p.memory.run(limit=25_000)
    assert of(p, TaskUpdated) == []
    assert p.memory.run(lambda: "toy" in p.globe().over, 60_000)
    why = "stopped by the silence of its tenant acme, of which nothing was heard for 30 s"
    assert [(f.task, f.why) for f in of(p, TaskEnded)] == [("toy", why)]
    assert p.globe().tasks["lasting"].wanted == "run"
    assert steer(p, Change()) == (False, f"toy has ended: {why}")


def test_a_task_that_is_kept_goes_on():
    p = plane()
    assert submitted(p, "toy", silent_s=30.0)[0]
    for _ in range(5):
        p.memory.run(limit=20_000)
        ok, said = steer(p, Change())
        assert (ok, said) == (True, "toy is kept: it is stopped unless something is said of it again within 30 s")
    assert {f.wanted for f in of(p, TaskUpdated)} == {"run"}


def test_a_paused_task_is_stopped_for_silence_too():
    p = plane()
    assert submitted(p, "toy", silent_s=30.0)[0]
    assert steer(p, Change("pause"))[0]
    assert p.memory.run(lambda: "toy" in p.globe().over, 60_000)


def test_a_refused_change_is_a_sign_of_life():
    p = plane()
    assert submitted(p, "toy", silent_s=30.0)[0]
    p.memory.run(limit=25_000)
    assert not steer(p, Change(spec=replace(spec("toy"), tenant="acme", silent_s=90.0)))[0]
    p.memory.run(limit=25_000)
    assert p.globe().tasks["toy"].wanted == "run"


def test_what_was_said_while_nobody_led_counts():
    """The coordinator is away for longer than the tenant may be silent; its word lies in the log."""
    p = plane()
    assert submitted(p, "toy", silent_s=30.0)[0]
    p.hosts["global"].crash()
    p.memory.run(limit=20_000)
    t = p.globe().tasks["toy"]
    p.memory.append(send(topic(NS, GLOBAL, "tasks"), Submission(t.spec, t.layout, t.first, t.seed), "toy"))
    p.memory.run(limit=20_000)
    p.hosts["global"].restart()
    p.memory.run(limit=20_000)
    assert [f.wanted for f in of(p, TaskUpdated)] == ["run"]
    assert p.memory.run(lambda: "toy" in p.globe().over, 60_000), "and then it is silent again"


def test_a_word_that_lies_unread_when_the_time_is_up_counts():
    """A coordinator that slept wakes: its clock is past the time, and the record has not come to it yet."""
    p = plane()
    assert submitted(p, "toy", silent_s=30.0)[0]
    p.memory.run(limit=20_000)
    p.hosts["global"].freeze()
    t = p.globe().tasks["toy"]
    p.memory.append(send(topic(NS, GLOBAL, "tasks"), Submission(t.spec, t.layout, t.first, t.seed), "toy"))
    p.memory.run(limit=20_000)
    p.hosts["global"].thaw()
    p.memory.run(limit=15_000)
    assert [f.wanted for f in of(p, TaskUpdated)] == ["run"]


def test_it_reads_the_tasks_to_their_end_before_it_calls_a_tenant_silent():
    """On a broker, an answer may come before the records that lie below it."""
    p = plane()
    assert submitted(p, "toy", silent_s=30.0)[0]
    desk = GlobalCoordinator(NS, p.zones, 2, "global", "2")
    desk.reading.ledger.state = p.globe()
    tenancy = desk.tenancy
    later = p.globe().tasks["toy"].heard + 30_000
    assert list(tenancy.silence(later - 1, set())) == []
    (ask,) = tenancy.silence(later, set())
    assert ask == Ends(ask.tag, topic(NS, GLOBAL, "tasks").name)
    assert list(tenancy.silence(later, set())) == [], "it is asked already"
    tenancy.read = 1
    tenancy.answer(desk.requests.close(ask.tag), {0: 2}, later)
    assert list(tenancy.silence(later, set())) == [], "there is a record more"
    tenancy.read = 2
    assert list(tenancy.silence(later, {"toy"})) == [], "and it is of this task"
    tenancy.answer(("silence", "toy"), {0: 2}, later)
    (stop,) = tenancy.silence(later, set())
    assert read(stop.topic, stop.value, stop.headers).wanted == "stop"


# ------------------------------------------------------------------ rounds that are ended early


def test_rounds_are_ended_early_where_they_are_open():
    p = plane()
    assert submitted(p, "toy")[0]
    p.memory.run(limit=1_000)
    ok, said = steer(p, Change(ends=()))
    assert (ok, said) == (True, "toy: round 1 in east, round 1 in west end now with what came")
    (fact,) = of(p, TaskUpdated)
    assert (fact.enough, fact.wanted, fact.spec.task) == ({"east": 1, "west": 1}, "run", "toy")


def test_a_round_that_its_tenant_ends_is_finalised_with_what_came_and_the_next_one_opens():
    p = Plane(Memory(seed=3), zones=("east", "west"), devices=6)
    assert submitted(p, "toy", rounds=Rounds(demand=9, minimum=1, over_commit=1.0, deadline_s=600, lease_s=300))[0]
    done = lambda: {z: len([f for f in p.facts(z) if isinstance(f, Finalised)]) for z in p.zones}  # noqa: E731
    p.memory.run(limit=20_000)
    assert done() == {"east": 0, "west": 0}, "nine are wanted, and there are six"
    assert steer(p, Change(ends=("east",)))[0]
    assert p.memory.run(lambda: done() == {"east": 1, "west": 0}, 20_000)
    (closed,) = [f for f in p.facts("east") if isinstance(f, Closed)]
    (final,) = [f for f in p.facts("east") if isinstance(f, Finalised)]
    assert (closed.why, final.devices, final.manifest is not None) == ("the tenant ended it", 6, True)
    p.memory.run(limit=20_000)
    assert (p.zone("east").tasks["toy"].round, done()) == (2, {"east": 1, "west": 0}), (
        "the next one lasts as long as it lasts"
    )


def test_in_one_zone_alone():
    p = plane()
    assert submitted(p, "toy")[0]
    p.memory.run(limit=1_000)
    assert steer(p, Change(ends=("west",))) == (True, "toy: round 1 in west ends now with what came")
    assert of(p, TaskUpdated)[0].enough == {"west": 1}
    assert steer(p, Change("pause"))[0]
    assert of(p, TaskUpdated)[1].enough == {}, "it is said once"
    assert steer(p, Change(ends=("mars",))) == (False, "toy does not run in mars; it does in east, west")


def test_where_no_round_is_open_none_can_be_ended():
    p = plane()
    for zone in p.zones:
        p.hosts[f"zone-{zone}"].crash()
    assert submitted(p, "toy")[0]
    assert steer(p, Change(ends=())) == (False, "toy has no round open in east, west")


def test_a_round_that_is_closed_already_cannot_be_ended_early():
    p = Plane(Memory(seed=3), zones=("east",), aggregators=0)
    assert submitted(p, "toy", rounds=Rounds(demand=6, minimum=1, deadline_s=5))[0]
    p.memory.run(limit=8_000)
    assert p.zone("east").tasks["toy"].state == "closed"
    assert steer(p, Change(ends=())) == (False, "toy has no round open in east")


@pytest.mark.parametrize(
    ("enough", "why"),
    [({"east": 3}, "round 3 in east is not open: the last one is 1"), ({"mars": 1}, "it does not run in zone mars")],
)
def test_rounds_to_come_cannot_be_ended(enough, why):
    p = plane()
    assert submitted(p, "toy")[0]
    p.memory.run(limit=1_000)
    t = p.globe().tasks["toy"]
    s = Submission(t.spec, t.layout, t.first, t.seed, enough=enough)
    p.memory.append(send(topic(NS, GLOBAL, "tasks"), s, "toy"))
    p.memory.run(limit=1_000)
    assert why in p.globe().refused["toy"].reason
    assert of(p, TaskUpdated) == []


# ------------------------------------------------------------------ the metrics


def reports(p: Plane) -> list[TenantsReport]:
    records = p.memory.records(topic(NS, GLOBAL, "metrics").name)
    return [m for r in records if isinstance(m := read(r.topic, r.value, r.headers), TenantsReport)]


def test_how_tenants_stand_is_in_the_metrics():
    p = Plane(Memory(seed=3), manner=Manner(training=(9_000, 9_000), reaction=50, report=500))
    say(p, ACME, "acme")
    p.memory.run(limit=2_000)
    assert submitted(p, "toy")[0]
    p.memory.run(limit=8_000)
    last = reports(p)[-1]
    assert last.policy == "reward"
    assert last.tenants == {"acme": Standing(2.0, Quota(tasks=2), tasks=1, devices=12, bytes=12 * 2 * 4 * 12)}


def test_what_does_not_change_is_said_again_before_the_metrics_forget_it():
    p = plane()
    say(p, ACME, "acme")
    p.memory.run(limit=20_000)
    n = len(reports(p))
    p.memory.run(limit=500_000)
    assert len(reports(p)) == n
    p.memory.run(limit=300_000)
    assert len(reports(p)) == n + 1


# ------------------------------------------------------------------ a crash at any effect of the coordinator


class Run:
    """Everything that this file is about, while the coordinator dies at `point`, or never."""

    def __init__(self, point: tuple[str, int, str] | None = None):
        self.point, self.seen, self.died, self.number = point, Counter[str](), False, -1
        self.memory = Memory(seed=1, latency=(1, 10))
        self.plane = Dying(self.memory, zones=("east",), partitions=2, aggregators=0, devices=0, run=self)

    def watched(self, effects: Any) -> Any:
        for effect in effects:
            kind = kind_of(effect)
            self.seen[kind] += 1
            if not self.point or self.died or self.point[:2] != (kind, self.seen[kind]):
                yield effect
                continue
            mode = self.point[2]
            if mode != "before":
                yield effect
            self.memory.loss = float(mode == "after, lost")
            host = self.memory.hosts[self.number]
            host.crash()
            self.memory.loss = 0.0
            self.died = True
            self.memory._at(30 if self.seen[kind] % 2 else 1_500, host.restart)
            return

    def finish(self) -> tuple[Any, ...]:
        p = self.plane
        records = [
            say(p, ACME, "acme"),
            say(p, Sharing(policy="lottery"), SHARING),
            say(p, replace(ACME, quota=Quota(tasks=1)), "acme"),
            say(p, Sharing(policy="reward"), SHARING),
            say(p, ACME, "labs"),
        ]
        assert p.memory.run(lambda: p.globe().dealt("labs") >= 0, 60_000)
        checkin(p, "east", 2, ram=4.0)
        verdicts = [
            self.submit(replace(spec("toy"), tenant="acme")),
            self.submit(replace(spec("more"), tenant="acme")),
            self.submit(replace(spec("lone"), tenant="labs", silent_s=9.0)),
            self.submit(replace(spec("huge"), tenant="labs", needs=Needs(public={"ram": 64.0}))),
        ]
        assert p.memory.run(lambda: "lone" in p.globe().over, 60_000)
        p.memory.run(limit=5_000)
        g, facts = p.globe(), p.facts(GLOBAL)
        assert [f.task for f in facts if isinstance(f, TaskEnded)] == ["lone"]
        admitted = [f.spec.task for f in facts if isinstance(f, TaskAdmitted)]
        sets = [(f.submission, f.tenant) for f in facts if isinstance(f, TenantSet)]
        policies = [(f.submission, f.sharing) for f in facts if isinstance(f, SharingSet)]
        wishes = [(f.submission, f.key, f.reason) for f in facts if isinstance(f, WishRefused)]
        refused = {f.task: f.reason for f in facts if isinstance(f, TaskRefused)}
        ends = (g.over["lone"].why, g.tasks["toy"].state)
        return records, verdicts, admitted, sets, policies, sorted(wishes), refused, ends

    def submit(self, spec: TaskSpec) -> tuple[bool, str]:
        host = self.memory.host(lambda life: Submitter(NS, life, spec, LAYOUT, START, 1))
        return verdict(self.plane, host)


class Dying(Plane):
    def __init__(self, *args: Any, run: Run, **more: Any):
        self.run = run
        super().__init__(*args, **more)

    def host(self, name: str, make: Any) -> None:
        if name == "global":
            self.run.number = len(self.memory.hosts)
            super().host(name, lambda life: Doomed(make(life), self.run.watched))
        else:
            super().host(name, make)


@cache
def undisturbed() -> tuple[Counter[str], tuple[Any, ...]]:
    run = Run()
    return run.seen, run.finish()


def points() -> list[tuple[str, int, str]]:
    """Every effect, but of those that are told many times over and decide nothing the first few alone."""
    few = ("Send metrics", "Follow", "Ends", "Send dead-letters")
    numbered = [
        (k, i) for k, n in sorted(undisturbed()[0].items()) for i in range(1, n + 1) if i <= 8 or not k.startswith(few)
    ]
    return [(k, i, m) for k, i in numbered for m in MODES if k.startswith("Send") or m != "after, lost"]


@pytest.mark.proof
def test_a_crash_at_any_effect_of_the_coordinator_loses_no_word_of_a_tenant():
    right, wrong = undisturbed()[1], []
    for point in points():
        run = Run(point)
        try:
            got = run.finish()
            assert run.died, "nobody died"
            assert got == right, [x for x in zip(got, right, strict=True) if x[0] != x[1]]
        except AssertionError as e:
            wrong.append(f"{point}: {str(e)[:500]}")
    assert not wrong, f"{len(wrong)} of {len(points())}\n" + "\n".join(wrong[:10])


def test_the_story_without_a_crash_and_its_steps():
    seen, (records, verdicts, admitted, sets, policies, wishes, refused, ends) = undisturbed()
    assert [ok for ok, _ in verdicts] == [True, False, True, False]
    assert admitted == ["toy", "lone"]
    assert [at for at, _ in sets] == [records[0], records[2]]
    assert [at for at, _ in policies] == [records[3]]
    assert [(at, key) for at, key, _ in wishes] == [(records[1], SHARING), (records[4], "labs")]
    assert refused.keys() == {"more", "huge"}
    assert ends[0].startswith("stopped by the silence of its tenant labs")
    assert {
        "Send ledger TenantSet",
        "Send ledger SharingSet",
        "Send ledger WishRefused",
        "Send ledger TaskUpdated",
    } <= seen.keys()
