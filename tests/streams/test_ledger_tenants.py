"""Tenants, the sharing policy, and what tenants say of their tasks, as the global ledger folds them."""

from msgspec.structs import replace

from schemas.facts import SharingSet, TaskAdmitted, TaskRefused, TaskUpdated, TenantSet, WishRefused
from schemas.sharing import SHARING, Quota, Sharing, Tenant
from tests.streams.book import MANIFEST
from tests.streams.test_ledger import LAYOUT, SPEC, globe, running

ACME = Tenant(tenant="acme", weight=2.0, quota=Quota(tasks=3))


def test_a_tenant_has_what_was_said_last():
    book, token = globe()
    assert book.state.tenant("acme") == Tenant(tenant="acme"), "nothing was said"
    book.ok(TenantSet(token, 0, ACME))
    book.ok(TenantSet(token, 4, replace(ACME, weight=3.0)))
    assert book.state.tenant("acme").weight == 3.0
    assert "record 4 of acme is dealt with" in book.add(TenantSet(token, 4, ACME))
    assert "record 4 of acme is dealt with" in book.add(TenantSet(token, 3, ACME))
    assert "is not the leader's" in book.add(TenantSet(token + 1, 9, ACME))


def test_a_policy_holds_from_its_fact_on():
    book, token = globe()
    assert book.state.sharing is None
    book.ok(SharingSet(token, 1, Sharing(policy="irs")), SharingSet(token, 2, Sharing(policy="fifo")))
    assert book.state.sharing.sharing.policy == "fifo"
    assert "dealt with" in book.add(SharingSet(token, 1, Sharing(policy="irs")))


def test_a_refused_record_is_dealt_with_too_and_changes_nothing():
    book, token = globe()
    book.ok(
        TenantSet(token, 1, ACME), WishRefused(token, 2, "acme", "no"), WishRefused(token, 5, SHARING, "no such policy")
    )
    assert book.state.tenant("acme") == ACME
    assert "dealt with" in book.add(TenantSet(token, 2, replace(ACME, weight=9.0)))
    assert "dealt with" in book.add(WishRefused(token, 1, "acme", "no"))
    assert "dealt with" in book.add(SharingSet(token, 5, Sharing(policy="fifo")))
    assert book.state.sharing is None
    assert book.state.wishes[SHARING].reason == "no such policy"


def test_every_record_of_a_task_is_a_sign_of_life():
    book, token = globe()
    book.ok(TaskAdmitted(token, SPEC, LAYOUT, MANIFEST, ("east",)), time=700)
    assert book.state.tasks["t"].heard == 700
    book.ok(TaskUpdated(token, "t", 7, SPEC, "run"), time=900)
    assert book.state.tasks["t"].heard == 900


def test_rounds_that_a_tenant_ends_early_are_kept_by_zone():
    book, token = running()
    book.ok(TaskUpdated(token, "t", 7, SPEC, "run", enough={"east": 3}))
    book.ok(TaskUpdated(token, "t", 8, SPEC, "run", enough={"west": 2, "east": 1}))
    assert book.state.tasks["t"].enough == {"east": 3, "west": 2}


def test_a_refused_record_of_a_task_is_a_sign_of_life_too():
    book, token = running()
    book.ok(TaskRefused(token, "t", 7, "no"), time=900)
    assert book.state.tasks["t"].heard == 900


def test_silence_is_judged_by_the_ledger_s_clock_whatever_the_leader_s_says():
    book, token = globe()
    spec = replace(SPEC, silent_s=60.0)
    stop = TaskUpdated(token, "t", 4, spec, "stop", "silence")
    book.ok(TaskAdmitted(token, spec, LAYOUT, MANIFEST, ("east",), submission=4), time=1_000)
    assert "its tenant was heard of at 1000" in book.add(stop, time=60_999)
    assert "submission 4 holds" in book.add(replace(stop, wanted="pause"), time=99_000), "silence only stops"
    assert "submission 4 holds" in book.add(replace(stop, submission=3), time=99_000)
    book.ok(TaskUpdated(token, "t", 5, spec, "pause"), time=50_000)
    stop = replace(stop, submission=5)
    assert "heard of at 50000" in book.add(stop, time=109_999), "a paused one was heard of as well"
    book.ok(stop, time=110_000)
    t = book.state.tasks["t"]
    assert (t.wanted, t.by, t.heard, t.submission) == ("stop", "silence", 50_000, 5)
    assert "is stopped" in book.add(stop, time=120_000)


def test_a_task_that_has_no_such_time_is_never_silent():
    book, token = globe()
    book.ok(TaskAdmitted(token, SPEC, LAYOUT, MANIFEST, ("east",), submission=4), time=1)
    assert "heard of" in book.add(TaskUpdated(token, "t", 4, SPEC, "stop"), time=10**12)
