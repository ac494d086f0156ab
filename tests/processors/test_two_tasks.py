"""One aggregator, two tasks: what one says of a slot says nothing of the other's."""

from typing import Any

from processors.aggregator import Aggregator
from schemas.blocks import DeltaBlock, Manifest, Place
from schemas.facts import LEADERSHIP, Admitted, Claimed, Committed, Counts, Done, Founded, Opened, Slot, Stretch
from schemas.messages import Ref
from schemas.wire import encode
from streams.processor import Answer, Assigned, Ends, Fetch, Record
from tests.processors.rig import SIZES, blocks

LEDGER = "test.z.ledger"


class Driven:
    """An aggregator on one shard, fed by hand."""

    def __init__(self) -> None:
        self.processor = Aggregator("test", "z", "agg", "1")
        self.position = 0
        self.effects: list[Any] = list(self.processor.start(0))
        self.give(Assigned(frozenset({0})))
        self.give(Answer(("reading", LEDGER, "end"), {0: 0}))

    def give(self, event: Any) -> list[Any]:
        new = list(self.processor.handle(event, 1))
        self.effects += new
        return new

    def fact(self, fact: Any) -> list[Any]:
        self.position += 1
        return self.give(Record(LEDGER, 0, self.position - 1, None, encode(fact), 1))

    def block(self, task: str, offset: int, b: DeltaBlock) -> list[Any]:
        return self.give(Record(f"test.z.deltas.{task}", 0, offset, b.device, encode(b), 1))


def opened(task: str, tenant: str = "default") -> Opened:
    manifest = Manifest("test.z.models", 0, (Place(0, 0, "m", 0),))
    limits = {"demand": 9, "places": 9, "minimum": 1, "deadline": 10**6, "grace": 0, "lease": 10**6, "staleness": 0}
    form = {"sizes": SIZES, "unit": -24, "largest": 2**40, "heaviest": 1000}
    return Opened(
        token=1, task=task, round=1, epoch=1, source=Ref("g", 1), base=manifest, tenant=tenant, **limits, **form
    )


def test_a_block_that_waits_learns_nothing_from_another_task_s_commit():
    a = Driven()
    for fact in (
        Founded("ledger-z", "z", 1),
        Claimed("lead", "1", {LEADERSHIP: 0}),
        Claimed("agg", "1", {0: 0}),
        opened("t"),
        opened("u"),
        Admitted(1, 0, {}, (Slot("t", 1, 0, "phone"),)),
    ):
        a.fact(fact)
    (asked,) = [e for e in a.block("u", 0, renamed(0)) if isinstance(e, Ends)]
    place = Place(0, 0, "bits", 0)
    a.fact(
        Committed("t", 1, {0: Stretch(2, 0, 2)}, Counts(counted=2), (Done(1, 0),), (1, 1), 1, 1, place, (place, place))
    )
    assert [e.places for e in a.effects if isinstance(e, Fetch)] == [(place,)]  # for its own task, once
    assert a.processor.work["u"].bitmaps.unloaded == {}
    a.give(Answer(asked.tag, {0: 8}))
    a.fact(Admitted(1, 5, {}, (Slot("u", 1, 0, "phone"),)))
    a.block("u", 1, renamed(1))
    (acc,) = a.processor.work["u"].accumulators()
    assert acc.counts == {"counted": 2}


def renamed(i: int) -> DeltaBlock:
    """Task u's block i."""
    b = blocks("phone", 0)[i]
    return DeltaBlock(**{f: getattr(b, f) for f in b.__struct_fields__} | {"task": "u"})
