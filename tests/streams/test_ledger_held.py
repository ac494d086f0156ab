"""The fold of deltas that count whole or not at all, and of asynchronous rounds."""

import pytest

from schemas.facts import Admitted, Closed, Counts, Done, Finalised, Held, Lapsed, Slot
from streams.ledger import identity, most_slots, places_taken, summed, working
from tests.streams.book import Book, admitted, at_work, claim, commit, opened, round_of, task, zone

# ------------------------------------------------------------------ held blocks


def held(offset: int, slot: int = 0, block: int = 0, round: int = 1) -> Held:
    return Held(offset=offset, round=round, slot=slot, block=block)


def with_one_held() -> tuple[Book, int]:
    """Slot 0 has one block in the log, at offset 0 of shard 0, and another to come."""
    book, token = at_work()
    admitted(book, token, "x", "y")
    book.ok(commit(token, {0: (0, 1)}, counts=Counts(), sums=(None,), held={0: (held(0),)}))
    return book, token


def test_the_range_passes_what_is_held_and_it_counts_when_the_rest_is_there():
    book, token = with_one_held()
    assert task(book).next == (1, 0)
    assert task(book).held == ((held(0),), ())
    assert identity(task(book), 1)
    book.ok(commit(token, {0: (1, 2)}, counts=Counts(counted=2), released={0: (0,)}, done=(Done(1, 0),)))
    assert task(book).held == ((), ())
    assert (round_of(book).tally.offsets, round_of(book).counts) == (2, Counts(counted=2))
    assert identity(task(book), 1)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"held": {0: (held(2),)}}, "holds what it does not cover"),
        ({"held": {0: (held(0),)}}, "holds what it does not cover"),
        ({"held": {0: (held(1), held(1))}}, "holds what it does not cover"),
        ({"held": {1: (held(1),)}}, "does not cover"),
        ({"held": {0: (held(1, slot=7),)}, "counts": Counts()}, "is unknown"),
        ({"released": {0: (1,)}}, "does not hold"),
        ({"released": {0: (0, 0)}}, "twice"),
        ({"released": {1: (0,)}}, "does not cover"),
        ({"released": {0: (0,)}}, "do not add up"),
        ({"held": {0: (held(1),)}}, "do not add up"),
        ({"voided": (Done(1, 7),)}, "is unknown"),
    ],
)
def test_what_a_commit_may_hold_and_release(more, why):
    book, token = with_one_held()
    assert why in book.add(commit(token, {0: (1, 2)}, **more))


def test_a_slot_is_done_or_given_up_but_not_both():
    book, token = with_one_held()
    book.ok(commit(token, {0: (1, 2)}, counts=Counts(incomplete=2), released={0: (0,)}, voided=(Done(1, 0),)))
    assert round_of(book).voided == {0}
    assert "done or given up" in book.add(commit(token, {0: (2, 3)}, done=(Done(1, 0),)))
    assert "done or given up" in book.add(commit(token, {0: (2, 3)}, counts=Counts(), held={0: (held(2),)}))
    book.ok(commit(token, {1: (0, 1)}, done=(Done(1, 1),)))
    assert "is done" in book.add(commit(token, {1: (1, 2)}, voided=(Done(1, 1),)))


@pytest.mark.parametrize("late", [False, True])
def test_what_a_shard_holds_when_it_is_done_is_incomplete(late):
    """Whether the shard is done at `Closed` or with a commit after it."""
    book, token = with_one_held()
    if late:
        book.ok(Closed(token, "t", 1, "", {0: 2, 1: 0}))
        assert task(book).held[0]
        book.ok(commit(token, {0: (1, 2)}))
    else:
        book.ok(commit(token, {0: (1, 2)}), Closed(token, "t", 1, "", {0: 2, 1: 0}))
    assert task(book).at == (2, 2)
    assert task(book).held == ((), ())
    assert round_of(book).counts == Counts(counted=1, incomplete=1)
    assert round_of(book).voided == {0}
    assert identity(task(book), 1)


def test_control_the_identity_sees_what_is_missing():
    book, _ = with_one_held()
    t = task(book)
    forgot = type(t)(**{f: getattr(t, f) for f in t.__struct_fields__} | {"held": ((), ())})
    assert identity(t, 1)
    assert identity(t)
    assert not identity(forgot, 1)
    assert not identity(forgot)


# ------------------------------------------------------------------ asynchronous rounds


def asynchronous(**more) -> tuple[Book, int]:
    book = zone()
    token = claim(book, -1, 0, 1)
    book.ok(opened(token, refill=1, staleness=2, fraction=10, places=2, demand=1, **more))
    return book, token


def give(book: Book, token: int, n: int, *slots: tuple[int, str], lapsed: tuple = ()) -> str:
    return book.add(Admitted(token, book.state.admitted, {}, tuple(Slot("t", n, i, d) for i, d in slots), lapsed))


def finish(book: Book, token: int, n: int) -> None:
    ends = dict(enumerate(task(book).next))
    book.ok(Closed(token, "t", n, "", ends))
    book.ok(Finalised(token, "t", n, summed(round_of(book, n)), 1, 1, 0, 0.0))


def test_a_place_is_free_again_when_its_device_is_done():
    book, token = asynchronous()
    assert give(book, token, 1, (0, "a"), (1, "b")) == ""
    assert "2 places" in give(book, token, 1, (2, "c"))
    book.ok(commit(token, {0: (0, 1)}, done=(Done(1, 0),)))
    assert give(book, token, 1, (2, "c")) == ""
    assert "2 places" in give(book, token, 1, (3, "d"))
    assert give(book, token, 1, (3, "d"), lapsed=(Lapsed("t", 1, 1),)) == ""


def test_devices_at_work_for_earlier_rounds_take_places():
    book, token = asynchronous()
    give(book, token, 1, (0, "a"), (1, "b"))
    book.ok(commit(token, {0: (0, 1)}, done=(Done(1, 0),)))
    finish(book, token, 1)
    book.ok(opened(token, 2, refill=1, staleness=2, fraction=10, places=2, demand=1))
    assert [r.round for r in working(task(book))] == [1, 2]
    assert places_taken(task(book)) == 1
    assert give(book, token, 2, (0, "a")) == ""
    assert "2 places" in give(book, token, 2, (1, "c"))
    # What was begun in round 1 counts in round 2.
    book.ok(commit(token, {1: (0, 1)}, round=2, done=(Done(1, 1),)))
    assert (round_of(book, 2).contributors, round_of(book, 1).done) == (1, {0, 1})
    assert give(book, token, 2, (1, "c")) == ""


def test_a_cohort_keeps_its_places_for_the_whole_round():
    book, token = at_work()
    admitted(book, token, "x", "y", "z")
    book.ok(commit(token, {0: (0, 1)}, done=(Done(1, 0),)))
    assert "3 places" in give(book, token, 1, (3, "w"))


def test_a_slot_given_up_frees_its_place():
    book, token = at_work()
    admitted(book, token, "x", "y", "z")
    book.ok(commit(token, {0: (0, 1)}, counts=Counts(incomplete=1), voided=(Done(1, 0),)))
    assert give(book, token, 1, (3, "w")) == ""
    assert "3 places" in give(book, token, 1, (4, "v"))


def test_rounds_that_can_still_count_are_kept_and_others_forgotten():
    book, token = asynchronous()
    for n in range(1, 6):
        finish(book, token, n)
        book.ok(opened(token, n + 1, refill=1, staleness=2, fraction=10, places=2, demand=1))
    assert sorted(task(book).rounds) == [3, 4, 5, 6]  # one more than the staleness, so that a copy is known for one


def test_fewer_slots_where_sums_hold_stale_deltas_and_their_weights():
    assert most_slots(2**40, 1) == 2**22
    assert most_slots(2**40, 1, 0, 10) == 2**13 - 1
    assert most_slots(2**40, 1, 3, 10) == 2**11 - 1
