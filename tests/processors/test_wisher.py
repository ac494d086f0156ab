"""Setting a tenant or the policy from outside: the verdict in words, whoever else speaks, whatever lands twice."""

from typing import Any

from msgspec.structs import replace

from processors.wisher import Wisher
from schemas.facts import TenantSet
from schemas.sharing import SHARING, Quota, Sharing, Tenant
from schemas.topics import GLOBAL, topic
from streams.ledger import Globe
from streams.memory import Host, Memory
from streams.processor import Tick
from tests.plane import NS, Plane

TENANTS = topic(NS, GLOBAL, "tenants")


def plane() -> Plane:
    return Plane(Memory(seed=3), zones=("east",), partitions=2, aggregators=0, devices=0)


def wish(p: Plane, key: str, what: Any, patience: int = 30_000) -> Host:
    return p.memory.host(lambda life: Wisher(NS, key, what, patience))


def verdict(p: Plane, host: Host) -> tuple[bool, str]:
    assert p.memory.run(lambda: host.stopped is not None, 60_000)
    assert host.stopped
    return host.stopped.ok, host.stopped.reason


def weighs(weight: float) -> Any:
    return lambda old: replace(old, weight=weight, by="ann")


def test_what_is_not_said_stays_as_it_was():
    p = plane()
    few = lambda old: replace(old, quota=replace(old.quota, tasks=3, bytes=10**9), by="ann")  # noqa: E731
    said = "tenant acme: weight 1, 3 open tasks, devices at work without limit, 1,000,000,000 bytes a day"
    assert verdict(p, wish(p, "acme", few)) == (True, said)
    assert verdict(p, wish(p, "acme", weighs(2.5))) == (True, said.replace("weight 1", "weight 2.5"))
    assert p.globe().tenant("acme") == Tenant("acme", 2.5, Quota(tasks=3, bytes=10**9), "ann")


def test_two_changes_that_come_one_after_the_other_both_hold_though_nobody_leads():
    """The second begins from the first one's record, which is not in the ledger yet."""
    p = plane()
    p.memory.run(limit=2_000)
    p.hosts["global"].crash()
    hosts = [wish(p, "acme", weighs(4.0))]
    p.memory.run(limit=1_000)
    hosts.append(wish(p, "acme", lambda old: replace(old, quota=Quota(tasks=7))))
    p.memory.run(limit=1_000)
    p.hosts["global"].restart()
    assert all(verdict(p, h) for h in hosts)
    assert p.globe().tenant("acme") == Tenant("acme", 4.0, Quota(tasks=7), "ann")


def test_a_refusal_says_why_and_that_nothing_changed():
    p = plane()
    ok, said = verdict(p, wish(p, SHARING, Sharing(policy="lottery", by="ann")))
    assert not ok
    assert said.startswith("it stays as it was: no sharing policy 'lottery' is known here; known: ")


def test_a_policy_is_set_and_said():
    p = plane()
    assert verdict(p, wish(p, SHARING, Sharing(policy="reward", by="ann"))) == (True, "devices are shared by reward")


def test_what_lands_twice_holds_once_and_is_said():
    p = plane()
    p.memory.run(limit=2_000)
    p.memory.network = lambda host, s: [5, 9] if s.topic == TENANTS.name else [p.memory.delay()]
    assert verdict(p, wish(p, "acme", weighs(2.0)))[0]
    p.memory.run(limit=5_000)
    assert {f.tenant.weight for f in p.facts(GLOBAL) if isinstance(f, TenantSet)} == {2.0}


def test_of_two_at_once_both_held_and_each_is_told_what_held():
    p = plane()
    p.memory.run(limit=2_000)
    p.hosts["global"].crash()
    hosts = [wish(p, "acme", weighs(w)) for w in (4.0, 9.0)]
    p.memory.run(limit=1_000)
    p.hosts["global"].restart()
    said = [verdict(p, h) for h in hosts]
    assert all(ok for ok, _ in said)
    assert [f.tenant.weight for f in p.facts(GLOBAL) if isinstance(f, TenantSet)] in ([4.0, 9.0], [9.0, 4.0])


def test_whose_record_was_compacted_away_before_anyone_read_it_is_told_who_said_otherwise():
    w = Wisher(NS, "acme", weighs(4.0))
    w.sent, w.submission = Tenant("acme", 4.0, by="ann"), 3
    w.reading.ledger.state = Globe(tenants={"acme": TenantSet(1, 4, Tenant("acme", 9.0, by="bob"))})
    (stop,) = w.handle(Tick(), 0)
    assert (stop.ok, stop.reason.startswith("bob said otherwise right after: tenant acme: weight 9")) == (False, True)


def test_without_a_coordinator_it_says_what_to_start():
    p = plane()
    p.memory.run(limit=2_000)
    p.hosts["global"].crash()
    ok, said = verdict(p, wish(p, "acme", weighs(4.0), patience=3_000))
    assert (ok, said) == (False, "no verdict within 3 s: does the global coordinator run (olearning run global)?")
