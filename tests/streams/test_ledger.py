"""The fold, rule by rule: what each fact must follow, and that whatever does not is void and changes nothing."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.blocks import Manifest, Tensor, layout
from schemas.facts import (
    LEADERSHIP,
    RULES,
    Admitted,
    Claimed,
    Closed,
    Committed,
    Counts,
    Done,
    EpochClosed,
    EpochOpened,
    Finalised,
    Founded,
    Lapsed,
    Merged,
    Retired,
    Rules,
    Slot,
    Taken,
    TaskAdmitted,
    TaskEnded,
    TaskRefused,
    Update,
    ZoneJoined,
)
from schemas.messages import Ref
from schemas.task import TaskSpec
from schemas.wire import encode
from streams.ledger import Globe, Ledger, UnknownRules, Zone, fold, leads, shards_of, snapshot, summed
from streams.processor import Record
from tests.streams.book import (
    MANIFEST,
    OTHER,
    Book,
    admitted,
    at_work,
    claim,
    commit,
    opened,
    round_of,
    task,
    zone,
)

# ------------------------------------------------------------------ founding and rules


def test_founded_once_and_before_all_else():
    book = Book(Zone())
    assert "not founded" in book.add(Claimed("a", "1", {LEADERSHIP: 0}))
    book.ok(Founded("one", "z", 3))
    assert "already founded" in book.add(Founded("two", "z", 5))
    assert (book.state.ledger, book.state.partitions, len(book.state.shards)) == ("one", 3, 3)
    assert book.state.registrations == (0, 0, 0)
    assert leads(book.state, "a", "1") == 0


def test_a_globe_has_no_shards():
    book = Book(Globe())
    book.ok(Founded("g", "global", 4))
    assert book.add(Claimed("a", "1", {0: 0})) != ""  # a shard of nothing
    book.ok(Claimed("a", "1", {LEADERSHIP: 0}))
    assert leads(book.state, "a", "1") == 2
    assert "not a fact" in book.add(opened(2))


@pytest.mark.parametrize("state", [Zone(), Globe()])
def test_unknown_rules_stop_the_reader(state):
    with pytest.raises(UnknownRules, match="install a newer"):
        fold(state, 0, 0, Founded("x", "z", 1, rules=RULES + 1))
    with pytest.raises(UnknownRules, match=rf"rules {RULES - 1} of an older version.*another --namespace"):
        fold(state, 0, 0, Founded("x", "z", 1, rules=RULES - 1))
    book = Book(state)
    book.ok(Founded("x", "z", 1))
    assert book.add(Rules(RULES), 0) == f"rules {RULES} are followed already"
    with pytest.raises(UnknownRules, match=f"rules {RULES + 1}"):
        book.add(Rules(RULES + 1))


def test_a_gap_or_a_step_back_is_an_error():
    book = zone()
    for offset in (0, 2, 7):
        with pytest.raises(ValueError, match="comes after 0"):
            fold(book.state, offset, 0, Claimed("a", "1", {0: 0}))


def test_what_cannot_be_read_is_void_and_takes_its_offset():
    ledger = Ledger(zone().state)
    for value in (b"\xff", b"", None, encode(TaskEnded(1, "t", "a fact of the other kind of ledger"))):
        before = ledger.state
        fact, void = ledger.feed(Record("t.z.ledger", 0, before.position, None, value, 0))
        assert fact is None
        assert void
        assert ledger.state == replace(before, position=before.position + 1)
    major = (("schema-version", b"9"),)
    fact, void = ledger.feed(
        Record("t.z.ledger", 0, ledger.state.position, None, encode(Rules(1)), 0, major)
    )  # of a future
    assert fact is None
    assert "version 9" in void
    assert ledger.ref(3) == Ref("ledger-z", 3)


# ------------------------------------------------------------------ claims


def test_claims_are_judged_seat_by_seat():
    book = zone(3)
    first = claim(book, 0, 1)
    assert shards_of(book.state, "a", "1") == {0: first, 1: first}
    second = book.ok(Claimed("b", "1", {0: first, 1: 0, 2: 0, 9: 0}))  # 1 is not free any more, 9 is not there
    assert shards_of(book.state, "a", "1") == {1: first}
    assert shards_of(book.state, "b", "1") == {0: second, 2: second}
    assert "claimed since" in book.add(Claimed("c", "1", {0: first, 1: 0}))
    assert shards_of(book.state, "c", "1") == {}


def test_a_new_life_is_another_holder():
    book = zone()
    token = claim(book, LEADERSHIP, 0)
    assert (leads(book.state, "a", "1"), leads(book.state, "a", "2")) == (token, 0)
    later = claim(book, LEADERSHIP, life="2")
    assert (leads(book.state, "a", "1"), leads(book.state, "a", "2")) == (0, later)
    assert shards_of(book.state, "a", "1") == {0: token}


def test_a_copy_of_a_claim_is_void():
    book = zone()
    claim(book, 0)
    assert book.add(book.facts[-1]) != ""


# ------------------------------------------------------------------ rounds


def test_rounds_go_open_closed_finalised_open():
    book, token = at_work()
    close = Closed(token, "t", 1, "deadline", {0: 0, 1: 0})
    done = Finalised(token, "t", 1, (), 0, 0, 0, 0.0)
    assert "is open" in book.add(opened(token, 2))
    assert "is not closed" in book.add(done)
    book.ok(close)
    assert "is not open" in book.add(close)
    assert "is closed" in book.add(opened(token, 2))
    book.ok(done)
    assert "is not closed" in book.add(done)
    assert "is finalised" in book.add(opened(token, 1))  # it was
    assert "is finalised" in book.add(opened(token, 3))  # one is left out
    assert "epoch" in book.add(opened(token, 2, epoch=0))
    book.ok(opened(token, 2))
    assert (task(book).round, task(book).state) == (2, "open")


@pytest.mark.parametrize("step", ["opened", "closed", "finalised", "admitted", "retired"])
def test_token_only_the_leader_leads(step):
    book = zone()
    old = claim(book, LEADERSHIP)
    now = claim(book, LEADERSHIP, holder="b")
    others = {
        "opened": lambda t: opened(t),
        "closed": lambda t: Closed(t, "t", 1, "", {0: 0, 1: 0}),
        "finalised": lambda t: Finalised(t, "t", 1, (), 0, 0, 0, 0.0),
        "admitted": lambda t: Admitted(t, 0, {0: (0, 1)}, ()),
        "retired": lambda t: Retired(t, "t", Ref("g", 1)),
    }
    if step != "opened":
        book.ok(opened(now))
    if step == "finalised":
        book.ok(others["closed"](now))
    for token in (old, 0, now + 1):
        assert "not the leader's" in book.add(others[step](token))
    book.ok(others[step](now))


def test_nobody_leads_a_zone_that_nobody_claimed():
    assert "not the leader's" in zone().add(opened(0))


def test_ends_closed_names_all_shards():
    book, token = at_work()
    for ends in ({}, {0: 0}, {0: 0, 1: 0, 2: 0}, {0: 0, 2: 0}):
        assert "ends" in book.add(Closed(token, "t", 1, "", ends))


def test_ends_a_shard_is_done_at_the_first_commit_that_reaches_its_end():
    book, token = at_work(3)
    book.ok(commit(token, {0: (0, 5)}), Closed(token, "t", 1, "", {0: 5, 1: 4, 2: 0}))
    assert task(book).at == (2, 1, 2)  # 0 was there, 2 is empty
    book.ok(commit(token, {1: (0, 3)}))
    assert task(book).at == (2, 1, 2)
    book.ok(commit(token, {1: (3, 6)}))  # the reader had not heard of the end: what it passed belongs to the round
    assert task(book).at == (2, 2, 2)


def test_all_finalised_waits_for_every_shard():
    book, token = at_work()
    first = book.ok(commit(token, {0: (0, 2)}))
    book.ok(Closed(token, "t", 1, "", {0: 2, 1: 1}))
    done = Finalised(token, "t", 1, (first,), 2, 0, 0, 0.0, OTHER)
    assert "not all shards" in book.add(done)
    second = book.ok(commit(token, {1: (0, 1)}))
    assert "accepted commits" in book.add(done)  # it leaves one out
    assert "accepted commits" in book.add(replace(done, commits=(second, first)))
    book.ok(replace(done, commits=(first, second)))
    assert (task(book).manifest, task(book).manifest_at, task(book).merged_rounds) == (OTHER, second + 3, 1)


def test_first_only_one_finalised_of_a_round_is_read():
    book, token = at_work()
    book.ok(Closed(token, "t", 1, "", {0: 0, 1: 0}))
    book.ok(Finalised(token, "t", 1, (), 0, 0, 0, 0.0, MANIFEST))
    heir = claim(book, LEADERSHIP, holder="b")
    for t in (token, heir):
        assert book.add(Finalised(t, "t", 1, (), 0, 0, 0, 0.0, OTHER)) != ""
    assert task(book).manifest == MANIFEST


def test_a_failed_round_gives_no_model_and_the_next_may_open():
    book, token = at_work()
    book.ok(Closed(token, "t", 1, "", {0: 0, 1: 0}), Finalised(token, "t", 1, (), 0, 0, 0, 0.0))
    assert (task(book).manifest, task(book).merged_rounds) == (None, 0)
    book.ok(opened(token, 2))


def test_merged_rounds_are_counted_by_epoch():
    book, token = at_work()
    for n, epoch in ((2, 1), (3, 2)):
        book.ok(Closed(token, "t", n - 1, "", {0: 0, 1: 0}), Finalised(token, "t", n - 1, (), 0, 0, 0, 0.0, MANIFEST))
        book.ok(opened(token, n, epoch=epoch))
        assert task(book).merged_rounds == (n - 1 if epoch == 1 else 0)


def test_a_retired_task_opens_no_round():
    book, token = at_work()
    assert "not known" in book.add(Retired(token, "u", Ref("g", 1)))
    book.ok(Retired(token, "t", Ref("g", 1)))
    assert "retired" in book.add(Retired(token, "t", Ref("g", 1)))
    assert book.add(Closed(token, "t", 1, "", {0: 0, 1: 0})) != ""
    assert "retired" in book.add(opened(token, 2))


# ------------------------------------------------------------------ commits


def test_tile_a_commit_starts_where_the_last_ended():
    book, token = at_work()
    book.ok(commit(token, {0: (0, 4)}))
    for bad in ((0, 4), (3, 6), (5, 6), (4, 4), (4, 3)):
        counts = Counts(counted=max(0, bad[1] - bad[0]))
        assert "committed up to 4" in book.add(commit(token, {0: bad}, counts=counts))
    book.ok(commit(token, {0: (4, 6)}))
    assert task(book).next == (6, 0)
    assert "covers nothing" in book.add(commit(token, {}))


def test_tile_one_bad_stretch_voids_the_whole_commit():
    book, token = at_work()
    book.ok(commit(token, {0: (0, 4)}))
    assert book.add(commit(token, {0: (0, 1), 1: (0, 1)})) != ""
    assert task(book).next == (4, 0)
    book.ok(commit(token, {0: (4, 5), 1: (0, 2)}))
    assert task(book).next == (5, 2)


def test_token_a_zombie_commits_nothing():
    book, token = at_work()
    heir = claim(book, 0, holder="b")
    assert "not that of shard 0" in book.add(commit(token, {0: (0, 1)}))
    assert "not that of shard 0" in book.add(commit(token, {0: (0, 1), 1: (0, 1)}))
    assert "not that of shard 0" in book.add(commit(0, {0: (0, 1)}))
    book.ok(commit(token, {1: (0, 1)}), commit(heir, {0: (0, 1)}))
    assert "no shard 7" in book.add(commit(heir, {7: (0, 1)}))
    assert "not known" in book.add(commit(heir, {0: (1, 2)}, task="u"))


def test_segment_a_commit_names_the_round_its_shards_are_in():
    book, token = at_work()
    assert "is in round 1" in book.add(commit(token, {0: (0, 1)}, round=2))
    book.ok(commit(token, {0: (0, 1)}), Closed(token, "t", 1, "", {0: 1, 1: 1}))
    assert "is in round 2" in book.add(commit(token, {0: (1, 2)}))  # it is done with it
    assert book.add(commit(token, {0: (1, 2), 1: (0, 1)})) != ""  # they are in different rounds
    # What comes before the next round opens falls into it already.
    book.ok(commit(token, {0: (1, 2)}, round=2, counts=Counts(late=1), sums=(None,)))
    first = round_of(book, 2)
    assert (first.opened, first.counts) == (None, Counts(late=1))
    book.ok(commit(token, {1: (0, 1)}))
    book.ok(Finalised(token, "t", 1, summed(round_of(book)), 0, 0, 0, 0.0), opened(token, 2))
    assert round_of(book, 2).counts == Counts(late=1)
    assert round_of(book, 2).commits == first.commits


@pytest.mark.parametrize("field", Counts.__struct_fields__)
def test_counts_add_up_to_the_offsets(field):
    book, token = at_work()
    for n in (0, 2, 4):
        assert "do not add up" in book.add(commit(token, {0: (0, 2), 1: (0, 1)}, counts=Counts(**{field: n})))
    book.ok(commit(token, {0: (0, 2), 1: (0, 1)}, counts=Counts(**{field: 3})))
    book.ok(commit(token, {0: (2, 3)}, counts=Counts(**{field: 1})))
    assert round_of(book).counts == Counts(**{field: 4})


def test_done_slots_are_counted_once_and_meet_the_demand():
    book, token = at_work()
    admitted(book, token, "x", "y")
    book.ok(commit(token, {0: (0, 1)}, done=(Done(1, 0),)), time=5)
    assert (round_of(book).contributors, round_of(book).met_at) == (1, None)
    for bad in (Done(1, 0), Done(1, 2), Done(2, 0), Done(0, 0)):
        void = book.add(commit(token, {0: (1, 2)}, done=(bad,)))
        assert "is unknown" in void or "done or given up before" in void
    assert book.add(commit(token, {0: (1, 2)}, done=(Done(1, 1), Done(1, 1)))) != ""
    book.ok(commit(token, {1: (0, 1)}, done=(Done(1, 1),)), time=7)
    book.ok(commit(token, {1: (1, 2)}), time=9)
    assert (round_of(book).contributors, round_of(book).met_at) == (2, 7)
    assert round_of(book).done == {0, 1}


def test_only_commits_with_a_sum_are_summed():
    book, token = at_work()
    with_sum = [book.ok(commit(token, {0: (0, 1)}))]
    book.ok(commit(token, {0: (1, 2)}, counts=Counts(invalid=1), sums=(), bitmap=None))
    book.ok(commit(token, {0: (2, 3)}, counts=Counts(late=1), sums=(None,), bitmap=None))
    with_sum.append(book.ok(commit(token, {1: (0, 1)})))
    assert summed(round_of(book)) == tuple(with_sum)
    assert len(round_of(book).commits) == 4


@pytest.mark.parametrize("staleness", [0, 2])
def test_rounds_are_kept_as_long_as_a_block_may_name_them(staleness):
    book = zone()
    token = claim(book, LEADERSHIP, 0, 1)
    for n in range(1, 9):
        book.ok(opened(token, n, staleness=staleness))
        book.ok(Closed(token, "t", n, "", {0: 0, 1: 0}), Finalised(token, "t", n, (), 0, 0, 0, 0.0))
    assert task(book).at == (9, 9)
    assert sorted(task(book).rounds) == list(range(task(book).kept(0), 9))
    assert task(book).kept(0) == 8 - staleness


# ------------------------------------------------------------------ admissions


def test_chain_an_admitted_names_the_one_before():
    book, token = at_work()
    first = book.ok(Admitted(token, 0, {0: (0, 2)}, (Slot("t", 1, 0, "x"),)))
    copy = book.facts[-1]
    assert "not the last Admitted" in book.add(copy)
    assert "not the last Admitted" in book.add(Admitted(token, 0, {1: (0, 1)}, ()))
    second = book.ok(Admitted(token, first, {1: (0, 1)}, ()))
    assert book.state.admitted == second
    assert book.state.registrations == (2, 1)


def test_registrations_tile_too():
    book, token = at_work()
    last = book.ok(Admitted(token, 0, {0: (0, 2)}, ()))
    for ranges in ({0: (0, 2)}, {0: (1, 3)}, {0: (3, 4)}, {2: (0, 1)}, {0: (2, 3), 1: (1, 2)}):
        assert "dealt with" in book.add(Admitted(token, last, ranges, ()))
    last = book.ok(Admitted(token, last, {0: (2, 3), 1: (0, 2)}, ()))
    assert book.state.registrations == (3, 2)
    book.ok(Admitted(token, last, {0: (3, 1)}, ()))  # the log lost its end, and goes on there
    assert book.state.registrations == (1, 2)


def test_slots_count_up_and_are_never_used_again():
    book, token = at_work()
    admitted(book, token, "x")
    for bad in ((0, 1), (2,), (1, 1), (2, 1)):
        slots = tuple(Slot("t", 1, n, f"d{i}") for i, n in enumerate(bad))
        assert "next new slot" in book.add(Admitted(token, book.state.admitted, {}, slots))
    admitted(book, token, "y", "z", time=30)
    assert round_of(book).devices == ("x", "y", "z")
    assert round_of(book).leases == (50, 80, 80)


def test_a_device_has_one_slot_of_a_round():
    book, token = at_work()
    for devices in (("x", "x"), ("y", "x")):
        slots = tuple(Slot("t", 1, len(round_of(book).devices) + i, d) for i, d in enumerate(devices))
        if devices[0] == "y":
            admitted(book, token, "x")
            slots = tuple(replace(s, slot=s.slot + 1) for s in slots)
        assert "two slots" in book.add(Admitted(token, book.state.admitted, {}, slots))


def test_places_and_lapsed_leases():
    book, token = at_work()
    admitted(book, token, "x", "y", "z")
    more = Slot("t", 1, 3, "w")
    assert "3 places" in book.add(Admitted(token, book.state.admitted, {}, (more,)))
    book.ok(Admitted(token, book.state.admitted, {}, (more,), (Lapsed("t", 1, 1),)))  # ends a lease, gives its place
    assert round_of(book).lapsed == {1}
    again = Slot("t", 1, 4, "v")
    assert "3 places" in book.add(
        Admitted(token, book.state.admitted, {}, (again,), (Lapsed("t", 1, 1),))
    )  # freed before
    unknown = (Lapsed("t", 1, 9), Lapsed("t", 9, 0), Lapsed("u", 1, 0))
    assert "3 places" in book.add(Admitted(token, book.state.admitted, {}, (again,), unknown))
    book.ok(Admitted(token, book.state.admitted, {}, (), unknown))
    assert round_of(book).lapsed == {1}


def test_a_lapsed_slot_still_counts():
    book, token = at_work()
    admitted(book, token, "x")
    book.ok(Admitted(token, book.state.admitted, {}, (), (Lapsed("t", 1, 0),)))
    book.ok(commit(token, {0: (0, 1)}, done=(Done(1, 0),)))
    assert round_of(book).contributors == 1


def test_a_slot_in_a_closed_round_is_void_alone():
    book, token = at_work()
    book.ok(opened(token, 1, task="u"), Closed(token, "t", 1, "", {0: 0, 1: 0}))
    slots = (Slot("t", 1, 0, "x"), Slot("u", 1, 0, "x"), Slot("nobody", 1, 0, "x"), Slot("u", 2, 0, "x"))
    book.ok(Admitted(token, 0, {0: (0, 4)}, slots))
    assert round_of(book).devices == ()
    assert book.state.tasks["u"].rounds[1].devices == ("x",)
    assert book.state.registrations == (4, 0)


# ------------------------------------------------------------------ the globe

SPEC = TaskSpec(task="t", model="m", data="d")
LAYOUT = layout((Tensor("w", (4,)),))


def globe() -> tuple[Book, int]:
    book = Book(Globe())
    book.ok(Founded("g", "global", 1))
    token = claim(book, LEADERSHIP)
    for name in ("east", "west"):
        book.ok(ZoneJoined(token, name, f"ledger-{name}", 4))
    return book, token


def running(epoch: int = 1) -> tuple[Book, int]:
    """With t in its first epoch."""
    book, token = globe()
    book.ok(TaskAdmitted(token, SPEC, LAYOUT, MANIFEST, ("east", "west")), EpochOpened(token, "t", 1, MANIFEST))
    return book, token


def update(zone: str = "east", samples: int = 10, manifest: Manifest = MANIFEST) -> Update:
    return Update(zone, 1, manifest, samples, 2, 7)


def test_zones_join_once():
    book, token = globe()
    assert "in already" in book.add(ZoneJoined(token, "east", "another", 8))
    assert book.state.zones["east"].ledger == "ledger-east"


def test_a_name_is_used_once_and_zones_must_be_there():
    book, token = globe()
    admit = TaskAdmitted(token, SPEC, LAYOUT, MANIFEST, ("east",))
    assert "not there" in book.add(replace(admit, zones=("east", "mars")))
    assert "not there" in book.add(replace(admit, zones=()))
    book.ok(admit)
    assert "is used" in book.add(replace(admit, manifest=OTHER))
    assert book.state.tasks["t"].manifest == MANIFEST
    assert book.state.tasks["t"].taken == {"east": 0}


def test_a_refusal_stands_until_the_task_is_admitted():
    book, token = globe()
    book.ok(TaskRefused(token, "t", 3, "no"))
    assert book.state.refused["t"].submission == 3
    book.ok(TaskAdmitted(token, SPEC, LAYOUT, MANIFEST, ("east",)))
    assert book.state.refused == {}


@pytest.mark.parametrize("old", [0, 1, 99])
def test_only_the_global_leader_decides(old):
    book, token = globe()
    assert token == 1
    claim(book, LEADERSHIP, holder="b")
    facts: list[Any] = [
        ZoneJoined(old, "north", "n", 1),
        TaskAdmitted(old, SPEC, LAYOUT, MANIFEST, ("east",)),
        TaskRefused(old, "t", 1, "no"),
        EpochOpened(old, "t", 1, MANIFEST),
        Taken(old, "t", 1, {}, ()),
        EpochClosed(old, "t", 1, "", {}),
        Merged(old, "t", 1, None, 0, 0.0),
        TaskEnded(old, "t", ""),
    ]
    for fact in facts:
        assert "not the leader's" in book.add(fact)


def test_epochs_open_in_turn_from_the_last_model():
    book, token = globe()
    assert "unknown" in book.add(EpochOpened(token, "t", 1, MANIFEST))
    book.ok(TaskAdmitted(token, SPEC, LAYOUT, MANIFEST, ("east", "west")))
    assert "is the last" in book.add(EpochOpened(token, "t", 2, MANIFEST))
    assert "last global model" in book.add(EpochOpened(token, "t", 1, OTHER))
    at = book.ok(EpochOpened(token, "t", 1, MANIFEST), time=44)
    t = book.state.tasks["t"]
    assert (t.state, t.epoch, t.opened_at, t.opened_time) == ("open", 1, at, 44)
    assert "is open" in book.add(EpochOpened(token, "t", 2, MANIFEST))
    assert "is open" in book.add(TaskEnded(token, "t", ""))
    assert "is open" in book.add(Merged(token, "t", 1, OTHER, 0, 0.0))


def test_taken_tiles_the_zones_ledgers():
    book, token = running()
    book.ok(Taken(token, "t", 1, {"east": (0, 5)}, (update(),)))
    assert book.add(book.facts[-1]) != ""  # a copy
    for ranges in ({"east": (4, 6)}, {"east": (6, 7)}, {"east": (5, 4)}, {"mars": (0, 1)}):
        assert "is taken up to" in book.add(Taken(token, "t", 1, ranges, ()))
    assert "from no range" in book.add(Taken(token, "t", 1, {"east": (5, 6)}, (update("west"),)))
    assert "present one" in book.add(Taken(token, "t", 2, {"east": (5, 6)}, ()))
    book.ok(Taken(token, "t", 1, {"east": (5, 9), "west": (0, 2)}, (update(samples=5, manifest=OTHER),)))
    t = book.state.tasks["t"]
    assert t.taken == {"east": 9, "west": 2}
    assert t.updates == {"east": replace(update(manifest=OTHER), samples=15, devices=4, loss=14)}  # sums, last model


def test_an_epoch_is_merged_when_all_is_taken_up_to_its_ends():
    book, token = running()
    book.ok(Taken(token, "t", 1, {"east": (0, 5)}, (update(),)))
    close = EpochClosed(token, "t", 1, "rounds", {"east": 6, "west": 3})
    for ends in ({"east": 6}, {"east": 6, "west": 3, "mars": 1}):
        assert "ends of all zones" in book.add(replace(close, ends=ends))
    assert "before what is taken" in book.add(replace(close, ends={"east": 4, "west": 3}))
    assert "present one" in book.add(replace(close, epoch=2))
    book.ok(close)
    assert "is closed" in book.add(close)
    merged = Merged(token, "t", 1, OTHER, 10, 1.0)
    assert "taken to their ends" in book.add(merged)
    assert "the epoch ends at 6" in book.add(Taken(token, "t", 1, {"east": (5, 7)}, ()))
    book.ok(Taken(token, "t", 1, {"east": (5, 6)}, ()))
    assert "taken to their ends" in book.add(merged)
    book.ok(Taken(token, "t", 1, {"west": (0, 3)}, ()))
    assert "present one" in book.add(replace(merged, epoch=2))
    book.ok(merged)
    assert "is merged" in book.add(replace(merged, manifest=MANIFEST))  # no version twice
    assert book.state.tasks["t"].manifest == OTHER
    book.ok(EpochOpened(token, "t", 2, OTHER))
    assert (book.state.tasks["t"].updates, book.state.tasks["t"].ends) == ({}, {})
    assert book.state.tasks["t"].taken == {"east": 6, "west": 3}  # the next goes on where this one ended


def test_an_epoch_without_a_model_keeps_the_last():
    book, token = running()
    book.ok(EpochClosed(token, "t", 1, "deadline", {"east": 0, "west": 0}), Merged(token, "t", 1, None, 0, 0.0))
    assert book.state.tasks["t"].manifest == MANIFEST
    book.ok(TaskEnded(token, "t", "enough"))
    assert (book.state.tasks, book.state.over["t"].why) == ({}, "enough")
    assert "is ended" in book.add(EpochOpened(token, "t", 2, MANIFEST))
    assert "is ended" in book.add(TaskEnded(token, "t", "twice"))
    assert "is used" in book.add(TaskAdmitted(token, SPEC, LAYOUT, MANIFEST, ("east",)))


# ------------------------------------------------------------------ a pure function


def history() -> list[Any]:
    """Three rounds of two shards with a hand-over in the middle, as accepted."""
    book, token = at_work()
    admitted(book, token, "x", "y")
    book.ok(commit(token, {0: (0, 2)}, done=(Done(1, 0),)), commit(token, {0: (2, 3), 1: (0, 1)}, done=(Done(1, 1),)))
    heir = claim(book, 1, holder="b")
    book.ok(Closed(token, "t", 1, "demand", {0: 3, 1: 4}), commit(heir, {1: (1, 5)}))
    for n, reach in ((2, 6), (3, 9)):
        last = n - 1
        book.ok(Finalised(token, "t", last, summed(round_of(book, last)), 0, 0, 0, 0.0, MANIFEST), opened(token, n))
        book.ok(commit(token, {0: (3 * (n - 1), 3 * n)}, round=n), commit(heir, {1: (reach - 1, reach + 2)}, round=n))
        book.ok(Closed(token, "t", n, "", {0: 3 * n, 1: reach + 2}))
    return book.facts


FACTS = history()


def run(facts: list[Any]) -> tuple[Zone, list[tuple[int, int, int, int]]]:
    """The last state, and the accepted stretches: shard, from, to, round."""
    state, out = Zone(), []
    for offset, fact in enumerate(facts):
        state, void = fold(state, offset, 0, fact)
        if isinstance(fact, Committed) and not void:
            out += [(s, x.start, x.end, fact.round) for s, x in fact.stretches.items()]
    return state, out


def test_the_same_facts_give_the_same_bytes():
    one, two = (run(list(FACTS))[0] for _ in range(2))
    assert snapshot(one) == snapshot(two)
    assert msgspec.msgpack.decode(snapshot(one), type=Zone) == one
    assert one.tasks["t"].next == (9, 11)
    assert snapshot(run(FACTS[:-1])[0]) != snapshot(one)


def accepted_tile(stretches: list[tuple[int, int, int, int]]) -> None:
    reached, rounds = {0: 0, 1: 0}, {0: 1, 1: 1}
    for shard, start, end, n in stretches:
        assert start == reached[shard] < end
        assert n >= rounds[shard], "a round was gone back to"
        reached[shard], rounds[shard] = end, n


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.integers(0, 40), st.booleans())
def test_whatever_the_order_and_the_copies_accepted_ranges_tile(seed, copies, shuffled):
    """Facts land late, twice, out of turn: the fold takes what follows and voids the rest."""
    dice = random.Random(seed)
    facts = FACTS[1:]
    if shuffled:
        dice.shuffle(facts)
    for _ in range(copies):
        facts.insert(dice.randrange(len(facts) + 1), dice.choice(FACTS))
    state, stretches = run([FACTS[0], *facts])
    accepted_tile(stretches)
    t = state.tasks.get("t")
    if t:
        total = [sum(to - start for s, start, to, _ in stretches if s == shard) for shard in (0, 1)]
        assert t.next == tuple(total)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(3, len(FACTS)), st.integers(0, len(FACTS) - 1)), max_size=12))
def test_copies_that_land_after_their_original_change_nothing(copies):
    """Tokens are offsets, so the originals keep theirs: copies are put in place of garbage of the same length."""
    quiet: list[Any] = list(FACTS)
    loud: list[Any] = list(FACTS)
    for _, which in copies:  # at the end, where all are accepted already
        quiet.append(None)
        loud.append(FACTS[which])
    assert snapshot(run(quiet)[0]) == snapshot(run(loud)[0])
