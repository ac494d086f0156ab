"""Following a namespace's topics: folding the ledgers, hearing the metrics and the dead letters, asking where the delta logs end.

It can be attached at any time, and knows the same then; it sends nothing, so any number may follow at once.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from olearning.books import MOST_OVER, GlobeBook, Letters, Log, Sources, ZoneBook
from olearning.happenings import Event, dead, evaluated, happened, objected
from olearning.places import Places, places
from schemas.facts import ZoneJoined
from schemas.messages import (
    AggregatorReport,
    DeadLetter,
    Evaluation,
    FleetReport,
    Objection,
    Presence,
    Priorities,
    RegistryReport,
    SchedulerReport,
)
from schemas.sharing import PLAN, SharingPlan
from schemas.topics import GLOBAL, read, topic
from schemas.wire import Malformed
from streams.ledger import Globe, Zone, ZoneTask
from streams.processor import Answer, Effect, Ends, Follow, Input, Membership, Record, Requests, Starts, Stop, Tick
from streams.reading import WRONG, Reading

MOST_EVENTS = 10_000
"""Events that wait to be drained; older ones are forgotten."""
MOST_ANNOUNCED = 500
"""Announcements before the end of a partition among which a plan is looked for; who leads repeats it every 5 s."""
MOST_EPOCHS = 1_000
"""Evaluations that are kept of a task."""


class Following:
    """Reads what a namespace's topics say, from the start on, and asks where its delta logs end. It sends nothing."""

    membership: Membership | None = None
    tick = 250

    def __init__(
        self,
        namespace: str,
        zones: Sequence[str] = (),
        name: str = "view",
        silent_ms: int = 5_000,
        poll_ms: int = 1_000,
        on_event: Callable[[Event], None] | None = None,
    ):
        self.namespace, self.name, self.silent_ms, self.poll_ms = namespace, name, silent_ms, poll_ms
        self.on_event = on_event
        self.events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self.globe_book = GlobeBook(namespace, self._globe_jumped)
        self.books: dict[str, ZoneBook] = {}
        self.sources = Sources()
        self.letters = Letters()
        self.accuracy: dict[str, dict[int, Evaluation]] = {}
        self._last_scores: dict[str, Evaluation] = {}
        self.orders: dict[str, Priorities] = {}
        self.advice: dict[str, tuple[SchedulerReport, int]] = {}
        """By zone, what the scheduler said last, and when that was heard."""
        self.present: dict[str, Presence] = {}
        """By zone, the devices that the global coordinator saw."""
        self.announced: dict[str, int] = {}
        """By zone, when its leader last announced anything."""
        self.plans: dict[str, Places] = {}
        """By zone, the sharing policy's plan that was announced last."""
        self.requests = Requests()
        self._first_zones = tuple(zones)
        self._metrics = topic(namespace, GLOBAL, "metrics").name
        self._letters = topic(namespace, GLOBAL, "dead-letters").name
        self._scores = topic(namespace, GLOBAL, "evaluations").name
        self._order_topics: set[str] = set()
        self._announcements: dict[str, str] = {}
        self._positions: dict[str, int] = {}
        self._zone_of: dict[str, str] = {}
        self._ends: dict[str, int] = {}
        self._caught_up: int | None = None
        self._read = False
        """All topics are read to the ends they had at the start."""
        self._polled: int | None = None
        self.now = 0
        """The time of the last input, in ms."""
        self.heard: int | None = None
        """When the log last said anything, in ms; None: it was not asked yet."""

    # ------------------------------------------------------------------ inputs

    def start(self, now: int) -> Iterable[Effect]:
        self.now = self.heard = now
        yield from self.globe_book.reading.start()
        for name in (self._metrics, self._letters, self._scores):  # they may begin above 0
            yield Starts(self.requests.new(("start", name)), name)
        for zone in self._first_zones:
            yield from self._join(zone)

    def handle(self, event: Input, now: int) -> Iterable[Effect]:
        self.now = now
        if not isinstance(event, Tick):
            if self.heard is not None and self._silent(self.heard, now):
                self._back(self.heard, now)
            self.heard = now
        try:
            match event:
                case Record():
                    yield from self._record(event, now)
                case Answer():
                    yield from self._answer(event, now)
        except WRONG as e:
            yield Stop(str(e))
            return
        yield from self._poll(now)

    @property
    def globe(self) -> Globe:
        """The fold of the global ledger."""
        return self.globe_book.globe

    @property
    def zones(self) -> dict[str, Zone]:
        """The folds of the zones' ledgers."""
        return {name: book.zone for name, book in self.books.items()}

    @property
    def caught_up(self) -> bool:
        """Has it read all there was when it was attached, and heard where the delta logs end?"""
        return self._caught_up is not None

    def drain(self) -> list[Event]:
        """What happened since the last call, in the order it was read."""
        out = list(self.events)
        self.events.clear()
        return out

    def _back(self, since: int, now: int) -> None:
        """The log was away since then: what nobody could say meanwhile is no silence."""
        self.announced = dict.fromkeys(self.announced, now)
        for source in self.sources.all.values():
            if not self._silent(source.heard, since):
                source.heard = now
        for zone, (said, at) in self.advice.items():
            if not self._silent(at, since):
                self.advice[zone] = said, now

    # ------------------------------------------------------------------ reading

    def _watch(self, name: str, offset: int) -> Iterator[Effect]:
        self._positions[name] = offset
        yield Follow(name, 0, offset)
        yield Ends(self.requests.new(("end", name)), name)

    def _join(self, zone: str) -> Iterator[Effect]:
        if zone not in self.books:
            book = self.books[zone] = ZoneBook(self.namespace, zone)
            self._zone_of[book.reading.topic] = zone
            yield from book.reading.start()
            name = topic(self.namespace, zone, "priorities").name
            self._order_topics.add(name)
            yield Ends(self.requests.new(("orders", name)), name)
            name = topic(self.namespace, zone, "announcements").name
            self._announcements[name] = zone
            yield Ends(self.requests.new(("announcements", name)), name)

    def _globe_jumped(self) -> Iterator[Effect]:
        for zone in self.globe.zones:
            yield from self._join(zone)

    def _readings(self) -> Iterator[Reading]:
        yield self.globe_book.reading
        yield from (book.reading for book in self.books.values())

    def _record(self, record: Record, now: int) -> Iterator[Effect]:
        if record.topic == self.globe_book.reading.topic:
            before = self.globe
            if (got := (yield from self.globe_book.feed(record))) is None:
                return
            fact, void = got
            if isinstance(fact, ZoneJoined) and not void:
                yield from self._join(fact.zone)
            self._tell(*happened(before, self.globe, fact, void, GLOBAL, record.timestamp))
        elif zone := self._zone_of.get(record.topic):
            book = self.books[zone]
            then = book.zone
            if got := (yield from book.feed(record)):
                self._tell(*happened(then, book.zone, *got, zone, record.timestamp))
        elif zone := self._announcements.get(record.topic):
            self._positions[record.topic] = record.offset + 1
            if record.offset >= self._ends.get(record.topic, 0) and not record.tombstone:  # those are no leader's
                self.announced[zone] = now
            if record.key == PLAN:
                self._planned(zone, record)
        else:
            self._positions[record.topic] = record.offset + 1
            self._heard(record, now)

    def _heard(self, record: Record, now: int) -> None:
        """Metrics, last scores and dead letters. What cannot be read there is left out: nothing rests on it."""
        try:
            message = read(record.topic, record.value, record.headers)
        except Malformed:
            return
        match message:
            case AggregatorReport() | FleetReport():
                self.sources.hear(message, self._time(record, now))
            case SchedulerReport(zone=zone):
                self.advice[zone] = message, self._time(record, now)
            case Priorities(zone=zone):
                self.orders[zone] = message
            case RegistryReport(zones=zones):
                self.present = zones
            case Evaluation() if record.topic == self._scores:
                if not self._read:  # from then on the metrics have all
                    self._last_scores[message.task] = message
            case Evaluation(task=task, epoch=epoch):
                scores = self.accuracy.setdefault(task, {})
                known = scores.get(epoch)
                scores[epoch] = message
                if len(scores) > MOST_EPOCHS:
                    del scores[min(e for e in scores if e)]
                self._forget_scores()
                if known is None or (known.version, known.accuracy) != (message.version, message.accuracy):
                    self._tell(evaluated(message))
            case Objection():
                self._tell(objected(message))
            case DeadLetter():
                where = f"{message.topic}/{message.partition}/{message.offset}"
                if self.letters.add(where, message.reason):
                    self._tell(dead(message, record.timestamp))

    def _planned(self, zone: str, record: Record) -> None:
        """What cannot be read is left out, as by devices; so is what follows from less of the ledger than what was heard."""
        try:
            plan = read(record.topic, record.value, record.headers)
        except Malformed:
            return
        known = self.plans.get(zone)
        if isinstance(plan, SharingPlan) and (known is None or plan.at >= known.plan.at):
            self.plans[zone] = places(plan)

    def _older_scores(self) -> None:
        """Metrics are kept for a day: of a task that was scored before it is known what the last score was."""
        for task, e in self._last_scores.items():
            self.accuracy.setdefault(task, {}).setdefault(e.epoch, e)
        self._last_scores = {}
        self._forget_scores()

    def _forget_scores(self) -> None:
        """Of the tasks that are over only the last are kept."""
        if len(self.accuracy) > MOST_OVER:
            over = [task for task in self.accuracy if task in self.globe.over]
            for task in over[:-MOST_OVER]:
                del self.accuracy[task]

    def _time(self, record: Record, now: int) -> int:
        """While the past is read it counts as heard when it was written; then clocks of others do not matter."""
        return now if self._read else min(now, record.timestamp)

    def _tell(self, *events: Event) -> None:
        for e in events:
            self.events.append(e)
            if self.on_event:
                self.on_event(e)

    # ------------------------------------------------------------------ asking

    def _answer(self, answer: Answer, now: int) -> Iterator[Effect]:
        for reading in self._readings():
            if (effects := reading.answer(answer)) is not None:
                yield from effects
                return
        match answer.tag:
            case ("cut", str(what), str(name)):  # retention was quicker
                yield Ends(self.requests.new((what, name)), name)
                return
        match self.requests.close(answer.tag):
            case ("end" | "start", _) if answer.error:
                yield Stop(f"{self.name}: {answer.error}")
            case ("start", str(name)):
                yield from self._watch(name, answer.value[0])
            case ("end", str(name)):
                self._ends[name] = answer.value[0]
            case ("orders", str(name)):  # the last one is all that matters; where there is no such topic, none
                end = 0 if answer.error else answer.value[0]
                self._positions[name], self._ends[name] = max(0, end - 1), end
                if not answer.error:
                    yield Follow(name, 0, max(0, end - 1), ("cut", "orders", name))
            case (
                "announcements",
                str(name),
            ):  # who leads is alive by what is said from now on; a plan may have been said before
                end = 0 if answer.error else answer.value[0]
                first = end if name in self._ends else max(0, end - MOST_ANNOUNCED)
                self._positions[name], self._ends[name] = first, end
                if not answer.error:
                    self.announced.setdefault(self._announcements[name], now)
                    yield Follow(name, 0, first, ("cut", "announcements", name))
            case ("deltas", str(zone), str(task), ZoneTask() as asked) if (
                not answer.error
            ):  # else it went with its task
                book = self.books[zone]
                if t := book.zone.tasks.get(task):
                    book.logs.setdefault(task, Log()).answered(answer.value, asked.next, t.next)

    def _poll(self, now: int) -> Iterator[Effect]:
        """Ask where the delta logs end, now and then, of tasks that are not over; find out when the past is read. One question is
        always asked: an answer shows that the log is there."""
        if not self._read:
            told = {self._metrics, self._letters, self._scores}
            known = {*told, *self._order_topics, *self._announcements} <= self._positions.keys()
            heard = known and all(self._ends.get(n, at + 1) <= at for n, at in self._positions.items())
            self._read = heard and all(r.caught_up for r in self._readings())
            if not self._read:
                return
            self._older_scores()
        if self._polled is None or now - self._polled >= self.poll_ms:
            self._polled = now
            self.sources.forget(now)
            asked = {meaning[:3] for meaning in self.requests.open.values()}
            if ("there",) not in asked:
                yield Ends(self.requests.new(("there",)), self._metrics)
            for zone, book in self.books.items():
                for task, t in book.zone.tasks.items():
                    if ("deltas", zone, task) not in asked:
                        name = topic(self.namespace, zone, "deltas", task).name
                        yield Ends(self.requests.new(("deltas", zone, task, t)), name)
        if self._caught_up is None and not self.requests.open:
            self._caught_up = now

    def _silent(self, heard: int | None, now: int) -> bool:
        return heard is not None and now - heard > self.silent_ms
