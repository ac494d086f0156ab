"""A round as its zone's ledger tells it: slots, commits, ends, claims and losses meanwhile. The fold says which facts are
accepted; what is noted here is what an audit asks for afterwards, and what the fold itself forgets once a round is over.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from schemas.blocks import Manifest
from schemas.facts import Abandoned, Claimed, Closed, Committed, Finalised, Opened
from schemas.wire import Message
from streams.ledger import Round, Zone
from streams.processor import Record

MOST_WINDOW = 102
"""Rounds before the audited one that its blocks can name: the largest staleness there is, and one more for duplicates."""


@dataclass(frozen=True)
class Seat:
    """A slot: whose it is, the offset of the `Admitted` that gave it (0: before what was read), and the blocks that it owes."""

    device: str
    admitted: int
    blocks: bytes = b""


@dataclass(frozen=True)
class Entry:
    """An accepted commit. `since`, by shard: the ledger offset above which its blocks were judged."""

    offset: int
    time: int
    holder: str
    fact: Committed
    since: Mapping[int, int]


@dataclass
class Chapter:
    """A round. Offsets are the ledger's, times ms."""

    round: int
    opened: Opened | None = None
    opened_at: int = 0
    opened_time: int = 0
    seats: list[Seat] = field(default_factory=list)
    commits: list[Entry] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    """Commits whose partials are gone and were given up."""
    gone: dict[int, int] = field(default_factory=dict)
    """By shard, how many offsets were given up: no commit covers them."""
    resets: list[tuple[int, int]] = field(default_factory=list)
    """(ledger offset, shard) where a shard gave up what it held, and goes on elsewhere."""
    voided: dict[int, int] = field(default_factory=dict)
    """By slot, the offset from which on no block of it counts any more."""
    starts: dict[int, int] = field(default_factory=dict)
    """By shard, where the round's segment begins."""
    met: int | None = None
    closed: Closed | None = None
    closed_at: int = 0
    closed_time: int = 0
    finalised: Finalised | None = None
    finalised_at: int = 0
    finalised_time: int = 0
    folded: Round | None = None
    """What the fold says of it when it is finalised."""
    optimiser: Manifest | None = None
    """Where the server optimiser's state before it lies."""


@dataclass(frozen=True)
class Told:
    """A record of the ledger with the fold before and after it."""

    offset: int
    time: int
    before: Zone
    after: Zone
    fact: Message | None
    void: str


class Story:
    """A task in a zone as the ledger tells it, as far as an audit of round `n` needs it."""

    def __init__(self, task: str, n: int):
        self.task, self.n = task, n
        self.chapters: dict[int, Chapter] = {}
        self.next: dict[int, int] = {}
        """By shard, the first offset no commit covers."""
        self.judged: dict[int, tuple[int, int]] = {}
        """By shard, the offsets of the last two commits that cover it."""
        self.rewinds: list[tuple[int, int, int]] = []
        """(ledger offset, shard, to): the log lost its end down to `to`, and other blocks lie there since."""
        self.told: list[Told] = []
        """The round's opening, close and end; claims, losses and void facts while it lasted."""
        self.tiles: list[str] = []
        """Where the round's stretches leave a gap or overlap."""

    def begin(self, zone: Zone) -> None:
        """Start from a checkpoint: earlier rounds are what the fold keeps of them."""
        t = zone.tasks.get(self.task)
        if t is None:
            return
        self.next = dict(enumerate(t.next))
        for n, r in t.rounds.items():
            entries = [Entry(c.offset, 0, "", c.fact, {}) for c in r.commits]
            lost = {c.offset for c in r.commits if c.lost}
            seats = [Seat(d, 0, r.set_of(i)) for i, d in enumerate(r.devices)]
            self.chapters[n] = Chapter(n, r.opened, r.opened_at, 0, seats, entries, lost, closed=r.closed)
            self.chapters[n].voided = dict.fromkeys(r.voided, 0)

    @property
    def chapter(self) -> Chapter:
        """Of the audited round."""
        return self._at(self.n)

    @property
    def over(self) -> bool:
        return self.n in self.chapters and self.chapter.finalised is not None

    def _at(self, n: int) -> Chapter:
        return self.chapters.setdefault(n, Chapter(n))

    def feed(self, record: Record, before: Zone, after: Zone, fact: Message | None, void: str) -> None:
        """The next record of the ledger, as the fold judged it."""
        told = Told(record.offset, record.timestamp, before, after, fact, void)
        if self.over:  # only what happens to its log since
            if isinstance(fact, Abandoned) and not void and fact.task == self.task:
                self._rewind(told)
            return
        lasted = self.lasts
        if not void and getattr(fact, "task", None) == self.task:
            self._mine(told, fact)
        if (lasted or self.lasts) and self._concerns(fact, void):
            self.told.append(told)
        self._slots(record.offset, before, after)

    @property
    def lasts(self) -> bool:
        """Whether the round is opened and not finalised."""
        return self.n in self.chapters and self.chapter.opened is not None and not self.over

    def _concerns(self, fact: Message | None, void: str) -> bool:
        if isinstance(fact, Claimed):
            return not void
        mine = getattr(fact, "task", None) == self.task and getattr(fact, "round", self.n) == self.n
        return mine and bool(void or not isinstance(fact, Committed))

    def _mine(self, told: Told, fact: Message | None) -> None:
        match fact:
            case Opened(round=n):
                c = self._at(n)
                c.opened, c.opened_at, c.opened_time = fact, told.offset, told.time
                oldest = min(n, self.n) - MOST_WINDOW
                self.chapters = {m: x for m, x in self.chapters.items() if m >= oldest}
            case Committed(round=n):
                self._commit(self._at(n), told, fact)
            case Closed(round=n):
                c = self._at(n)
                c.closed, c.closed_at, c.closed_time = fact, told.offset, told.time
            case Finalised(round=n):
                c = self._at(n)
                c.finalised, c.finalised_at, c.finalised_time = fact, told.offset, told.time
                c.folded = told.after.tasks[self.task].rounds.get(n)
                c.optimiser = told.before.tasks[self.task].optimiser
            case Abandoned():
                self._abandon(told)

    def _commit(self, c: Chapter, told: Told, fact: Committed) -> None:
        since, holders = {}, []
        for s, x in fact.stretches.items():
            at = self.next.get(s, 0)
            if x.start != at and c.round == self.n:
                what = "the offsets between are in no commit" if x.start > at else "offsets are in two commits"
                self.tiles.append(f"shard {s}: the commit at {told.offset} begins at {x.start}, not {at}: {what}")
            c.starts.setdefault(s, x.start)
            last, before = self.judged.get(s, (0, 0))
            since[s] = max(x.token, before)  # while a commit is under way, its holder judges what the next one covers
            self.judged[s], self.next[s] = (told.offset, last), x.end
            holders.append(told.after.shards[s].holder)
        c.commits.append(Entry(told.offset, told.time, ", ".join(dict.fromkeys(holders)), fact, since))
        r = told.after.tasks[self.task].rounds.get(c.round)
        c.met = r.met_at if r else c.met

    def _abandon(self, told: Told) -> None:
        """What was lost is given up: shards go on elsewhere, commits do without their sums."""
        t, after = told.before.tasks[self.task], told.after.tasks[self.task]
        assert t.loss
        for s, (start, to) in t.loss.ranges.items():
            c = self._at(t.at[s])
            c.starts.setdefault(s, start)
            c.gone[s] = c.gone.get(s, 0) + max(0, to - start)
            c.resets.append((told.offset, s))
            self.next[s] = to
        self._rewind(told)
        for n, r in after.rounds.items():
            self._at(n).lost |= {x.offset for x in r.commits if x.lost}

    def _rewind(self, told: Told) -> None:
        loss = told.before.tasks[self.task].loss
        assert loss
        self.rewinds += [(told.offset, s, to) for s, (start, to) in loss.ranges.items() if to < start]

    def _slots(self, offset: int, before: Zone, after: Zone) -> None:
        """Slots given by this record, and those that it voided, read off the fold: it knows which of them hold."""
        t, old = after.tasks.get(self.task), before.tasks.get(self.task)
        if t is None or t is old:
            return
        for n, r in t.rounds.items():
            if old and old.rounds.get(n) is r:
                continue
            c = self._at(n)
            first = len(c.seats)
            c.seats += [Seat(d, offset, r.set_of(i)) for i, d in enumerate(r.devices[first:], first)]
            for slot in r.voided - c.voided.keys():
                c.voided[slot] = offset


def tiling(c: Chapter) -> Iterator[str]:
    """What is wrong with the end of a closed round's segment, shard by shard."""
    if c.closed is None:
        return
    reached = dict(c.starts)
    for e in c.commits:
        for s, x in e.fact.stretches.items():
            if e.offset > c.closed_at and x.start >= c.closed.ends.get(s, 0):
                yield f"shard {s}: the commit at {e.offset} begins at {x.start}, where the round was over already"
            reached[s] = x.end
    for s, at in reached.items():
        if at < c.closed.ends[s] and s not in c.gone:
            yield f"shard {s}: the round ends at {c.closed.ends[s]}, and commits cover it to {at}"
