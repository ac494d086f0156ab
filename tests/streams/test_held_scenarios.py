"""Held deltas, pipelined commits and losses explored state by state, on one shard with a leader that does not change.

A worker goes on reading into a second accumulator while the commit of the first is under way; with `atomic` it holds blocks
until their delta is whole, and gives up the oldest over the limit. Faults: crash, hand-over, a commit lost or landing twice;
retention that cuts the log, a log that loses its end, a sum that is gone. A person gives up what a `Lost` names. `bent`: a
worker that miscounts, for the guards that an honest one never meets.

In every state: the fold's identity; each offset below the fold's next has one outcome, is held, or was named by a `Lost` that
was given up; no block counts twice; a delta under `atomic` counts whole or not at all; no slot is done twice or both done and
given up; a round is finalised once. From every state of a scenario explored whole the
end can be reached without another fault.

Devices send nothing between the loss of a log's end and its `Lost`: a log that grew over its old end again would hide it.
"""

from collections import Counter, namedtuple
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from schemas import facts
from schemas.blocks import Manifest, Place
from schemas.facts import LEADERSHIP, Done, Held
from schemas.messages import Ref
from streams.ledger import Zone, fold, identity, rounds, summed
from tests.streams.scenarios import Interned, breaks, explore, put, without

pytestmark = pytest.mark.proof

COUNTED, DUPLICATE, LATE, INCOMPLETE, LOST, TWICE = "counted", "duplicate", "late", "incomplete", "lost", "twice"
BLOCKS = 2
Claimed = namedtuple("Claimed", "who life after")
Committed = namedtuple("Committed", "token round start end marks held released done voided off", defaults=(0,))
"""`marks`: (offset, outcome). `off`: how much the counts are wrong."""
Closed = namedtuple("Closed", "round end")
Finalised = namedtuple("Finalised", "round commits")
Opened = namedtuple("Opened", "round")
Lost = namedtuple("Lost", "seat token range commits")
Abandoned = namedtuple("Abandoned", "at")
Told = namedtuple("Told", "zone claims losses marks past final")
"""`marks`: (offset, outcome, round) of the log as it is; `past`: (slot, block) counted at offsets that are gone; `final`:
rounds."""
Worker = namedtuple("Worker", "life view a b c sent", defaults=(0, None, None, None, None, None))
"""It has read up to `view`; [a, b) is committed with `sent`, [b, c) is what it goes on with."""
State = namedtuple("State", "ledger begin end net workers owner gone faults")
"""The log holds [begin, end). `gone`: commits whose sums are lost."""


class Shard(Interned):
    def __init__(
        self,
        name: str,
        log: tuple[tuple[int, int], ...],
        faults: int = 1,
        rounds: int = 1,
        atomic: bool = True,
        limit: int = 9,
        workers: int = 2,
        loss: bool = False,
        bent: bool = False,
    ):
        """`log`: (slot, block), all of round 1. `limit`: blocks held at most."""
        self.name, self.log, self.rounds, self.atomic, self.limit = name, log, rounds, atomic, limit
        self.loss, self.bent = loss, bent
        super().__init__()
        self._steps: dict[tuple, int] = {}
        z = Zone()
        slots = tuple(facts.Slot("t", 1, i, f"d{i}") for i in range(1 + max(s for s, _ in log)))
        for i, f in enumerate(
            (
                facts.Founded("z", "z", 1),
                facts.Claimed("L", "0", {LEADERSHIP: 0}),
                facts.Claimed("W0", "0", {0: 0}),
                self.fact(Opened(1)),
                facts.Admitted(1, 0, {}, slots),
            )
        ):
            z, void = fold(z, i, 0, f)
            assert not void, void
        start = self.intern(Told(replace(z, position=0), 2, 0, (), (), ()))
        self.init = State(start, 0, 0, frozenset(), (Worker(),) * workers, 0, frozenset(), faults)

    # ------------------------------------------------------------------ the ledger

    def fact(self, x: Any) -> Any:
        match x:
            case Claimed(who, life, after):
                return facts.Claimed(f"W{who}", str(life), {0: after})
            case Committed(token, n, start, end, marks, held, released, done, voided, off):
                tally = Counter(outcome for _, outcome in marks)
                tally[COUNTED] += off
                at = Place(0, 0, f"{token}/{start}/{end}", 0)
                return facts.Committed(
                    "t",
                    n,
                    {0: facts.Stretch(token, start, end)},
                    facts.Counts(**tally),
                    tuple(Done(1, s) for s in done),
                    sums=(at if tally[COUNTED] else None,),
                    held={0: tuple(Held(o, 1, *self.log[o]) for o in held)} if held else {},
                    released={0: released} if released else {},
                    voided=tuple(Done(1, s) for s in voided),
                )
            case Closed(n, end):
                return facts.Closed(1, "t", n, "", {0: end})
            case Finalised(n, commits):
                return facts.Finalised(1, "t", n, commits, 0, 0, 0, 0.0)
            case Opened(n):
                limits = {"demand": 9, "places": 9, "minimum": 1, "deadline": 0, "grace": 0, "lease": 0, "epoch": 1}
                form = {"sizes": (1,) * BLOCKS, "unit": 0, "largest": 1, "heaviest": 1, "staleness": 0}
                base = Manifest("m", 0, ())
                more = {"atomic": self.atomic, "hold": self.limit, "base": base, "source": Ref("g", 1)}
                return facts.Opened(token=1, task="t", round=n, **limits, **form, **more)
            case Lost(seat, token, span, commits):
                return facts.Lost(token, seat, "t", "gone", {0: span} if span else {}, commits)
            case Abandoned(at):
                return facts.Abandoned("t", at, "ann")

    def step(self, n: int, x: Any) -> int:
        if (n, x) not in self._steps:
            self._steps[n, x] = self._step(n, x)
        return self._steps[n, x]

    def _step(self, n: int, x: Any) -> int:
        t = self.told[n]
        at = 9_000
        if isinstance(x, Claimed):
            at = 1 + t.claims
        elif isinstance(x, Committed):
            at = 1_000 + 100 * t.losses + 10 * x.start + x.end
        elif isinstance(x, Lost):
            at = 5_000 + t.losses
        before, leader = t.zone.tasks["t"], t.zone.leader
        z, void = fold(replace(t.zone, position=at), at, 0, self.fact(x))
        if void:
            return n
        t = t._replace(zone=replace(z, position=0))
        marks, after = {o: m for o, *m in t.marks}, z.tasks["t"]
        match x:
            case Claimed():
                t = t._replace(claims=at)
            case Committed():
                marks |= {o: [outcome, x.round] for o, outcome in x.marks}
            case Finalised():
                t = t._replace(final=(*t.final, x.round))
            case Abandoned():
                assert before.loss
                for start, to in before.loss.ranges.values():
                    past = {self.log[o] for o, (outcome, _) in marks.items() if o >= to and outcome == COUNTED}
                    t = t._replace(past=tuple(sorted({*t.past, *past})))
                    marks = {o: m for o, m in marks.items() if o < to}
                    marks |= {o: [TWICE if o in marks else LOST, before.at[0]] for o in range(start, to)}
                # Where a log lost its end the leader must claim again: here it has done so at once, and its token is the same.
                t = t._replace(losses=t.losses + 1, zone=replace(t.zone, leader=leader))
        gone = {h.offset for h in before.held[0]} - {h.offset for h in after.held[0]} - marks.keys()
        if after.held != before.held:  # what is not released is given up
            marks |= {o: [INCOMPLETE, before.at[0]] for o in gone if o < after.next[0]}
            if isinstance(x, Committed) and not after.held[0]:
                marks |= {o: [INCOMPLETE, x.round] for o in x.held}
        elif isinstance(x, Committed) and x.held and not after.held[0]:
            marks |= {o: [INCOMPLETE, x.round] for o in x.held}
        return self.intern(t._replace(marks=tuple(sorted((o, *m) for o, m in marks.items()))))

    # ------------------------------------------------------------------ a worker

    def judged(self, t: Told, spans: list[tuple[int, int]]) -> list[Committed]:
        """What commits of these stretches say, each going on from the one before: a function of log and fold alone."""
        task = t.zone.tasks["t"]
        n = task.at[0]
        r = task.rounds.get(1)
        counted = {self.log[o] for o, outcome, _ in t.marks if outcome == COUNTED} | set(t.past)
        voided = set(r.voided) if r else set()
        held: dict[int, list[int]] = {}
        for h in task.held[0]:
            held.setdefault(h.slot, []).append(h.offset)
        out = []
        for start, end in spans:
            marks, new, released, done, lapsed = [], [], [], [], []

            def let_go(slot, outcome, marks=marks, new=new, released=released):
                for o in held.pop(slot):
                    marks.append((o, outcome))
                    new.remove(o) if o in new else released.append(o)

            for o in range(start, end):
                slot, block = self.log[o]
                if r is None:
                    marks.append((o, LATE))
                elif slot in voided:
                    marks.append((o, INCOMPLETE))
                elif (slot, block) in counted or block in [self.log[w][1] for w in held.get(slot, ())]:
                    marks.append((o, DUPLICATE))
                elif n > 1:
                    marks.append((o, LATE))
                elif not self.atomic:
                    marks.append((o, COUNTED))
                    counted.add((slot, block))
                    if len([x for x in counted if x[0] == slot]) == BLOCKS:
                        done.append(slot)
                else:
                    held.setdefault(slot, []).append(o)
                    new.append(o)
                    if len(held[slot]) == BLOCKS:
                        let_go(slot, COUNTED)
                        counted |= {(slot, i) for i in range(BLOCKS)}
                        done.append(slot)
                    while sum(map(len, held.values())) > self.limit:
                        oldest = next(iter(held))
                        voided.add(oldest)
                        lapsed.append(oldest)
                        let_go(oldest, INCOMPLETE)
            lists = (tuple(sorted(marks)), tuple(new), tuple(released), tuple(done), tuple(lapsed))
            out.append(Committed(t.zone.shards[0].token, n, start, end, *lists))
        return out

    def dead(self, f: int, x: Any) -> bool:
        """Void for ever."""
        z = self.told[f].zone
        t = z.tasks["t"]
        match x:
            case Claimed():
                return x.after != z.shards[0].token
            case Committed():
                return x.token != z.shards[0].token
            case Lost(seat, token, _, _):
                return seat >= 0 and token != z.shards[0].token
            case Abandoned(at):
                return t.loss is None or t.loss.at != at
            case Closed() | Finalised():
                return x.round < t.round or (x.round == t.round and t.state == "finalised")
            case Opened():
                return x.round <= t.round
        return False

    def landed(self, st: State, f: int, x: Any = None) -> State:
        return st._replace(ledger=f, net=frozenset(y for y in st.net if y != x and not self.dead(f, y)))

    def moves(self, st: State) -> Iterator[tuple[str, bool, State]]:
        fault = {"faults": st.faults - 1}
        z = self.told[st.ledger].zone
        t = z.tasks["t"]
        if st.end < len(self.log) and st.end >= t.next[0] and not t.loss:
            yield "a device sends", False, st._replace(end=st.end + 1)
        for x in st.net:
            after = self.step(st.ledger, x)
            yield f"{x} lands", False, self.landed(st, after, x)
            if st.faults:
                yield f"{x} is lost", True, st._replace(net=st.net - {x}, **fault)
                yield f"{x} lands, a copy follows", True, self.landed(st, after)._replace(**fault)
                if self.bent and isinstance(x, Committed):
                    for y in self.bend(x, t):
                        yield f"a bent {y} lands", True, self.landed(st, self.step(st.ledger, y), x)._replace(**fault)
        for i, w in enumerate(st.workers):
            yield from self.worker(st, i, w, fault)
        if st.faults:
            for i in range(len(st.workers)):
                if i != st.owner:
                    yield f"the shard goes to {i}", True, st._replace(owner=i, **fault)
            if self.loss:
                for begin in range(st.begin + 1, st.end + 1):
                    yield f"the log is cut to {begin}", True, st._replace(begin=begin, **fault)
                if st.end > st.begin and st.end == max(st.end, t.next[0]):
                    yield "the log loses its last", True, st._replace(end=st.end - 1, **fault)
                for c in (c for r in t.rounds.values() for c in r.commits if c.offset not in st.gone):
                    if any(c.fact.sums):
                        yield f"the sum of {c.offset} is lost", True, st._replace(gone=st.gone | {c.offset}, **fault)
        fact: Any = None
        if t.loss:
            fact = Abandoned(t.loss.at)
        elif t.state == "open":
            fact = Closed(t.round, st.end)
        elif t.state == "closed" and t.at[0] > t.round:
            commits = summed(t.rounds[t.round])
            lost = sorted(st.gone.intersection(commits))
            fact = Lost(LEADERSHIP, 1, None, (lost[0],)) if lost else Finalised(t.round, commits)
        elif t.state == "finalised" and t.round < self.rounds:
            fact = Opened(t.round + 1)
        if fact and not any(type(x) is type(fact) for x in st.net):
            yield f"offered: {fact}", False, st._replace(net=st.net | {fact})

    def bend(self, x: Committed, t: Any) -> Iterator[Committed]:
        """The same commit by a worker that is wrong."""
        yield x._replace(off=1)
        loose = [o for o in range(x.start) if o not in [h.offset for h in t.held[0]]]
        if loose:
            yield x._replace(released=(*x.released, loose[0]), off=1)
        if x.start and not x.held:
            yield x._replace(held=(0,), off=-1)
        if 1 in t.rounds and t.rounds[1].done - set(x.done):
            slot = min(t.rounds[1].done)
            yield x._replace(done=(*x.done, slot))
            yield x._replace(voided=(*x.voided, slot))

    def worker(self, st: State, i: int, w: Worker, fault: dict) -> Iterator[tuple[str, bool, State]]:
        z, zombie = self.told[st.ledger].zone, st.owner != i

        def become(new: Worker, **more: Any) -> State:
            return st._replace(workers=put(st.workers, i, new), **more)

        h = z.shards[0]
        if w.view != st.ledger:
            yield f"worker {i} reads the ledger", zombie, become(self.alive(i, w._replace(view=st.ledger)))
        if st.faults and w.view is not None:
            yield f"worker {i} crashes", True, become(Worker(w.life + 1), **fault)
        if (h.holder, h.life) != (f"W{i}", str(w.life)):
            claim = Claimed(i, w.life, h.token)
            if claim not in st.net and (st.faults or not zombie):
                yield f"worker {i} claims", zombie, st._replace(net=st.net | {claim}, **(fault if zombie else {}))
            return  # a zombie: what it still sends is void by its token
        if w.view is None:
            return
        t = self.told[w.view].zone.tasks["t"]
        held = self.told[w.view].zone.shards[0]
        if (held.holder, held.life) != (f"W{i}", str(w.life)) or (t.loss and WHOLE):
            return
        if w.a is None or w.c > st.end or (w.c < st.begin and w.c == w.a):
            first = min([t.next[0], *(x.offset for x in t.held[0])])
            begin = st.begin if w.a is None else t.next[0]
            if w.a is None and first >= begin and t.next[0] <= st.end:
                yield f"worker {i} begins", zombie, become(w._replace(a=t.next[0], b=t.next[0], c=t.next[0]))
            elif w.a is None or w.a == w.c:
                to = st.end if st.end < t.next[0] else max(st.begin, t.next[0])
                fact = Lost(0, held.token, (t.next[0], to), ())
                if fact not in st.net:
                    yield f"worker {i} offers {fact}", zombie, st._replace(net=st.net | {fact})
        elif w.c < st.end and w.c >= st.begin:
            r = t.rounds.get(t.at[0])
            if not (r and r.closed and w.c >= r.closed.ends[0]):
                yield f"worker {i} takes {w.c}", zombie, become(w._replace(c=w.c + 1))
        if st.faults and self.bent and self.loss and w.sent and w.sent in st.net:
            early = Lost(0, held.token, (t.next[0], w.b), ())
            yield f"worker {i} says too early {early}", True, st._replace(net=st.net | {early}, **fault)
        if w.a is not None and w.sent is None and w.c > w.b:
            fact = self.judged(self.told[w.view], [(w.b, w.c)])[0]
            yield f"worker {i} commits {fact}", zombie, become(w._replace(b=w.c, sent=fact), net=st.net | {fact})
        elif w.sent and w.sent not in st.net and w.view == st.ledger:  # lost, or void: the same again
            yield f"worker {i} commits again", zombie, st._replace(net=st.net | {w.sent})

    def alive(self, i: int, w: Worker) -> Worker:
        """What is left of what a worker has in hand when it has read the ledger."""
        z = self.told[w.view].zone
        t = z.tasks["t"]
        mine = (z.shards[0].holder, z.shards[0].life) == (f"W{i}", str(w.life))
        if not mine or (t.loss and WHOLE) or w.a is None:
            return Worker(w.life, w.view)
        if w.sent and t.next[0] == w.b and w.a != w.b:  # accepted: go on from there, if the round does
            same = t.at[0] == w.sent.round
            return w._replace(a=w.b, sent=None) if same else w._replace(a=w.b, c=w.b, sent=None)
        if t.next[0] != w.a or (w.sent and (w.sent.token, w.sent.round) != (z.shards[0].token, t.at[0])):
            return Worker(w.life, w.view)
        return w

    # ------------------------------------------------------------------ judging

    def goal(self, st: State) -> bool:
        t = self.told[st.ledger].zone.tasks["t"]
        done = (t.round, t.state) == (self.rounds, "finalised") and t.next[0] == len(self.log) == st.end
        return done and t.loss is None and not (t.held[0] and t.at[0] <= t.round)

    def broken(self, st: State) -> str:
        told = self.told[st.ledger]
        t = told.zone.tasks["t"]
        if not all(identity(t, n) for n in t.rounds):
            return "the identity does not hold"
        marks = {o: outcome for o, outcome, _ in told.marks}
        held = {h.offset for h in t.held[0]}
        if marks.keys() | held != set(range(t.next[0])) or marks.keys() & held:
            return "an offset has no outcome, or two"
        counted = Counter(self.log[o] for o, outcome in marks.items() if outcome == COUNTED)
        counted.update(told.past)
        if TWICE in marks.values():
            return "what has its outcome is lost"
        if max(counted.values(), default=0) > 1:
            return "a block is counted twice"
        if self.atomic and any(n % BLOCKS for n in Counter(s for s, _ in counted).values()):
            return "half a delta counts"
        for r in t.rounds.values():
            if r.done & r.voided and not told.losses:
                return "a slot is done and given up"
            ever = sum(len(c.fact.done) for c in r.commits)
            now = sum(len(c.fact.done) for c in r.commits if not c.lost)
            over = r.round < t.round or t.state == "finalised"  # what is lost after that is in its model
            if not now <= r.contributors <= (ever if over else now):
                return "a slot is done twice"
            if r.round == 1 and len({d.slot for c in r.commits for d in c.fact.done}) != ever:
                return "a slot is done twice"
        if len(set(told.final)) < len(told.final):
            return "a round is finalised twice"
        return ""


WHOLE = True
"""Switched off with the guard by which a task stands still: then workers go on, too."""
A0, A1, B0, B1 = (0, 0), (0, 1), (1, 0), (1, 1)
HELD = {"name": "held", "log": (A0, B0, A1)}
COPY = {"name": "held, and sent again", "log": (A0, A0, A1, B0)}
LIMITED = {"name": "over the limit", "log": (A0, B0, A1), "limit": 1}
PIPE = {"name": "pipelined, blocks for themselves", "log": (A0, A1, A0), "atomic": False, "rounds": 2}
LOSS = {"name": "losses, blocks for themselves", "log": (A0, A1), "atomic": False, "loss": True}
LOST_HELD = {"name": "losses of what is held", "log": (A0, A1), "loss": True}
BENT = {"name": "a worker that miscounts", "log": (A0, A1, B0), "bent": True}
HASTY = {"name": "a loss said too early", "log": (A0, B0), "loss": True, "bent": True, "atomic": False}
ALONE = {"workers": 1}
WHOLES = [
    {**HELD, "name": "held, no faults", "faults": 0},
    {**HELD, "name": "held, one worker", **ALONE},
    {**LIMITED, "name": "over the limit, one worker", **ALONE},
    {**PIPE, "name": "pipelined, one worker", "log": (A0, A1), **ALONE},
    {**LOSS, "name": "a loss, two workers", "log": (A0,)},
    {**LOSS, "name": "losses, one worker", **ALONE},
    {**LOST_HELD, "name": "losses of what is held, one worker", **ALONE},
    {**BENT, "name": "one that miscounts", **ALONE},
    {**HASTY, **ALONE},
]
LIMIT = 25_000
"""With two workers these have more than 300,000 states each; so many hold."""


@pytest.mark.parametrize("scenario", WHOLES, ids=lambda x: x["name"])
def test_whole(scenario):
    states, wrong, past = explore(Shard(**scenario), 100_000)
    print(f"{scenario['name']}: {states} states, all")
    assert states < 100_000
    assert not wrong, "\n".join([wrong, *past])


@pytest.mark.parametrize("scenario", [HELD, COPY, LIMITED, PIPE, LOSS, LOST_HELD, BENT], ids=lambda x: x["name"])
def test_as_far_as_time_allows(scenario):
    states, wrong, past = explore(Shard(**{"faults": 2, **scenario}), LIMIT)
    print(f"{scenario['name']}: {states} states, cut")
    assert not wrong, "\n".join([wrong, *past])


# ------------------------------------------------------------------ one guard less


def off_releases(monkeypatch):
    without(monkeypatch, "it releases what")


def off_done(monkeypatch):
    without(monkeypatch, "is done or given up before")


def off_sum(monkeypatch):
    without(monkeypatch, "do not add up")


def off_cover(monkeypatch):
    without(monkeypatch, "it holds what it does not cover")


def off_given_up(monkeypatch):
    """A shard that is done with a round goes on holding what is incomplete."""
    monkeypatch.setattr(rounds, "given_up", lambda t, s: t)


def off_whole(monkeypatch):
    """A task goes on while something is lost."""
    without(monkeypatch, "something is lost and nobody gave it up yet")
    monkeypatch.setitem(globals(), "WHOLE", False)


def off_where(monkeypatch):
    """A loss need not begin where the fold is."""
    without(monkeypatch, "is committed up to elsewhere")


CONTROLS = [
    (off_releases, BENT, ""),
    (off_done, BENT, "done twice"),
    (off_sum, BENT, "identity"),
    (off_cover, BENT, ""),
    (off_given_up, HELD, "identity"),
    (off_whole, HASTY, "lost"),
    (off_where, HASTY, "lost"),
]


@pytest.mark.parametrize(("off", "scenario", "finding"), CONTROLS, ids=lambda x: getattr(x, "__name__", ""))
def test_without_a_guard_something_breaks(monkeypatch, off, scenario, finding):
    off(monkeypatch)
    breaks(Shard(**scenario), 150_000, finding)
