"""Asynchronous rounds explored state by state: places that are given anew, deltas that count a round later.

One leader that admits, opens, closes and finalises, one worker on one shard, three devices, fewer places. What is offered is
decided on the fold as it is, lands late, twice or never; so two offers for one place are often under way.

In every state: no more devices at work than places; each delta counts once, and if it is not too old; a
model sums what is counted in its round; a round's contributors are those counted in it; the fold's identity. From every state the end can be reached.
"""

from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from schemas import facts
from schemas.blocks import Manifest
from schemas.facts import LEADERSHIP
from schemas.messages import Ref
from streams.ledger import Zone, fold, identity, summed
from tests.streams.scenarios import Interned, breaks, explore, without

pytestmark = pytest.mark.proof

DEVICES, PLACES, ROUNDS, STALENESS = ("a", "b", "c"), 1, 2, 1
Opened = namedtuple("Opened", "round")
Admitted = namedtuple("Admitted", "after round slot device lapsed")
Committed = namedtuple("Committed", "round start base slot counted")
Closed = namedtuple("Closed", "round end")
Finalised = namedtuple("Finalised", "round commits")
Told = namedtuple("Told", "zone admissions counted final")
"""`counted`: (round it fell into, base, slot), by offset; None for what was late. `final`: (round, how many its model sums)."""
State = namedtuple("State", "ledger log net faults")
"""`log`: (base, slot) in the order sent."""


class Refill(Interned):
    def __init__(self, faults: int = 1):
        super().__init__()
        self._steps: dict[tuple, int] = {}
        z, claimed = Zone(), facts.Claimed("L", "0", {LEADERSHIP: 0, 0: 0})
        for i, f in enumerate((facts.Founded("z", "z", 1), claimed, self.fact(Opened(1)))):
            z, void = fold(z, i, 0, f)
            assert not void
        self.init = State(self.intern(Told(replace(z, position=0), 0, (), ())), (), frozenset(), faults)

    def fact(self, x: Any) -> Any:
        match x:
            case Opened(n):
                limits = {
                    "demand": 1,
                    "places": PLACES,
                    "minimum": 1,
                    "deadline": 0,
                    "grace": 0,
                    "lease": 0,
                    "epoch": 1,
                }
                form = {"sizes": (1,), "unit": 0, "largest": 1, "heaviest": 1, "staleness": STALENESS, "refill": 1}
                return facts.Opened(
                    token=1, task="t", round=n, source=Ref("g", 1), base=Manifest("m", 0, ()), **limits, **form
                )
            case Admitted(after, n, slot, device, lapsed):
                return facts.Admitted(
                    1, after, {}, (facts.Slot("t", n, slot, device),), tuple(facts.Lapsed("t", *x) for x in lapsed)
                )
            case Committed(n, start, base, slot, counted):
                counts = facts.Counts(counted=1) if counted else facts.Counts(late=1)
                done = (facts.Done(base, slot),) if counted else ()
                return facts.Committed("t", n, {0: facts.Stretch(1, start, start + 1)}, counts, done)
            case Closed(n, end):
                return facts.Closed(1, "t", n, "", {0: end})
            case Finalised(n, commits):
                return facts.Finalised(1, "t", n, commits, 0, 0, 0, 0.0)

    def step(self, n: int, x: Any) -> int:
        if (n, x) not in self._steps:
            self._steps[n, x] = self._step(n, x)
        return self._steps[n, x]

    def _step(self, n: int, x: Any) -> int:
        t = self.told[n]
        at = 9_000
        if isinstance(x, Admitted):
            at = t.admissions + 1
        elif isinstance(x, Committed):
            at = 1_000 + x.start
        z, void = fold(replace(t.zone, position=at), at, 0, self.fact(x))
        if void:
            return n
        t = t._replace(zone=replace(z, position=0))
        if isinstance(x, Admitted):
            t = t._replace(admissions=at)
        elif isinstance(x, Committed):
            t = t._replace(counted=(*t.counted, (x.round, x.base, x.slot) if x.counted else None))
        elif isinstance(x, Finalised):
            t = t._replace(final=(*t.final, (x.round, sum(y is not None and y[0] == x.round for y in t.counted))))
        return self.intern(t)

    def moves(self, st: State) -> Iterator[tuple[str, bool, State]]:
        fault = {"faults": st.faults - 1}
        z = self.told[st.ledger].zone
        t = z.tasks["t"]
        for x in st.net:
            after = self.step(st.ledger, x)
            yield f"{x} lands", False, st._replace(ledger=after, net=st.net - {x})
            if st.faults:
                yield f"{x} is lost", True, st._replace(net=st.net - {x}, **fault)
                yield f"{x} lands, a copy follows", True, st._replace(ledger=after, **fault)
        for n, r in t.rounds.items():
            for i in range(len(r.devices)):
                if (n, i) not in st.log:
                    yield f"slot {i} of round {n} sends", False, st._replace(log=(*st.log, (n, i)))
        for fact in self.offers(st, z, t):
            early = any(type(x) is type(fact) for x in st.net)  # what is under way is taken for failed
            if fact not in st.net and (not early or st.faults):
                yield f"offered: {fact}", early, st._replace(net=st.net | {fact}, **(fault if early else {}))

    def offers(self, st: State, z: Zone, t: Any) -> Iterator[Any]:
        r, used = t.rounds[t.round], {d for r in t.rounds.values() for d in r.devices}
        if t.state == "open":
            work = [(n, i) for n, r in t.rounds.items() for i in range(len(r.devices)) if i not in r.done | r.lapsed]
            free = [d for d in DEVICES if d not in used]
            for lapsed in {(), tuple(work)} if free else ():
                if len(work) - len(lapsed) < PLACES:
                    yield Admitted(z.admitted, t.round, len(r.devices), free[0], lapsed)
            if r.contributors >= 1 or len(st.log) == len(DEVICES):
                yield Closed(t.round, len(st.log))
        elif t.state == "closed" and t.at[0] > t.round:
            yield Finalised(t.round, summed(r))
        elif t.state == "finalised" and t.round < ROUNDS:
            yield Opened(t.round + 1)
        n = t.next[0]
        if n < len(st.log) and not (r.closed and t.at[0] == t.round and n >= r.closed.ends[0]):
            base, slot = st.log[n]
            yield Committed(t.at[0], n, base, slot, t.at[0] - base <= STALENESS)

    def goal(self, st: State) -> bool:
        t = self.told[st.ledger].zone.tasks["t"]
        return (t.round, t.state) == (ROUNDS, "finalised") and t.next[0] == len(st.log)

    def broken(self, st: State) -> str:
        told = self.told[st.ledger]
        t = told.zone.tasks["t"]
        done = {x[1:] for x in told.counted if x}
        if len(done) < sum(x is not None for x in told.counted):
            return "a delta counts twice"
        work = [(n, i) for n, r in t.rounds.items() for i in range(len(r.devices)) if i not in r.lapsed]
        recent = [x for x in work if x not in done and x[0] >= t.round - STALENESS]
        if len(recent) > PLACES:
            return "more devices are at work than there are places"
        for n, r in t.rounds.items():
            if r.contributors != sum(x is not None and x[0] == n for x in told.counted):
                return "a round's contributors are not those counted in it"
            if not identity(t, n):
                return "the identity does not hold"
        if any(k != sum(x is not None and x[0] == n for x in told.counted) for n, k in told.final):
            return "a model is not the sum of what is counted in its round"
        if any(x and not 0 <= x[0] - x[1] <= STALENESS for x in told.counted):
            return "a delta counts that is too old"
        return ""


LIMIT = 60_000


@pytest.mark.parametrize("faults", [0, 1, 2])
def test_as_far_as_time_allows(faults):
    states, wrong, past = explore(Refill(faults), LIMIT)
    print(f"refill, {faults} faults: {states} states, {'cut' if states == LIMIT else 'all'}")
    assert not wrong, "\n".join([wrong, *past])


def off_chain(monkeypatch):
    """Slot numbers and places are checked by themselves too: all that stands for "the Admitted before it" goes."""
    without(monkeypatch, "is not the last Admitted", "the next new slot", "places", "has two slots")


def off_tile(monkeypatch):
    without(monkeypatch, "is committed up to", "is done or given up before")


def off_segment(monkeypatch):
    without(monkeypatch, "is in round")


CONTROLS = [(off_chain, "than there are places"), (off_tile, "counts twice"), (off_segment, "a model is not")]


@pytest.mark.parametrize(("off", "finding"), CONTROLS, ids=lambda x: getattr(x, "__name__", ""))
def test_without_a_guard_something_breaks(monkeypatch, off, finding):
    off(monkeypatch)
    breaks(Refill(2), 200_000, finding)
