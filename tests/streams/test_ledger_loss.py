"""The fold of losses, and of checkpoints."""

import pytest
from msgspec.structs import replace

from schemas.blocks import Place
from schemas.facts import (
    LEADERSHIP,
    Abandoned,
    Admitted,
    Checkpoint,
    Claimed,
    Closed,
    Counts,
    Done,
    Finalised,
    Founded,
    Held,
    Lost,
    Retired,
    Slot,
)
from schemas.messages import Ref
from schemas.partitioner import shard_of
from schemas.wire import Malformed, checksum, encode
from streams import ledger
from streams.ledger import MARKS, Diverged, Globe, Ledger, Zone, chains, identity, restore, snapshot, summed
from streams.processor import Record
from tests.streams.book import admitted, at_work, claim, commit, opened, round_of, task

# ------------------------------------------------------------------ loss


def lost(token: int, seat: int = 0, **more) -> Lost:
    return Lost(token, seat, "t", "the disk died", **more)


def test_a_task_that_lost_something_stands_still_until_a_person_gives_it_up():
    book, token = at_work()
    at = book.ok(lost(token, ranges={0: (0, 5)}))
    assert task(book).loss.at == at
    for fact in (
        commit(token, {1: (0, 1)}),
        Closed(token, "t", 1, "", {0: 5, 1: 0}),
        lost(token, ranges={1: (0, 5)}),
    ):
        assert "stands still" in book.add(fact)
    book.ok(Admitted(token, book.state.admitted, {}, (Slot("t", 1, 0, "x"),)))
    assert round_of(book).devices == ()  # no slot in it
    assert "no loss at" in book.add(Abandoned("t", at + 1, "ann"))
    book.ok(Abandoned("t", at, "ann"))
    assert task(book).loss is None
    assert task(book).next == (5, 0)
    assert (round_of(book).tally.offsets, round_of(book).tally.lost) == (5, 5)
    assert identity(task(book), 1)
    assert identity(task(book))
    assert "no loss at" in book.add(Abandoned("t", at, "ann"))
    assert "not that of shard 0" in book.add(commit(token, {0: (5, 6), 1: (0, 1)}))  # read before it was given up
    book.ok(commit(token, {1: (0, 1)}), commit(claim(book, 0), {0: (5, 6)}))
    assert identity(task(book), 1)
    assert identity(task(book))


@pytest.mark.parametrize(
    ("fact", "why"),
    [
        (lost(77, ranges={0: (0, 5)}), "another's"),
        (lost(77, LEADERSHIP, ranges={0: (0, 5)}), "not the leader's"),
        (lost(1, 9, ranges={0: (0, 5)}), "another's"),
        (lost(1, ranges={0: (1, 5)}), "committed up to elsewhere"),
        (lost(1, ranges={0: (0, 0)}), "nothing of shard 0"),
        (lost(1, ranges={9: (0, 5)}), "committed up to elsewhere"),
        (lost(1, commits=(5,)), "not there"),
        (lost(1), "names nothing"),
        (replace(lost(1, ranges={0: (0, 5)}), task="u"), "not known"),
    ],
)
def test_what_a_loss_must_name(fact, why):
    book, token = at_work()
    assert token == 1
    assert why in book.add(fact)


def test_a_log_that_lost_its_end_is_read_from_where_it_goes_on():
    book, token = at_work()
    book.ok(commit(token, {0: (0, 9)}), Closed(token, "t", 1, "", {0: 12, 1: 0}))
    at = book.ok(lost(token, ranges={0: (9, 4)}))
    book.ok(Abandoned("t", at, "ann"))
    assert task(book).next == (4, 0)
    assert task(book).at == (2, 2)  # the end that was to be reached is gone
    assert identity(task(book), 1)
    assert identity(task(book))
    final = Finalised(token, "t", 1, summed(round_of(book)), 0, 0, 0, 0.0)
    assert "not the leader's" in book.add(final)  # what it asked before may not hold any more
    book.ok(replace(final, token=claim(book, LEADERSHIP)))


def test_a_copy_of_a_commit_to_offsets_that_are_used_again_is_void():
    book, token = at_work()
    copy = commit(token, {0: (0, 2)})
    book.ok(copy)
    at = book.ok(lost(token, ranges={0: (2, 0)}))
    book.ok(Abandoned("t", at, "ann"))
    assert task(book).next == (0, 0)
    assert "not that of shard 0" in book.add(copy)
    again = claim(book, 0)
    assert "not that of shard 0" in book.add(copy)
    book.ok(commit(again, {0: (0, 3)}))
    assert identity(task(book))


def test_a_commit_under_way_when_a_sum_was_given_up_is_void():
    """It may count blocks of slots that are given up now."""
    book, token = at_work()
    admitted(book, token, "x")
    gone = book.ok(commit(token, {0: (0, 1)}))
    at = book.ok(lost(token, LEADERSHIP, commits=(gone,)))
    book.ok(Abandoned("t", at, "ann"))
    assert "not that of shard 0" in book.add(commit(token, {0: (1, 2)}))
    book.ok(commit(token, {1: (0, 1)}))  # a shard that is not concerned


def test_a_closed_round_whose_end_is_gone():
    book, token = at_work()
    book.ok(commit(token, {0: (0, 3)}), Closed(token, "t", 1, "", {0: 6, 1: 0}))
    assert task(book).at == (1, 2)
    assert "nothing of shard 0" in book.add(lost(token, ranges={0: (3, 3)}))
    at = book.ok(lost(token, ranges={0: (3, 3)}, short=(0,)))
    book.ok(Abandoned("t", at, "ann"))
    assert (task(book).at, task(book).next) == ((2, 2), (3, 0))
    assert identity(task(book))


def test_a_round_that_is_over_keeps_its_figures():
    """Its model is there; only who sends again cannot be told from who did not."""
    book, token = at_work()
    admitted(book, token, "x")
    gone = book.ok(commit(token, {0: (0, 2)}, done=(Done(1, 0),)))
    book.ok(Closed(token, "t", 1, "", {0: 2, 1: 0}), Finalised(token, "t", 1, (gone,), 1, 1, 0, 0.0), opened(token, 2))
    at = book.ok(lost(token, LEADERSHIP, commits=(gone,)))
    book.ok(Abandoned("t", at, "ann"))
    r = round_of(book)
    assert (r.counts.counted, r.tally.lost, r.contributors) == (2, 0, 1)
    assert identity(task(book))


def test_what_was_held_there_is_given_up():
    book, token = at_work()
    admitted(book, token, "x")
    held = {0: (Held(offset=0, round=1, slot=0, block=0),)}
    book.ok(commit(token, {0: (0, 1)}, counts=Counts(), sums=(None,), held=held))
    at = book.ok(lost(token, ranges={0: (1, 1)}))
    book.ok(Abandoned("t", at, "ann"))
    assert (round_of(book).counts, round_of(book).voided) == (Counts(incomplete=1), {0})
    assert identity(task(book), 1)
    assert identity(task(book))


def test_a_sum_that_is_gone_is_not_summed_and_its_slots_count_no_more():
    book, token = at_work()
    a = next(d for d in map(str, range(99)) if shard_of(d, 2) == 0)
    b = next(d for d in map(str, range(99)) if shard_of(d, 2) == 1)
    admitted(book, token, a, b)
    gone = book.ok(commit(token, {0: (0, 2)}, done=(Done(1, 0),)))
    kept = book.ok(commit(token, {1: (0, 1)}, done=(Done(1, 1),)))
    assert round_of(book).met_at is not None
    at = book.ok(lost(token, LEADERSHIP, commits=(gone,)))
    book.ok(Abandoned("t", at, "ann"))
    r = round_of(book)
    assert summed(r) == (kept,)
    assert (r.contributors, r.met_at) == (1, None)
    assert (r.counts.counted, r.tally.lost, r.voided) == (1, 2, {0})
    assert identity(task(book), 1)
    assert identity(task(book))
    assert "not there" in book.add(lost(token, LEADERSHIP, commits=(gone,)))
    book.ok(Closed(token, "t", 1, "", {0: 2, 1: 1}), Finalised(token, "t", 1, (kept,), 1, 1, 0, 0.0))


def test_a_task_that_stands_still_can_end():
    book, token = at_work()
    book.ok(lost(token, ranges={0: (0, 5)}), Retired(token, "t", Ref("g", 9)))
    assert book.state.tasks == {}
    assert "is retired" in book.add(lost(token, ranges={0: (0, 5)}))


# ------------------------------------------------------------------ checkpoints

PLACE = (Place(0, 0, "p", 0),)


def founded(every: int = 4) -> Ledger:
    reader: Ledger = Ledger(Zone())
    feed(reader, Founded("z", "z", 1, every=every))
    feed(reader, Claimed("a", "1", {LEADERSHIP: 0}))
    return reader


def feed(reader: Ledger, fact) -> str:
    _, void = reader.feed(Record("t.z.ledger", 0, reader.state.position, None, encode(fact), 0))
    return void


def pad(reader: Ledger, upto: int) -> None:
    while reader.state.position < upto:
        assert feed(reader, Claimed("b", "1", {0: 99}))  # void; a position all the same


def checkpoint(reader: Ledger, offset: int, **more) -> Checkpoint:
    mark = reader.marks.get(offset)
    return Checkpoint(1, offset, checksum(snapshot(mark)) if mark else 0, PLACE, **more)


def test_one_checkpoint_for_each_multiple_and_no_other():
    reader = founded()
    pad(reader, 5)
    assert "is due" in feed(reader, checkpoint(reader, 3))
    assert "is due" in feed(reader, checkpoint(reader, 8))
    assert "not the leader's" in feed(reader, replace(checkpoint(reader, 4), token=77))
    assert feed(reader, checkpoint(reader, 4)) == ""
    assert "is due" in feed(reader, checkpoint(reader, 4))
    assert [m.offset for m in reader.state.checkpoints] == [4]


def test_the_ledger_is_cut_below_the_last_but_one():
    reader = founded()
    for at in (4, 8, 12):
        pad(reader, at + 1)
        if at > 4:
            assert "cannot be cut" in feed(reader, checkpoint(reader, at, cut=at - 1))
        assert feed(reader, checkpoint(reader, at, cut=max(0, at - 4))) == ""
    assert [m.offset for m in reader.state.checkpoints] == [8, 12]
    assert reader.state.cut == 8
    pad(reader, 17)
    assert "cannot be cut" in feed(reader, checkpoint(reader, 16, cut=4))
    assert "cannot be cut" in feed(reader, checkpoint(reader, 16, cut=16))


def test_a_checkpoint_must_come_while_readers_can_compare_it():
    reader = founded()
    pad(reader, 4 + 4 * MARKS)
    assert "too late" in feed(reader, checkpoint(reader, 4))


def test_a_ledger_founded_without_has_none():
    reader = founded(every=0)
    pad(reader, 9)
    assert reader.marks == {}
    assert "is due" in feed(reader, Checkpoint(1, 4, 0, PLACE))


def test_a_reader_whose_fold_differs_stops():
    reader = founded()
    pad(reader, 5)
    with pytest.raises(Diverged, match="one version everywhere"):
        feed(reader, replace(checkpoint(reader, 4), hash=7))


def test_control_two_versions_of_the_fold_are_found_out(monkeypatch):
    """One reader's fold lets a claim win that does not replace the last token."""
    right, wrong = founded(), founded()
    late = Claimed("c", "1", {0: 5})
    feed(right, late)
    strict = chains.require
    monkeypatch.setattr(chains, "require", lambda holds, why: None if "claimed since" in why else strict(holds, why))
    monkeypatch.setitem(
        ledger.TRANSITIONS[Zone],  # type: ignore[arg-type]
        Claimed,
        lambda s, at, time, f: replace(s, shards=(ledger.Holder(f.holder, f.life, at),)),
    )
    feed(wrong, late)
    monkeypatch.undo()
    pad(right, 5)
    pad(wrong, 5)
    fact = checkpoint(right, 4)
    assert feed(right, fact) == ""
    with pytest.raises(Diverged):
        feed(wrong, fact)


@pytest.mark.parametrize("kind", [Zone, Globe])
def test_a_snapshot_reads_back(kind):
    assert restore(snapshot(kind()), kind) == kind()
    book, token = at_work()
    admitted(book, token, "x")
    book.ok(commit(token, {0: (0, 2)}), lost(token, ranges={0: (2, 5)}))
    assert restore(snapshot(book.state), Zone) == book.state
    assert snapshot(restore(snapshot(book.state), Zone)) == snapshot(book.state)
    with pytest.raises(Malformed):
        restore(b"\xc1", kind)
