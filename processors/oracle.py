"""What each block of a round must have been: a plain reading of the rules, beside the aggregator's own code, which it does not
use. Give the `Oracle` every block of the round's segment, commit by commit.

Taken as given: the fold (which facts are accepted), and what the commits of earlier rounds say was counted before. An audit of
those rounds checks that.
"""

import re
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np
import numpy.typing as npt
from zstandard import ZstdDecompressor, ZstdError, get_frame_parameters

from learning.aggregation import staleness_factor
from processors.story import Entry, Seat, Story
from schemas.blocks import MOST_LOSS, Counted, DeltaBlock, slices
from schemas.facts import Counts, Done, Held, Opened
from schemas.partitioner import shard_of
from schemas.topics import read
from schemas.wire import Malformed
from streams.processor import Record

OUTCOMES = Counts.__struct_fields__
COUNTED, DUPLICATE, LATE, INVALID, INCOMPLETE = OUTCOMES
Bits = dict[int, npt.NDArray[np.bool_]]
"""By base round: slots × blocks, what is counted."""
Int64 = npt.NDArray[np.int64]
HELD = "held"
# ------------------------------------------------------------------ what each block is


@dataclass(frozen=True)
class Seen:
    """A block of the segment and what became of it. Without a readable block, `device` is the record's key."""

    shard: int
    offset: int
    commit: int
    outcome: str
    reason: str
    device: str
    round: int = -1
    slot: int = -1
    block: int = -1
    weight: int = 0
    samples: int = 0
    loss: int = 0

    def become(self, outcome: str, commit: int | None = None) -> "Seen":
        return replace(self, outcome=outcome, commit=self.commit if commit is None else commit)


@dataclass
class Sum:
    """What a commit must say."""

    counts: dict[str, int]
    weights: list[int]
    total: Int64
    bits: Bits
    held: dict[int, dict[int, Held]] = field(default_factory=dict)
    """By shard and offset, blocks that still wait for the rest of their delta when the commit ends."""
    released: dict[int, set[int]] = field(default_factory=dict)
    """By shard, offsets that earlier commits held."""
    voided: list[Done] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    samples: int = 0
    loss: int = 0


class Oracle:
    """Judges the blocks of a round's segment. Each shard's come in the order of its log, one commit's after the other's.

    `known`: what earlier rounds counted. Memory: one sum of the model's size, and a bit for each slot and block.
    """

    def __init__(self, story: Story, shards: int, known: Bits, trace: bool = False):
        self.story, self.n, self.shards, self.known = story, story.n, shards, known
        self.seen: dict[tuple[int, int], Seen] | None = {} if trace else None
        """By shard and offset, if asked for: it grows with the blocks."""
        self.entry: Entry | None = None
        self.sum = self._empty()
        self.claimed: Bits | None = None
        self.held: dict[int, dict[tuple[int, int], dict[int, tuple[int, DeltaBlock]]]] = {}
        """By shard and (base round, slot), oldest first: block -> (offset, block) of deltas that are not whole yet."""
        self.voided: set[tuple[int, int]] = set()
        """Slots given up since the segment began."""
        self.early: list[str] = []
        """Blocks that came so near to their slot's admission that either verdict on them is right."""

    @property
    def opened(self) -> Opened | None:
        return self.story.chapter.opened

    def _empty(self) -> Sum:
        sizes = self.opened.sizes if self.opened else ()
        return Sum(dict.fromkeys(OUTCOMES, 0), [0] * len(sizes), np.zeros(sum(sizes), np.int64), {})

    def begin(self, entry: Entry, claimed: Bits | None) -> None:
        """The blocks of this commit are next. `claimed`: what its own bitmap says, if that is still there."""
        last = self.entry.offset if self.entry else 0
        for offset, s in self.story.chapter.resets:
            if last < offset < entry.offset:
                self.held.pop(s, None)
        self.entry, self.claimed, self.sum = entry, claimed, self._empty()

    def block(self, record: Record) -> str:
        """The next block of a shard: its outcome."""
        assert self.entry
        b: DeltaBlock | None = None
        try:
            message = read(record.topic, record.value, record.headers)
            assert isinstance(message, DeltaBlock)
            b = message
            outcome, reason = self._judge(record, b)
        except Malformed as e:
            outcome, reason = INVALID, str(e)
        if b and outcome == COUNTED and self.story.chapters[b.round].opened.atomic:  # type: ignore[union-attr]
            outcome = self._wait(record, b)
        else:
            self.sum.counts[outcome] += 1
            if b and outcome == COUNTED:
                self._count(b)
                if self.known[b.round][b.slot][self._owed(b)].all():
                    self._done(b)
        if self.seen is not None:
            where = record.partition, record.offset, self.entry.offset, outcome, reason
            what = (b.device, b.round, b.slot, b.block, b.weight, b.samples, b.loss) if b else (record.key or "",)
            self.seen[record.partition, record.offset] = Seen(*where, *what)
        return outcome

    def _judge(self, record: Record, b: DeltaBlock) -> tuple[str, str]:
        """In this order: invalid, incomplete (the slot is given up), duplicate, late, counted; but what is older than any
        bitmap is late unseen."""
        assert self.entry
        if b.task != self.story.task:
            return INVALID, f"a block of task {b.task}"
        if b.device != record.key or shard_of(b.device, self.shards) != record.partition:
            return INVALID, "not in the shard of its device"
        staleness = self.opened.staleness if self.opened else self._staleness()
        if b.round < self.n - staleness - 1:
            return LATE, ""
        c = self.story.chapters.get(b.round)
        seat = c.seats[b.slot] if c and b.slot < len(c.seats) else None
        if c is None or c.opened is None or seat is None or seat.admitted > self.entry.offset:
            return INVALID, f"round {b.round} has no slot {b.slot}"
        if reason := self._flaw(c.opened, seat, b):
            return INVALID, reason
        key = b.round, b.slot
        if key in self.voided or c.voided.get(b.slot, self.entry.offset) < self.entry.offset:
            return INCOMPLETE, "its slot is given up"
        if self._is(self.known, b) or b.block in self.held.get(record.partition, {}).get(key, ()):
            return DUPLICATE, ""
        if self.n - b.round > c.opened.staleness:
            return LATE, ""
        if seat.admitted > self.entry.since.get(record.partition, 0) and not self._claimed(record, b):
            self.early.append(
                f"shard {record.partition} offset {record.offset}: the commit at {self.entry.offset} did not count a "
                f"block of slot {b.slot}, which was given at {seat.admitted}, about when it was judged"
            )
            return INVALID, f"round {b.round} had no slot {b.slot} yet"
        return COUNTED, ""

    def _staleness(self) -> int:
        """Before the round is opened, that of the one before holds."""
        before = [c.opened.staleness for n, c in sorted(self.story.chapters.items()) if c.opened and n < self.n]
        return before[-1] if before else 0

    def _flaw(self, o: Opened, seat: Seat, b: DeltaBlock) -> str:
        """What is wrong with a block in itself; every limit is in the `Opened` of the round it names."""
        if seat.device != b.device:
            return f"slot {b.slot} of round {b.round} is not this device's"
        if b.block >= len(o.sizes):
            return f"the model has {len(o.sizes)} blocks"
        if not self._owed(b)[b.block]:
            return f"slot {b.slot} of round {b.round} owes no block {b.block}"
        if not 1 <= b.weight <= o.heaviest or not 1 <= b.samples <= o.heaviest:
            return f"weight {b.weight} or samples {b.samples} is not in 1 to {o.heaviest}"
        if b.loss > b.samples * MOST_LOSS:
            return f"a loss of {b.loss} millionths over {b.samples} samples is absurd"
        try:
            q = plain(b.codec, b.data, o.sizes[b.block])
        except ValueError as e:
            return f"block {b.block}: {e}"
        if not 0 <= b.exponent <= 62 or max(-int(q.min()), int(q.max())) << b.exponent > o.largest:
            return "a value is larger than the task allows"
        return ""

    def _owed(self, b: DeltaBlock) -> npt.NDArray[np.bool_]:
        """Which blocks the slot's delta has."""
        c = self.story.chapters[b.round]
        assert c.opened
        n, owed = len(c.opened.sizes), c.seats[b.slot].blocks
        return np.unpackbits(np.frombuffer(owed, np.uint8))[:n].astype(np.bool_) if owed else np.ones(n, np.bool_)

    def _is(self, bits: Bits, b: DeltaBlock) -> bool:
        rows = bits.get(b.round)
        return rows is not None and b.slot < len(rows) and bool(rows[b.slot, b.block])

    def _claimed(self, record: Record, b: DeltaBlock) -> bool:
        """Whether the commit says that it knew the block's slot: it counts the block, holds it or gave its slot up."""
        assert self.entry
        f, slot = self.entry.fact, Done(round=b.round, slot=b.slot)
        held = any(h.offset == record.offset for h in f.held.get(record.partition, ()))
        return self.claimed is None or held or slot in f.voided or self._is(self.claimed, b)

    def _count(self, b: DeltaBlock) -> None:
        """Add w·δ, weighed by its staleness."""
        c = self.story.chapters[b.round]
        assert c.opened
        o = c.opened
        factor = staleness_factor(self.n - b.round, o.fraction)
        q = plain(b.codec, b.data, o.sizes[b.block])
        self.sum.total[slices(o.sizes)[b.block]] += (q << b.exponent) * factor
        self.sum.weights[b.block] += b.weight
        for bits in (self.known, self.sum.bits):
            rows = bits.get(b.round)
            if rows is None or b.slot >= len(rows):
                more = np.zeros((len(c.seats), len(o.sizes)), np.bool_)
                if rows is not None:
                    more[: len(rows)] = rows
                bits[b.round] = more
            bits[b.round][b.slot, b.block] = True

    def _done(self, b: DeltaBlock) -> None:
        """With this block its delta is whole."""
        self.sum.done.append(Done(round=b.round, slot=b.slot))
        self.sum.samples += b.samples
        self.sum.loss += b.loss

    def _wait(self, record: Record, b: DeltaBlock) -> str:
        """A block of a delta that counts whole or not at all. Beyond the limit the oldest deltas are given up."""
        o = self.story.chapters[b.round].opened
        assert o
        s, key = record.partition, (b.round, b.slot)
        deltas = self.held.setdefault(s, {})
        deltas.setdefault(key, {})[b.block] = record.offset, b
        held = Held(offset=record.offset, round=b.round, slot=b.slot, block=b.block)
        self.sum.held.setdefault(s, {})[record.offset] = held
        outcome = HELD
        if set(deltas[key]) == set(np.flatnonzero(self._owed(b)).tolist()):
            for block in self._release(s, key, COUNTED):
                self._count(block)
            self._done(b)
            outcome = COUNTED
        while sum(len(x.data) for delta in deltas.values() for _, x in delta.values()) > o.hold:
            oldest = next(iter(deltas))
            self._release(s, oldest, INCOMPLETE)
            self.voided.add(oldest)
            self.sum.voided.append(Done(round=oldest[0], slot=oldest[1]))
            outcome = INCOMPLETE if oldest == key else outcome
        return outcome

    def _release(self, s: int, key: tuple[int, int], outcome: str) -> list[DeltaBlock]:
        """The blocks of a held delta have this outcome, in this commit."""
        blocks = []
        for offset, b in self.held[s].pop(key).values():
            if self.sum.held[s].pop(offset, None) is None:
                self.sum.released.setdefault(s, set()).add(offset)
            self.sum.counts[outcome] += 1
            if self.seen and (s, offset) in self.seen and self.entry:
                self.seen[s, offset] = self.seen[s, offset].become(outcome, self.entry.offset)
            blocks.append(b)
        return blocks


# ------------------------------------------------------------------ codecs


def plain(codec: str, data: memoryview, size: int) -> Int64:
    """All values of a block, zeros where none was sent. Raises `ValueError` for what no device should send."""
    form = re.fullmatch(r"(top-k\+)?int(32|16|8)(\+zstd)?", codec, re.ASCII)
    if form is None:
        raise ValueError(f"codec {codec} is not known")
    sparse, width, raw = bool(form[1]), int(form[2]) // 8, bytes(data)
    if form[3]:
        try:
            long, frame = get_frame_parameters(raw).content_size, ZstdDecompressor().decompressobj()
            if (
                not 0 < long <= size * (width + 2 * sparse)
            ):  # the same number stands for "unknown", and is beyond any bound
                raise ValueError(f"a frame of {long} bytes is not one of {size} values")
            raw = frame.decompress(raw)
        except ZstdError as e:
            raise ValueError(f"no zstd frame: {e}") from None
        if not frame.eof or frame.unused_data or len(raw) != long:
            raise ValueError("not one whole zstd frame")
    n = len(raw) // (width + 2 * sparse)
    if n * (width + 2 * sparse) != len(raw) or not (1 <= n <= size if sparse else n == size):
        raise ValueError(f"{len(raw)} bytes are not {size} values")
    q = np.frombuffer(raw[2 * n * sparse :], f"<i{width}").astype(np.int64)
    if not sparse:
        return q
    at = list(accumulate(np.frombuffer(raw[: 2 * n], "<u2").tolist()))
    if len(set(at)) < n or at[-1] >= size:
        raise ValueError("a position comes twice or is not in the block")
    values = np.zeros(size, np.int64)
    values[at] = q
    return values


# ------------------------------------------------------------------ bitmaps


def unpack(counted: Counted) -> Bits:
    """The bitmap of a commit."""
    out = {}
    for n, packed in counted.bits.items():
        flat = np.unpackbits(np.frombuffer(packed, np.uint8)).astype(np.bool_)
        out[n] = flat[: len(flat) // counted.blocks * counted.blocks].reshape(-1, counted.blocks)
    return out


def join(into: Bits, more: Bits) -> None:
    """Add what `more` counts."""
    for n, rows in more.items():
        have = into.get(n)
        if have is None or len(have) < len(rows):
            grown = np.zeros(rows.shape, np.bool_)
            if have is not None:
                grown[: len(have)] = have
            into[n] = have = grown
        have[: len(rows)] |= rows
