"""Aggregators read first what comes first, lose nothing by it, and never wait for what does not come."""

from typing import Any

import pytest

from processors.aggregator import FULL, LOOK, LOW, Aggregator
from processors.order import MANY, STALE, STUCK
from processors.shares import RECORD, TURN
from schemas.facts import LEADERSHIP, Admitted, Claimed, Closed, Founded, Slot
from schemas.messages import AggregatorReport, Priorities
from schemas.wire import decode, encode
from streams.processor import Answer, Assigned, Ends, Follow, Pause, Record, Resume, Tick
from tests.processors.rig import SIZES
from tests.processors.test_two_tasks import LEDGER, Driven, opened, renamed

A, B, C = (f"test.z.deltas.{t}" for t in "abc")
MUCH = MANY + 1


class Ordered(Driven):
    """An aggregator on one shard with the tasks a, b and c; blocks are garbage, which is read and judged all the same."""

    def __init__(self, task_oriented: bool = False, tenants: str = "ttt", turn: int = TURN) -> None:
        self.now, self.orders = 10_000, 0
        self.processor = Aggregator("test", "z", "agg", "1", task_oriented=task_oriented, turn=turn)
        self.position = 0
        self.effects: list[Any] = list(self.processor.start(self.now))
        self.give(Assigned(frozenset({0})))
        self.give(Answer(("reading", LEDGER, "end"), {0: 0}))
        self.begun = [
            e
            for f in (
                Founded("ledger-z", "z", 1),
                Claimed("lead", "1", {LEADERSHIP: 0}),
                Claimed("agg", "1", {0: 0}),
                *map(opened, "abc", tenants),
            )
            for e in self.fact(f)
        ]

    def give(self, event: Any) -> list[Any]:
        new = list(self.processor.handle(event, self.now))
        self.effects += new
        return new

    def order(self, tasks: str, **weights: float) -> list[Any]:
        """A zone's scheduler says so now."""
        self.orders += 1
        value = encode(Priorities("s", "z", self.now, tuple(tasks), {}, weights))
        return aims(self.give(Record("test.z.priorities", 0, self.orders, "z", value, self.now)))

    def tick(self, ms: int = 0) -> list[Any]:
        self.now += ms
        return aims(self.give(Tick()))

    def ends(self, ms: int = 1_000, **ends: int) -> list[Any]:
        """Let it ask where the logs end, and answer."""
        self.now += ms
        asked = [e for e in self.give(Tick()) if isinstance(e, Ends)]
        out = [self.give(Answer(e.tag, {0: ends.get(e.topic[-1], 0)})) for e in asked]
        return aims([e for effects in out for e in effects])

    def read(self, topic: str, *offsets: int) -> list[Any]:
        out = [self.give(Record(topic, 0, o, "x", b"\xff", self.now)) for o in offsets]
        return aims([e for effects in out for e in effects])


def aims(effects: list[Any]) -> list[Any]:
    return [e for e in effects if isinstance(e, Pause | Resume)]


def pauses(*topics: str) -> list[Pause]:
    return [Pause(t, 0) for t in topics]


def resumes(*topics: str) -> list[Resume]:
    return [Resume(t, 0) for t in topics]


def test_worse_tasks_wait_until_the_better_is_read_to_its_known_end():
    z = Ordered()
    assert z.ends(a=MANY, b=MUCH, c=100) == []  # nobody has said what comes first
    assert z.order("bac") == pauses(A, C)
    assert z.order("bac") == []
    assert z.read(B, *range(MUCH - 1)) == []
    assert z.read(B, MUCH - 1) == resumes(A, C)  # at once, not at the next report
    assert z.read(A, 0) == []


def test_only_what_is_worse_waits_and_few_blocks_make_nobody_wait():
    z = Ordered()
    z.ends(a=MANY, b=MUCH, c=1)
    assert z.order("abc") == pauses(C)  # a has few, b many: c waits for b
    assert z.order("cab") == resumes(C)
    assert z.order("b") == []  # who is not in the order waits for nobody
    assert z.order("bxa") == pauses(A)


def test_another_order_is_obeyed_at_once():
    z = Ordered()
    z.ends(a=100, b=100)
    assert z.order("abc") == pauses(B, C)
    assert z.order("bac") == [Pause(A, 0), Resume(B, 0)]
    assert z.order("") == resumes(A, C)


def test_an_old_order_is_none():
    z = Ordered()
    z.ends(a=1000, b=100)
    assert z.order("ab") == pauses(B)
    for offset in range(STALE // 500):
        z.read(A, offset)
        assert z.tick(500) == []
    z.read(A, 50)
    assert z.tick(500) == resumes(B)


def test_a_better_task_that_does_not_come_forward_makes_nobody_wait():
    z = Ordered()
    z.ends(a=100, b=100)
    assert z.order("abc") == pauses(B, C)
    assert z.tick(STUCK - 1) == []
    z.order("abc")
    assert z.tick(1) == resumes(B)  # b comes before c
    assert z.tick(STUCK) == resumes(C)
    z.order("abc")
    z.read(A, 0)  # it comes forward again
    assert z.tick(1) == pauses(B, C)


def test_a_closed_round_waits_for_nobody():
    z = Ordered()
    z.ends(a=100, b=100, c=100)
    assert z.order("abc") == pauses(B, C)
    assert aims(z.fact(Closed(1, "b", 1, "deadline", {0: 5}))) == resumes(B)
    z.read(B, *range(4))
    assert z.tick(1) == []
    assert z.processor.work["b"].shards[0].position == 4
    z.read(B, 4)
    assert z.tick(1) == pauses(B)  # the end of the round is reached; what lies behind it waits


def test_a_full_queue_and_the_order_are_two_reasons():
    """A block that waits for the ledger, and those behind it."""
    z = Ordered()
    z.ends(a=100, b=100)
    b = [changed(renamed(0), "b") for _ in range(FULL)]
    (asked, paused) = [e for i, x in enumerate(b) for e in z.block("b", i, x) if isinstance(e, Ends | Pause)]
    assert paused == Pause(B, 0)
    assert z.order("abc") == pauses(C)  # b stands still already
    assert z.order("") == resumes(C)
    z.order("abc")
    z.give(Answer(asked.tag, {0: z.position + 1}))
    told = z.fact(Admitted(1, 0, {}, (Slot("b", 1, 0, "phone"),)))  # now they are judged, and the queue is empty
    assert len(z.processor.work["b"].shards[0].queue) <= LOW
    assert aims(told) == []
    assert z.order("") == resumes(B, C)


def changed(b: Any, task: str) -> Any:
    return type(b)(**{f: getattr(b, f) for f in b.__struct_fields__} | {"task": task})


def test_a_partition_that_is_new_waits_from_the_start():
    z = Ordered()
    z.ends(a=100, b=100)
    z.order("abc")
    z.fact(Claimed("other", "1", {0: 2}))
    told = z.fact(Claimed("agg", "1", {0: z.position - 1}))
    mine = [e for e in told if isinstance(e, Pause | Resume | Follow) and e.topic == B]
    assert [type(e) for e in mine] == [Resume, Follow, Pause]


def test_without_the_topic_there_is_no_order():
    z = Ordered()
    assert z.give(Answer(("order", "end"), error="topic test.z.priorities does not exist")) == []
    (follow,) = z.give(Answer(("order", "end"), {0: 7}))
    assert follow == Follow("test.z.priorities", 0, 7, ("order", "gap"))
    assert z.give(Answer(follow.tag, (9, 12), "gone")) == [Follow("test.z.priorities", 0, 12, ("order", "gap"))]
    assert z.give(Record("test.z.priorities", 0, 12, "z", b"\xff", z.now)) == []


# ------------------------------------------------------------------ between tenants

COST = RECORD + 1
"""What a block here costs, in bytes."""


def test_an_order_is_one_of_each_tenant_s_own_tasks():
    z = Ordered(tenants="xyx")
    z.ends(a=100, b=100, c=100)
    assert z.order("abc") == pauses(C)  # b is another's
    assert z.order("cba") == [Pause(A, 0), Resume(C, 0)]


def test_a_tenant_that_had_its_turn_waits_until_the_others_had_theirs():
    z = Ordered(tenants="xyx", turn=4 * COST)
    assert z.ends(a=50, b=50, c=50) == []
    assert z.read(A, 0, 1) == []
    assert z.read(C, 0) == []
    assert z.read(C, 1) == pauses(A, C)  # two tasks, one tenant, one turn
    assert z.read(B, 0, 1, 2) == []
    assert z.read(B, 3) == resumes(A, C)
    assert z.read(B, *range(4, 8)) == pauses(B)
    assert z.order("abc", x=3.0) == pauses(C)
    assert z.read(A, *range(2, 13)) == []  # three of these are one of y's
    assert z.read(A, 13) == resumes(B)


def test_it_waits_for_nobody_who_has_nothing_to_read_and_who_comes_has_saved_up_nothing():
    z = Ordered(tenants="xyx", turn=4 * COST)
    z.ends(a=50)
    assert z.read(A, *range(20)) == []
    assert z.ends(a=90, b=2) == []  # its 20 blocks are forgotten
    assert z.read(A, *range(20, 24)) == pauses(A, C)
    assert z.read(B, 0) == []
    assert z.read(B, 1) == resumes(A, C)  # b is read to its end: at once
    assert z.read(A, 24) == z.ends(LOOK, b=50) == []
    assert z.read(B, *range(2, 6)) == pauses(B)  # it lacked nothing meanwhile


def test_what_others_have_to_read_is_asked_soon_but_only_where_tenants_share():
    def asked(z: Ordered) -> list[str]:
        z.ends(a=50)
        z.now += LOOK
        return [e.topic for e in z.give(Tick()) if isinstance(e, Ends)]

    assert asked(Ordered(tenants="xyx")) == [B, C]
    assert asked(Ordered(tenants="xxx")) == []


def test_who_stands_still_has_no_turn():
    z = Ordered(tenants="xyx", turn=4 * COST)
    z.ends(a=50, b=50)
    assert z.read(A, *range(4)) == pauses(A, C)
    assert z.tick(STUCK) == resumes(A, C)
    asked = [e for e in z.block("b", 0, changed(renamed(0), "b")) if isinstance(e, Ends)]
    assert asked  # its block waits for the ledger: nothing of it can be read, and others need not wait for that
    assert z.read(A, *range(4, 20)) == []


def test_a_closed_round_goes_on_within_its_tenant_s_share():
    z = Ordered(tenants="xyx", turn=4 * COST)
    z.ends(a=50, b=50, c=50)
    z.fact(Closed(1, "a", 1, "deadline", {0: 50}))
    assert z.order("ca") == []  # its own tenant's better task does not hold it up
    assert z.read(A, *range(4)) == pauses(A, C)
    assert z.read(B, *range(4)) == resumes(A, C)


# ------------------------------------------------------------------ task-oriented

ALL = 9 * len(SIZES)
"""Blocks that the demand comes to."""


def test_task_oriented_a_round_begins_when_it_is_complete_and_tasks_go_one_by_one():
    z = Ordered(task_oriented=True)
    assert [e for e in z.begun if isinstance(e, Pause)] == pauses(A, B, C)
    assert not any(isinstance(e, Ends) and e.topic == "test.z.priorities" for e in z.effects)
    assert z.ends(a=ALL - 1, b=ALL - 1, c=0) == []
    assert z.ends(a=ALL - 1, b=ALL, c=ALL) == resumes(B)
    assert z.read(B, 0) == []
    assert z.ends(a=ALL, b=ALL, c=ALL) == [Resume(A, 0), Pause(B, 0)]  # by name
    assert z.read(A, *range(ALL - 1)) == []
    assert z.read(A, ALL - 1) == [Pause(A, 0), Resume(B, 0)]
    assert z.read(B, *range(1, ALL)) == [Pause(B, 0), Resume(C, 0)]
    assert z.read(C, *range(ALL)) == pauses(C)


def test_task_oriented_what_is_closed_is_read_whatever_there_is():
    z = Ordered(task_oriented=True)
    z.ends(a=3, b=ALL)
    assert aims(z.fact(Closed(1, "a", 1, "deadline", {0: 3}))) == resumes(A)


def test_task_oriented_who_stands_still_is_passed_over_but_not_for_ever():
    z = Ordered(task_oriented=True)
    assert z.ends(a=ALL, b=ALL) == resumes(A)
    assert z.tick(STUCK) == [Pause(A, 0), Resume(B, 0)]
    assert z.read(B, *range(ALL)) == [Resume(A, 0), Pause(B, 0)]
    assert z.tick(5 * STUCK) == []


@pytest.mark.parametrize("task_oriented", [False, True])
def test_it_reports_what_is_not_read_and_since_when(task_oriented: bool):
    z = Ordered(task_oriented)
    z.ends(a=7)
    z.ends(a=7)
    z.now += 500
    (load, *_) = decode(z.processor._report(z.now).value, (AggregatorReport,)).tasks
    assert (load.task, load.unread) == ("a", 7)
    assert (load.waiting[0].start, load.waiting[0].end, load.waiting[0].ms) == (0, 7, 1_500)
    assert load.size == 4 * sum(SIZES) // len(SIZES)
