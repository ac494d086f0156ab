"""A task's model out of the log, while it runs and once it is over."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from olearning.export import Export
from processors.desk import EVERY
from schemas.blocks import Tensor, layout
from schemas.facts import Merged
from schemas.task import Submission
from schemas.topics import GLOBAL, read, topic
from schemas.wire import encode
from streams.memory import Host, Stored
from streams.processor import Send
from tests.plane import LAYOUT, NS, START, Archive, Plane, spec

TASKS, MODELS, LEDGER = (topic(NS, GLOBAL, what).name for what in ("tasks", "models", "ledger"))
RENAMED = layout((Tensor("v", (7,), group="body"), Tensor("a", (5,), group="head")))


class World(Plane):
    """A plane, and what is exported from it."""

    def export(self, task: str = "toy", until: Callable[[Host], bool] = lambda host: bool(host.stopped), **how):
        """What is handed over, by epoch, until that holds; and who hands it over."""
        got: dict[int, bytes] = {}

        def take(epoch, shape, vector):
            assert shape == LAYOUT
            assert epoch not in got
            got[epoch] = vector.tobytes()

        host = self.memory.host(lambda life: Export(NS, task, take, **how))
        assert self.memory.run(lambda: until(host), 300_000)
        return got, host

    def last(self, **how) -> dict[int, bytes]:
        got, host = self.export(**how)
        assert host.stopped.ok
        return got

    def trouble(self, task: str = "toy", **how) -> str:
        got, host = self.export(task, **how)
        assert not host.stopped.ok
        assert not got
        return host.stopped.reason

    def models(self) -> dict[int, bytes]:
        """By epoch, as the ledger named them."""
        merged = [f for f in self.facts(GLOBAL) if isinstance(f, Merged) and f.task == "toy"]
        return {0: START.tobytes()} | {f.epoch: self.vector(f.manifest).tobytes() for f in merged}

    def record(self) -> tuple[int, Submission]:
        """Where the task's record lies, and what it says."""
        (r,) = [r for r in self.memory.records(TASKS) if r.key == "toy"]
        return r.offset, read(TASKS, r.value, r.headers)

    def end(self) -> None:
        assert self.memory.run(lambda: self.ended("toy"), 300_000)


def world(every: int = EVERY) -> World:
    """With a task of three epochs. With a small `every` its ledger is soon cut."""
    made = World(Archive(seed=4), every=every)
    made.submit(spec(epochs=3, rounds=1))
    return made


def forgotten() -> World:
    """Its task is over, and the ledger begins with a checkpoint behind that."""
    made = world(every=5)
    made.end()
    made.outlive("toy")
    return made


def test_the_last_model_of_a_task_that_runs():
    plane = world()
    assert plane.memory.run(lambda: len(plane.models()) == 2, 100_000)
    assert plane.last() == {1: plane.models()[1]}
    plane.end()
    assert plane.last() == {3: plane.models()[3]}
    assert plane.models()[3] != plane.models()[1]


def test_the_last_model_of_a_task_of_which_the_ledger_keeps_a_row():
    plane = forgotten()
    assert plane.last() == plane.last(epoch=3) == plane.last(follow=True) == {3: plane.models()[3]}
    assert plane.trouble(epoch=2).endswith("names those of 3")


def test_the_model_of_an_epoch():
    plane = world()
    assert plane.memory.run(lambda: len(plane.models()) == 3, 300_000)
    assert plane.last(epoch=0) == {0: plane.models()[0]}
    assert plane.last(epoch=1) == {1: plane.models()[1]}
    assert plane.trouble(epoch=7) == (
        "no model of epoch 7 of toy is known: the ledger, from its last checkpoint on, names those of 0, 1, 2"
    )


def test_who_follows_has_each_until_the_task_is_over():
    plane = world()
    assert plane.memory.run(lambda: "toy" in plane.globe().tasks, 20_000)
    got = plane.last(follow=True)
    assert plane.ended("toy")
    assert got == plane.models()
    assert len(got) == 4


def test_who_follows_and_stood_still_has_each_in_order():
    plane = world()
    assert plane.memory.run(lambda: "toy" in plane.globe().tasks, 20_000)
    got, host = plane.export(until=lambda host: host.processor.asked == 0, follow=True)
    host.freeze()
    plane.end()
    host.thaw()
    assert plane.memory.run(lambda: bool(host.stopped), 20_000)
    assert list(got) == [0, 1, 2, 3]
    assert got == plane.models()


def test_who_follows_and_was_away_for_long_has_the_last():
    """What was merged meanwhile is in no ledger any more."""
    plane = world(every=5)
    assert plane.memory.run(lambda: "toy" in plane.globe().tasks, 20_000)
    got, host = plane.export(until=lambda host: host.processor.asked == 0, follow=True)
    host.freeze()
    at = host.positions[LEDGER, 0]
    plane.end()
    plane.outlive("toy", at)
    host.thaw()
    assert plane.memory.run(lambda: bool(host.stopped), 20_000)
    assert host.stopped.ok
    assert got == {n: plane.models()[n] for n in (0, 3)}


def test_the_record_that_held_says_what_tensors_there_are():
    """One that came later, and was refused, may say anything; a task file is asked for only where that record is gone."""
    plane = forgotten()
    at, record = plane.record()
    assert at == plane.globe().over["toy"].submission
    plane.memory.append(Send(TASKS, encode(Submission(record.spec, RENAMED, record.manifest)), "toy", 0))
    assert plane.last() == plane.last(layout=RENAMED) == {3: plane.models()[3]}
    plane.memory.topics[TASKS][0][at] = Stored(None, None, 0, ())  # compacted away
    assert "name its task file (--task-file)" in plane.trouble()


def test_where_its_record_is_gone_it_has_to_be_told_what_tensors_there_are():
    plane = forgotten()
    at, _ = plane.record()
    plane.memory.topics[TASKS][0][at] = Stored("toy", None, 0, ())
    assert "name its task file (--task-file)" in plane.trouble()
    assert plane.last(layout=LAYOUT) == {3: plane.models()[3]}
    larger = layout((*LAYOUT.tensors, Tensor("more", (3,))))
    assert plane.trouble(layout=larger) == (
        "the model of toy has 12 values, and its tensors 15: that is another task's file"
    )


def test_who_follows_goes_on_behind_what_was_deleted():
    plane = world()
    assert plane.memory.run(lambda: "toy" in plane.globe().tasks, 20_000)
    told: list[str] = []
    got, host = plane.export(until=lambda host: host.processor.asked == 0, follow=True, say=told.append)
    host.freeze()
    plane.end()
    (kept,) = plane.globe().over["toy"].model.starts
    plane.memory.cut(MODELS, *kept)
    host.thaw()
    assert plane.memory.run(lambda: bool(host.stopped), 20_000)
    assert host.stopped.ok
    assert list(got) == [0, 3]
    assert [f"version {n} " in text for n, text in enumerate(told, 1)] == [True, True]


def test_of_a_task_that_is_submitted_and_not_admitted_it_says_so_or_waits():
    plane = world()
    plane.hosts["global"].crash()
    assert plane.memory.run(lambda: bool(plane.memory.records(TASKS)), 20_000)
    assert plane.trouble() == "toy is submitted, and not admitted yet: it has no model (--follow waits)"
    host = plane.memory.host(lambda life: Export(NS, "toy", lambda *_: None, follow=True))
    plane.memory.run(limit=2_000)
    assert not host.stopped
    plane.hosts["global"].restart()
    assert plane.memory.run(lambda: bool(host.stopped), 300_000)
    assert host.stopped.ok


def test_of_a_task_that_is_refused_it_says_why():
    plane = World(Archive(seed=4))
    made = spec()
    plane.submit(replace(made, zones=("moon",)))
    assert plane.memory.run(lambda: "toy" in plane.globe().refused, 20_000)
    assert plane.trouble() == "toy is refused: zones moon are not known; known: east, west"


def test_a_file_that_cannot_be_written_is_said():
    plane = world()
    plane.end()

    def take(*_):
        raise PermissionError(13, "Permission denied", "model.npz")

    host = plane.memory.host(lambda life: Export(NS, "toy", take))
    assert plane.memory.run(lambda: bool(host.stopped), 20_000)
    assert (host.stopped.ok, host.stopped.reason) == (False, "cannot write model.npz: Permission denied")


@pytest.mark.parametrize("make", [world, forgotten])
def test_a_model_that_is_not_there_any_more_is_said(make):
    plane = make()
    plane.end()
    for p in range(len(plane.memory.topics[MODELS])):
        plane.memory.cut(MODELS, p, plane.memory.span(MODELS, p)[1])
    assert "`olearning prune` deletes versions that no ledger names any more" in plane.trouble()


def test_a_task_that_is_not_known_is_said():
    plane = world()
    assert plane.memory.run(lambda: "toy" in plane.globe().tasks, 20_000)
    assert plane.trouble("tyo") == "there is no task tyo; there: toy"
    plane.end()
    assert plane.trouble("tyo") == "there is no task tyo; there: toy"
