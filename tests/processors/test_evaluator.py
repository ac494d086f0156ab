"""The evaluator: every model of a task is scored, once, whoever was away when."""

from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from processors.desk import EVERY
from processors.evaluator import Evaluator
from schemas.messages import Evaluation, Objection
from schemas.topics import GLOBAL, KEPT, read, topic
from streams.processor import Fetch, send
from tests.plane import NS, Archive, Plane, spec

LEDGER, METRICS, EVALUATIONS, TASKS = (
    topic(NS, GLOBAL, what) for what in ("ledger", "metrics", "evaluations", "tasks")
)


class Scorer:
    """Notes what it scores."""

    def __init__(self) -> None:
        self.scored: list[tuple[str, bytes]] = []
        self.data: set[str] = set()
        """Of task "toy"."""

    def __call__(self, spec, vector: np.ndarray) -> tuple[float, float, int]:
        self.scored.append((spec.task, vector.tobytes()))
        if spec.task == "toy":
            self.data.add(spec.data)
        return 0.5, float(np.linalg.norm(vector)), 10


class World(Plane):
    """A plane with an evaluator that is killed and comes back."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.scorer = Scorer()
        self.host("evaluator", lambda life: Evaluator(NS, "eval", life, self.scorer))

    def until(self, holds: Callable[[], bool]) -> None:
        assert self.memory.run(holds, 300_000)

    def crash(self) -> None:
        self.hosts["evaluator"].crash()

    def back(self) -> Evaluator:
        self.hosts["evaluator"].restart()
        self.memory.run(limit=3_000)
        assert not self.hosts["evaluator"].stopped
        return self.hosts["evaluator"].processor

    def said(self, task: str = "toy") -> list[int]:
        """The epochs whose scores are on the metrics."""
        messages = [read(METRICS.name, r.value, r.headers) for r in self.memory.records(METRICS.name)]
        assert not [m for m in messages if isinstance(m, Objection)]
        return [m.epoch for m in messages if isinstance(m, Evaluation) and m.task == task]

    def miss_the_end(self) -> None:
        """It is killed after the first score, and the ledger cut behind the end of the task."""
        self.until(lambda: len(self.said()) == 1)
        self.crash()
        self.until(lambda: self.ended("toy"))
        self.outlive("toy")


def world(every: int = EVERY) -> World:
    made = World(Archive(seed=4), every=every)
    made.submit(spec(epochs=3, rounds=1))
    return made


@pytest.mark.parametrize("every", [4, EVERY])
def test_who_starts_again_scores_nothing_twice(every):
    plane = world(every)
    plane.until(lambda: len(plane.memory.records(EVALUATIONS.name)) == 3)
    plane.crash()
    plane.hosts["evaluator"].restart()
    e = plane.hosts["evaluator"].processor
    plane.until(lambda: e.begun)
    assert e.scores["toy"].epoch == 2, "it is shown again"
    plane.until(lambda: plane.ended("toy"))
    plane.memory.run(limit=2_000)
    plane.crash()
    assert plane.back().scores == {}
    assert plane.said() == [0, 1, 2, 3]
    assert len(plane.scorer.scored) == 4


def test_what_was_merged_while_it_was_away_is_scored():
    plane = world()
    plane.until(lambda: len(plane.said()) == 2)
    plane.crash()
    plane.until(lambda: plane.ended("toy"))
    plane.back()
    assert plane.said() == [0, 1, 2, 3]


def test_so_is_the_last_model_of_a_task_of_which_the_ledger_keeps_a_row():
    plane = world(every=4)
    plane.miss_the_end()
    plane.back()
    assert plane.said() == [0, 3]
    assert ("toy", plane.model("toy").tobytes()) in plane.scorer.scored
    plane.crash()
    plane.back()
    assert plane.said() == [0, 3]


@pytest.mark.parametrize("every", [4, EVERY])
def test_not_of_one_that_is_over_for_longer_than_deltas_are_kept(every):
    plane = world(every)
    plane.until(lambda: len(plane.said()) == 1)
    plane.crash()
    plane.until(lambda: plane.ended("toy"))
    if every < EVERY:
        plane.outlive("toy")
    plane.memory.now += KEPT
    plane.back()
    assert plane.said() == [0]


def test_nor_where_its_record_is_gone():
    """Its topics' records were let go: a tombstone says so."""
    plane = world(every=4)
    plane.miss_the_end()
    (at,) = (r.offset for r in plane.memory.records(TASKS.name) if r.key == "toy")
    log = plane.memory.topics[TASKS.name][0]
    log[at] = type(log[at])("toy", None, 0, ())
    plane.back()
    assert plane.said() == [0]
    assert plane.said("other")


def test_what_another_one_has_scored_is_not_scored_again():
    plane = world()
    plane.until(lambda: "toy" in plane.globe().tasks)
    plane.crash()
    plane.until(lambda: plane.globe().tasks["toy"].epoch == 2)
    plane.memory.append(send(EVALUATIONS, Evaluation("another", plane.memory.now, "toy", 1, 1, 0.5, 0.5, 10), "toy"))
    plane.back()
    plane.until(lambda: plane.ended("toy"))
    plane.memory.run(limit=2_000)
    assert plane.said()[-2:] == [2, 3]
    assert 1 not in plane.said()
    assert plane.hosts["evaluator"].processor.scores == {}, "it is over"


def test_who_slept_while_the_ledger_was_cut_scores_the_last_model_of_what_ended_meanwhile():
    plane = world(every=4)
    plane.until(lambda: len(plane.said()) == 2)
    host = plane.hosts["evaluator"]
    host.freeze()
    plane.until(lambda: plane.ended("toy"))
    plane.outlive("toy", host.positions[LEDGER.name, 0])
    host.thaw()
    plane.memory.run(limit=3_000)
    assert plane.said() == [0, 1, 3]
    assert "toy" not in host.processor.scores


def test_what_held_of_a_task_says_how_its_last_model_is_scored():
    """And not what somebody said of its name later."""
    plane = world(every=4)
    plane.miss_the_end()
    (first,) = (r for r in plane.memory.records(TASKS.name) if r.key == "toy")
    other = replace(read(TASKS.name, first.value, first.headers), seed=7)
    plane.memory.append(send(TASKS, replace(other, spec=replace(other.spec, data="another")), "toy"))
    plane.back()
    assert plane.said() == [0, 3]
    assert plane.scorer.data == {"none"}


def test_who_is_killed_between_the_two_says_the_score_again():
    plane = world()
    sent: list[str] = []

    def network(host, s) -> list[int]:
        if host is plane.hosts["evaluator"]:
            sent.append(s.topic)
            if len(sent) == 4:  # the second of the second model: it never leaves
                plane.memory.loss = 0.0  # the first lands
                plane.memory._at(0, host.crash)
                return []
        return [plane.memory.delay()]

    plane.memory.network = network
    plane.until(lambda: not plane.hosts["evaluator"].alive)
    plane.back()
    plane.until(lambda: plane.ended("toy"))
    plane.memory.run(limit=2_000)
    assert sorted(set(plane.said())) == [0, 1, 2, 3]
    assert plane.said().count(1) == 2


def test_two_say_the_same():
    plane = world()
    plane.host("other", lambda life: Evaluator(NS, "other", life, plane.scorer))
    plane.until(lambda: plane.ended("toy"))
    plane.memory.run(limit=2_000)
    assert set(plane.said()) == {0, 1, 2, 3}
    assert len(set(plane.scorer.scored)) == 4


def test_versions_that_are_deleted_meanwhile_are_no_objection():
    plane = world()
    plane.until(lambda: len(plane.said()) == 1)
    plane.crash()
    plane.until(lambda: plane.ended("toy"))
    (kept,) = plane.globe().over["toy"].model.starts
    plane.memory.cut(topic(NS, GLOBAL, "models").name, *kept)
    fetched: list[Fetch] = []
    do = plane.memory._do

    def watched(host, effect) -> None:
        if isinstance(effect, Fetch) and host is plane.hosts["evaluator"]:
            fetched.append(effect)
        do(host, effect)

    plane.memory._do = watched
    plane.back()
    assert plane.said() == [0, 3]
    assert len(fetched) == 2, (
        "after the first that is gone only the newest is looked for: each search reads a whole log"
    )


def test_scores_of_tasks_that_nobody_knows_are_not_kept():
    plane = world()
    plane.until(lambda: len(plane.said()) == 1)
    for n in range(9):
        said = Evaluation("another", plane.memory.now, f"strange-{n}", 1, 1, 0.5, 0.5, 10)
        plane.memory.append(send(EVALUATIONS, said, said.task))
    plane.until(lambda: len(plane.said()) == 2)
    assert set(plane.hosts["evaluator"].processor.scores) == {"toy"}
