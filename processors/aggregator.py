"""The shared-task actor (OLearning §6): any aggregator works for any task, on the shards it holds.

Each block is judged and added on arrival to one accumulator per (task, round). Its life, and the one way a sum gets into a
model (design: Commit, Drop, Take-over):

1. claim the shards the group gives; what the ledger says one holds, one reads, from the fold's next offset;
2. fetch the bitmaps of the commits that cover these shards, so that a block counted before is known;
3. judge each block in the order of the log, add what counts, note it in the accumulator's own bitmap;
4. sum and bitmap go to the partials, acknowledged; then `Committed` is appended, and read back;
5. accepted: the bitmap is known from now on. Any other way an accumulator stops being alive (its shards' token, next
   offset or round is no longer its own), it is dropped with its bitmap, and its shards are read again from the fold.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from processors.accumulator import Accumulator, Bitmaps
from processors.claims import Claims
from processors.judge import COUNTED, INVALID, judge
from processors.offers import AGAIN
from schemas.blocks import DeltaBlock
from schemas.facts import Admitted, Claimed, Committed
from schemas.messages import AggregatorReport, Receipt, TaskLoad
from schemas.partitioner import shard_of
from schemas.topics import GLOBAL, read, topic
from schemas.wire import Malformed, Message
from streams.ledger import Ledger, UnknownRules, Zone, ZoneTask, shards_of
from streams.letters import dead_letter
from streams.processor import (
    Answer,
    Assigned,
    Effect,
    Ends,
    Fetch,
    Follow,
    Input,
    Membership,
    Pause,
    Record,
    Requests,
    Resume,
    Send,
    Stop,
    Tick,
    Unfollow,
    send,
)

COMMIT_INTERVAL = 500
"""A commit at least every so many ms."""
FULL, LOW = 16, 4
"""Records of a shard that wait in memory: pause at FULL, resume at LOW."""


@dataclass
class Shard:
    """One shard of one task: what is read and waits to be judged, from `position` on."""

    token: int
    position: int
    queue: deque[Record] = field(default_factory=deque)
    paused: bool = False
    read_to: int | None = None
    """The next block is judged when the ledger is read to here; -1: asked where that is."""


@dataclass
class Work:
    """One task at this aggregator. Accumulators by round."""

    topic: str
    shards: dict[int, Shard] = field(default_factory=dict)
    accumulators: dict[int, Accumulator] = field(default_factory=dict)
    bitmaps: Bitmaps = field(default_factory=Bitmaps)
    blocks: int = 0
    bytes: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    unread: int = 0

    def row(self, base: int, slot: int) -> npt.NDArray[np.bool_]:
        """Which blocks of a slot are counted, by accepted commits or here; empty if none is."""
        held = (self.bitmaps.known.get(base), *(a.bitmaps.get(base) for a in self.accumulators.values()))
        rows = [bitmap.row(slot) for bitmap in held if bitmap]
        return np.logical_or.reduce(rows) if rows else np.zeros(0, np.bool_)


class Aggregator:
    def __init__(
        self,
        namespace: str,
        zone: str,
        name: str,
        life: str,
        commit_interval: int = COMMIT_INTERVAL,
        report_interval: int = 1_000,
    ):
        self.name, self.life, self.zone_name, self.namespace = name, life, zone, namespace
        self.commit_interval, self.report_interval = commit_interval, report_interval
        self.tick = min(100, commit_interval)
        self.ledger_topic = topic(namespace, zone, "ledger")
        self.partials = topic(namespace, zone, "partials")
        self.receipts = topic(namespace, zone, "receipts")
        self.metrics = topic(namespace, GLOBAL, "metrics")
        self.membership: Membership | None = Membership(
            f"{namespace}.{zone}.aggregators", topic(namespace, zone, "shards").name
        )
        self.ledger: Ledger[Zone] = Ledger(Zone())
        self.claims = Claims(name, life)
        self.work: dict[str, Work] = {}
        self.requests = Requests()
        self.caught_up: int | None = None
        self.stored = 0
        self.reported = 0

    # ------------------------------------------------------------------ inputs

    def start(self, now: int) -> Iterator[Effect]:
        yield Follow(self.ledger_topic.name, 0, 0)
        yield Ends(self.requests.new(("caught up",)), self.ledger_topic.name)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Record(topic=name) if name == self.ledger_topic.name:
                yield from self._ledger(event, now)
            case Record():
                yield from self._block(event, now)
            case Assigned(seats):
                self.claims.want(seats)
                for task in self.work:
                    yield from self._take(task, now)
            case Answer():
                yield from self._answer(event, now)
            case Tick():
                yield from self._tick(now)
        yield from self._claim(now)

    @property
    def zone(self) -> Zone:
        return self.ledger.state

    def _answer(self, answer: Answer, now: int) -> Iterator[Effect]:
        asked = self.requests.close(answer.tag)
        if asked is None:
            return
        if answer.error:
            yield Stop(f"{asked[0]}: {answer.error}")
            return
        match asked:
            case ("caught up",):
                self.caught_up = answer.value[0]
            case ("fresh", str(task), int(s), int(position)):
                shard = self.work[task].shards.get(s) if task in self.work else None
                if shard and shard.position == position and shard.read_to == -1:
                    shard.read_to = answer.value[0]
                    yield from self._take(task, now)
            case ("bitmap", str(task), int(offset)):
                yield from self._bitmap(task, offset, answer.value, now)
            case ("stored", str(task), int(n), str(key)):
                yield from self._stored(task, n, key, answer.value, now)
            case ("unread", str(task)) if task in self.work:
                work, t = self.work[task], self.zone.tasks[task]
                work.unread = sum(max(0, answer.value[s] - t.next[s]) for s in work.shards)

    def _tick(self, now: int) -> Iterator[Effect]:
        for task in list(self.work):
            yield from self._settle(task, now)
            for acc in self.work[task].accumulators.values():
                if acc.fact and now - acc.sent >= AGAIN:  # an append is an offer: the same one again harms nothing
                    acc.sent = now
                    yield send(self.ledger_topic, acc.fact)
        if now - self.reported >= self.report_interval:
            self.reported = now
            yield self._report(now)
            for task, work in self.work.items():
                if not self.requests.asked(("unread", task)):
                    yield Ends(self.requests.new(("unread", task)), work.topic)

    def _claim(self, now: int) -> Iterator[Effect]:
        if self.caught_up is None or self.zone.position < self.caught_up:
            return  # a claim names the token it replaces: that must be today's
        if claim := self.claims.make(dict(enumerate(self.zone.shards)), now):
            yield send(self.ledger_topic, claim)

    # ------------------------------------------------------------------ the ledger

    def _ledger(self, record: Record, now: int) -> Iterator[Effect]:
        try:
            fact, void = self.ledger.feed(record)
        except UnknownRules as e:
            yield Stop(str(e))
            return
        ours = isinstance(fact, Committed) and fact.task in self.work and self._verdict(fact, record.offset, void)
        held = shards_of(self.zone, self.name, self.life)
        for task in self._touched(fact):
            t = self.zone.tasks[task]
            if t.retired:
                yield from self._leave(self.work.pop(task, None))
            elif held or task in self.work:
                work = self.work.setdefault(task, Work(topic(self.namespace, self.zone_name, "deltas", task).name))
                yield from self._hold(work, t, held)
                if isinstance(fact, Committed):
                    if not void and work.bitmaps.note(record.offset, fact, work.shards):
                        yield self._fetch(task, record.offset, fact)
                elif not isinstance(fact, Admitted):
                    yield from self._load(task, work, t)
                yield from self._take(task, now)
        if isinstance(ours, list):
            yield from ours
        elif ours and any(acc.fact == fact for acc in self.work[fact.task].accumulators.values()):  # type: ignore[union-attr]
            yield Stop(f"a commit at {self.zone.ledger}@{record.offset} is void though nothing forbids it: {void}")

    def _touched(self, fact: Message | None) -> list[str]:
        """The tasks that a fact may concern, and those where a block waits for the ledger to be read on."""
        if isinstance(fact, Claimed):
            return list(self.zone.tasks)
        named = {getattr(fact, "task", "")} | {x.task for x in getattr(fact, "slots", ())}
        waiting = {k for k, w in self.work.items() if any(s.read_to is not None for s in w.shards.values())}
        return sorted((named | waiting) & self.zone.tasks.keys())

    def _hold(self, work: Work, t: ZoneTask, held: dict[int, int]) -> Iterator[Effect]:
        """Read what the ledger says is held, from where it says; drop every accumulator that is not alive."""
        for n, acc in list(work.accumulators.items()):
            for s, (token, start, _) in acc.ranges.items():
                if held.get(s) != token or t.next[s] != start or t.at[s] != n:
                    del work.accumulators[n]
                    for again in acc.ranges:
                        if again in work.shards:
                            work.shards[again].token = 0
                    break
        for s in [s for s in work.shards if s not in held]:
            del work.shards[s]
            yield Unfollow(work.topic, s)
        for s, token in held.items():
            if s not in work.shards or work.shards[s].token != token:
                work.shards[s] = Shard(token, t.next[s])
                yield Resume(work.topic, s)
                yield Follow(work.topic, s, t.next[s])

    def _leave(self, work: Work | None) -> Iterator[Effect]:
        if work:
            yield from (Unfollow(work.topic, s) for s in work.shards)

    def _load(self, task: str, work: Work, t: ZoneTask) -> Iterator[Effect]:
        """Fetch the bitmaps that are not known yet, and forget those of rounds that no block to come can name."""
        for offset in work.bitmaps.wanted(t, work.shards):
            if not self.requests.asked(("bitmap", task, offset)):
                yield self._fetch(task, offset, work.bitmaps.unloaded[offset])

    def _fetch(self, task: str, offset: int, fact: Committed) -> Fetch:
        assert fact.bitmap
        return Fetch(self.requests.new(("bitmap", task, offset)), self.partials.name, (fact.bitmap,))

    def _bitmap(self, task: str, offset: int, found: dict[str, bytes], now: int) -> Iterator[Effect]:
        work = self.work.get(task)
        if work is None or offset not in work.bitmaps.unloaded:
            return
        if not work.bitmaps.load(offset, found):
            lost = f"the bitmap of the commit at {self.zone.ledger}@{offset} is not in {self.partials.name}"
            yield Stop(f"{lost}: it is lost")
            return
        yield from self._take(task, now)

    # ------------------------------------------------------------------ blocks

    def _block(self, record: Record, now: int) -> Iterator[Effect]:
        task = record.topic.rsplit(".", 1)[-1]
        work = self.work.get(task)
        shard = work.shards.get(record.partition) if work else None
        if work is None or shard is None:
            return
        work.blocks += 1
        work.bytes += len(record.value or b"")
        shard.queue.append(record)
        if len(shard.queue) >= FULL and not shard.paused:
            shard.paused = True
            yield Pause(record.topic, record.partition)
        yield from self._take(task, now, record.partition)

    def _take(self, task: str, now: int, only: int | None = None) -> Iterator[Effect]:
        """Judge and add what waits, as far as that can be done now; commit what is due."""
        work, t = self.work[task], self.zone.tasks[task]
        for s in work.shards if only is None else (only,):
            shard = work.shards[s]
            while shard.queue:
                done = self._next(task, work, t, s, shard, now)
                if isinstance(done, Ends):
                    yield done
                if not isinstance(done, list):
                    break
                yield from done
            if shard.paused and len(shard.queue) <= LOW:
                shard.paused = False
                yield Resume(work.topic, s)
        yield from self._settle(task, now)

    def _next(self, task: str, work: Work, t: ZoneTask, s: int, shard: Shard, now: int) -> list[Effect] | Ends | None:
        """Take the shard's next block. None: it has to wait; an `Ends`: for the answer to that."""
        n = t.at[s]
        acc = work.accumulators.get(n)
        here = t.rounds.get(n)
        if (
            s not in self.claims.wanted  # the group gave it to someone else: commit what there is, take no more
            or (acc and acc.committing)
            or (here and here.closed and shard.position >= here.closed.ends[s])
            or work.bitmaps.missing(s)
            or (shard.read_to is not None and not 0 <= shard.read_to <= self.zone.position)
        ):
            return None
        record, b, reason = shard.queue[0], None, ""
        try:
            b = read(record.topic, record.value, record.headers)
            assert isinstance(b, DeltaBlock)
            verdict = judge(task, t, s, record.key, b, partial(self._known, work), shard.read_to is not None)
        except Malformed as e:
            verdict = (INVALID, str(e))
        if verdict is None:
            shard.read_to = -1
            return Ends(self.requests.new(("fresh", task, s, shard.position)), self.ledger_topic.name)
        shard.queue.popleft()
        shard.read_to = None
        outcome, reason = verdict
        acc = work.accumulators.setdefault(n, Accumulator(n, now))
        acc.cover(s, shard.token, shard.position, outcome)
        shard.position = record.offset + 1
        if isinstance(b, DeltaBlock):
            if outcome == COUNTED:
                opened = t.rounds[b.round].opened
                assert opened
                acc.count(b, opened)
                if work.row(b.round, b.slot).all():
                    acc.complete(b)
            acc.receipts.append(
                Receipt(b.device, task, b.round, b.slot, b.block, outcome, record.offset)
            )  # sent when the commit is accepted
        if outcome == INVALID:
            return [dead_letter(self.namespace, record, reason, self.name)]
        return []

    def _known(self, work: Work, base: int, slot: int, block: int) -> bool:
        row = work.row(base, slot)
        return block < len(row) and bool(row[block])

    # ------------------------------------------------------------------ commits

    def _settle(self, task: str, now: int) -> Iterator[Effect]:
        """Commit every accumulator that should not wait any longer."""
        work, t = self.work[task], self.zone.tasks[task]
        for acc in list(work.accumulators.values()):
            if not acc.committing and self._due(work, t, acc, now):
                yield from self._store(task, acc, now)

    def _due(self, work: Work, t: ZoneTask, acc: Accumulator, now: int) -> bool:
        if now - acc.started >= self.commit_interval or not self.claims.wanted.issuperset(acc.ranges):
            return True
        r = t.rounds.get(acc.round)
        if r is None or r.opened is None:
            return False
        mine = [s for s in work.shards if t.at[s] == acc.round]
        if r.closed:
            return all(work.shards[s].position >= r.closed.ends[s] for s in mine)
        if (
            not acc.done
            or len(r.devices) - len(r.lapsed) < r.opened.demand
            or any(x.queue for x in work.shards.values())
        ):
            return False
        while acc.cursor < len(r.devices) and (
            acc.cursor in acc.whole
            or acc.cursor in r.done
            or acc.cursor in r.lapsed
            or shard_of(r.devices[acc.cursor], len(t.at)) not in mine
        ):
            acc.cursor += 1
        return acc.cursor == len(r.devices)

    def _store(self, task: str, acc: Accumulator, now: int) -> Iterator[Effect]:
        """Sum and bitmap to the partials, at places never written before; nothing counted, nothing to store."""
        o = self.zone.tasks[task].rounds[acc.round].opened if acc.total is not None else None
        self.stored += 1
        where = f"{task}/{acc.round}/{self.name}/{self.life}/{self.stored}"
        partition = shard_of(f"{self.name}/{self.life}", self.zone.partitions)
        for key, message in acc.store(task, where, partition, o.sizes if o else ()):
            tag = self.requests.new(("stored", task, acc.round, key))
            yield send(self.partials, message, key, partition, tag)
        if not acc.unstored:
            yield self._append(task, acc, now)

    def _stored(self, task: str, n: int, key: str, place: tuple[int, int], now: int) -> Iterator[Effect]:
        acc = self.work[task].accumulators.get(n) if task in self.work else None
        if acc and acc.stored(key, place) and not acc.unstored:
            yield self._append(task, acc, now)

    def _append(self, task: str, acc: Accumulator, now: int) -> Send:
        acc.sent = now
        return send(self.ledger_topic, acc.committed(task))

    def _verdict(self, fact: Committed, offset: int, void: str) -> list[Send] | bool:
        """The receipts if this is our commit, accepted; else whether it is ours."""
        work = self.work[fact.task]
        acc = work.accumulators.get(fact.round)
        if acc is None or acc.fact != fact:
            return False  # another's, or a copy of ours
        if void:
            return True
        del work.accumulators[fact.round]
        work.bitmaps.learn(offset, acc.bitmaps)
        for outcome, count in acc.counts.items():
            work.outcomes[outcome] = work.outcomes.get(outcome, 0) + count
        return [send(self.receipts, r, r.device, cause=f"{self.zone.ledger}@{offset}") for r in acc.receipts]

    # ------------------------------------------------------------------ what operators see

    def _report(self, now: int) -> Send:
        tasks = tuple(
            TaskLoad(task, self.zone.tasks[task].round, w.blocks, w.bytes, dict(w.outcomes), w.unread)
            for task, w in sorted(self.work.items())
        )
        held = shards_of(self.zone, self.name, self.life)
        return send(self.metrics, AggregatorReport(self.name, self.zone_name, now, held, tasks), key=self.name)
