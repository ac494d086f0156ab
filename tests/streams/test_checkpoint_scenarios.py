"""Checkpoints explored state by state: two leaders that write and cut, a reader that starts, lags and starts again.

A ledger of a few records, a checkpoint allowed every second one. Each leader acts on what it has read; what it
offers lands late, twice or never, and it may cut the ledger, by what it has read, at any later time, a zombie too. The reader begins where
the log begins: from the first checkpoint there is, through `restore(snapshot(...))`, void or not, as `streams/reading.py` does.

In every state: whoever starts now finds where to begin; the reader's fold is that of one who read everything. From every
state the ledger can come to its full length with the reader at its end, without another fault.
"""

from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import pytest

from processors.checkpoints import cut_at
from schemas import facts
from schemas.blocks import Place
from schemas.facts import LEADERSHIP
from schemas.wire import checksum, encode
from streams import ledger
from streams.ledger import Diverged, Ledger, Zone, chains, fold, leads, restore, snapshot
from streams.processor import Record
from tests.streams.scenarios import explore, put, without

pytestmark = pytest.mark.proof

EVERY = 2
Claimed = namedtuple("Claimed", "who life after")
Filler = namedtuple("Filler", "")
Checkpoint = namedtuple("Checkpoint", "token offset hash cut")
State = namedtuple("State", "records start net views lives elected reader faults")
"""`views`: how far each leader has read. `reader`: (offset of the checkpoint it began from, how far it has read), or None."""
Founded = namedtuple("Founded", "")
FIRST = (Founded(), Claimed(0, 0, 0))


class Checkpoints:
    def __init__(self, faults: int = 1, length: int = 9, bent: bool = False):
        """`bent`: a leader that cuts wherever it likes."""
        self.bent, self.length = bent, length
        self._folds: dict[tuple, Zone] = {}
        self._from: dict[tuple, Zone] = {}
        self.init = State(FIRST, 0, frozenset(), (2, 0), (0, 0), 0, None, faults)

    def fact(self, x: Any) -> Any:
        match x:
            case Founded():
                return facts.Founded("z", "z", 1, every=EVERY)
            case Claimed(who, life, after):
                return facts.Claimed(f"L{who}", str(life), {LEADERSHIP: after})
            case Filler():
                return facts.Claimed("nobody", "0", {0: 99})
            case Checkpoint(token, offset, hash, cut):
                return facts.Checkpoint(token, offset, hash, (Place(0, 0, str(offset), 0),), cut)

    def fold(self, records: tuple) -> Zone:
        """By one who reads everything."""
        if not records:
            return Zone()
        if records not in self._folds:
            z, _ = fold(self.fold(records[:-1]), len(records) - 1, 0, self.fact(records[-1]))
            self._folds[records] = z
        return self._folds[records]

    def read_from(self, records: tuple, origin: int) -> Zone:
        """By one who began at a checkpoint."""
        key = records, origin
        if key not in self._from:
            if len(records) == origin:
                self._from[key] = restore(snapshot(self.fold(records)), Zone)
            else:
                before = self.read_from(records[:-1], origin)
                self._from[key] = fold(before, len(records) - 1, 0, self.fact(records[-1]))[0]
        return self._from[key]

    def origin(self, st: State) -> int | None:
        """Where a reader begins that starts now."""
        if st.start == 0:
            return 0
        found = (x.offset for i, x in enumerate(st.records) if i >= st.start and isinstance(x, Checkpoint))
        return next((o for o in found if o >= st.start), None)

    def landed(self, st: State, x: Any, again: bool = False) -> State:
        """What bears an old token, or comes after a later checkpoint, is void for ever: it leaves the network."""
        records = (*st.records, x)
        z = self.fold(records)
        last = z.checkpoints[-1].offset if z.checkpoints else 0
        alive = {
            y
            for y in st.net
            if (
                y.token == z.leader.token and y.offset > last
                if isinstance(y, Checkpoint)
                else y.after == z.leader.token
            )
        }
        return st._replace(records=records, net=frozenset(alive if again else alive - {x}))

    def moves(self, st: State) -> Iterator[tuple[str, bool, State]]:
        fault = {"faults": st.faults - 1}
        room = len(st.records) < self.length
        if room:
            yield "a record lands", False, st._replace(records=(*st.records, Filler()))
        for x in st.net if room else ():
            yield f"{x} lands", False, self.landed(st, x)
            if st.faults:
                yield f"{x} lands, a copy follows", True, self.landed(st, x, again=True)._replace(**fault)
                yield f"{x} is lost", True, st._replace(net=st.net - {x}, **fault)
        for i, life in enumerate(st.lives):
            z, zombie = self.fold(st.records[: st.views[i]]), i != st.elected
            if st.views[i] < len(st.records) and st.views[i] >= st.start:
                yield f"leader {i} reads", zombie, st._replace(views=put(st.views, i, st.views[i] + 1))
            elif st.views[i] < st.start and (origin := self.origin(st)) is not None:
                yield f"leader {i} starts from {origin}", zombie, st._replace(views=put(st.views, i, origin))
            if st.faults and st.views[i]:
                again = st._replace(lives=put(st.lives, i, life + 1), views=put(st.views, i, 0), **fault)
                yield f"leader {i} crashes", True, again
            if z.cut > st.start:
                yield f"leader {i} cuts at {z.cut}", zombie, st._replace(start=z.cut)
            token = leads(z, f"L{i}", str(life))
            if not z.ledger:
                continue
            if not token:
                claim = Claimed(i, life, z.leader.token)
                if claim not in st.net and (st.faults or not zombie):
                    net = st.net | {claim}
                    yield f"leader {i} claims", zombie, st._replace(net=net, **(fault if zombie else {}))
                continue
            last = z.checkpoints[-1].offset if z.checkpoints else 0
            newest = st.views[i] // EVERY * EVERY
            if newest > last:
                hash = checksum(snapshot(self.fold(st.records[:newest])))
                fact = Checkpoint(token, newest, hash, cut_at(z, z.position))
                if not any(isinstance(x, Checkpoint) and x.token == token for x in st.net):
                    yield f"leader {i} offers {fact}", zombie, st._replace(net=st.net | {fact})
                if self.bent and st.faults:
                    for cut in (newest, newest + 1, newest + EVERY):
                        wrong = fact._replace(cut=cut)
                        yield f"leader {i} would cut at {cut}", True, st._replace(net=st.net | {wrong}, **fault)
        if st.faults:
            yield "the other is elected", True, st._replace(elected=1 - st.elected, **fault)
            if st.reader:
                yield "the reader crashes", True, st._replace(reader=None, **fault)
        if st.reader is None or st.reader[1] < st.start:
            if (origin := self.origin(st)) is not None:
                yield f"the reader starts from {origin}", False, st._replace(reader=(origin, origin))
        elif st.reader[1] < len(st.records):
            yield "the reader reads", False, st._replace(reader=(st.reader[0], st.reader[1] + 1))

    def goal(self, st: State) -> bool:
        return len(st.records) == self.length and st.reader is not None and st.reader[1] == self.length

    def broken(self, st: State) -> str:
        if self.origin(st) is None:
            return "nobody can begin to read"
        if st.reader:
            origin, position = st.reader
            read = st.records[:position]
            if snapshot(self.read_from(read, origin)) != snapshot(self.fold(read)):
                return "who began at a checkpoint folds otherwise"
        return ""


LIMIT = 40_000


def test_whole():
    model = Checkpoints(faults=0, length=7)
    states, wrong, past = explore(model, 400_000)
    print(f"checkpoints, no faults: {states} states, all")
    assert states < 400_000
    assert not wrong, "\n".join([wrong, *past])


@pytest.mark.parametrize("more", [{"faults": 1}, {"faults": 2}, {"faults": 1, "bent": True}])
def test_as_far_as_time_allows(more):
    states, wrong, past = explore(Checkpoints(**more), LIMIT)
    print(f"checkpoints, {more}: {states} states, cut")
    assert not wrong, "\n".join([wrong, *past])


def test_without_its_guard_a_ledger_is_cut_where_nobody_can_begin(monkeypatch):
    without(monkeypatch, "cannot be cut", "must stay")
    states, wrong, past = explore(Checkpoints(bent=True), 200_000)
    print(f"off_cut: {states} states, {len(past)} steps: {wrong}")
    assert wrong == "nobody can begin to read"


WRONGLY = [
    0,
    LEADERSHIP,
]


@pytest.mark.parametrize("seat", WRONGLY)
def test_a_fold_of_another_version_is_found_by_the_hash(monkeypatch, seat):
    """One reader lets a claim of this seat win that comes too late."""
    strict, right = chains.claimed, Ledger(Zone())
    wrong: Ledger = Ledger(Zone())
    records = [*map(Checkpoints().fact, FIRST), facts.Claimed("L1", "0", {seat: 77}), Checkpoints().fact(Filler())]
    for i, fact in enumerate(records):
        right.feed(record_of(i, fact))
    records.append(facts.Checkpoint(1, 4, checksum(snapshot(right.state)), (Place(0, 0, "4", 0),)))
    assert right.feed(record_of(4, records[-1]))[1] == ""

    def lax(s, at, time, f):
        now = {LEADERSHIP: s.leader.token, 0: s.shards[0].token}
        return strict(s, at, time, facts.Claimed(f.holder, f.life, {x: now[x] for x in f.seats}))

    monkeypatch.setitem(ledger.TRANSITIONS[Zone], facts.Claimed, lax)
    for i, fact in enumerate(records[:-1]):
        wrong.feed(record_of(i, fact))
    with pytest.raises(Diverged):
        wrong.feed(record_of(4, records[-1]))


def record_of(offset: int, fact: Any) -> Record:
    return Record("t.z.ledger", 0, offset, None, encode(fact), 0)
