"""The globe's protocol explored state by state: two zones' ledgers as shards, two global leaders, epochs taken and merged.

A zone's ledger is only what matters here: a row of records, each a result of some samples or nothing. The leaders act on what
the fold says and on how far each has read the zones, which is behind by as much as can be; what they append lands late, twice or never.

In every state: what is taken tiles each zone's ledger; every result below the end of an epoch that is merged is in exactly one
epoch's updates; an epoch is merged once, with just what was taken. From every state the last epoch can be merged without a
fault or the other leader's help.
"""

from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from schemas import facts
from schemas.blocks import Manifest, Tensor, layout
from schemas.facts import LEADERSHIP
from schemas.task import Epochs, TaskSpec
from streams.ledger import Globe, epochs, fold, leads
from tests.streams.scenarios import Interned, breaks, explore, put, without

pytestmark = pytest.mark.proof

MODEL = Manifest("m", 0, ())
ZONES = ("x", "y")
Claimed = namedtuple("Claimed", "who life after")
Opened = namedtuple("Opened", "token epoch")
Taken = namedtuple("Taken", "token epoch ranges")
Closed = namedtuple("Closed", "token epoch ends")
Merged = namedtuple("Merged", "token epoch samples")
Told = namedtuple("Told", "globe claims stretches merged")
"""`stretches`: accepted (zone, from, to, epoch). `merged`: (epoch, samples)."""
State = namedtuple("State", "ledger zones read net leaders elected faults")
"""`zones`: how long each ledger is. `read`: by leader and zone, how far it has read."""


class Epoch(Interned):
    def __init__(self, name: str, zones: tuple[tuple[int, ...], ...], epochs: int = 1, faults: int = 1):
        """`zones`: by record, the samples of a result; 0 for any other fact."""
        self.name, self.zones, self.epochs = name, zones, epochs
        super().__init__()
        self._steps: dict[tuple, int] = {}
        spec = TaskSpec(task="t", model="m", data="d", epochs=Epochs(epochs, 1))
        g = Globe()
        for i, f in enumerate(
            (
                facts.Founded("g", "global", 1),
                facts.Claimed("L0", "0", {LEADERSHIP: 0}),
                *(facts.ZoneJoined(1, z, z, 1) for z in ZONES),
                facts.TaskAdmitted(1, spec, layout((Tensor("w", (1,)),)), MODEL, ZONES),
            )
        ):
            g, void = fold(g, i, 0, f)
            assert not void
        first = self.intern(Told(replace(g, position=0), 1, (), ()))
        self.init = State(first, (0, 0), ((0, 0), (0, 0)), frozenset(), (0, 0), 0, faults)

    def step(self, n: int, x: Any) -> int:
        if (n, x) not in self._steps:
            self._steps[n, x] = self._step(n, x)
        return self._steps[n, x]

    def _step(self, n: int, x: Any) -> int:
        t = self.told[n]
        at = t.claims + 1 if isinstance(x, Claimed) else 1_000
        g, void = fold(replace(t.globe, position=at), at, 0, self.fact(x))
        if void:
            return n
        t = t._replace(globe=replace(g, position=0))
        match x:
            case Claimed():
                t = t._replace(claims=at)
            case Taken(_, epoch, ranges):
                new = tuple((z, start, end, epoch) for z, (start, end) in ranges)
                t = t._replace(stretches=tuple(sorted((*t.stretches, *new))))
            case Merged(_, epoch, samples):
                t = t._replace(merged=(*t.merged, (epoch, samples)))
        return self.intern(t)

    def samples(self, zone: str, start: int, end: int) -> int:
        return sum(self.zones[ZONES.index(zone)][start:end])

    def fact(self, x: Any) -> Any:
        match x:
            case Claimed(who, life, after):
                return facts.Claimed(f"L{who}", str(life), {LEADERSHIP: after})
            case Opened(token, epoch):
                return facts.EpochOpened(token, "t", epoch, MODEL)
            case Taken(token, epoch, ranges):
                updates = ((z, self.samples(z, *r)) for z, r in ranges)
                made = tuple(facts.Update(z, 1, MODEL, n, 1, 0) for z, n in updates if n)
                return facts.Taken(token, "t", epoch, dict(ranges), made)
            case Closed(token, epoch, ends):
                return facts.EpochClosed(token, "t", epoch, "", dict(zip(ZONES, ends, strict=True)))
            case Merged(token, epoch, samples):
                return facts.Merged(token, "t", epoch, MODEL, samples, 0.0)

    def landed(self, st: State, ledger: int, x: Any = None) -> State:
        """Tokens never come back: what bears an old one is void for ever and need not stay in the network."""
        token = self.told[ledger].globe.leader.token
        alive = (y for y in st.net if (y.after if isinstance(y, Claimed) else y.token) == token)
        return st._replace(ledger=ledger, net=frozenset(alive) - {x})

    def moves(self, st: State) -> Iterator[tuple[str, bool, State]]:
        fault = {"faults": st.faults - 1}
        for i, zone in enumerate(self.zones):
            if st.zones[i] < len(zone):
                yield f"zone {i} goes on", False, st._replace(zones=put(st.zones, i, st.zones[i] + 1))
        for x in st.net:
            after = self.step(st.ledger, x)
            yield f"{x} lands", False, self.landed(st, after, x)
            if st.faults:
                yield f"{x} is lost", True, st._replace(net=st.net - {x}, **fault)
                yield f"{x} lands, a copy follows", True, self.landed(st, after)._replace(**fault)
        g = self.told[st.ledger].globe
        for i, life in enumerate(st.leaders):
            zombie = i != st.elected
            for z in range(len(ZONES)):
                if st.read[i][z] < st.zones[z]:
                    read = put(st.read, i, put(st.read[i], z, st.zones[z]))
                    yield f"leader {i} reads zone {z}", zombie, st._replace(read=read)
            token = leads(g, f"L{i}", str(life))
            if not token:
                claim = Claimed(i, life, g.leader.token)
                if claim not in st.net and (st.faults or not zombie):
                    net = st.net | {claim}
                    yield f"leader {i} claims", zombie, st._replace(net=net, **(fault if zombie else {}))
                continue
            if st.faults:
                new = st._replace(leaders=put(st.leaders, i, life + 1), read=put(st.read, i, (0, 0)), **fault)
                yield f"leader {i} crashes", True, new
            for fact in self.offers(g.tasks["t"], token, st.read[i]):
                if not any(type(x) is type(fact) and x.token == token for x in st.net):
                    yield f"leader {i} offers {fact}", zombie, st._replace(net=st.net | {fact})
        if st.faults:
            yield "the other is elected", True, st._replace(elected=1 - st.elected, **fault)

    def offers(self, t: Any, token: int, read: tuple[int, int]) -> Iterator[Any]:
        """What a leader that has read so far finds to do. It may take before an epoch closes, and close whenever it likes."""
        if t.state in ("admitted", "merged"):
            if t.epoch < self.epochs:
                yield Opened(token, t.epoch + 1)
            return
        ends = read if t.state == "open" else tuple(t.ends[z] for z in ZONES)
        ahead = tuple((z, (t.taken[z], e)) for z, e in zip(ZONES, ends, strict=True) if t.taken[z] < e)
        if t.state == "open":
            yield Closed(token, t.epoch, tuple(max(e, t.taken[z]) for z, e in zip(ZONES, read, strict=True)))
            yield from (Taken(token, t.epoch, (a,)) for a in ahead)
        elif ahead and TAKEN_FIRST:
            if all(r >= e for r, e in zip(read, ends, strict=True)):
                yield Taken(token, t.epoch, ahead)
        else:
            yield Merged(token, t.epoch, sum(u.samples for u in t.updates.values()))

    def goal(self, st: State) -> bool:
        t = self.told[st.ledger].globe.tasks["t"]
        return (t.epoch, t.state) == (self.epochs, "merged")

    def broken(self, st: State) -> str:
        told = self.told[st.ledger]
        t = told.globe.tasks["t"]
        for z in ZONES:
            mine = [(start, end) for zone, start, end, _ in told.stretches if zone == z]
            if [o for a, b in mine for o in range(a, b)] != list(range(t.taken[z])):
                return "what is taken does not tile a zone's ledger"
        if len({e for e, _ in told.merged}) < len(told.merged):
            return "an epoch is merged twice"
        for epoch, samples in told.merged:
            if samples != sum(self.samples(z, a, b) for z, a, b, e in told.stretches if e == epoch):
                return "what is merged is not what was taken"
        if t.state == "merged" and any(t.taken[z] != t.ends[z] for z in ZONES):
            return "an epoch is merged with more or less than lies below its ends"
        return ""


TAKEN_FIRST = True
"""Switched off with the guard against merging before all is taken."""
ONE = ("one epoch", ((5,), (7,)), 1, 1)
LONGER = ("one epoch, longer ledgers", ((5, 0), (0, 7)), 1, 1)
TWO = ("two epochs", ((5,), (7,)), 2, 1)
LIMIT = 60_000


def test_whole():
    model = Epoch(*ONE)
    states, wrong, past = explore(model, 400_000)
    print(f"{model.name}: {states} states, all")
    assert states < 400_000
    assert not wrong, "\n".join([wrong, *past])


@pytest.mark.parametrize("scenario", [LONGER, TWO], ids=lambda x: x[0])
def test_as_far_as_time_allows(scenario):
    model = Epoch(*scenario)
    states, wrong, past = explore(model, LIMIT)
    print(f"{model.name}: {states} states, cut")
    assert not wrong, "\n".join([wrong, *past])


def off_taken(monkeypatch):
    without(monkeypatch, "is taken up to")


def off_ends(monkeypatch):
    without(monkeypatch, "it ends before what is taken")


def off_end(monkeypatch):
    without(monkeypatch, "the epoch ends at")


def off_all(monkeypatch):
    without(monkeypatch, "not all zones are taken")
    monkeypatch.setitem(globals(), "TAKEN_FIRST", False)


def off_once(monkeypatch):
    strict = epochs._task
    monkeypatch.setattr(epochs, "_task", lambda g, f, *states: strict(g, f, *states, "merged"))


CONTROLS = [
    (off_taken, "does not tile"),
    (off_ends, "more or less"),
    (off_end, "more or less"),
    (off_all, "more or less"),
    (off_once, "merged twice"),
]


@pytest.mark.parametrize(("off", "finding"), CONTROLS, ids=lambda x: getattr(x, "__name__", ""))
def test_without_a_guard_something_breaks(monkeypatch, off, finding):
    off(monkeypatch)
    breaks(Epoch(*ONE), 100_000, finding)
