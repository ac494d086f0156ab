"""The ledger protocol explored state by state, with the project's own fold as the judge.

Workers and leaders here make the moves the design allows and no processor code runs: each acts on its own stale view, every
append sits in the network first and lands late, twice or never, anyone may crash, and the groups hand shards and leadership
around; all faults draw on one budget. Whether a fact counts is asked of `streams.ledger.fold`, nobody else.

In every state: the accepted ranges tile; no block is counted twice, refused or late without reason; a round is finalised
once, and its content is the blocks counted in it; leases are within places; answers agree with the ledger. From every state
of a scenario explored whole, the end can be reached without another fault or a zombie's help.

Explored whole: two shards of which one is idle, over two rounds; one shard with two leaders, one fault; two selectors, one
fault. Cut at LIMIT states: three workers; two rounds; two shards; a block one round stale; two selectors with two faults
(whole, they have 92,343, 149,485, 135,198, 331,720 and 142,947 states, take 45 s and hold too: raise LIMIT after a change
of the fold). The number of states is printed (-s). Then one guard of the fold is taken away at a time, and what breaks is found.

What this leaves out has files of its own: held deltas, pipelining and losses (`test_held_scenarios.py`), asynchronous rounds
with places given anew (`test_refill_scenarios.py`), the globe (`test_globe_scenarios.py`), checkpoints (`test_checkpoint_scenarios.py`).
The real processors are explored in `tests/processors/test_exploration.py`.

So that histories that differ only in their order meet again in one state, offsets are canonical: a claim's counts claims, a
commit's says where it starts. Void records are not kept, as they change nothing (`test_ledger.py` looks at that).
"""

import ast
from collections import namedtuple
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from msgspec.structs import replace

from schemas import facts
from schemas.blocks import Manifest, Place
from schemas.messages import Ref
from streams import ledger
from streams.ledger import Zone, fold, leads, rounds, summed
from tests.streams.scenarios import Interned, breaks, explore, put, without

pytestmark = pytest.mark.proof

LIMIT = 25_000
LATE, DUPLICATE = 0, -1
"""Outcomes; a positive one is the round a block was summed into."""

# What is under way. `after`: the token replaced; shard -1: the leadership; ranges: (shard, from, to); marks: (shard, offset, outcome)
Claimed = namedtuple("Claimed", "who life shard after")
Committed = namedtuple("Committed", "tokens round ranges marks")
Closed = namedtuple("Closed", "token round ends")
Finalised = namedtuple("Finalised", "token round commits")
Opened = namedtuple("Opened", "token round")
Admitted = namedtuple("Admitted", "token after partition range slots ended")


@cache
def marks_of(text: str) -> tuple:
    return ast.literal_eval(text)


# ------------------------------------------------------------------ the fold in the middle


class Told(namedtuple("Told", "zone claims admissions marks final cuts")):
    """What the ledger says, and what a reader of all of it would remember: outcomes, results, ends of closed rounds."""

    __slots__ = ()


def fact_of(x: Any, places: int, stale: int) -> Any:
    """As the project knows it. What a commit counted lies in the key of its bitmap, where a real one names its place."""
    source, base = Ref("g", 1), Manifest("m", 0, ())
    match x:
        case Claimed(who, life, shard, after):
            return facts.Claimed(f"{'L' if shard < 0 else 'W'}{who}", str(life), {shard: after})
        case Committed(tokens, n, ranges, marks):
            outcomes = [o for _, _, o in marks]
            counts = facts.Counts(sum(o > 0 for o in outcomes), outcomes.count(DUPLICATE), outcomes.count(LATE))
            at = Place(0, 0, repr(marks), 0)
            stretches = {s: facts.Stretch(t, start, to) for t, (s, start, to) in zip(tokens, ranges, strict=True)}
            return facts.Committed("t", n, stretches, counts, bitmap=at, sums=(at if counts.counted else None,))
        case Closed(token, n, ends):
            return facts.Closed(token, "t", n, "", dict(enumerate(ends)))
        case Finalised(token, n, commits):
            return facts.Finalised(token, "t", n, commits, 0, 0, 0, 0.0)
        case Opened(token, n):
            limits = {"demand": 9, "places": places, "minimum": 1, "deadline": 0, "grace": 0, "lease": 0, "epoch": 1}
            form = {"sizes": (1,), "unit": 0, "largest": 1, "heaviest": 1, "staleness": stale}
            return facts.Opened(token=token, task="t", round=n, source=source, base=base, **limits, **form)
        case Admitted(token, after, partition, (start, to), slots, ended):
            new = tuple(facts.Slot("t", 1, n, d) for n, d in slots)
            return facts.Admitted(
                token, after, {partition: (start, to)}, new, tuple(facts.Lapsed("t", 1, i) for i in range(ended))
            )


class Judge(Interned):
    """The fold over interned states: a state is a number, so what was asked before is not folded again."""

    def __init__(self, places: int = 9, stale: int = 0):
        self.places, self.stale = places, stale
        super().__init__()
        self._steps: dict[tuple[int, Any], int] = {}
        self._views: dict[tuple[int, Any], Any] = {}

    def step(self, f: int, x: Any) -> int:
        """The ledger after this record; the same number if it is void."""
        key = (f, x)
        if key not in self._steps:
            self._steps[key] = self._step(f, x)
        return self._steps[key]

    def _step(self, f: int, x: Any) -> int:
        t = self.told[f]
        at = 9_000
        if isinstance(x, Claimed):
            at = 1 + t.claims
        elif isinstance(x, Committed):
            at = 1_000 + 100 * x.ranges[0][0] + x.ranges[0][1]
        elif isinstance(x, Admitted):
            at = 1 + t.admissions
        zone, void = fold(replace(t.zone, position=at), at, 0, fact_of(x, self.places, self.stale))
        if void:
            return f
        new = t._replace(zone=replace(zone, position=0))
        match x:
            case Claimed():
                new = new._replace(claims=t.claims + 1)
            case Admitted():
                new = new._replace(admissions=t.admissions + 1)
            case Committed():
                new = new._replace(zone=in_order(new.zone, x.round), marks=tuple(sorted(t.marks + x.marks)))
            case Closed():
                new = new._replace(cuts=(*t.cuts, x.ends))
            case Finalised():
                commits = {c.offset: c.fact for c in t.zone.tasks["t"].rounds[x.round].commits}
                inside = sorted(m[:2] for o in x.commits for m in marks_of(commits[o].bitmap.key) if m[2] > 0)
                new = new._replace(final=(*t.final, (x.round, tuple(inside))))
        return self.intern(new)

    def view(self, f: int, me: tuple[int, int]) -> "View | None":
        key = (f, me)
        if key not in self._views:
            self._views[key] = glance(self.told[f].zone, me)
        return self._views[key]


def in_order(zone: Zone, n: int) -> Zone:
    """Integer sums have no order: two histories whose commits landed the other way round are one state."""
    t = zone.tasks["t"]
    if n not in t.rounds:
        return zone
    r = replace(t.rounds[n], commits=tuple(sorted(t.rounds[n].commits, key=lambda c: c.offset)))
    return replace(zone, tasks={"t": replace(t, rounds={**t.rounds, n: r})})


View = namedtuple("View", "hold next rnd kept open ends known")
"""What of the ledger concerns one worker; by shard, None where it holds nothing."""


def glance(zone: Zone, me: tuple[int, int]) -> View | None:
    mine = [(h.holder, h.life) == (f"W{me[0]}", str(me[1])) for h in zone.shards]
    if not any(mine):
        return None
    t = zone.tasks["t"]
    closed = t.rounds[t.round].closed if t.state == "closed" else None
    ends = tuple(closed.ends[s] for s in range(len(mine))) if closed else None
    marks = [m for r in t.rounds.values() for c in r.commits for m in marks_of(c.fact.bitmap.key) if mine[m[0]]]

    def own(xs: Any) -> tuple:
        return tuple(x if m else None for x, m in zip(xs, mine, strict=True))

    kept = [t.kept(s) for s in range(len(mine))]
    tokens = [h.token for h in zone.shards]
    return View(own(tokens), own(t.next), own(t.at), own(kept), t.round, ends, frozenset(marks))


# ------------------------------------------------------------------ aggregation

Worker = namedtuple("Worker", "life view round ranges marks sent", defaults=(0, None, 0, (), (), None))
State = namedtuple("State", "ledger log net workers leaders group elected faults")


class Aggregation:
    """`logs`: by shard, the blocks that devices send, each (round it was admitted to, device)."""

    def __init__(
        self,
        name: str,
        logs: tuple,
        rounds: int = 1,
        workers: int = 2,
        leaders: int = 1,
        faults: int = 1,
        stale: int = 0,
    ):
        self.name, self.logs, self.rounds, self.faults, self.stale = name, logs, rounds, faults, stale
        self.judge = Judge(stale=stale)
        zone = Zone()
        shards = range(len(logs))
        for i, fact in enumerate(
            (
                facts.Founded("z", "z", len(logs)),
                facts.Claimed("L0", "0", {-1: 0}),
                facts.Claimed("W0", "0", dict.fromkeys(shards, 0)),
            )
        ):
            zone, void = fold(zone, i, 0, fact)
            assert not void
        start = self.judge.intern(Told(replace(zone, position=0), 2, 0, (), (), ()))
        first = self.judge.step(start, Opened(1, 1))
        zero = (0,) * len(logs)
        self.init = State(first, zero, frozenset(), (Worker(),) * workers, (0,) * leaders, zero, 0, faults)

    def goal(self, st: State) -> bool:
        t = self.judge.told[st.ledger].zone.tasks["t"]
        return (t.round, t.state, t.next) == (self.rounds, "finalised", tuple(map(len, self.logs)))

    def blocks(self, marks: Any) -> set:
        return {self.logs[s][o] for s, o, outcome in marks if outcome > 0}

    def outcome(self, w: Worker, s: int, offset: int) -> int | None:
        """A function of the log below the block and of the fold. None: the round is not known yet."""
        (base, _), v = self.logs[s][offset], w.view
        if base < v.kept[s]:
            return LATE
        if base > v.open:
            return None
        if self.logs[s][offset] in self.blocks(w.marks) | self.blocks(v.known):
            return DUPLICATE
        return LATE if v.rnd[s] - base > self.stale else v.rnd[s]

    def dead(self, f: int, x: Any) -> bool:
        """Void for ever, so it need not stay in the network. Tokens never come back, nor does a next offset or a round."""
        zone = self.judge.told[f].zone
        t = zone.tasks["t"]
        match x:
            case Claimed(_, _, s, after):
                return after != (zone.leader if s < 0 else zone.shards[s]).token
            case Committed():
                return TILED and any(t.next[s] > start for s, start, _ in x.ranges)
            case Opened():
                return x.token != zone.leader.token or x.round <= t.round
        return x.token != zone.leader.token or x.round < t.round

    def landed(self, st: State, f: int, x: Any = None) -> State:
        return st._replace(ledger=f, net=frozenset(y for y in st.net if y != x and not self.dead(f, y)))

    def moves(self, st: State) -> Iterator[tuple[str, bool, State]]:
        """(what, is it a fault, the next state)"""
        fault = {"faults": st.faults - 1}
        t = self.judge.told[st.ledger].zone.tasks["t"]
        for s, log in enumerate(self.logs):
            if st.log[s] < len(log) and log[st.log[s]][0] <= t.round:
                yield "a device sends", False, st._replace(log=put(st.log, s, st.log[s] + 1))
        for x in st.net:
            after = self.judge.step(st.ledger, x)
            yield f"{x} lands", False, self.landed(st, after, x)
            if st.faults:
                yield f"{x} is lost", True, st._replace(net=st.net - {x}, **fault)
                yield f"{x} lands, a copy follows", True, self.landed(st, after)._replace(**fault)
        for i, w in enumerate(st.workers):
            yield from self.worker(st, i, w, fault)
        for i, life in enumerate(st.leaders):
            yield from self.leader(st, i, life, fault)
        if st.faults:
            for s, owner in enumerate(st.group):
                for i in range(len(st.workers)):
                    if i != owner:
                        yield f"shard {s} goes to worker {i}", True, st._replace(group=put(st.group, s, i), **fault)
            if len(st.leaders) > 1:
                yield "the other is elected", True, st._replace(elected=1 - st.elected, **fault)

    def worker(self, st: State, i: int, w: Worker, fault: dict) -> Iterator[tuple[str, bool, State]]:
        zone, v, me = self.judge.told[st.ledger].zone, w.view, (i, w.life)
        now, t = self.judge.view(st.ledger, me), zone.tasks["t"]

        def become(new: Worker, **more: Any) -> State:
            return st._replace(workers=put(st.workers, i, new), **more)

        waits = w.sent in st.net
        if v != now or (w.sent and not waits):
            new = w._replace(view=now, sent=w.sent if waits else None)
            if any(not now or now.hold[s] is None or t.next[s] != a or t.at[s] != w.round for s, a, _ in w.ranges):
                new = new._replace(round=0, ranges=(), marks=())
            yield f"worker {i} reads the ledger", False, become(new)
        if st.faults:
            if waits:
                yield f"worker {i} takes its commit for failed", True, become(w._replace(sent=None), **fault)
            if v:
                yield f"worker {i} crashes", True, become(Worker(w.life + 1), **fault)
        for s, h in enumerate(zone.shards):
            claim, zombie = Claimed(*me, s, h.token), st.group[s] != i
            if (h.holder, h.life) != (f"W{i}", str(w.life)) and claim not in st.net and (st.faults or not zombie):
                yield f"worker {i} claims {s}", zombie, st._replace(net=st.net | {claim}, **(fault if zombie else {}))
        if w.sent or not v:
            return
        covered = {s: (a, p) for s, a, p in w.ranges}
        if any(zone.shards[s].token != h for s, h in enumerate(v.hold) if h and (s in covered or not covered)):
            return  # a zombie: whatever it still sends is void by its token
        zombie = any(st.group[s] != i for s in covered)
        for s, held in enumerate(v.hold):
            a, p = covered.get(s, (v.next[s] or 0,) * 2)
            if not held or p >= st.log[s] or (w.ranges and w.round != v.rnd[s]):
                continue
            if v.ends and v.rnd[s] == v.open and p >= v.ends[s]:
                continue
            outcome = self.outcome(w, s, p)
            if outcome is not None:
                ranges = tuple(sorted((x, *y) for x, y in {**covered, s: (a, p + 1)}.items()))
                marks = tuple(sorted((*w.marks, (s, p, outcome))))
                new = w._replace(round=v.rnd[s], ranges=ranges, marks=marks)
                yield f"worker {i} takes {s}@{p}: {outcome}", zombie or st.group[s] != i, become(new)
        if w.ranges:
            fact = Committed(tuple(v.hold[s] for s in covered), w.round, w.ranges, w.marks)
            yield f"worker {i} commits {fact}", zombie, become(Worker(w.life, v, sent=fact), net=st.net | {fact})

    def leader(self, st: State, i: int, life: int, fault: dict) -> Iterator[tuple[str, bool, State]]:
        zone, zombie = self.judge.told[st.ledger].zone, i != st.elected
        token = leads(zone, f"L{i}", str(life))
        if not token:
            claim = Claimed(i, life, -1, zone.leader.token)
            if claim not in st.net and (st.faults or not zombie):
                yield f"leader {i} claims", zombie, st._replace(net=st.net | {claim}, **(fault if zombie else {}))
            return
        if st.faults:
            yield f"leader {i} crashes", True, st._replace(leaders=put(st.leaders, i, life + 1), **fault)
        t, fact = zone.tasks["t"], None
        if t.state == "open":
            fact = Closed(token, t.round, st.log)
        elif t.state == "closed" and (min(t.at) > t.round or not ALL_DONE):
            fact = Finalised(token, t.round, summed(t.rounds[t.round]))
        elif t.state == "finalised" and t.round < self.rounds:
            fact = Opened(token, t.round + 1)
        if fact and not any(type(x) is type(fact) and x.token == token for x in st.net):
            yield f"leader {i} offers {fact}", zombie, st._replace(net=st.net | {fact})

    def broken(self, st: State) -> str:
        told, counted = self.judge.told[st.ledger], {}
        t = told.zone.tasks["t"]
        if [m[:2] for m in told.marks] != [(s, o) for s, n in enumerate(t.next) for o in range(n)]:
            return "the accepted ranges do not tile"
        for s, o, outcome in told.marks:
            b = self.logs[s][o]
            if outcome > 0 and counted.setdefault(b, (s, o)) != (s, o):
                return "a block is counted twice"
            if outcome == DUPLICATE and b not in counted:
                return "a block is called a duplicate, and no copy of it was counted"
            if outcome == LATE and o < told.cuts[b[0] - 1][s]:
                return "a block is called late that was in the log when its round closed"
        if len({r for r, _ in told.final}) < len(told.final):
            return "a round was finalised twice"
        for r, content in told.final:
            if content != tuple(m[:2] for m in told.marks if m[2] == r):
                return "a model is not the sum of the blocks counted in its round"
        return ""


# ------------------------------------------------------------------ admission

Desk = namedtuple("Desk", "ledger net selectors replies faults")


class Admission:
    """Two selectors, one place, three registrations in two partitions, of which one was sent twice."""

    regs, places = (("x", "x"), ("y",)), 1

    def __init__(self, faults: int = 1):
        self.name, self.faults = f"two selectors, {faults} faults", faults
        self.judge = Judge(places=self.places)
        zone, _ = fold(Zone(), 0, 0, facts.Founded("z", "z", 2))
        zone, _ = fold(zone, 1, 0, facts.Claimed("L0", "0", {-1: 0}))
        start = self.judge.intern(Told(replace(zone, position=0), 1, 0, (), (), ()))
        self.init = Desk(self.judge.step(start, Opened(1, 1)), frozenset(), (0, 0), frozenset(), faults)

    def book(self, st: Desk) -> tuple[Zone, Any]:
        zone = self.judge.told[st.ledger].zone
        return zone, zone.tasks["t"].rounds[1]

    def answers(self, st: Desk) -> frozenset:
        zone, r = self.book(st)
        dealt = {d for s, regs in enumerate(self.regs) for d in regs[: zone.registrations[s]]}
        return frozenset((d, d in r.devices) for d in dealt)

    def goal(self, st: Desk) -> bool:
        return self.book(st)[0].registrations == (2, 1) and st.replies >= self.answers(st)

    def moves(self, st: Desk) -> Iterator[tuple[str, bool, Desk]]:
        fault = {"faults": st.faults - 1}
        zone, r = self.book(st)
        for x in st.net:
            after = self.judge.step(st.ledger, x)
            yield f"{x} lands", False, st._replace(ledger=after, net=st.net - {x})
            if st.faults:
                yield f"{x} is lost", True, st._replace(net=st.net - {x}, **fault)
                yield f"{x} lands, a copy follows", True, st._replace(ledger=after, **fault)
        for i, life in enumerate(st.selectors):
            token = leads(zone, f"L{i}", str(life))
            if not token:
                claim = Claimed(i, life, -1, zone.leader.token)
                idle = not leads(zone, f"L{1 - i}", str(st.selectors[1 - i]))
                if claim not in st.net and (idle or st.faults):
                    yield f"selector {i} claims", not idle, st._replace(net=st.net | {claim}, **({} if idle else fault))
                continue
            if st.faults:
                yield f"selector {i} crashes", True, st._replace(selectors=put(st.selectors, i, life + 1), **fault)
            if not st.replies >= self.answers(st):
                yield f"selector {i} answers", False, st._replace(replies=st.replies | self.answers(st))
            early = any(isinstance(x, Admitted) and x.token == token for x in st.net)  # it takes it for failed
            for s in (0, 1) if st.faults or not early else ():
                at = zone.registrations[s]
                if at < len(self.regs[s]):
                    for ended in {len(r.lapsed), len(r.devices)}:  # it may find that all leases so far are over
                        new = self.regs[s][at] not in r.devices and len(r.devices) - ended < self.places
                        slots = ((len(r.devices), self.regs[s][at]),) if new else ()
                        fact = Admitted(token, zone.admitted, s, (at, at + 1), slots, ended)
                        yield (
                            f"selector {i} offers {fact}",
                            early,
                            st._replace(net=st.net | {fact}, **(fault if early else {})),
                        )

    def broken(self, st: Desk) -> str:
        _, r = self.book(st)
        if len(r.devices) - len(r.lapsed) > self.places:
            return "more devices hold a lease than there are places"
        if len(set(r.devices)) < len(r.devices):
            return "a device holds two slots of one round"
        if any(ok and d not in r.devices for d, ok in st.replies):
            return "a device was told of a slot of which the ledger knows nothing"
        return ""


# ------------------------------------------------------------------ exploring

TILED = ALL_DONE = True
"""Switched off with the guard of that name: then what it forbids must be tried, not dropped early."""


A1, A2, C1, C2 = (1, "a"), (2, "a"), (1, "c"), (2, "c")
IDLE_SHARD: Callable[[], Any] = lambda: Aggregation("one shard idle in round 1", ((A1,), (C2,)), rounds=2, faults=0)  # noqa: E731
TWO_LEADERS: Callable[[], Any] = lambda: Aggregation("two leaders", ((A1, A1),), leaders=2)  # noqa: E731
THREE_WORKERS: Callable[[], Any] = lambda: Aggregation("three workers", ((A1, A1),), workers=3)  # noqa: E731
TWO_ROUNDS: Callable[[], Any] = lambda: Aggregation("two rounds", ((A1, A2),), rounds=2)  # noqa: E731
TWO_SHARDS: Callable[[], Any] = lambda: Aggregation("two shards", ((A1,), (C1,)))  # noqa: E731
STALE: Callable[[], Any] = lambda: Aggregation("one round stale", ((A1, A1),), rounds=2, stale=1)  # noqa: E731
ONE_FAULT: Callable[[], Any] = lambda: Admission(1)  # noqa: E731
TWO_FAULTS: Callable[[], Any] = lambda: Admission(2)  # noqa: E731


def name_of(make: Callable[[], Any]) -> str:
    return make().name


@pytest.mark.parametrize("make", [IDLE_SHARD, TWO_LEADERS, ONE_FAULT], ids=name_of)
def test_whole(make):
    model = make()
    states, wrong, past = explore(model, 200_000)
    print(f"{model.name}: {states} states, all")
    assert states < 200_000
    assert not wrong, "\n".join([wrong, *past])


@pytest.mark.parametrize("make", [THREE_WORKERS, TWO_ROUNDS, TWO_SHARDS, STALE, TWO_FAULTS], ids=name_of)
def test_as_far_as_time_allows(make):
    model = make()
    states, wrong, past = explore(model, LIMIT)
    print(f"{model.name}: {states} states, cut")
    assert not wrong, "\n".join([wrong, *past])


# ------------------------------------------------------------------ one guard less


def off_tile(monkeypatch):
    without(monkeypatch, "is committed up to")
    monkeypatch.setitem(globals(), "TILED", False)


def off_tile_and_token(monkeypatch):
    without(monkeypatch, "is committed up to", "is not that of shard")
    monkeypatch.setitem(globals(), "TILED", False)


def off_segment(monkeypatch):
    without(monkeypatch, "is in round")


def off_all(monkeypatch):
    without(monkeypatch, "not all shards are done")
    monkeypatch.setitem(globals(), "ALL_DONE", False)


def off_first(monkeypatch):
    strict = rounds.finalised

    def again(z, at, time, f):
        t = z.tasks[f.task]
        return z if (t.round, t.state) == (f.round, "finalised") else strict(z, at, time, f)

    monkeypatch.setitem(ledger.TRANSITIONS[Zone], facts.Finalised, again)


def off_ends(monkeypatch):
    """A shard is done as soon as the round is closed, wherever its log ends."""
    strict = rounds.closed
    monkeypatch.setitem(
        ledger.TRANSITIONS[Zone],
        facts.Closed,
        lambda z, at, time, f: strict(z, at, time, replace(f, ends=dict.fromkeys(f.ends, 0))),
    )


def off_chain(monkeypatch):
    """Slot numbers and places are checked by themselves too: all that stands for "the Admitted before it" goes."""
    without(monkeypatch, "is not the last Admitted", "the next new slot", "places")


CONTROLS = [
    (off_tile, TWO_LEADERS, "do not tile"),
    (off_tile_and_token, TWO_LEADERS, "do not tile"),
    (off_segment, TWO_ROUNDS, ""),
    (off_all, TWO_LEADERS, "not the sum"),
    (off_first, TWO_LEADERS, "finalised twice"),
    (off_ends, TWO_LEADERS, "called late"),
    (off_chain, TWO_FAULTS, "more devices hold a lease"),
]


@pytest.mark.parametrize(("off", "make", "finding"), CONTROLS, ids=lambda x: getattr(x, "__name__", ""))
def test_without_a_guard_something_breaks(monkeypatch, off, make, finding):
    off(monkeypatch)
    breaks(make(), 100_000, finding)
