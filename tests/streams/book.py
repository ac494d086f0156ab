"""A zone's ledger written fact by fact, for the tests of the fold."""

from typing import Any

from msgspec.structs import replace

from schemas.blocks import Manifest, Place
from schemas.facts import LEADERSHIP, Admitted, Claimed, Committed, Counts, Founded, Opened, Slot, Stretch
from schemas.messages import Ref
from streams.ledger import Zone, fold, snapshot

MANIFEST = Manifest("t.z.models", 1, (Place(0, 0, "m", 0),))
OTHER = Manifest("t.z.models", 2, (Place(0, 1, "n", 0),))
SUM = Place(0, 0, "sum", 0)


class Book:
    """A ledger being written. Each fact is folded on the spot; no state seen before may ever change."""

    def __init__(self, state: Any):
        self.state = state
        self.facts: list[Any] = []

    def add(self, fact: Any, time: int = 0) -> str:
        before, bytes_before = self.state, snapshot(self.state)
        self.facts.append(fact)
        self.state, void = fold(self.state, self.state.position, time, fact)
        assert snapshot(before) == bytes_before, "a state was changed in place"
        assert self.state.position == before.position + 1
        if void:
            assert snapshot(replace(self.state, position=before.position)) == bytes_before, "a void fact did something"
        return void

    def ok(self, *facts: Any, time: int = 0) -> int:
        """Facts that must be accepted; the offset of the last."""
        for fact in facts:
            assert self.add(fact, time) == ""
        return self.state.position - 1


def zone(partitions: int = 2) -> Book:
    book = Book(Zone())
    book.ok(Founded("ledger-z", "z", partitions))
    return book


def claim(book: Book, *seats: int, holder: str = "a", life: str = "1") -> int:
    def token(seat: int) -> int:
        return (book.state.leader if seat == LEADERSHIP else book.state.shards[seat]).token

    return book.ok(Claimed(holder, life, {s: token(s) for s in seats}))


def opened(token: int, round: int = 1, **more: Any) -> Opened:
    base = {"demand": 2, "places": 3, "minimum": 1, "deadline": 100, "grace": 0, "lease": 50, "staleness": 0}
    fields = base | {"sizes": (4,), "unit": -24, "largest": 2**20, "heaviest": 100, "epoch": 1, "task": "t"} | more
    return Opened(token=token, round=round, source=Ref("ledger-g", 3), base=MANIFEST, **fields)


def commit(token: int, ranges: dict[int, tuple[int, int]], round: int = 1, **more: Any) -> Committed:
    """Everything in the ranges is counted, unless said otherwise."""
    n = sum(to - start for start, to in ranges.values())
    fields = {"counts": Counts(counted=n), "sums": (SUM,), "bitmap": SUM, "weights": (n,), "task": "t"} | more
    return Committed(round=round, stretches={s: Stretch(token, *x) for s, x in ranges.items()}, **fields)


def at_work(partitions: int = 2) -> tuple[Book, int]:
    """A zone with a leader and one worker on all shards, whose claims are one, and round 1 of t open."""
    book = zone(partitions)
    token = claim(book, LEADERSHIP, *range(partitions))
    book.ok(opened(token))
    return book, token


def task(book: Book) -> Any:
    return book.state.tasks["t"]


def round_of(book: Book, n: int = 1) -> Any:
    return task(book).rounds[n]


def admitted(book: Book, token: int, *devices: str, time: int = 0) -> None:
    first = len(round_of(book).devices)
    slots = tuple(Slot("t", 1, first + i, d) for i, d in enumerate(devices))
    book.ok(Admitted(token, book.state.admitted, {}, slots), time=time)
