"""One task at one aggregator: what its shards have read, what its accumulators hold, what was said of each slot before."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from learning.codecs import Values
from processors.accumulator import Accumulator, Bitmap, Bitmaps, Told
from processors.judge import COUNTED, INCOMPLETE, Verdict
from processors.landed import Landed
from schemas.blocks import DeltaBlock
from schemas.facts import Done, Held
from streams.ledger import Round, ZoneTask
from streams.processor import Record

Delta = dict[int, tuple[int, DeltaBlock]]
"""The blocks of a delta that is not whole yet: block -> (offset, block)."""


@dataclass
class Shard:
    """One shard of one task: what is read and waits to be judged, from `position` on.

    A shard begins at the fold's next offset, or before it at the first block it holds: what lies between and is not held
    was dealt with before (`recall`: the held ones that are still to be read again, by offset). That is so only if the log still
    reaches to the fold's next offset (`reaches`): else what lies there now may be something new.
    """

    token: int
    start: int
    position: int
    round: int
    recall: dict[int, Held] = field(default_factory=dict)
    queue: deque[Record] = field(default_factory=deque)
    paused: bool = False
    """Its queue is full."""
    waits: bool = False
    """Another task comes first (`processors/order.py`). It is read if neither holds."""
    reaches: bool = True
    read_to: int | None = None
    """The next block is judged when the ledger is read to here; -1: asked where that is."""
    held: dict[tuple[int, int], Delta] = field(default_factory=dict)
    """By (base round, slot), oldest first: deltas that are not whole yet."""
    bytes: int = 0
    """Of these."""
    follow: int = 0
    """Which `Follow` it is read by: a refusal of an earlier one is of no interest."""
    short: int | None = None
    """Since when the log ends before a closed round does."""
    gap: tuple[int, int] | None = None
    """Where the log begins and ends, if it does not hold `position` any more."""
    told: int = 0
    """When the ledger was last told of that."""

    def keep(self, offset: int, b: DeltaBlock) -> Delta:
        delta = self.held.setdefault((b.round, b.slot), {})
        delta[b.block] = (offset, b)
        self.bytes += len(b.data)
        return delta

    def let_go(self, key: tuple[int, int]) -> Delta:
        delta = self.held.pop(key)
        self.bytes -= sum(len(b.data) for _, b in delta.values())
        return delta

    def move(self, round: int) -> None:
        """The shard is in this round now; what it held in the one before is given up, as the fold says."""
        if round != self.round:
            self.round, self.bytes = round, 0
            self.held.clear()
            self.recall.clear()


@dataclass
class Work:
    """One task at this aggregator.

    By round there is one accumulator that blocks go into (`open`), and perhaps one before it whose commit is under way
    (`committing`), so that reading does not wait for the ledger.
    """

    task: str
    topic: str
    shards: dict[int, Shard] = field(default_factory=dict)
    open: dict[int, Accumulator] = field(default_factory=dict)
    committing: dict[int, Accumulator] = field(default_factory=dict)
    bitmaps: Bitmaps = field(default_factory=Bitmaps)
    blocks: int = 0
    bytes: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    landed: Landed = field(default_factory=Landed)
    stirred: bool = False
    """Something was read that may make a commit due."""

    @property
    def unread(self) -> int:
        """Blocks known to lie in the logs of its shards and not read."""
        return sum(max(0, self.landed.ends.get(s, 0) - shard.position) for s, shard in self.shards.items())

    @property
    def readable(self) -> bool:
        """Whether there are some whose reading waits for nothing that is under way here."""
        ends = self.landed.ends
        return any(not shard.queue and shard.position < ends.get(s, 0) for s, shard in self.shards.items())

    def accumulators(self) -> Iterator[Accumulator]:
        yield from self.committing.values()
        yield from self.open.values()

    # ------------------------------------------------------------------ what was said before

    def _maps(self, base: int) -> list[Bitmap]:
        """What is counted of a base round, by accepted commits and here; no block is in two of them."""
        maps = (self.bitmaps.known.get(base), *(a.bitmaps.get(base) for a in self.accumulators()))
        return [bitmap for bitmap in maps if bitmap]

    def known(self, round: int, slot: int, block: int) -> bool:
        if any(bitmap.has(slot, block) for bitmap in self._maps(round)):
            return True
        return any(shard.held and block in shard.held.get((round, slot), ()) for shard in self.shards.values())

    def given_up(self, round: int, slot: int) -> bool:
        return any(Done(round=round, slot=slot) in acc.voided for acc in self.accumulators())

    # ------------------------------------------------------------------ blocks

    def take(self, acc: Accumulator, s: int, offset: int, b: DeltaBlock | None, verdict: Verdict, t: ZoneTask) -> None:
        """The shard's next block goes into the accumulator, as it was judged. `b` None: it could not be read."""
        shard, outcome = self.shards[s], verdict.outcome
        acc.cover(s, shard.token, offset)
        shard.position = offset + 1
        if b is None:
            acc.tally(outcome)
        elif outcome == COUNTED:
            base = t.rounds[b.round]
            assert base.opened
            if base.opened.atomic:
                self.wait(acc, s, b, offset, base)
            else:
                self.count(acc, b, offset, base, verdict.values)
        else:
            self.said(acc, b, offset, outcome)

    def count(self, acc: Accumulator, b: DeltaBlock, offset: int, r: Round, values: Values | None) -> None:
        """Add a block that counts; it is one of a delta that may count in part. `r` is the round it is based on."""
        assert r.opened
        acc.count(b, r.opened, values)
        self.said(acc, b, offset, COUNTED)
        if sum(bitmap.count(b.slot) for bitmap in self._maps(b.round)) == r.owed(b.slot):
            acc.complete(b)

    def wait(self, acc: Accumulator, s: int, b: DeltaBlock, offset: int, r: Round) -> None:
        """Hold a block until its delta is whole; count the delta if it now is. Beyond the limit the oldest is given up."""
        assert r.opened
        o, shard, key = r.opened, self.shards[s], (b.round, b.slot)
        acc.hold(s, Held(offset=offset, round=b.round, slot=b.slot, block=b.block))
        if len(shard.keep(offset, b)) == r.owed(b.slot):
            for at, block in shard.let_go(key).values():
                acc.release(s, at)
                acc.count(block, o)
                self.said(acc, block, at, COUNTED)
            acc.complete(b)
        while shard.bytes > o.hold:
            oldest = next(iter(shard.held))
            acc.voided.append(Done(*oldest))
            for at, block in shard.let_go(oldest).values():
                acc.release(s, at)
                self.said(acc, block, at, INCOMPLETE)

    def said(self, acc: Accumulator, b: DeltaBlock, offset: int, outcome: str) -> None:
        """The block has its outcome; its device hears of it when the commit is accepted."""
        acc.tally(outcome)
        acc.tell(Told(b.device, self.task, b.round, b.slot, outcome), b.block, offset)

    # ------------------------------------------------------------------ what is alive

    def drop(self, t: ZoneTask, held: dict[int, int]) -> None:
        """Drop every accumulator that is not alive, with those it shares a shard with: their shards are read again."""
        while dead := [acc for acc in self.accumulators() if not self._alive(acc, t, held)]:
            shards = {s for acc in dead for s in acc.ranges}
            for kind in (self.open, self.committing):
                for n, acc in list(kind.items()):
                    if not shards.isdisjoint(acc.ranges):
                        del kind[n]
                        shards |= acc.ranges.keys()
            for s in shards & self.shards.keys():
                self.shards[s].token = 0

    def _alive(self, acc: Accumulator, t: ZoneTask, held: dict[int, int]) -> bool:
        before = self.committing.get(acc.round)
        for s, (token, start, _) in acc.ranges.items():
            next = t.next[s]
            if before and before is not acc and s in before.ranges:
                next = before.ranges[s][2]
            if held.get(s) != token or next != start or t.at[s] != acc.round:
                return False
        return True

    def resume(self, t: ZoneTask, s: int, token: int) -> Shard:
        """Read a shard from where the fold is, and before it what the fold holds."""
        recall = {h.offset: h for h in t.held[s]}
        self.shards[s] = Shard(token, t.next[s], min((t.next[s], *recall)), t.at[s], recall, reaches=not recall)
        return self.shards[s]

    def uncommitted(self, s: int) -> bool:
        """Whether what was read of this shard is not committed yet."""
        return any(s in acc.ranges for acc in self.accumulators())
