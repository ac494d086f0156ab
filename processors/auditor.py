"""Audits a round: reads its ledger, then the round's segment of the deltas, commit by commit, and has recomputed what each
commit, the round and its model must be (`processors/oracle.py`, `processors/audit.py`). Sends nothing.

Memory: one sum of the model's size for the commit at hand and one for the round, that commit's partials, the models before
and after, and a few blocks of each shard; with `trace` also a line for each block. Deltas may be larger than memory.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from learning.modular.structure import owners
from processors.audit import Audit, Blocks, bitmap
from processors.oracle import Bits, Oracle, join
from processors.story import Chapter, Entry, Story, tiling
from schemas.blocks import Manifest
from schemas.task import Server
from schemas.topics import GLOBAL, topic
from streams.ledger import GlobalTask, Globe, Zone, ZoneTask
from streams.processor import (
    Answer,
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
    Starts,
    Stop,
    Unfollow,
)
from streams.reading import WRONG, Reading

FULL, LOW = 16, 4
"""Records of a shard that wait in memory: pause at FULL, resume at LOW."""


@dataclass
class Lane:
    """A shard that is read: what waits, and where it is."""

    position: int
    end: int
    queue: deque[Record] = field(default_factory=deque)
    paused: bool = False


class Auditor:
    """Stops, ok, when `audit` is complete, whatever it found; not ok if there is nothing to audit."""

    membership: Membership | None = None
    tick = 1_000

    def __init__(self, namespace: str, zone: str, task: str, n: int, trace: bool = False):
        self.name = f"audit-{task}-{n}"
        self.deltas, self.partials = (
            topic(namespace, zone, "deltas", task).name,
            topic(namespace, zone, "partials").name,
        )
        self.reading = Reading(namespace, zone, Zone(), self._jumped)
        self.globe = Reading(namespace, GLOBAL, Globe(), self._looked)
        self.task: GlobalTask | None = None
        """The task as the globe knew it last, if that is still to be read: of one that is over its fold keeps no settings."""
        self.requests = Requests()
        self.story = Story(task, n)
        self.audit = Audit(task, zone, n, self.story)
        self.trace = trace
        self.planned = False
        self.starts: Mapping[int, int] | None = None
        self.ends: Mapping[int, int] | None = None
        self.lanes: dict[int, Lane] = {}
        self.left: deque[Entry] = deque()
        self.found: Mapping[str, bytes] | None = None
        """What the partials hold of the commit at hand."""
        self.known: Bits = {}
        self.oracle: Oracle | None = None

    # ------------------------------------------------------------------ inputs

    def start(self, now: int) -> Iterator[Effect]:
        yield from self.reading.start()
        yield from self.globe.start()

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        try:
            match event:
                case Record(topic=name) if name == self.reading.topic:
                    yield from self._ledger(event)
                case Record(topic=name) if name == self.globe.topic:
                    yield from self.globe.record(event)
                    yield from self._looked()
                case Record():
                    yield from self._delta(event)
                case Answer():
                    yield from self._answer(event)
        except WRONG as e:
            yield Stop(str(e))
            return
        if not self.planned and self.reading.caught_up and self.globe.caught_up:
            self.planned = True
            yield Unfollow(self.reading.topic, 0)
            yield Unfollow(self.globe.topic, 0)
            yield from self._plan()

    def _ledger(self, record: Record) -> Iterator[Effect]:
        if self.planned:
            return
        before = self.reading.state
        got = yield from self.reading.record(record)
        if got is not None:
            self.story.feed(record, before, self.reading.state, *got)

    def _looked(self) -> Iterator[Effect]:
        self.task = self.globe.state.tasks.get(self.audit.task, self.task)
        return iter(())

    def _jumped(self) -> Iterator[Effect]:
        """The ledger's beginning is cut: go on from what a checkpoint says."""
        self.story = self.audit.story = Story(self.audit.task, self.audit.round)
        self.story.begin(self.reading.state)
        return iter(())

    def _answer(self, answer: Answer) -> Iterator[Effect]:
        for reading in (self.reading, self.globe):
            if (effects := reading.answer(answer)) is not None:
                yield from effects
                return
        if isinstance(answer.tag, tuple):  # the log goes on elsewhere by now
            _, s = answer.tag
            self.lanes[s].end = -1
            yield from self._work()
            return
        match self.requests.close(answer.tag):
            case ("starts" | "ends" as what,):
                if answer.error:
                    self.audit.missing.append(f"the deltas are gone: {answer.error}")
                setattr(self, what, answer.value or {})
                if self.starts is not None and self.ends is not None:
                    yield from self._open()
            case ("known",):
                self._learn(answer.value or {})
                yield from self._next()
            case ("partials",):
                self.found = answer.value or {}
                yield from self._begin()
            case ("version", have, left):
                yield from self._version(have, left, answer.value or {})

    # ------------------------------------------------------------------ what is to be read

    @property
    def chapter(self) -> Chapter:
        return self.story.chapter

    def _plan(self) -> Iterator[Effect]:
        """The ledger is read: what there is to audit."""
        audit, zone = self.audit, self.reading.state
        audit.ledger, audit.partitions = zone.ledger, zone.partitions
        t = zone.tasks.get(audit.task) or zone.over.get(audit.task)
        if t is None:
            there = ", ".join(sorted({*zone.tasks, *zone.over})) or "none"
            yield Stop(f"zone {audit.zone} has no task {audit.task}; its tasks: {there}")
            return
        c = self.chapter
        if (c.opened is None or c.opened_at < self.reading.origin) and not c.commits:
            cut = f"; the ledger is cut below {self.reading.origin}" if self.reading.origin else ""
            yield Stop(f"round {audit.round} of {audit.task} is not in the ledger: the last one is {t.round}{cut}")
            return
        if c.opened is None or c.opened_at < self.reading.origin:
            audit.missing.append(
                f"the ledger is cut below {self.reading.origin}, and the round began before that: of its life before, only "
                "what the checkpoint keeps of it is known"
            )
        if c.finalised is None:
            voids = [f"{type(x.fact).__name__} at {x.offset} is void: {x.void}" for x in self.story.told if x.void]
            said = f" ({'; '.join(voids[-3:])})" if voids else ""
            state = t.state if isinstance(t, ZoneTask) and t.round == audit.round else "not finalised"
            audit.missing.append(f"the round is {state}{said}")
        for text in (*self.story.tiles, *tiling(c)):
            audit.differ(text)
        g = self.task
        audit.owners = owners(g.layout) if g and g.structure else ()
        if g is None and audit.task in self.globe.state.over:
            audit.missing.append(
                f"the task is over, and the global ledger is cut below {self.globe.origin}: its settings are not known, so the "
                "step from the sums to the model is not made again"
            )
        audit.begin()
        self.left = deque(c.commits)
        yield Starts(self.requests.new(("starts",)), self.deltas)
        yield Ends(self.requests.new(("ends",)), self.deltas)

    def _open(self) -> Iterator[Effect]:
        """Where the log begins and ends is known: follow what is there, and fetch what was counted before."""
        spans: dict[int, tuple[int, int]] = {}
        for e in self.chapter.commits:
            for s, x in e.fact.stretches.items():
                spans[s] = spans.get(s, (x.start, 0))[0], x.end
        for s, (start, end) in sorted(spans.items()):
            begin, there = (self.starts or {}).get(s, end), (self.ends or {}).get(s, 0)
            self.lanes[s] = Lane(max(start, begin), min(end, there))
            if self.starts and begin > start:
                self.audit.missing.append(
                    f"shard {s} of the deltas begins at {begin}: offsets {start} to {begin - 1} of the round are gone"
                )
            if self.ends and there < end:
                self.audit.missing.append(
                    f"shard {s} of the deltas ends at {there}: offsets {there} to {end - 1} of the round are gone"
                )
            if self.lanes[s].position < self.lanes[s].end:
                yield Follow(self.deltas, s, self.lanes[s].position, ("gap", s))
        places = tuple(e.fact.bitmap for e in self._before() if e.fact.bitmap)
        yield Fetch(self.requests.new(("known",)), self.partials, places)

    def _before(self) -> Iterator[Entry]:
        """The commits of earlier rounds that counted what blocks of this one may repeat."""
        o, n = self.chapter.opened, self.audit.round
        for m in range(n - (o.staleness if o else 0) - 1, n):
            if c := self.story.chapters.get(m):
                yield from (e for e in c.commits if e.offset not in c.lost)

    def _learn(self, found: Mapping[str, bytes]) -> None:
        gone = []
        for e in self._before():
            if e.fact.bitmap:
                bits = bitmap(e, found)
                gone += [] if bits else [e.offset]
                join(self.known, bits or {})
        if gone:
            self.audit.missing.append(
                f"the bitmaps of {len(gone)} earlier commits (the first at {gone[0]}) are gone: whether a block that comes "
                "again was counted before cannot be told"
            )
        self.oracle = Oracle(self.story, self.audit.partitions, self.known, self.trace)

    # ------------------------------------------------------------------ commit by commit

    def _next(self) -> Iterator[Effect]:
        """Fetch what the next commit left in the partials."""
        self.found = None
        if not self.left:
            yield from (Unfollow(self.deltas, s) for s in self.lanes)
            yield from self._round()
            return
        f = self.left[0].fact
        places = tuple(p for p in (f.bitmap, *f.sums) if p)
        yield Fetch(self.requests.new(("partials",)), self.partials, places)

    def _begin(self) -> Iterator[Effect]:
        assert self.oracle
        assert self.found is not None
        self.oracle.begin(self.left[0], bitmap(self.left[0], self.found))
        yield from self._work()

    def _delta(self, record: Record) -> Iterator[Effect]:
        lane = self.lanes[record.partition]
        lane.queue.append(record)
        if len(lane.queue) >= FULL and not lane.paused:
            lane.paused = True
            yield Pause(self.deltas, record.partition)
        yield from self._work()

    def _work(self) -> Iterator[Effect]:
        """Judge what is there of the commit at hand; compare it when it is whole."""
        if not self.left or self.found is None:
            return
        e, whole = self.left[0], True
        assert self.oracle
        readable = all(self._reads(e, s) for s in e.fact.stretches)
        for s, x in e.fact.stretches.items() if readable else ():
            lane = self.lanes[s]
            while lane.queue and lane.queue[0].offset < x.end:
                record = lane.queue.popleft()
                lane.position = record.offset + 1
                if record.offset >= x.start:
                    self.oracle.block(record)
            if lane.paused and len(lane.queue) <= LOW:
                lane.paused = False
                yield Resume(self.deltas, s)
            whole &= lane.position >= x.end
        if whole or not readable:
            if readable:
                self.audit.recount(e, self.oracle.sum, self.found)
            else:
                self.audit.take(e, self.found)
                join(self.known, bitmap(e, self.found) or {})
            self.left.popleft()
            yield from self._next()

    def _reads(self, e: Entry, s: int) -> bool:
        """Whether the log still holds the blocks of a commit's stretch."""
        x, lane = e.fact.stretches[s], self.lanes[s]
        begin = (self.starts or {}).get(s, x.end)
        rewound = any(at > e.offset and shard == s and to < x.end for at, shard, to in self.story.rewinds)
        return begin <= x.start and x.end <= lane.end and not rewound

    # ------------------------------------------------------------------ the round and its model

    def _round(self) -> Iterator[Effect]:
        assert self.oracle
        self.audit.notes = self.oracle.early
        self.audit.end(list((self.oracle.seen or {}).values()))
        yield from self._fetch({}, self.audit.versions())

    def _fetch(self, have: dict[str, Blocks], left: dict[str, Manifest]) -> Iterator[Effect]:
        """One version after the other; then the step from the one to the next."""
        if left:
            manifest = next(iter(left.values()))
            yield Fetch(self.requests.new(("version", have, left)), manifest.topic, manifest.blocks)
            return
        if have and (self.task or self.audit.task not in self.globe.state.over):
            server = self.task.spec.server.working("zone") if self.task else Server()
            self.audit.step(server, self.task.layout.plain if self.task else (), have)
        yield Stop("all that is there is compared", ok=True)

    def _version(
        self, have: dict[str, Blocks], left: dict[str, Manifest], found: Mapping[str, bytes]
    ) -> Iterator[Effect]:
        name, manifest = next(iter(left.items()))
        rest = {k: m for k, m in left.items() if k != name}
        yield from self._fetch({**have, name: self.audit.blocks(name, manifest, found)}, rest)
