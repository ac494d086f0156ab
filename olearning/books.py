"""What a view notes down while it reads: by zone, by reporting process. Each keeps a bounded amount, however long it runs."""

from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace

from olearning.happenings import clean, kind_of
from olearning.snapshot import BEHIND, NOBODY, OK, SILENT, STALLED, Identity, RoundPoint
from schemas.facts import Admitted, Closed, Committed, Counts, Finalised, Opened, Retired, TaskEnded
from schemas.messages import AggregatorReport, FleetReport
from schemas.topics import GLOBAL
from schemas.wire import Message
from streams.ledger import Globe, Tally, Zone, ZoneTask
from streams.processor import Effect, Record
from streams.reading import Reading

WINDOW = 5
"""Samples of a shard by which it is judged (after Burrow: is the work left growing, does the next offset move?)."""
MOST_ROUNDS = 200
"""Rounds of a task in a zone whose outcome is kept."""
MOST_REASONS = 50
OTHER = "other reasons"
MOST_OVER = 200
"""Tasks that are over of which more is kept than the ledgers do: their curves and scores."""
FORGET = 3_600_000
"""A process that was silent for so many ms is forgotten."""


@dataclass
class Log:
    """The delta log of a task in a zone: by shard its end as last asked, and (next, unread) at the last few times."""

    ends: dict[int, int] = field(default_factory=dict)
    samples: dict[int, deque[tuple[int, int]]] = field(default_factory=dict)
    lost: str = ""

    def answered(self, ends: Mapping[int, int], asked: tuple[int, ...], now: tuple[int, ...]) -> None:
        """The ends as they were some time after `asked`, the next offsets when the question was put."""
        self.ends = dict(ends)
        for s, end in ends.items():
            if end < asked[s]:
                self.lost = f"the log of shard {s} ends at {end}, and commits cover it up to {asked[s]}"
            self.samples.setdefault(s, deque(maxlen=WINDOW)).append((now[s], max(0, end - now[s])))

    def blocks(self, t: ZoneTask) -> int:
        """How many are known to lie in it."""
        return sum(max(n, self.ends.get(s, 0)) for s, n in enumerate(t.next))

    def unread(self, t: ZoneTask) -> list[int]:
        return [max(0, self.ends.get(s, 0) - n) for s, n in enumerate(t.next)]

    def word(self, s: int) -> str:
        """OK, behind or stalled."""
        seen = self.samples.get(s, ())
        unread = [u for _, u in seen]
        if len(seen) < WINDOW or not min(unread):
            return OK
        if len({n for n, _ in seen}) == 1:
            return STALLED
        return BEHIND if unread[-1] > unread[0] == min(unread) else OK


Fed = Generator[Effect, None, tuple[Message | None, str] | None]
"""What comes of a record of a ledger: see `streams/reading.py`."""


class ZoneBook:
    """A zone as read off its ledger."""

    def __init__(self, namespace: str, zone: str) -> None:
        self.reading = Reading(namespace, zone, Zone())
        self.logs: dict[str, Log] = {}
        self.moved: dict[str, int] = {}
        """By task, when a fact last brought it forward."""
        self.losses: dict[str, float] = {}
        self.curves: dict[str, tuple[RoundPoint, ...]] = {}
        self.voids: dict[str, int] = {}
        self._over: deque[str] = deque()

    @property
    def zone(self) -> Zone:
        return self.reading.state

    def feed(self, record: Record) -> Fed:
        got = yield from self.reading.record(record)
        if got is None:
            return None
        fact, void = got
        if void:
            count(self.voids, kind_of(fact))
            return fact, void
        match fact:
            case Committed(task=task):
                if fact.done:
                    self.moved[task] = record.timestamp
            case Admitted():
                self.moved |= {s.task: record.timestamp for s in fact.slots}
            case Opened(task=task) | Closed(task=task) | Finalised(task=task) | Retired(task=task):
                self.moved[task] = record.timestamp
                if isinstance(fact, Finalised):
                    self._finalised(fact, record.timestamp)
                elif isinstance(fact, Retired):
                    self._forget(task)
        return fact, void

    def _finalised(self, fact: Finalised, at: int) -> None:
        task, loss = fact.task, fact.mean_loss if fact.samples and fact.manifest else None
        if fact.samples:
            self.losses[task] = fact.mean_loss
        point = RoundPoint(fact.round, self.zone.tasks[task].epoch, at, fact.devices, fact.samples, loss)
        self.curves[task] = (*self.curves.get(task, ()), point)[-MOST_ROUNDS:]

    def _forget(self, task: str) -> None:
        """A task is over: nothing is read of its log any more; the curve of the one that was over `MOST_OVER` tasks before it goes."""
        self.logs.pop(task, None)
        self.moved.pop(task, None)
        self._over.append(task)
        if len(self._over) > MOST_OVER:
            old = self._over.popleft()
            self.curves.pop(old, None)
            self.losses.pop(old, None)

    def total(self, task: str) -> Identity:
        """Since the task began here."""
        log = self.logs.get(task, Log())
        if over := self.zone.over.get(task):
            covered, known, found = over.covered, over.offsets, _identity(over.tally, 0)
        else:
            t = self.zone.tasks[task]
            covered, known = sum(t.next) + t.rewound, t.tally.offsets
            found = _identity(t.tally, sum(map(len, t.held)))
        problem = log.lost or found.problem
        if not problem and covered != known:
            problem = f"the shards are read to {covered} in total, and commits cover {known} offsets"
        return replace(found, problem=problem)


def segment(t: ZoneTask | None) -> Identity:
    """The segment of the shards that is the task's present round, as far as it is committed."""
    r = t.rounds.get(t.round) if t else None
    if t is None or r is None:
        return Identity()
    return _identity(r.tally, sum(len(held) for held, n in zip(t.held, t.at, strict=True) if n == r.round))


def _identity(tally: Tally, held: int) -> Identity:
    outcomes, problem = tally.counts.total(), ""
    if not tally.adds_up(held):
        problem = f"commits cover {tally.offsets} offsets; {outcomes} outcomes, {held} held, {tally.lost} lost"
    counts = {n: getattr(tally.counts, n) for n in Counts.__struct_fields__}
    return Identity(tally.offsets, **counts, held=held, lost=tally.lost, problem=problem)


class GlobeBook:
    """The globe as read off its ledger."""

    def __init__(self, namespace: str, jumped: Callable[[], Iterable[Effect]]) -> None:
        self.reading = Reading(namespace, GLOBAL, Globe(), jumped)
        self.moved: dict[str, int] = {}
        self.voids: dict[str, int] = {}

    @property
    def globe(self) -> Globe:
        return self.reading.state

    def feed(self, record: Record) -> Fed:
        got = yield from self.reading.record(record)
        if got is None:
            return None
        fact, void = got
        if void:
            count(self.voids, kind_of(fact))
        elif isinstance(fact, TaskEnded):
            self.moved.pop(fact.task, None)
        elif task := getattr(fact, "task", "") or getattr(getattr(fact, "spec", None), "task", ""):
            self.moved[task] = record.timestamp
        return fact, void


Report = AggregatorReport | FleetReport


@dataclass
class Source:
    """A process that reports: its last report, when it was heard, and what it did over all its lives."""

    report: Report
    heard: int
    blocks: int = 0
    bytes: int = 0


class Sources:
    """The processes that report. Their counters start again with each life; here they are added up."""

    def __init__(self) -> None:
        self.all: dict[str, Source] = {}

    def hear(self, report: Report, heard: int) -> None:
        old = self.all.get(report.source)
        if old and old.report.at > report.at:
            return  # it landed late
        blocks, size = _work(report)
        if old is None:
            new = Source(report, heard, blocks, size)
        else:
            before = _work(old.report)
            again = size < before[1] or blocks < before[0]
            new = Source(
                report,
                heard,
                old.blocks + blocks - (0 if again else before[0]),
                old.bytes + size - (0 if again else before[1]),
            )
        self.all[report.source] = new

    def forget(self, now: int) -> None:
        for name in [n for n, s in self.all.items() if now - s.heard > FORGET]:
            del self.all[name]

    def of(self, kind: type[Report], zone: str) -> dict[str, Source]:
        return {n: s for n, s in sorted(self.all.items()) if isinstance(s.report, kind) and s.report.zone == zone}


def _work(report: Report) -> tuple[int, int]:
    """Blocks and bytes since the process started."""
    if isinstance(report, FleetReport):
        return report.blocks, report.bytes
    return sum(t.blocks for t in report.tasks), sum(t.bytes for t in report.tasks)


class Letters:
    """Dead letters by reason. One may be written twice: its key is the place it came from."""

    def __init__(self) -> None:
        self.reasons: dict[str, int] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()

    def add(self, key: str, reason: str) -> bool:
        """Whether it is a new one."""
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > 10_000:
            self._seen.popitem(last=False)
        count(self.reasons, clean(reason))
        return True


def count(of: dict[str, int], what: str) -> None:
    """One more of it; what comes after `MOST_REASONS` different ones counts as others."""
    if what not in of and len(of) >= MOST_REASONS:
        what = OTHER
    of[what] = of.get(what, 0) + 1


def shard_word(holder: str, silent: bool, words: list[str]) -> str:
    """The word for a shard: who holds it comes first, else the worst over its tasks."""
    if not holder:
        return NOBODY
    if silent:
        return SILENT
    return next((w for w in (STALLED, BEHIND) if w in words), OK)
