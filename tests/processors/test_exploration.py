"""The real processors explored state by state: Aggregators and ZoneCoordinators in every order that a small world allows.

One shard, two devices, one round and the beginning of the next. A state is the ledger, how many blocks the devices have sent,
what is stored, the appends under way, whom the groups mean, and every processor. From each state every move that is
possible: a device sends; an append lands; a processor hears its group, reads the ledger, takes a block, gets an answer. Ticks
are few (`ticks`), and so are the faults (`faults`): a crash with all that is under way lost or still landing, the seat
staying or going to the other; a seat handed over; an append that lands twice. Who is paused is who is not chosen: it wakes,
as a zombie, at any later state.

`WIDE` worlds are explored breadth first, in every order, as far as `LIMIT` allows; raise it after a change. `DEEP` ones go
along one fair schedule to the end of the round, with every fault (and whose turn it is may fall asleep, and wake at any later
state) at each of its points: these are explored whole. The number of states is printed (-s).

A processor's state is a function of its inputs. So it is kept as a number, and what it does with an input is computed once.

In every state: the fold's identity; ranges tile; each accepted commit counts, holds and calls duplicate or late exactly what
a plain reading of the log in its order says, and its sum in the store is that of these blocks, bit for bit; so no block counts
twice. A finalised model is the oracle's. Nobody stops. From where the exploration is cut, and from every state at its end,
a fair schedule without faults leads to the end: round 1 finalised, round 2 open, every block with its outcome.

Left out, as it changes nothing or is looked at elsewhere:
- A ledger is read to its end in one move: who reads it in parts is who read before the rest landed.
- A question is answered as of the moment the answer is heard; answers to one kind of question come in order. Partials and
  models land when their sender hears of it: nobody else may know of them before. A place bears no offset, only its key.
- Each processor has a clock of its own, a tick is 5 s long: all that is due by time is due then. Ledger records bear time 0.
- Receipts, announcements, answers to devices, registrations after the first two, the global ledger (read at the start).
"""

import copyreg
import io
import pickle
from collections import deque, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from processors import zone_leader
from processors.accumulator import Bitmap, Bitmaps
from processors.aggregator import Aggregator
from processors.work import Work
from processors.zone import ZoneCoordinator
from schemas import sets
from schemas.blocks import Counted, DeltaBlock, Manifest, ModelBlock, Place, SumBlock, Tensor, layout, slices
from schemas.facts import (
    LEADERSHIP,
    ZONE_FACTS,
    Abandoned,
    Claimed,
    Committed,
    Counts,
    EpochOpened,
    Finalised,
    Founded,
    Lost,
    TaskAdmitted,
    ZoneJoined,
)
from schemas.messages import Registration
from schemas.sets import bitmap
from schemas.task import Epochs, Limits, Rounds, TaskSpec
from schemas.topics import GLOBAL, topic
from schemas.wire import checksum, decode, encode
from streams.ledger import Round, Zone, fold, identity
from streams.processor import Answer, Assigned, Ends, Fetch, Follow, Pause, Record, Resume, Send, Stop, Tick, Unfollow

pytestmark = pytest.mark.proof

LIMIT = 12_000
"""States of one scenario."""
STEP = 5_000
"""ms of a tick: more than `AGAIN`, a commit interval, a first pause between claims, and the round's deadline."""
NS, Z, UNIT = "test", "z", -24
LEDGER, GLOBE, DELTAS, REGISTRATIONS = (
    topic(NS, Z, "ledger").name,
    topic(NS, GLOBAL, "ledger").name,
    topic(NS, Z, "deltas", "t").name,
    topic(NS, Z, "registrations").name,
)
STORED = {topic(NS, Z, "partials").name, topic(NS, Z, "models").name}
DEVICES = ("a", "b")

Host = namedtuple("Host", "local life clock told")
World = namedtuple("World", "ledger sent store net hosts seats asleep faults ticks")
"""`net`: appends to the ledger under way, each (host, number of the value). `seats`: who has the shard, who the leadership.
`asleep`: processors and appends that the fair schedule passes over for now."""


# ------------------------------------------------------------------ one processor


@dataclass
class Local:
    """A processor and what its runtime knows of it."""

    processor: Any
    follows: dict[str, int] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    asks: list[Any] = field(default_factory=list)
    stopped: str = ""


class Pickler(pickle.Pickler):
    dispatch_table = copyreg.dispatch_table.copy()
    dispatch_table[memoryview] = lambda m: (memoryview, (bytes(m),))


def frozen(x: Any) -> bytes:
    out = io.BytesIO()
    Pickler(out, 5).dump(x)
    return out.getvalue()


Seen = namedtuple("Seen", "ledger deltas registrations globe asks stopped")
"""What of a processor the world has to know: where it reads (None: it does not), what it asked."""


# ------------------------------------------------------------------ what is true


Truth = namedtuple("Truth", "zone facts counted held voided given finals wrong")
"""Of a ledger: its fold; the last accepted fact of each kind by offset; what is counted; what is held, oldest delta first;
slots given up; accepted commits with what each counted; rounds finalised; what is wrong."""


def total(blocks: list[DeltaBlock]) -> np.ndarray:
    return sum((np.frombuffer(b.data, "<i4").astype(np.int64) for b in blocks), np.zeros(2, np.int64))


class Zoo:
    """A scenario: its processors, its log, and everything that was computed once."""

    def __init__(
        self,
        name: str,
        log: tuple[tuple[int, int], ...],
        aggregators: int = 2,
        coordinators: int = 1,
        blocks: int = 1,
        faults: int = 1,
        ticks: int = 1,
        atomic: bool = False,
        hold: int = 2**20,
        deep: bool = False,
        owe: dict[int, tuple[int, ...]] | None = None,
    ):
        """`log`: (device, block) in the order sent. `owe`: the blocks of devices that do not owe all."""
        self.owe = owe or {}
        self.name, self.faults, self.ticks, self.atomic, self.hold, self.deep = name, faults, ticks, atomic, hold, deep
        self.layout = layout(tuple(Tensor(f"w{i}", (2,), group=str(i)) for i in range(blocks)))
        self.blocks = [self.block(d, i) for d, i in log]
        self.deltas = [encode(b) for b in self.blocks]
        self.values: list[bytes] = []
        """All that was ever appended, here or there, by number."""
        self._value_numbers: dict[bytes, int] = {}
        self._sound: dict[tuple[int, frozenset], str] = {}
        self.locals: list[bytes] = []
        self._local_numbers: dict[bytes, int] = {}
        self.seen: list[Seen] = []
        self._steps: dict[tuple, tuple[int, tuple[int, ...]]] = {}
        self.ledgers: list[tuple[int, ...]] = [()]
        self.truths: list[Truth] = [Truth(Zone(), (), frozenset(), (), frozenset(), (), (), "")]
        self._ledger_numbers: dict[tuple[int, int], int] = {}
        self.registrations: list[bytes] = []
        self.globe = self._globe()
        roles = [("agg", i) for i in range(aggregators)] + [("zone", i) for i in range(coordinators)]
        self.roles = roles
        self.aggregators = aggregators
        hosts = tuple(Host(self.born(i, 1), 1, 0, None) for i in range(len(roles)))
        self.nowhere = World(0, 0, self.zero, frozenset(), hosts, (0, aggregators), frozenset(), 0, 0)
        self.init = self._begin()

    # ------------------------------------------------------------------ what devices and the globe write

    def block(self, device: int, block: int) -> DeltaBlock:
        q = np.array([1 << (8 * device), 3 + block], "<i4")
        return DeltaBlock("t", 1, device, DEVICES[device], block, "int32", 0, 1 + device, 1, 1, memoryview(q.tobytes()))

    def _globe(self) -> list[bytes]:
        spec = TaskSpec(
            task="t",
            model="m",
            data="d",
            rounds=Rounds(
                demand=2,
                over_commit=1.0,
                minimum=1,
                deadline_s=STEP / 1000,
                lease_s=1e6,
                atomic=self.atomic,
                partial=bool(self.owe),
            ),
            epochs=Epochs(1, 9),
            limits=Limits(heaviest=1000),
        )
        self.zero: frozenset[tuple[str, int]] = frozenset()
        self.start = np.linspace(-1, 1, sum(self.layout.sizes), dtype=np.float32)
        places = []
        for i, piece in enumerate(slices(self.layout.sizes)):
            data = self.start[piece].tobytes()
            self.zero |= {(f"zero/{i}", self.value_number(encode(ModelBlock("t", 0, i, memoryview(data)))))}
            places.append(Place(0, 0, f"zero/{i}", checksum(data)))
        manifest = Manifest(topic(NS, GLOBAL, "models").name, 0, tuple(places))
        facts = (
            Founded("ledger-g", GLOBAL, 1),
            Claimed("g", "1", {LEADERSHIP: 0}),
            ZoneJoined(1, Z, "ledger-z", 1),
            TaskAdmitted(1, spec, self.layout, manifest, (Z,)),
            EpochOpened(1, "t", 1, manifest),
        )
        return [encode(f) for f in facts]

    def _begin(self) -> World:
        """Round 1 is open, both devices have their slots, the first aggregator holds the shard: the way there is one."""
        w = self.nowhere

        def until(holds: Callable[[Zone], Any]) -> World:
            at = w
            for _ in range(500):
                if holds(self.truths[at.ledger].zone) and not at.net and self.quiet(at) is None:
                    return at
                at = self.fair(at, send=False)
            raise AssertionError("it does not begin")

        w = until(lambda z: "t" in z.tasks and z.shards[0].token)
        owing = [bitmap(self.owe[i], len(self.layout.sizes)) if i in self.owe else b"" for i in range(len(DEVICES))]
        self.registrations = [encode(Registration(d, "t", 1, blocks=s)) for d, s in zip(DEVICES, owing, strict=True)]
        w = until(lambda z: z.tasks["t"].rounds[1].devices == DEVICES)
        return w._replace(hosts=tuple(h._replace(clock=0) for h in w.hosts), faults=self.faults, ticks=self.ticks)

    # ------------------------------------------------------------------ processors as numbers

    def born(self, who: int, life: int) -> int:
        key = ("born", who, life)
        if key not in self._steps:
            kind, i = self.roles[who]
            if kind == "agg":
                p: Any = Aggregator(NS, Z, f"agg-{i}", f"life-{who}-{life}", 500, 10**12)
            else:
                p = ZoneCoordinator(NS, Z, 1, f"zone-{i}", f"life-{who}-{life}", every=0)
                p.globe_reading._jumped = tuple  # a lambda, which gives no effects either, cannot be pickled
            local = Local(p)
            sends = self._carry_out(local, p.start(0))
            assert not sends
            self._steps[key] = self._number(local), ()
        return self._steps[key][0]

    def step(self, local: int, event: tuple, now: int) -> tuple[int, tuple[int, ...]]:
        """The processor after this input, and the numbers of the facts it appends."""
        key = (local, event, now)
        if key not in self._steps:
            x: Local = pickle.loads(self.locals[local])
            sends = self._carry_out(x, x.processor.handle(self._input(x, event), now))
            self._steps[key] = self._number(x), tuple(sends)
        return self._steps[key]

    def _input(self, x: Local, event: tuple) -> Any:
        match event:
            case ("tick",):
                return Tick()
            case ("group", mine):
                return Assigned(frozenset({0} if mine else ()))
            case ("answer", i, value):
                ask = x.asks.pop(i)
                if isinstance(ask, Fetch):
                    value = {k: self.values[v] for k, v in value}
                elif isinstance(ask, Ends):
                    value = {0: value}
                return Answer(ask.tag, value)
            case (name, offset, number):
                x.follows[name] = offset + 1
                value, key = {
                    LEDGER: lambda: (self.values[number], None),
                    GLOBE: lambda: (self.globe[number], None),
                    DELTAS: lambda: (self.deltas[number], self.blocks[number].device),
                    REGISTRATIONS: lambda: (self.registrations[number], DEVICES[number]),
                }[name]()
                return Record(name, 0, offset, key, value, 0)
        raise AssertionError(event)

    def _carry_out(self, x: Local, effects: Any) -> list[int]:
        sends = []
        for effect in effects:
            match effect:
                case Send(topic=name) if name == LEDGER:
                    sends.append(self.value_number(effect.value))
                case Send(topic=name) if name in STORED:
                    x.asks.append(effect)
                case Send():
                    assert effect.tag is None
                case Ends() | Fetch():
                    x.asks.append(effect)
                case Follow(name, 0, offset):
                    x.follows[name] = offset
                case Unfollow(name):
                    x.follows.pop(name, None)
                    x.paused.discard(name)
                case Pause(name):
                    x.paused.add(name)
                case Resume(name):
                    x.paused.discard(name)
                case Stop(reason):
                    x.stopped = reason
                    return sends
                case _:
                    raise AssertionError(effect)
        return sends

    def _number(self, x: Local) -> int:
        key = frozen(x)
        if key not in self._local_numbers:
            self._local_numbers[key] = len(self.locals)
            self.locals.append(key)
            at = [x.follows.get(n) if n not in x.paused else None for n in (LEDGER, DELTAS, REGISTRATIONS, GLOBE)]
            asks = []
            for a in x.asks:
                match a:
                    case Ends(_, name):
                        asks.append(("ends", name))
                    case Fetch(_, _, places):
                        asks.append(("fetch", tuple(p.key for p in places)))
                    case Send():
                        asks.append(("store", (a.key, self.value_number(a.value))))
            self.seen.append(Seen(*at, tuple(asks), x.stopped))
        return self._local_numbers[key]

    def value_number(self, value: bytes) -> int:
        if value not in self._value_numbers:
            self._value_numbers[value] = len(self.values)
            self.values.append(value)
        return self._value_numbers[value]

    # ------------------------------------------------------------------ the ledger

    def land(self, ledger: int, fact: int) -> int:
        key = (ledger, fact)
        if key not in self._ledger_numbers:
            self._ledger_numbers[key] = len(self.ledgers)
            self.ledgers.append((*self.ledgers[ledger], fact))
            self.truths.append(self._truth(self.truths[ledger], decode(self.values[fact], ZONE_FACTS)))
        return self._ledger_numbers[key]

    def _truth(self, t: Truth, fact: Any) -> Truth:
        zone, void = fold(t.zone, t.zone.position, 0, fact)
        t = t._replace(zone=zone)
        if void or t.wrong:
            return t
        task = zone.tasks.get("t")
        if task and not all(identity(task, n) for n in task.rounds):
            return t._replace(wrong="the identity does not hold")
        if isinstance(fact, Committed):
            t = self._commit(t, fact)
        elif isinstance(fact, Finalised):
            t = self._final(t, fact)
        if task and t.held and not task.held[0]:  # the shard is done: what it held is given up
            t = t._replace(held=(), voided=t.voided | {slot for slot, _ in t.held})
        return t

    def _commit(self, t: Truth, f: Committed) -> Truth:
        """What a commit must say: the log read in its order, by one who has all the time in the world."""
        (stretch,) = f.stretches.values()
        if stretch.start != sum(end - start for start, end, _ in t.given):
            return t._replace(wrong="the ranges do not tile")
        counted, held, voided = set(t.counted), {s: list(os) for s, os in t.held}, set(t.voided)
        here, tally = set(), dict.fromkeys(Counts.__struct_fields__, 0)
        for o in range(stretch.start, stretch.end):
            b = self.blocks[o]
            waiting, owed = held.get(b.slot, []), self.owe.get(b.slot, tuple(range(len(self.layout.sizes))))
            if b.round >= f.round - 1 and b.block not in owed:
                tally["invalid"] += 1
            elif b.slot in voided:
                tally["incomplete"] += 1
            elif b.round >= f.round - 1 and (
                (b.slot, b.block) in counted or b.block in [self.blocks[w].block for w in waiting]
            ):
                tally["duplicate"] += 1
            elif b.round != f.round:
                tally["late"] += 1
            elif not self.atomic:
                here.add(o)
            else:
                held.setdefault(b.slot, []).append(o)
                if len(held[b.slot]) == len(owed):
                    here.update(held.pop(b.slot))
                while 8 * sum(map(len, held.values())) > self.hold:
                    slot = next(iter(held))
                    voided.add(slot)
                    tally["incomplete"] += len(held.pop(slot))
            counted |= {(self.blocks[h].slot, self.blocks[h].block) for h in here}
        tally["counted"] = len(here)
        wrong = ""
        if f.counts != Counts(**tally):
            wrong = f"a commit of [{stretch.start}, {stretch.end}) says {f.counts}, and {tally} is right"
        elif (f.bitmap is None) != (not here):
            wrong = "a commit names a bitmap though it counts nothing, or none though it does"
        held_now = tuple((s, tuple(os)) for s, os in held.items())
        given = (*t.given, (stretch.start, stretch.end, frozenset(here)))
        return t._replace(
            counted=frozenset(counted), held=held_now, voided=frozenset(voided), given=given, wrong=wrong,
            facts=(*t.facts, (t.zone.position - 1, f)),
        )  # fmt: skip

    def _final(self, t: Truth, f: Finalised) -> Truth:
        if f.round in [x.round for x in t.finals]:
            return t._replace(wrong="a round is finalised twice")
        t = t._replace(finals=(*t.finals, f))
        offsets = [at for at, c in t.facts if c.round == f.round and c.counts.counted]
        return t if list(f.commits) == offsets else t._replace(wrong="a round does not sum what was accepted")

    def sound(self, t: Truth, store: dict[str, int]) -> str:
        """What is wrong with what is stored for the accepted facts, or ""."""
        names = [p.key for _, f in t.facts for p in (f.bitmap, *f.sums) if p]
        names += [p.key for f in t.finals if f.manifest for p in f.manifest.blocks]
        if any(key not in store for key in names):
            return "a fact is accepted, and what it names is not stored"
        values = {key: self.values[store[key]] for key in names}
        for (_, f), (*_, here) in zip(t.facts, t.given, strict=True):
            blocks = [self.blocks[o] for o in here]
            if f.bitmap and self._bits(values[f.bitmap.key]) != {(b.round, b.slot, b.block) for b in blocks}:
                return "a bitmap names other blocks than those that count"
            for i, place in enumerate(f.sums):
                mine = [b for b in blocks if b.block == i]
                if (place is None) != (not mine) or f.weights[i] != sum(b.weight for b in mine):
                    return "a sum or weight is there that should not be, or the other way round"
                if place and bytes(decode(values[place.key], (SumBlock,)).data) != total(mine).tobytes():
                    return "a stored sum is not that of the blocks its bitmap names"
        for f in t.finals:
            if f.manifest:
                got = b"".join(bytes(decode(values[p.key], (ModelBlock,)).data) for p in f.manifest.blocks)
                if got != self.oracle(t).tobytes():
                    return "a model is not the oracle's"
        return ""

    def _bits(self, value: bytes) -> set[tuple[int, int, int]]:
        c = decode(value, (Counted,))
        maps = {n: np.argwhere(Bitmap.unpack(bits, c.blocks).bits) for n, bits in c.bits.items()}
        return {(n, int(s), int(i)) for n, pairs in maps.items() for s, i in pairs}

    def oracle(self, t: Truth) -> np.ndarray:
        """FedAvg of all that counted in round 1, in plain numpy; no later round counts anything here."""
        new = self.start.copy()
        for i, piece in enumerate(slices(self.layout.sizes)):
            mine = [self.blocks[o] for *_, here in t.given for o in here if self.blocks[o].block == i]
            if mine:
                step = total(mine) * 2.0**UNIT / sum(b.weight for b in mine)
                new[piece] = self.start[piece].astype(np.float64) + step
        return new

    # ------------------------------------------------------------------ moves

    def moves(self, w: World) -> Iterator[tuple[str, World]]:
        """What may happen without a fault or a tick."""
        seats = [i == w.seats[i >= self.aggregators] for i in range(len(w.hosts))]
        ledger = self.ledgers[w.ledger]
        for i, h in enumerate(w.hosts):
            if h.told is not seats[i] and i not in w.asleep:
                yield f"{i} hears the group: {seats[i]}", self.given(w, i, [("group", seats[i])], told=seats[i])
        for x in sorted(w.net - w.asleep):
            yield f"{x} lands", w._replace(ledger=self.land(w.ledger, x[1]), net=w.net - {x})
        for i, h in enumerate(w.hosts):
            s = self.seen[h.local]
            if i in w.asleep:
                continue
            if s.globe is not None and s.globe < len(self.globe):
                yield f"{i} reads the globe", self.given(w, i, [(GLOBE, s.globe, s.globe)])
                continue
            if s.ledger is not None and s.ledger < len(ledger):
                events = [(LEDGER, o, ledger[o]) for o in range(s.ledger, len(ledger))]
                yield f"{i} reads the ledger", self.given(w, i, events)
            kinds = set()
            for n, ask in enumerate(s.asks):
                if ask[0] in kinds:
                    continue
                kinds.add(ask[0])
                yield f"{i} is answered {ask}", self.answered(w, i, n, ask)
            if s.deltas is not None and s.deltas < w.sent:
                yield f"{i} takes block {s.deltas}", self.given(w, i, [(DELTAS, s.deltas, s.deltas)])
            if s.registrations is not None and s.registrations < len(self.registrations):
                at = s.registrations
                yield f"{i} takes registration {at}", self.given(w, i, [(REGISTRATIONS, at, at)])
        if w.sent < len(self.blocks):
            yield f"block {w.sent} is sent", w._replace(sent=w.sent + 1)

    def tick(self, w: World, i: int) -> World:
        h = w.hosts[i]
        w = w._replace(hosts=(*w.hosts[:i], h._replace(clock=h.clock + 1), *w.hosts[i + 1 :]))
        return self.given(w, i, [("tick",)])

    def faulty(self, w: World) -> Iterator[tuple[str, World]]:
        if w.ticks:
            for i in range(len(w.hosts)):
                yield f"time passes for {i}", self.tick(w._replace(ticks=w.ticks - 1), i)
        if not w.faults:
            return
        w = w._replace(faults=w.faults - 1)
        for x in sorted(w.net):
            yield f"{x} lands, a copy follows", w._replace(ledger=self.land(w.ledger, x[1]))
        for seat, group in ((0, range(self.aggregators)), (1, range(self.aggregators, len(w.hosts)))):
            for other in group:
                if other != w.seats[seat]:
                    handed = w._replace(seats=(other, w.seats[1]) if seat == 0 else (w.seats[0], other))
                    yield f"seat {seat} goes to {other}", handed
                    yield from self.crashes(handed, w.seats[seat])
        for i in range(len(w.hosts)):
            yield from self.crashes(w, i)

    def crashes(self, w: World, i: int) -> Iterator[tuple[str, World]]:
        h = w.hosts[i]
        new = Host(self.born(i, h.life + 1), h.life + 1, h.clock, None)
        w = w._replace(hosts=(*w.hosts[:i], new, *w.hosts[i + 1 :]), asleep=w.asleep - {i})
        yield f"{i} crashes", w
        if any(x[0] == i for x in w.net):
            mine = {x for x in w.net if x[0] == i}
            yield f"{i} crashes with all it sent", w._replace(net=w.net - mine, asleep=w.asleep - mine)

    def given(self, w: World, i: int, events: list[tuple], **more: Any) -> World:
        h, net = w.hosts[i], set(w.net)
        local = h.local
        for event in events:
            if self.seen[local].stopped or (event[0] == LEDGER and self.seen[local].ledger != event[1]):
                break
            local, sends = self.step(local, event, h.clock * STEP)
            net.update((i, n) for n in sends)
        host = h._replace(local=local, **more)
        return w._replace(hosts=(*w.hosts[:i], host, *w.hosts[i + 1 :]), net=frozenset(net))

    def answered(self, w: World, i: int, n: int, ask: tuple) -> World:
        match ask:
            case ("ends", name):
                value: Any = {DELTAS: w.sent, GLOBE: len(self.globe)}.get(name, len(self.ledgers[w.ledger]))
            case ("fetch", keys):
                value = tuple(sorted(x for x in w.store if x[0] in keys))
            case ("store", x):
                value = (0, 0)
                assert x[0] not in dict(w.store), "a place is written twice"
                w = w._replace(store=w.store | {x})
        return self.given(w, i, [("answer", n, value)])

    # ------------------------------------------------------------------ judging

    def quiet(self, w: World) -> str | None:
        """What can happen next without the devices, by the first name; None if nothing can."""
        return next((what for what, _ in self.moves(w) if not what.startswith("block")), None)

    def fair(self, w: World, send: bool = True) -> World:
        """The next state of a schedule that starves nobody and has no faults. When nothing else happens, who sleeps wakes;
        when nobody does, time passes."""
        for what, new in self.moves(w):
            if send or not what.startswith("block"):
                return new
        if w.asleep:
            return w._replace(asleep=frozenset())
        slowest = min(range(len(w.hosts)), key=lambda i: w.hosts[i].clock)
        return self.tick(w, slowest)

    def sleeps(self, w: World) -> Iterator[tuple[str, World]]:
        """Whose turn it is falls asleep, a fault; who sleeps wakes."""
        for x in w.asleep:
            yield f"{x} wakes", w._replace(asleep=w.asleep - {x})
        what = next((what for what, _ in self.moves(w)), "block")
        if w.faults and not what.startswith("block"):
            x = next(x for x in (*w.net, *range(len(w.hosts))) if what.startswith(f"{x} "))
            yield f"{x} falls asleep", w._replace(asleep=w.asleep | {x}, faults=w.faults - 1)

    def ways(self, w: World) -> Iterator[tuple[bool, Any]]:
        """What is tried from a state: (by itself, moves)."""
        if not self.deep:
            yield True, self.moves(w)
        elif not self.goal(w):
            yield True, [("on", self.fair(w))]
        yield False, self.faulty(w)
        if self.deep:
            yield False, self.sleeps(w)

    def goal(self, w: World) -> bool:
        """Round 1 is finalised, round 2 open, every block has its outcome, and nothing more happens by itself."""
        z = self.truths[w.ledger].zone
        t = z.tasks["t"]
        done = t.round >= 2 and t.next == (len(self.blocks),) and not t.held[0]
        return done and not w.asleep and next(self.moves(w), None) is None

    def broken(self, w: World) -> str:
        t = self.truths[w.ledger]
        if t.wrong:
            return t.wrong
        key = w.ledger, w.store
        if key not in self._sound:
            self._sound[key] = self.sound(t, dict(w.store))
        if self._sound[key]:
            return self._sound[key]
        return next((f"{i} stopped: {s}" for i, h in enumerate(w.hosts) if (s := self.seen[h.local].stopped)), "")


def explore(zoo: Zoo, limit: int) -> tuple[int, bool, str, list[str]]:
    """Breadth first: (states, all of them?, what is wrong, the history)."""
    index, parents, todo = {zoo.init: 0}, [(0, "")], deque([zoo.init])

    def history(i: int) -> list[str]:
        out = []
        while i:
            i, what = parents[i]
            out.append(what)
        return out[::-1]

    leaves = []
    while todo and len(parents) < limit:
        w = todo.popleft()
        i, idle = index[w], True
        for by_itself, moves in zoo.ways(w):
            for what, new in moves:
                idle &= not by_itself
                if new not in index:
                    index[new] = len(parents)
                    parents.append((i, what))
                    if wrong := zoo.broken(new):
                        return len(parents), False, wrong, history(index[new])
                    todo.append(new)
        if idle:
            leaves.append(w)
    good: set[World] = set()
    for w in [*leaves, *todo]:
        if wrong := ends_well(zoo, w, good):
            return len(parents), not todo, wrong, history(index[w])
    return len(parents), not todo, "", []


def ends_well(zoo: Zoo, w: World, good: set[World]) -> str:
    """Whether the fair schedule leads to the end. What led there once is known to."""
    path = []
    w = w._replace(faults=0, ticks=0)
    while w not in good and not zoo.goal(w):
        if len(path) == 400:
            return "no way to the end"
        path.append(w)
        w = zoo.fair(w)
        if wrong := zoo.broken(w):
            return wrong
    good.update(path)
    return ""


# ------------------------------------------------------------------ scenarios

A, B = (0, 0), (1, 0)
A0, A1, B0, B1 = (0, 0), (0, 1), (1, 0), (1, 1)
ATOMIC: dict[str, Any] = {"blocks": 2, "atomic": True}
LEADERS: dict[str, Any] = {"aggregators": 1, "coordinators": 2}
WIDE: list[dict[str, Any]] = [
    {"name": "two aggregators", "log": (A, B, A)},
    {"name": "two aggregators, two faults", "log": (A, A, B), "faults": 2},
    {"name": "two leaders", "log": (A, B, A), **LEADERS},
    {"name": "atomic deltas", "log": (A0, B0, A1, A0, B1), **ATOMIC},
    {"name": "atomic deltas over the limit", "log": (A0, B0, A1, B1), "hold": 12, **ATOMIC},
]
PARTS: dict[str, Any] = {"name": "atomic parts, to the end", "log": (A0, B1, A1, B0, B1), "owe": {1: (1,)}, **ATOMIC}
DEEP: list[dict[str, Any]] = [
    {"name": "two aggregators, to the end", "log": (A, A, B), "faults": 1, "ticks": 1},
    {"name": "two leaders, to the end", "log": (A, B, A), "faults": 2, "ticks": 0, **LEADERS},
    {"name": "atomic deltas, to the end", "log": (A0, B0, A1, A0, B1), "faults": 1, "ticks": 1, **ATOMIC},
    PARTS,
    {"name": "a delta in halves, to the end", "log": (A0, A0, B0, A1), "blocks": 2, "faults": 2, "ticks": 0},
]


def name_of(x: Any) -> str:
    return x["name"] if isinstance(x, dict) else getattr(x, "__name__", "")


def searched(monkeypatch: pytest.MonkeyPatch, scenario: dict[str, Any], limit: int) -> tuple[str, list[str]]:
    monkeypatch.setattr(zone_leader, "HOLD", scenario.get("hold", 2**20))
    zoo = Zoo(**scenario)
    states, whole, wrong, past = explore(zoo, limit)
    print(f"{zoo.name}: {states} states, {'all' if whole else 'cut'}, {len(zoo.locals)} of processors; {wrong}")
    return wrong, past


@pytest.mark.parametrize("scenario", WIDE, ids=name_of)
def test_every_order(monkeypatch, scenario):
    wrong, past = searched(monkeypatch, scenario, LIMIT)
    assert not wrong, "\n".join([wrong, *past])


@pytest.mark.parametrize("scenario", DEEP, ids=name_of)
def test_every_fault_to_the_end(monkeypatch, scenario):
    """Along the fair schedule, which goes to the end of the round, each fault at each point."""
    wrong, past = searched(monkeypatch, {**scenario, "deep": True}, 200_000)
    assert not wrong, "\n".join([wrong, *past])


# ------------------------------------------------------------------ one precaution less


def off_bitmaps(monkeypatch):
    """Who takes over does not fetch what is counted already."""
    monkeypatch.setattr(Bitmaps, "wanted", lambda self, t, shards: [])
    monkeypatch.setattr(Bitmaps, "note", lambda self, offset, fact, shards: False)


def off_stored(monkeypatch):
    """`Committed` is appended before the partials are acknowledged."""
    real = Aggregator._store

    def early(self, task, acc, now):
        yield from real(self, task, acc, now)
        if acc.unstored:
            yield self._append(task, acc, now)

    monkeypatch.setattr(Aggregator, "_store", early)


def off_drop(monkeypatch):
    """An accumulator outlives the claim by which another takes its shard."""

    def drop(self, t, held):
        real(self, t, {s: token for acc in self.accumulators() for s, (token, _, _) in acc.ranges.items()} | held)

    real = Work.drop
    monkeypatch.setattr(Work, "drop", drop)


def off_own_next(monkeypatch):
    """An accumulator outlives the acceptance of another's commit of the same offsets."""
    monkeypatch.setattr(
        Work, "_alive", lambda self, acc, t, held: all(held.get(s) == x[0] for s, x in acc.ranges.items())
    )


def off_claim(monkeypatch):
    """Who is assigned a shard acts under whatever token is current, without a claim of its own."""
    from processors import aggregator

    def all_wanted(self, task, work, t, held):
        seats = dict(enumerate(self.zone.shards))
        return real(self, task, work, t, {s: seats[s].token for s in self.claims.wanted} if not t.loss else {})

    real = Aggregator._hold
    monkeypatch.setattr(Aggregator, "_hold", all_wanted)
    monkeypatch.setattr(aggregator, "shards_of", lambda z, holder, life: {0: z.shards[0].token})


def off_forget(monkeypatch):
    """What was held when the shard came is not read again."""
    real = Work.resume

    def forgetful(self, t, s, token):
        shard = real(self, t, s, token)
        shard.recall.clear()
        shard.position = shard.start
        return shard

    monkeypatch.setattr(Work, "resume", forgetful)


def off_owed(monkeypatch):
    """A delta is whole when all blocks of the model are there, whatever its slot owes."""
    monkeypatch.setattr(Round, "owed", lambda self, slot: len(self.opened.sizes))


def off_set(monkeypatch):
    """A block counts that its slot does not owe."""
    monkeypatch.setattr(sets, "has", lambda blocks, block: True)


CONTROLS = [
    (
        off_bitmaps,
        {"name": "half a delta twice", "log": (A0, A0, B0), "blocks": 2, "ticks": 0},
        "'counted': 1, 'duplicate': 1",
    ),
    (off_stored, WIDE[0], "not stored"),
    (off_drop, WIDE[0], "void though nothing forbids it"),
    (off_own_next, WIDE[0], "void though nothing forbids it"),
    (off_forget, WIDE[3], "is right"),
    (off_owed, {**PARTS, "deep": True}, "is right"),
    (off_set, {**PARTS, "deep": True}, "slot 1 of round 1 is done or given up before"),
]
"""What the broken one would do in the third and fourth the fold refuses, and an aggregator stops that does not see why."""


@pytest.mark.parametrize(("off", "scenario", "finding"), CONTROLS, ids=name_of)
def test_without_a_precaution_something_breaks(monkeypatch, off, scenario, finding):
    off(monkeypatch)
    wrong, past = searched(monkeypatch, scenario, 20_000)
    assert finding in wrong, past


@pytest.mark.parametrize("scenario", [WIDE[0], {**WIDE[3], "deep": True, "ticks": 0}], ids=name_of)
def test_without_a_claim_of_its_own_nothing_breaks(monkeypatch, scenario):
    """Two then read and commit one shard under one token. Of two commits of the same offsets the fold takes the first, as the
    other does not start where it should: the token alone keeps zombies from spoiling work, not counts from being right."""
    off_claim(monkeypatch)
    wrong, past = searched(monkeypatch, scenario, LIMIT)
    assert not wrong, "\n".join([wrong, *past])


# ------------------------------------------------------------------ found


def test_an_answer_from_before_a_loss_does_not_concern_the_round_s_next_attempt():
    """The leader reads the partials of a closed round when something else of the task is lost, and given up, before it
    hears the answer. It begins anew, and the answer to its first question comes too: the same sum twice."""
    zoo = Zoo("a loss while a round is finalised", (A, B))
    w, leader = zoo.init, 2
    while not any(a[0] == "fetch" and "/life-" in a[1][0] for a in zoo.seen[w.hosts[leader].local].asks):
        w = zoo.fair(w)
    z = zoo.truths[w.ledger].zone
    lost = Lost(z.shards[0].token, 0, "t", "retention was too short", ranges={0: (2, 5)})
    for fact in (lost, Abandoned("t", z.position, "ann")):
        w = w._replace(ledger=zoo.land(w.ledger, zoo.value_number(encode(fact))))
    w = next(new for what, new in zoo.moves(w) if what == f"{leader} reads the ledger")
    while zoo.truths[w.ledger].zone.tasks["t"].round == 1:
        w = zoo.fair(w)
        assert not zoo.broken(w)
