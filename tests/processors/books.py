"""The books of a plane in memory, kept by other code than the plane's.

`Taped` is a log that keeps a copy of all that was ever appended. `Books` fold every ledger record as it lands and go through what
it says once more: outcomes by the letter of the design, bitmaps, models in plain numpy.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from learning.optimisers import apply_merged, apply_sums, first_state
from processors.oracle import plain
from schemas.blocks import MOST_LOSS, Counted, DeltaBlock, Manifest, slices
from schemas.facts import (
    Abandoned,
    Admitted,
    Closed,
    Committed,
    EpochClosed,
    Finalised,
    Lost,
    Merged,
    Opened,
    TaskAdmitted,
)
from schemas.partitioner import shard_of
from schemas.topics import GLOBAL
from schemas.wire import Malformed, checksum, decode, encode
from streams.ledger import Globe, Ledger, Zone, ZoneTask, identity, snapshot
from streams.memory import Memory
from streams.models import assemble
from streams.processor import Record, Send
from tests.plane import LAYOUT, NS, START

SIZES = LAYOUT.sizes
HEAVIEST = 1_000
"""The largest weight of a delta, and most samples."""


class Taped(Memory):
    """Keeps a copy of every record, whatever is cut or lost afterwards, and the order in which those of ledgers came."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.tape: dict[tuple[str, int], list[Record]] = defaultdict(list)
        self.journal: list[Record] = []
        self.keys: dict[tuple[str, str], Record] = {}
        """By topic and key."""

    def append(self, send: Send) -> tuple[int, int]:
        p, offset = super().append(send)
        record = Record(send.topic, p, offset, send.key, send.value, self.now, send.headers)
        self.tape[send.topic, p][offset : offset + 1] = [record]
        if send.topic.endswith(".ledger"):
            self.journal.append(record)
        elif send.key:
            self.keys.setdefault((send.topic, send.key), record)
        return p, offset


# ------------------------------------------------------------------ books


@dataclass
class TaskBook:
    """A task in a zone."""

    next: list[int]
    counted: dict[tuple[int, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    """(base round, slot) -> blocks"""
    held: dict[int, dict[tuple[int, int], dict[int, tuple[int, DeltaBlock]]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    """By shard and (base round, slot), oldest first: blocks of deltas that are not whole, with their offsets."""
    commits: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    sums: dict[int, np.ndarray] = field(default_factory=lambda: defaultdict(lambda: np.zeros(sum(SIZES), np.int64)))
    weights: dict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0] * len(SIZES)))
    totals: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By round: devices, samples, loss."""
    state: np.ndarray | None = None
    """The server optimiser's."""
    finals: list[tuple[int, Finalised]] = field(default_factory=list)
    epochs: dict[int, int] = field(default_factory=dict)
    """By round, the epoch it was opened in."""


class Books:
    """All ledgers, from the records in the order in which they landed."""

    def __init__(self, memory: Taped, zones: tuple[str, ...]):
        self.memory = memory
        self.folds: dict[str, Ledger[Any]] = {GLOBAL: Ledger(Globe()), **{z: Ledger(Zone()) for z in zones}}
        self.snapshots: dict[str, list[bytes]] = {s: [snapshot(f.state)] for s, f in self.folds.items()}
        """By position."""
        self.read = 0
        self.tasks: dict[tuple[str, str], TaskBook] = {}
        self.models: dict[str, np.ndarray] = {}
        """By topic and key of a manifest's first block: what an accepted fact says the model is."""
        self.specs: dict[str, TaskAdmitted] = {}
        self.ends: dict[str, dict[str, int]] = {}
        self.since: dict[tuple[str, str], int] = defaultdict(int)
        self.states: dict[str, np.ndarray] = {}
        self.slots: list[tuple[str, str, int, int, str]] = []
        """Zone, task, round, slot, device, as they were given."""
        self.owed: dict[tuple[str, str, int, int], set[int]] = {}
        """By zone, task, round and slot, the blocks that its delta has."""
        self.seen: Counter[str] = Counter()

    def zone(self, name: str) -> Zone:
        return self.folds[name].state

    @property
    def globe(self) -> Globe:
        return self.folds[GLOBAL].state

    def go_on(self) -> None:
        while self.read < len(self.memory.journal):
            record = self.memory.journal[self.read]
            self.read += 1
            scope = record.topic.split(".")[1]
            fold = self.folds[scope]
            before = fold.state
            fact, void = fold.feed(record)
            self.snapshots[scope].append(snapshot(fold.state))
            if void:
                self.seen["void"] += 1
                continue
            self.seen[type(fact).__name__] += 1
            where = f"{scope}@{record.offset} {fact!r:.300}"
            if scope == GLOBAL:
                self.global_fact(fact, where)
            else:
                self.zone_fact(scope, record.offset, fact, before, fold.state, where)

    # ------------------------------------------------------------------ zones

    def zone_fact(self, zone: str, offset: int, f: Any, before: Zone, after: Zone, where: str) -> None:
        stands = [x for x, t in before.tasks.items() if t.loss]
        going_on = isinstance(f, Opened | Committed | Closed | Finalised | Lost)
        assert not (going_on and f.task in stands), f"{where}: {stands} stand still"
        match f:
            case Admitted():
                for x in f.slots:
                    t = after.tasks[x.task]
                    devices = t.rounds[x.round].devices if x.round in t.rounds else ()
                    if devices[x.slot : x.slot + 1] == (x.device,):
                        assert x.task not in stands, where
                        self.slots.append((zone, x.task, x.round, x.slot, x.device))
                        mine = {b for _, b in pairs(x.blocks)} if x.blocks else set(range(len(SIZES)))
                        self.owed[zone, x.task, x.round, x.slot] = mine
            case Opened():
                assert key(f.base) in self.models, f"{where}: from a model that nobody accepted"
                self.tasks.setdefault((zone, f.task), TaskBook([0] * after.partitions))
            case Committed():
                self.committed(zone, offset, f, before.tasks[f.task], where)
            case Finalised():
                self.finalised(zone, offset, f, after.tasks[f.task], where)
            case Abandoned():
                loss = before.tasks[f.task].loss
                assert loss
                for s, (_, to) in loss.ranges.items():
                    self.tasks[zone, f.task].next[s] = to
                    self.tasks[zone, f.task].held.pop(s, None)
        for task, t in after.tasks.items():
            was, book = before.tasks.get(task), self.tasks[zone, task]
            if was is t:
                continue
            for n in t.rounds:
                assert identity(t, n), f"{where}: the identity of round {n} of {task}: {t.rounds[n].counts}"
            assert identity(t), f"{where}: the identity of {task}"
            for s, n in enumerate(t.at):
                if was and was.at[s] != n:
                    book.held.pop(s, None)  # what is not whole when a shard is done is given up
                mine = {at for delta in book.held[s].values() for at, _ in delta.values()}
                assert {h.offset for h in t.held[s]} == mine, f"{where}: held in shard {s}, not {mine}"
            assert list(t.next) == book.next, f"{where}: {t.next}, not {book.next}"
        for task in after.over.keys() - before.over.keys():
            row, t = after.over[task], before.tasks[task]
            assert row.tally.adds_up(0), f"{where}: the identity of {task}, which is over: {row}"
            assert row.covered == row.offsets == sum(t.next) + t.rewound, f"{where}: {row}, and {t.next}"

    def committed(self, zone: str, offset: int, f: Committed, t: ZoneTask, where: str) -> None:
        book, outcomes = self.tasks[zone, f.task], Counter()
        new: dict[int, set[tuple[int, int]]] = defaultdict(set)
        done: list[tuple[int, int]] = []
        voided: list[tuple[int, int]] = []

        def count(b: DeltaBlock) -> None:
            o = t.rounds[b.round].opened
            assert o
            outcomes["counted"] += 1
            mine = book.counted[b.round, b.slot]
            assert b.block not in mine, f"{where}: counted twice: {b.round, b.slot, b.block}"
            mine.add(b.block)
            new[b.round].add((b.slot, b.block))
            factor = max(1, math.isqrt(4**o.fraction // (1 + f.round - b.round)))
            values = plain(b.codec, b.data, SIZES[b.block]) * 2**b.exponent * factor
            book.sums[f.round][slices(SIZES)[b.block]] += values
            book.weights[f.round][b.block] += b.weight
            if mine == self.owed[zone, f.task, b.round, b.slot]:
                done.append((b.round, b.slot))
                book.totals[f.round].update(devices=1, samples=b.samples, loss=b.loss)

        for s, x in f.stretches.items():
            assert book.next[s] == x.start < x.end, f"{where}: shard {s} is at {book.next[s]}"
            assert f.round == t.at[s], where
            book.next[s] = x.end
            for r in self.memory.tape[f"{NS}.{zone}.deltas.{f.task}", s][x.start : x.end]:
                outcome, b = self.judge(zone, f.task, t, s, r, book, voided)
                if outcome != "counted" or b is None:
                    outcomes[outcome] += 1
                elif not t.rounds[b.round].opened.atomic:  # type: ignore[union-attr]
                    count(b)
                else:
                    held, slot = book.held[s], (b.round, b.slot)
                    held.setdefault(slot, {})[b.block] = r.offset, b
                    if held[slot].keys() == self.owed[zone, f.task, b.round, b.slot]:
                        for _, block in held.pop(slot).values():
                            count(block)
                    while (
                        sum(len(y.data) for d in held.values() for _, y in d.values()) > t.rounds[b.round].opened.hold
                    ):  # type: ignore[union-attr]
                        oldest = next(iter(held))
                        voided.append(oldest)
                        outcomes["incomplete"] += len(held.pop(oldest))
        said = Counter({n: getattr(f.counts, n) for n in f.counts.__struct_fields__})
        assert +said == +outcomes, f"{where}: {outcomes}"
        assert sorted((d.round, d.slot) for d in f.done) == sorted(done), f"{where}: who is done is {done}"
        assert sorted((d.round, d.slot) for d in f.voided) == sorted(voided), f"{where}: given up is {voided}"
        bits: dict[int, set[tuple[int, int]]] = {}
        if f.bitmap:
            counted = decode(self.at(f"{NS}.{zone}.partials", f.bitmap.key), (Counted,))
            assert checksum(encode(counted.bits)) == f.bitmap.checksum, f"{where}: another bitmap"
            bits = {n: pairs(packed) for n, packed in counted.bits.items()}
            book.commits[f.round].append(offset)
        assert bits == new, f"{where}: its bitmap is {bits}, not {dict(new)}"
        for (n, slot), mine in book.counted.items():
            o = t.rounds[n].opened if n in t.rounds else None
            half = 0 < len(mine) < len(self.owed[zone, f.task, n, slot])
            assert not (o and o.atomic and half), f"{where}: half of slot {slot} of round {n}"

    def judge(
        self, zone: str, task: str, t: ZoneTask, s: int, r: Record, book: TaskBook, voided: list[tuple[int, int]]
    ) -> tuple[str, DeltaBlock | None]:
        """The outcome of a record of a delta log, by the letter of the design."""
        try:
            b = decode(r.value, (DeltaBlock,), r.headers)
        except Malformed:
            return "invalid", None
        if b.task != task or r.key != b.device or shard_of(b.device, len(t.at)) != s:
            return "invalid", b
        if b.round < t.at[s] - t.staleness() - 1:
            return "late", b  # its bitmaps are forgotten
        base = t.rounds.get(b.round)
        if base is None or base.opened is None or base.devices[b.slot : b.slot + 1] != (b.device,):
            return "invalid", b
        o = base.opened
        try:
            values = plain(b.codec, b.data, SIZES[b.block]).astype(object) * 2**b.exponent
        except (ValueError, IndexError):
            return "invalid", b
        if not (0 < b.weight <= HEAVIEST and 0 < b.samples <= HEAVIEST) or b.loss > b.samples * MOST_LOSS:
            return "invalid", b
        if abs(values).max() > o.largest:
            return "invalid", b
        slot = b.round, b.slot
        if b.block not in self.owed[zone, task, b.round, b.slot]:
            return "invalid", b
        if b.slot in base.voided or slot in voided:
            return "incomplete", b
        if b.block in book.counted[slot] or b.block in book.held[s].get(slot, ()):
            return "duplicate", b
        return ("late" if b.round < t.at[s] - o.staleness else "counted"), b

    def finalised(self, zone: str, offset: int, f: Finalised, t: ZoneTask, where: str) -> None:
        book, o, server = self.tasks[zone, f.task], t.rounds[f.round].opened, self.specs[f.task].spec.server
        assert o
        assert f.commits == tuple(book.commits[f.round]), f"{where}: not the commits {book.commits[f.round]}"
        total = book.totals[f.round]
        assert (f.devices, f.samples, f.loss) == (total["devices"], total["samples"], total["loss"]), (
            f"{where}: {total}"
        )
        assert bool(f.manifest) == (f.devices >= o.minimum and bool(f.commits)), f"{where}: k of n"
        if f.manifest is None:
            return
        server, base = server.working("zone"), self.models[key(o.base)]
        state = first_state(server, len(base)) if book.state is None else book.state
        sums, weights, unit = book.sums[f.round], book.weights[f.round], o.unit - o.fraction
        if server.optimiser == "fedavg":  # in plain numpy
            new = base.copy()
            for piece, w in zip(slices(SIZES), weights, strict=True):
                if w:
                    new[piece] = base[piece].astype(np.float64) + sums[piece] * 2.0**unit / w
        else:  # its numbers are tested elsewhere
            new, book.state = apply_sums(server, base, sums, weights, SIZES, unit, state)
        self.model(f.manifest, new, where)
        if f.optimiser:
            assert self.vector(f.optimiser).tobytes() == book.state.tobytes(), f"{where}: another optimiser state"  # type: ignore[union-attr]
        book.finals.append((offset, f))
        book.epochs[f.round] = o.epoch

    # ------------------------------------------------------------------ the globe

    def global_fact(self, f: Any, where: str) -> None:
        match f:
            case TaskAdmitted():
                self.specs[f.spec.task] = f
                self.models[key(f.manifest)] = START
            case EpochClosed():
                self.ends[f.task] = f.ends
            case Merged():
                mine = {}
                for zone, end in sorted(self.ends[f.task].items()):
                    book, start = self.tasks.get((zone, f.task)), self.since[f.task, zone]
                    self.since[f.task, zone] = end
                    if finals := [x for at, x in book.finals if start <= at < end] if book else []:
                        epoch = book.epochs[finals[-1].round]  # a late round of the one before is in no model
                        built = [x for x in finals if book.epochs[x.round] == epoch]
                        heavy = [sum(book.weights[x.round][b] for x in built) for b in range(len(SIZES))]
                        mine[zone] = (finals[-1].manifest, sum(x.samples for x in built), heavy)
                assert bool(f.manifest) == bool(mine), f"{where}: from {mine}"
                assert f.samples == sum(n for _, n, _ in mine.values()), f"{where}: from {mine}"
                if f.manifest:
                    server, last = self.specs[f.task].spec.server.working("globe"), self.models[f"last {f.task}"]
                    merged = _merged(last, [(self.models[key(m)], heavy) for m, _, heavy in mine.values()])
                    state = self.states.get(f.task)
                    state = first_state(server, len(last)) if state is None else state
                    new, self.states[f.task] = apply_merged(server, last, merged, SIZES, state)
                    self.model(f.manifest, new, where)
                    if f.optimiser:
                        assert self.vector(f.optimiser).tobytes() == self.states[f.task].tobytes(), where
                    self.models[f"last {f.task}"] = new
        if isinstance(f, TaskAdmitted):
            self.models[f"last {f.spec.task}"] = START

    # ------------------------------------------------------------------ what lies somewhere

    def at(self, name: str, k: str) -> bytes | None:
        assert (name, k) in self.memory.keys, f"{k} is not in {name}"
        return self.memory.keys[name, k].value

    def vector(self, m: Manifest) -> np.ndarray:
        return assemble(m, {p.key: self.at(m.topic, p.key) for p in m.blocks})  # type: ignore[misc]

    def model(self, m: Manifest, must: np.ndarray, where: str) -> None:
        assert self.vector(m).tobytes() == must.tobytes(), f"{where}: another model"
        assert key(m) not in self.models, f"{where}: a place written twice"
        self.models[key(m)] = must


def key(m: Manifest) -> str:
    return f"{m.topic} {m.blocks[0].key}"


def pairs(packed: bytes) -> set[tuple[int, int]]:
    """The (slot, block) pairs in a bitmap."""
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    return {divmod(int(i), len(SIZES)) for i in np.flatnonzero(bits)}


def _merged(last: np.ndarray, zones: list[tuple[np.ndarray, list[int]]]) -> np.ndarray:
    """The zones' models, each block by what was counted of it; what nobody trained is that of the last global model."""
    new = last.copy()
    for b, piece in enumerate(slices(SIZES)):
        if n := sum(heavy[b] for _, heavy in zones):
            new[piece] = sum(m[piece].astype(np.float64) * heavy[b] for m, heavy in zones if heavy[b]) / n
    return new
