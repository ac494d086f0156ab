"""The fold of what goes with an epoch: who takes part, what zones contribute, scores, changed tasks; and what a round leaves for the
next one's worth."""

import pytest
from msgspec.structs import replace

from schemas.facts import (
    Closed,
    EpochClosed,
    EpochOpened,
    Finalised,
    Merged,
    Scored,
    TaskAdmitted,
    TaskEnded,
    TaskRefused,
    TaskUpdated,
)
from schemas.task import Epochs, Server, Stop, Training
from streams.ledger import GlobalTask, Score
from tests.streams.book import MANIFEST, OTHER, admitted, at_work, opened
from tests.streams.test_ledger import LAYOUT, SPEC, globe, running


def merged(stop: Stop | None = None, epochs: int = 1):
    """With t between two epochs."""
    book, token = globe()
    spec = replace(SPEC, stop=stop or Stop())
    book.ok(TaskAdmitted(token, spec, LAYOUT, MANIFEST, ("east", "west")))
    for n in range(1, epochs + 1):
        _epoch(book, token, n)
    return book, token


def _epoch(book, token: int, n: int, **more) -> None:
    book.ok(
        EpochOpened(token, "t", n, book.state.tasks["t"].manifest),
        EpochClosed(token, "t", n, "rounds", {"east": 0, "west": 0}),
        Merged(token, "t", n, OTHER, 0, 0.0, **more),
    )


def task(book) -> GlobalTask:
    return book.state.tasks["t"]


def test_zones_that_take_part_and_how_long_the_others_waited():
    book, token = globe()
    book.ok(TaskAdmitted(token, SPEC, LAYOUT, MANIFEST, ("east", "west")))
    assert "not the task's" in book.add(EpochOpened(token, "t", 1, MANIFEST, ("mars",)))
    ends = {"east": 0, "west": 0}
    for n, zones in enumerate((("east",), ("east",), ("west",), ()), 1):
        book.ok(EpochOpened(token, "t", n, task(book).manifest, zones))
        book.ok(EpochClosed(token, "t", n, "rounds", ends), Merged(token, "t", n, OTHER, 0, 0.0))
        waited = {1: (0, 1), 2: (0, 2), 3: (1, 0), 4: (0, 0)}[n]
        assert (task(book).waited["east"], task(book).waited["west"]) == waited
        assert task(book).part == (zones or ("east", "west"))


def test_contributions_are_those_of_the_last_merge_that_had_any():
    book, token = merged(epochs=0)
    assert [task(book).contribution(z) for z in ("east", "west")] == [0.5, 0.5]
    _epoch(book, token, 1, contributions={"east": 0.9, "west": 0.1})
    assert task(book).contribution("west") == 0.1
    _epoch(book, token, 2)  # brought nothing
    assert task(book).contribution("west") == 0.1


def test_a_score_is_of_the_last_model_and_comes_once():
    book, token = merged(Stop(delta=0.1))
    score = Scored(token, "t", 1, 0.5, 1.0)
    assert "epoch 1 is the last" in book.add(replace(score, epoch=2))
    book.ok(score)
    assert "scored before" in book.add(score)
    assert task(book).score == task(book).best == Score(epoch=1, accuracy=0.5, loss=1.0)
    _epoch(book, token, 2)
    book.ok(replace(score, epoch=2, loss=0.95))
    assert (task(book).score.epoch, task(book).best.epoch) == (2, 1), "0.05 better is not better by more than 0.1"
    _epoch(book, token, 3)
    book.ok(replace(score, epoch=3, loss=0.8))
    assert task(book).best.epoch == 3
    book.ok(EpochOpened(token, "t", 4, OTHER))
    assert "is open" in book.add(replace(score, epoch=4))


def test_an_epoch_without_a_model_is_not_scored():
    book, token = running()
    book.ok(EpochClosed(token, "t", 1, "deadline", {"east": 0, "west": 0}), Merged(token, "t", 1, None, 0, 0.0))
    assert book.add(Scored(token, "t", 1, 0.5, 1.0)) != ""


def test_a_later_submission_changes_what_may_change():
    book, token = running()
    new = replace(SPEC, training=Training(epochs=2), epochs=Epochs(count=9))
    changed = TaskUpdated(token, "t", 7, new, "pause", "ann")
    assert "server of t cannot change" in book.add(replace(changed, spec=replace(SPEC, server=Server("fedyogi"))))
    book.ok(changed)
    assert (task(book).spec, task(book).wanted, task(book).by) == (new, "pause", "ann")
    assert task(book).state == "open"
    assert "submission 7 holds" in book.add(replace(changed, wanted="run"))
    book.ok(replace(changed, submission=8, wanted="stop"))
    assert "is stopped" in book.add(replace(changed, submission=9, wanted="run"))


def test_a_task_that_ended_does_not_change():
    book, token = merged()
    book.ok(TaskEnded(token, "t", "enough"))
    assert "is ended" in book.add(TaskUpdated(token, "t", 7, SPEC, "run"))


def test_a_change_may_be_refused_and_the_task_stays():
    book, token = running()
    book.ok(TaskUpdated(token, "t", 7, SPEC, "run"))
    assert "is admitted" in book.add(TaskRefused(token, "t", 7, "no"))
    book.ok(TaskRefused(token, "t", 8, "no"))
    assert book.state.refused["t"].submission == 8
    assert task(book).spec == SPEC


# ------------------------------------------------------------------ a zone


def test_a_round_leaves_its_norm_and_loss_and_only_the_last_two_stay():
    book, token = at_work()
    for n in (1, 2, 3):
        if n > 1:
            book.ok(opened(token, n))
        book.ok(Closed(token, "t", n, "deadline", {0: 0, 1: 0}))
        book.ok(Finalised(token, "t", n, (), 1, 10, 20_000_000 * n, 0.5 * n, MANIFEST))
    assert book.state.tasks["t"].measured == ((1.0, 4.0), (1.5, 6.0))


def test_a_round_that_failed_leaves_none():
    book, token = at_work()
    book.ok(Closed(token, "t", 1, "deadline", {0: 0, 1: 0}), Finalised(token, "t", 1, (), 0, 0, 0, 0.0, None))
    assert book.state.tasks["t"].measured == ()


@pytest.mark.parametrize(("devices", "starved"), [(1, 1), (2, 0)])
def test_a_round_that_closes_with_fewer_devices_than_it_wanted_starved(devices, starved):
    book, token = at_work()
    wanted = book.state.tasks["t"].rounds[1].opened.demand
    assert wanted == 2
    admitted(book, token, *"xy"[:devices])
    book.ok(Closed(token, "t", 1, "deadline", {0: 0, 1: 0}))
    assert book.state.tasks["t"].starved == starved
