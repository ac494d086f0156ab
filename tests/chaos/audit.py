"""The books of a run, gone through again by other code than the plane's: from the logs alone, fact by fact.

Every commit is compared with the delta logs it says it read: outcomes, bitmap, sums, weights, bit for bit. Every model is
computed again from those sums, and whatever devices were told must be what the ledger says. Only which facts are accepted is
taken from the fold; that they follow one another as they must is looked at here too.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from processors.oracle import plain
from schemas.blocks import Counted, DeltaBlock, Manifest, SumBlock
from schemas.facts import (
    Admitted,
    Closed,
    Committed,
    EpochClosed,
    EpochOpened,
    Finalised,
    Merged,
    Opened,
    Taken,
    TaskAdmitted,
    TaskEnded,
)
from schemas.messages import Admission, Receipt
from schemas.partitioner import shard_of
from schemas.topics import GLOBAL, read
from schemas.wire import Malformed, checksum, decode, encode
from streams.ledger import Globe, Ledger, Zone
from tests.chaos.oracle import merged, step
from tests.plane import LAYOUT, NS, Plane

BLOCKS = len(LAYOUT.sizes)


@dataclass
class Book:
    """One task in one zone, as far as the ledger is read."""

    next: list[int]
    at: list[int]
    round: int = 0
    state: str = "finalised"
    opened: dict[int, Opened] = field(default_factory=dict)
    ends: dict[int, dict[int, int]] = field(default_factory=dict)
    slots: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    owed: dict[tuple[int, int], set[int]] = field(default_factory=dict)
    """By (round, slot), the blocks that its delta has."""
    counted: set[tuple[int, int, int]] = field(default_factory=set)
    """(base round, slot, block)"""
    held: dict[int, dict[tuple[int, int], dict[int, tuple[int, DeltaBlock]]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    """By shard and (base round, slot), oldest first: the blocks of deltas that are not whole, with their offsets."""
    voided: set[tuple[int, int]] = field(default_factory=set)
    """Slots that were given up."""
    outcomes: dict[tuple[int, int], str] = field(default_factory=dict)
    """(shard, offset) -> what became of the block there."""
    staleness: int = 0
    sums: dict[int, list[np.ndarray]] = field(default_factory=dict)
    weights: dict[int, list[int]] = field(default_factory=dict)
    samples: Counter[int] = field(default_factory=Counter)
    devices: Counter[int] = field(default_factory=Counter)
    commits: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """By round, the offsets of the commits with a sum."""
    finals: list[tuple[int, Finalised]] = field(default_factory=list)
    """The rounds that gave a model, with their offsets."""


class Audit:
    def __init__(self, plane: Plane):
        self.plane, self.memory = plane, plane.memory
        self.models: dict[tuple[str, str], np.ndarray] = {}
        """What the blocks that a manifest names must hold."""
        self.books: dict[tuple[str, str], Book] = {}
        self.found: dict[str, dict[str, bytes | None]] = {}

    def run(self) -> None:
        globe = self.accepted(GLOBAL)
        for f in (f for _, f in globe if isinstance(f, TaskAdmitted)):
            self.models[name(f.manifest)] = self.vector(f.manifest)
        # A zone's rounds need the global models of their epochs and the other way round: epoch by epoch.
        self.pending = {z: self.accepted(z) for z in self.plane.zones}
        self.position = dict.fromkeys(self.plane.zones, 0)
        self.globe(globe)
        for zone in self.plane.zones:
            self.zone(zone, len(self.memory.records(f"{NS}.{zone}.ledger")))
            self.told(zone)

    def accepted(self, zone: str) -> list[tuple[int, Any]]:
        ledger: Ledger[Any] = Ledger(Globe() if zone == GLOBAL else Zone())
        fed = [(r.offset, *ledger.feed(r)) for r in self.memory.records(f"{NS}.{zone}.ledger")]
        return [(offset, fact) for offset, fact, void in fed if not void]

    def vector(self, manifest: Manifest) -> np.ndarray:
        return self.plane.vector(manifest)

    def at_place(self, topic: str, place: Any, kind: type) -> Any:
        """What lies at a place: under its key, with its checksum."""
        found = self.found.get(topic)
        if found is None or place.key not in found:
            found = self.found[topic] = {
                r.key: r.value
                for p in range(len(self.memory.topics[topic]))
                for r in self.memory.records(topic, p)
                if r.key
            }
        return decode(found[place.key], (kind,))

    def model(self, manifest: Manifest, must: np.ndarray, where: str) -> None:
        """This manifest holds exactly that."""
        assert self.vector(manifest).tobytes() == must.tobytes(), f"{where}: another model"
        assert self.models.setdefault(name(manifest), must).tobytes() == must.tobytes(), (
            f"{where}: a place written twice"
        )

    # ------------------------------------------------------------------ zones

    def zone(self, zone: str, end: int) -> None:
        """Go on with a zone's ledger to before `end`."""
        for offset, f in self.pending[zone]:
            if self.position[zone] <= offset < end:
                for task in {x.task for x in f.slots} if isinstance(f, Admitted) else {getattr(f, "task", "")} - {""}:
                    p = self.plane.partitions
                    book = self.books.setdefault((zone, task), Book([0] * p, [1] * p))
                    self.fact(zone, task, book, offset, f)
        self.position[zone] = max(self.position[zone], end)

    def fact(self, zone: str, task: str, b: Book, offset: int, f: Any) -> None:
        where = f"{zone}@{offset} {type(f).__name__} of {task}, round {b.round} ({b.state})"
        match f:
            case Opened():
                assert (b.state, f.round) == ("finalised", b.round + 1), where
                assert name(f.base) in self.models, f"{where}: from a model nobody accepted"
                here = [x for _, x in b.finals if b.opened[x.round].epoch == f.epoch]
                right = f.base == here[-1].manifest if here else f.base.topic == f"{NS}.global.models"
                assert right, f"{where}: not from the epoch's last model"
                b.round, b.state, b.opened[f.round], b.staleness = f.round, "open", f, f.staleness
            case Admitted():
                for x in f.slots:
                    if x.task == task and (b.state, b.round) == ("open", x.round):
                        devices = b.slots[x.round]
                        assert x.slot == len(devices), f"{where}: slot {x.slot} after {len(devices)}"
                        assert x.device not in devices, f"{where}: two slots for one device"
                        devices.append(x.device)
                        b.owed[x.round, x.slot] = owed(x.blocks)
                        assert b.opened[x.round].partial or not x.blocks, f"{where}: a part of the model"
            case Committed():
                self.commit(zone, task, b, offset, f, where)
            case Closed():
                assert (b.state, b.round) == ("open", f.round), where
                b.state, b.ends[f.round] = "closed", f.ends
                self.turn(b)
            case Finalised():
                assert (b.state, b.round) == ("closed", f.round), where
                assert min(b.at) > f.round, f"{where}: not all shards were done"
                assert f.commits == tuple(b.commits[f.round]), f"{where}: not all commits"
                assert (f.devices, f.samples) == (b.devices[f.round], b.samples[f.round]), f"{where}: devices, samples"
                b.state, o = "finalised", b.opened[f.round]
                assert bool(f.manifest) == bool(f.devices >= o.minimum and f.commits), f"{where}: k of n"
                if f.manifest:
                    base = self.models[name(o.base)]
                    self.model(f.manifest, step(base, b.sums[f.round], b.weights[f.round], o.fraction), where)
                    b.finals.append((offset, f))

    def turn(self, b: Book) -> None:
        """Shards that have reached the end of their segment go on with the next."""
        for s, n in enumerate(b.at):
            if n in b.ends and b.next[s] >= b.ends[n][s]:
                b.at[s] = n + 1
                for slot, delta in b.held.pop(s, {}).items():
                    self.give_up(b, s, slot, delta)

    def give_up(self, b: Book, s: int, slot: tuple[int, int], delta: dict) -> list[int]:
        """A delta that is not whole counts in no part."""
        b.voided.add(slot)
        b.outcomes |= {(s, at): "incomplete" for at, _ in delta.values()}
        return [at for at, _ in delta.values()]

    def commit(self, zone: str, task: str, b: Book, offset: int, f: Committed, where: str) -> None:
        outcomes: Counter[str] = Counter()
        new: dict[int, set[tuple[int, int]]] = defaultdict(set)
        sums, weights = [np.zeros(n, np.int64) for n in LAYOUT.sizes], [0] * BLOCKS
        samples, done, voided = 0, [], []

        def count(d: DeltaBlock, s: int, at: int) -> None:
            outcomes["counted"] += 1
            b.outcomes[s, at] = "counted"
            b.counted.add((d.round, d.slot, d.block))
            new[d.round].add((d.slot, d.block))
            factor = max(1, math.isqrt(4 ** b.opened[d.round].fraction // (1 + f.round - d.round)))
            sums[d.block] += plain(d.codec, d.data, LAYOUT.sizes[d.block]) * 2**d.exponent * factor
            weights[d.block] += d.weight

        def whole(d: DeltaBlock) -> None:
            nonlocal samples
            done.append((d.round, d.slot))
            samples += d.samples

        for s, x in sorted(f.stretches.items()):
            assert (x.start, f.round) == (b.next[s], b.at[s]), f"{where}: shard {s} is at {b.next[s]} of {b.at[s]}"
            assert x.start < x.end <= len(self.memory.topics[f"{NS}.{zone}.deltas.{task}"][s]), where
            held, released = b.held[s], []
            for r in self.memory.records(f"{NS}.{zone}.deltas.{task}", s)[x.start : x.end]:
                outcome, d = self.judge(task, b, s, r)
                if outcome != "counted":
                    outcomes[outcome] += 1
                    b.outcomes[s, r.offset] = outcome
                elif not b.opened[d.round].atomic:
                    count(d, s, r.offset)
                    if all((d.round, d.slot, i) in b.counted for i in b.owed[d.round, d.slot]):
                        whole(d)
                else:
                    delta = held.setdefault((d.round, d.slot), {})
                    delta[d.block] = r.offset, d
                    if delta.keys() == b.owed[d.round, d.slot]:
                        for at, block in held.pop((d.round, d.slot)).values():
                            count(block, s, at)
                            released.append(at)
                        whole(d)
                    while sum(len(y.data) for z in held.values() for _, y in z.values()) > b.opened[d.round].hold:
                        oldest = next(iter(held))
                        gone = self.give_up(b, s, oldest, held.pop(oldest))
                        outcomes["incomplete"] += len(gone)
                        released += gone
                        voided.append(oldest)
            left = {at for z in held.values() for at, _ in z.values() if at >= x.start}
            assert {h.offset for h in f.held.get(s, ())} == left, f"{where}: held in shard {s}, not {left}"
            assert sorted(f.released.get(s, ())) == sorted(at for at in released if at < x.start), (
                f"{where}: {released}"
            )
            b.next[s] = x.end
        assert +Counter({k: getattr(f.counts, k) for k in f.counts.__struct_fields__}) == outcomes, (
            f"{where}: {outcomes}"
        )
        assert sorted((x.round, x.slot) for x in f.done) == sorted(done), f"{where}: who is done"
        assert sorted((x.round, x.slot) for x in f.voided) == sorted(voided), f"{where}: who is given up"
        assert f.samples == samples, f"{where}: samples"
        if new:
            assert f.bitmap, where
            bits = self.at_place(f"{NS}.{zone}.partials", f.bitmap, Counted)
            assert checksum(encode(bits.bits)) == f.bitmap.checksum, f"{where}: another bitmap"
            assert {n: set_of(packed) for n, packed in bits.bits.items()} == new, f"{where}: another bitmap"
            assert list(f.weights) == weights, f"{where}: weights"
            for i, place in enumerate(f.sums):
                assert bool(place) == bool(weights[i]), where
                if place:
                    data = self.at_place(f"{NS}.{zone}.partials", place, SumBlock).data
                    assert bytes(data) == sums[i].tobytes(), f"{where}: another sum"
            b.commits[f.round].append(offset)
            have = b.sums.setdefault(f.round, [np.zeros(n, np.int64) for n in LAYOUT.sizes])
            b.sums[f.round] = [x + y for x, y in zip(have, sums, strict=True)]
            b.weights[f.round] = [x + y for x, y in zip(b.weights.get(f.round, [0] * BLOCKS), weights, strict=True)]
        else:
            assert not any(f.sums), f"{where}: a sum of nothing"
        b.samples[f.round] += samples
        b.devices[f.round] += len(done)
        self.turn(b)

    def judge(self, task: str, b: Book, s: int, r: Any) -> tuple[str, Any]:
        """The outcome of one record of a delta log, by the letter of the design."""
        try:
            d = decode(r.value, (DeltaBlock,), r.headers)
        except Malformed:
            return "invalid", None
        if d.task != task or r.key != d.device or shard_of(d.device, len(b.at)) != s:
            return "invalid", d
        if d.round < b.at[s] - b.staleness - 1:
            return "late", d  # its bitmaps are forgotten
        if d.slot >= len(b.slots[d.round]) or b.slots[d.round][d.slot] != d.device:
            return "invalid", d
        o = b.opened[d.round]
        try:
            values = plain(d.codec, d.data, o.sizes[d.block]).astype(object) * 2**d.exponent
        except (ValueError, IndexError):
            return "invalid", d
        if d.block not in b.owed[d.round, d.slot]:
            return "invalid", d
        if abs(values).max() > o.largest:
            return "invalid", d
        if (d.round, d.slot) in b.voided:
            return "incomplete", d
        if (d.round, d.slot, d.block) in b.counted or d.block in b.held[s].get((d.round, d.slot), ()):
            return "duplicate", d
        return ("late" if d.round < b.at[s] - b.staleness else "counted"), d

    def told(self, zone: str) -> None:
        """What devices heard agrees with the ledger; it may be missing or come twice."""
        for p in range(self.plane.partitions):
            for r in self.memory.records(f"{NS}.{zone}.receipts", p):
                m: Any = read(r.topic, r.value, r.headers)
                assert isinstance(m, Receipt)
                if m.outcome == "invalid":
                    continue  # it goes to the device that the block names, who need not be the sender
                assert len(m.blocks) == len(m.offsets)
                for offset in m.offsets:
                    said = self.books[zone, m.task].outcomes.get((p, offset))
                    assert said == m.outcome, f"{zone}: a receipt says {m.outcome} of {p}/{offset}, the ledger {said}"
            for r in self.memory.records(f"{NS}.{zone}.admissions", p):
                m = read(r.topic, r.value, r.headers)
                if isinstance(m, Admission):
                    slots = self.books[zone, m.task].slots[m.round]
                    assert slots[m.slot : m.slot + 1] == [m.device], f"{zone}: {m} is not what the ledger says"

    # ------------------------------------------------------------------ the globe

    def globe(self, facts: list[tuple[int, Any]]) -> None:
        state: dict[str, tuple[int, str]] = {}
        taken: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(self.plane.zones, 0))
        updates: dict[str, dict[str, Any]] = {}
        last: dict[str, Manifest] = {}
        for offset, f in facts:
            task = getattr(f, "task", "")
            where = f"global@{offset} {type(f).__name__} of {task}"
            match f:
                case TaskAdmitted():
                    assert f.spec.task not in state, where
                    state[f.spec.task], last[f.spec.task] = (0, "merged"), f.manifest
                case EpochOpened():
                    assert (f.epoch - 1, "merged") == state[task], where
                    assert f.manifest == last[task], where
                    state[task], updates[task] = (f.epoch, "open"), {}
                case EpochClosed():
                    assert (f.epoch, "open") == state[task], where
                    state[task] = (f.epoch, "closed")
                    for zone, end in f.ends.items():
                        self.zone(zone, end)
                case Taken():
                    assert f.epoch == state[task][0], where
                    for zone, (start, end) in f.ranges.items():
                        assert start == taken[task][zone], f"{where}: zone {zone} is taken up to {taken[task][zone]}"
                        taken[task][zone] = end
                        book = self.books.get((zone, task))
                        rounds = [x for at, x in book.finals if start <= at < end] if book else []
                        said = next((u for u in f.updates if u.zone == zone), None)
                        assert bool(said) == bool(rounds), f"{where}: zone {zone}"
                        if said:
                            assert zone not in updates[task], f"{where}: zone {zone} twice"
                            assert said.manifest == rounds[-1].manifest, f"{where}: not the last model of {zone}"
                            epochs = [
                                book.opened[x.round].epoch for x in rounds
                            ]  # a late round of the one before is in no model
                            built = [x for x, e in zip(rounds, epochs, strict=True) if e == epochs[-1]]
                            assert said.samples == sum(x.samples for x in built), f"{where}: samples of {zone}"
                            heavy = [sum(book.weights[x.round][i] for x in built) for i in range(BLOCKS)]
                            assert list(said.weights or (said.samples,) * BLOCKS) == heavy, (
                                f"{where}: weights of {zone}"
                            )
                            updates[task][zone] = said
                case Merged():
                    assert (f.epoch, "closed") == state[task], where
                    state[task], mine = (f.epoch, "merged"), updates[task]
                    assert bool(f.manifest) == bool(mine), where
                    if f.manifest:
                        models = [self.models[name(mine[z].manifest)] for z in sorted(mine)]
                        heavy = [list(mine[z].weights or (mine[z].samples,) * BLOCKS) for z in sorted(mine)]
                        self.model(f.manifest, merged(self.models[name(last[task])], models, heavy), where)
                        last[task] = f.manifest
                case TaskEnded():
                    assert state[task][1] == "merged", where
                    state[task] = (state[task][0], "ended")


def name(manifest: Manifest) -> tuple[str, str]:
    """What no two models share: the key of the first block, in its topic."""
    return manifest.topic, manifest.blocks[0].key


def set_of(packed: bytes) -> set[tuple[int, int]]:
    """The (slot, block) pairs in a bitmap."""
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    return {divmod(int(i), BLOCKS) for i in np.flatnonzero(bits)}


def owed(blocks: bytes) -> set[int]:
    """The blocks of a slot."""
    return {b for _, b in set_of(blocks)} if blocks else set(range(BLOCKS))
