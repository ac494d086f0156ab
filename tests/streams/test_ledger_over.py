"""What a fold keeps of tasks that are over: a row each, whatever they were; and nothing of them is accepted any more."""

from typing import Any

import pytest
from msgspec.structs import replace

from schemas.blocks import Manifest, Place, Tensor, last, layout
from schemas.facts import (
    LEADERSHIP,
    Abandoned,
    Admitted,
    Closed,
    Counts,
    Done,
    EpochClosed,
    EpochOpened,
    Finalised,
    Founded,
    Held,
    Lost,
    Merged,
    Retired,
    Scored,
    Slot,
    Taken,
    TaskAdmitted,
    TaskEnded,
    TaskRefused,
    TaskUpdated,
    ZoneJoined,
)
from schemas.messages import Ref
from schemas.task import TaskSpec
from schemas.wire import encode
from streams.ledger import Globe, Zone, restore, snapshot
from tests.streams.book import MANIFEST, Book, admitted, at_work, claim, commit, opened, zone

MOST_ROW = 150
"""Bytes of a task that is over in a fold, its name among them, with names and words as they are here."""


def large(version: int, blocks: int) -> Manifest:
    places = (Place(i % 3, 40 + i, f"t/{version}/1/{version}/{i}", 2**63 - i) for i in range(blocks))
    return Manifest("t.global.models", version, tuple(places))


def whole(token: int, task: str, rounds: int, devices: int) -> list[Any]:
    """A task's facts in a zone of one shard, from its first round to its end."""
    facts: list[Any] = []
    for n in range(1, rounds + 1):
        ends = {0: n * devices}
        slots = tuple(Slot(task, n, i, f"device-{n}-{i}") for i in range(devices))
        done = tuple(Done(n, i) for i in range(devices))
        stretch = {0: ((n - 1) * devices, n * devices)}
        facts += [
            opened(token, n, task=task, demand=devices, places=devices, sizes=(4,) * 50),
            lambda z, slots=slots: Admitted(token, z.admitted, {}, slots),
            commit(token, stretch, n, task=task, done=done),
            Closed(token, task, n, "demand", ends),
            lambda z, n=n: Finalised(token, task, n, (z.position - 2,), devices, 9, 9, 0.5, large(n, 50)),
        ]
    return [*facts, Retired(token, task, Ref("g", 9))]


def run(book: Book, facts: list[Any]) -> None:
    for fact in facts:
        book.ok(fact(book.state) if callable(fact) else fact)


@pytest.mark.parametrize(("rounds", "devices"), [(1, 2), (3, 20)])
def test_of_a_task_that_is_over_a_zone_keeps_a_row_whatever_it_was(rounds, devices):
    book = zone(1)
    token = claim(book, LEADERSHIP, 0)
    before = len(snapshot(book.state))
    for i in range(20):
        run(book, whole(token, f"task-{i:04}", rounds, devices))
    assert book.state.tasks == {}
    assert len(snapshot(book.state)) < before + 20 * MOST_ROW
    row = book.state.over["task-0007"]
    assert (row.round, row.service, row.delivered, row.tenant) == (
        rounds,
        rounds * devices,
        rounds * devices,
        "default",
    )
    assert (row.devices, row.demand, row.epoch, row.merged_rounds) == (devices, devices, 1, rounds)
    assert row.tally.counts == Counts(counted=rounds * devices)
    assert row.covered == row.offsets == rounds * devices
    assert row.tally.adds_up(0)
    assert restore(snapshot(book.state), Zone) == book.state


def test_nothing_of_it_is_accepted_in_a_zone_any_more():
    book, token = at_work()
    admitted(book, token, "x")
    gone = book.ok(commit(token, {0: (0, 1)}))
    lost = book.ok(Lost(token, 0, "t", "gone", ranges={0: (1, 5)}))
    book.ok(Retired(token, "t", Ref("g", 9)))
    for fact in (
        opened(token, 1),
        opened(token, 2),
        commit(token, {0: (1, 2)}),
        commit(token, {1: (0, 1)}),
        Closed(token, "t", 1, "", {0: 1, 1: 0}),
        Finalised(token, "t", 1, (gone,), 0, 0, 0, 0.0),
        Lost(token, 0, "t", "more", ranges={0: (1, 9)}),
        Abandoned("t", lost, "ann"),
        Retired(token, "t", Ref("g", 9)),
    ):
        assert book.add(fact) != "", fact
    assert "is retired" in book.add(opened(token, 2))


def test_what_is_held_when_a_task_ends_is_incomplete():
    book, token = at_work()
    admitted(book, token, "x")
    held = {0: (Held(offset=0, round=1, slot=0, block=0),)}
    book.ok(commit(token, {0: (0, 1)}, counts=Counts(), sums=(None,), held=held), Retired(token, "t", Ref("g", 9)))
    row = book.state.over["t"]
    assert row.tally.counts == Counts(incomplete=1)
    assert row.tally.adds_up(0)


LAYOUT = layout((Tensor("w", (50,)),), 1)
SPEC = TaskSpec("t", "m", "d")


def globe() -> tuple[Book, int]:
    book = Book(Globe())
    book.ok(Founded("g", "global", 3))
    token = claim(book, LEADERSHIP)
    book.ok(ZoneJoined(token, "east", "ledger-e", 2))
    return book, token


def epoch(token: int, task: str, submission: int = 0) -> list[Any]:
    first, made = large(0, 50), large(1, 50)
    return [
        TaskAdmitted(token, replace(SPEC, task=task), LAYOUT, first, ("east",), submission=submission),
        EpochOpened(token, task, 1, first),
        EpochClosed(token, task, 1, "rounds", {"east": 0}),
        Merged(token, task, 1, made, 9, 0.5),
        TaskRefused(token, task, submission + 1, "no such change"),
        TaskEnded(token, task, "all 1 epochs are done"),
    ]


def test_of_a_task_that_is_over_the_globe_keeps_a_row_however_large_its_model_is():
    book, token = globe()
    before = len(snapshot(book.state))
    for i in range(20):
        book.ok(TaskRefused(token, f"task-{i:04}", 1, "first it was wrong"))
        book.ok(*epoch(token, f"task-{i:04}", 2), time=7_000)
        assert len(encode(large(1, 50))) > 10 * MOST_ROW
    assert (book.state.tasks, book.state.refused) == ({}, {})
    assert len(snapshot(book.state)) < before + 20 * MOST_ROW
    row = book.state.over["task-0007"]
    assert (row.epochs, row.rounds) == (SPEC.epochs.count, SPEC.epochs.rounds)
    assert (row.tenant, row.zones, row.epoch, row.submission, row.time) == ("default", ("east",), 1, 2, 7_000)
    assert row.model == last(large(1, 50))
    assert row.model.starts == ((0, 40), (1, 41), (2, 42))
    assert restore(snapshot(book.state), Globe) == book.state


def test_its_name_is_never_used_again_and_nothing_of_it_is_accepted():
    book, token = globe()
    book.ok(*epoch(token, "t"))
    for fact in (
        *epoch(token, "t", 9),
        TaskUpdated(token, "t", 9, SPEC, "run"),
        TaskRefused(token, "t", 9, "no"),
        Taken(token, "t", 1, {"east": (0, 1)}, ()),
        Scored(token, "t", 1, 0.5, 0.5),
    ):
        assert book.add(fact) != "", fact
    assert "is used" in book.add(epoch(token, "t", 9)[0])


def test_a_task_without_a_merge_keeps_the_model_it_came_with():
    book, token = globe()
    book.ok(TaskAdmitted(token, SPEC, LAYOUT, MANIFEST, ("east",)), TaskEnded(token, "t", "stopped"))
    assert book.state.over["t"].model == last(MANIFEST)
