"""A namespace as a person sees it, from its topics alone: attached at any time, it knows the same.

It folds the ledgers, hears the metrics and the dead letters, and asks where the delta logs end. `snapshot` says how things
stand; `events` are what happened. It sends nothing, so any number may look at once.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from device_sim.availability import is_night
from olearning.books import MOST_OVER, GlobeBook, Letters, Log, Source, Sources, ZoneBook, segment, shard_word
from olearning.happenings import Event, clean, dead, evaluated, happened, objected
from olearning.places import Places, places
from olearning.snapshot import (
    LocalView,
    Place,
    RoundView,
    ScheduleView,
    ShardView,
    Snapshot,
    SourceView,
    TaskView,
    TenantView,
    ZoneView,
)
from olearning.waiting import phase, rivals, short, shortage, task_waits, zone_waits
from processors.quotas import Allowance
from processors.selector import REPEAT
from processors.standing import open_tasks, standings
from processors.tenancy import holds
from schemas.facts import ZoneJoined
from schemas.messages import (
    AggregatorReport,
    DeadLetter,
    Eligible,
    Evaluation,
    FleetReport,
    Objection,
    Presence,
    Priorities,
    RegistryReport,
    SchedulerReport,
    Standing,
)
from schemas.sharing import PLAN, UNSAID, SharingPlan
from schemas.topics import GLOBAL, read, topic
from schemas.wire import Malformed
from streams.ledger import GlobalTask, Globe, Zone, ZoneTask
from streams.processor import Answer, Effect, Ends, Follow, Input, Membership, Record, Requests, Starts, Stop, Tick
from streams.reading import WRONG, Reading

MOST_EVENTS = 10_000
"""Events that wait to be drained; older ones are forgotten."""
MOST_ANNOUNCED = 500
"""Announcements before the end of a partition among which a plan is looked for; who leads repeats it every 5 s."""
QUIET = 2 * REPEAT + 2_000
"""ms without an announcement, while a round is open, after which a zone's leader is taken for gone."""
MOST_EPOCHS = 1_000
"""Evaluations that are kept of a task."""


class View:
    """How a plane stands, read from its topics: a processor to be hosted, by `Kafka` or `Memory`, which sends nothing.

    `zones`: those that are there before they join the globe, if one knows them; the others are learnt from its ledger.
    `silent_ms`: who reports nothing for so long is taken for gone. Raises `BadName` (a `ValueError`) for a namespace or zone that
    is no slug.
    """

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
        self.heard = 0
        """When the log last said anything, in ms."""

    # ------------------------------------------------------------------ inputs

    def start(self, now: int) -> Iterable[Effect]:
        self.now = self.heard = now
        yield from self.globe_book.reading.start()
        for name in (self._metrics, self._letters):  # not kept for ever: they may begin above 0
            yield Starts(self.requests.new(("start", name)), name)
        for zone in self._first_zones:
            yield from self._join(zone)

    def handle(self, event: Input, now: int) -> Iterable[Effect]:
        self.now = now
        if not isinstance(event, Tick):
            if self._silent(self.heard, now):
                self._back(now)
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

    def _back(self, now: int) -> None:
        """The log was away: what nobody could say meanwhile is no silence."""
        self.announced = dict.fromkeys(self.announced, now)
        for source in self.sources.all.values():
            if not self._silent(source.heard, self.heard):
                source.heard = now
        for zone, (said, at) in self.advice.items():
            if not self._silent(at, self.heard):
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
            if record.offset >= self._ends.get(record.topic, 0):
                self.announced[zone] = now
            if record.key == PLAN:
                self._planned(zone, record)
        else:
            self._positions[record.topic] = record.offset + 1
            self._heard(record, now)

    def _heard(self, record: Record, now: int) -> None:
        """Metrics and dead letters. What cannot be read there is left out: nothing rests on it."""
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

    def _forget_scores(self) -> None:
        """Of the tasks that are over only the last are kept."""
        if len(self.accuracy) > MOST_OVER:
            over = [task for task in self.accuracy if (t := self.globe.tasks.get(task)) and t.state == "ended"]
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
            case ("cut", str(name)):  # retention was quicker
                yield Ends(self.requests.new(("orders", name)), name)
                return
            case ("cut announcements", str(name)):
                yield Ends(self.requests.new(("announcements", name)), name)
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
                    yield Follow(name, 0, max(0, end - 1), ("cut", name))
            case (
                "announcements",
                str(name),
            ):  # who leads is alive by what is said from now on; a plan may have been said before
                end = 0 if answer.error else answer.value[0]
                first = end if name in self._ends else max(0, end - MOST_ANNOUNCED)
                self._positions[name], self._ends[name] = first, end
                if not answer.error:
                    self.announced.setdefault(self._announcements[name], now)
                    yield Follow(name, 0, first, ("cut announcements", name))
            case ("deltas", str(zone), str(task), ZoneTask() as asked) if (
                not answer.error
            ):  # else it went with its task
                book = self.books[zone]
                log = book.logs.setdefault(task, Log())
                log.answered(answer.value, asked.next, book.zone.tasks[task].next)
                log.final = asked.retired

    def _poll(self, now: int) -> Iterator[Effect]:
        """Ask where the delta logs end, now and then, of tasks that are not over; find out when the past is read. One question is
        always asked: an answer shows that the log is there."""
        if not self._read:
            known = {self._metrics, self._letters, *self._order_topics, *self._announcements} <= self._positions.keys()
            heard = known and all(self._ends.get(n, at + 1) <= at for n, at in self._positions.items())
            self._read = heard and all(r.caught_up for r in self._readings())
            if not self._read:
                return
        if self._polled is None or now - self._polled >= self.poll_ms:
            self._polled = now
            self.sources.forget(now)
            asked = {meaning[:3] for meaning in self.requests.open.values()}
            if ("there",) not in asked:
                yield Ends(self.requests.new(("there",)), self._metrics)
            for zone, book in self.books.items():
                for task, t in book.zone.tasks.items():
                    over = t.retired and task in book.logs and book.logs[task].final
                    if not over and ("deltas", zone, task) not in asked:
                        name = topic(self.namespace, zone, "deltas", task).name
                        yield Ends(self.requests.new(("deltas", zone, task, t)), name)
        if self._caught_up is None and not self.requests.open:
            self._caught_up = now

    # ------------------------------------------------------------------ how things stand

    def snapshot(self, now: int) -> Snapshot:
        """How things stand at `now` (ms since 1970). Where the log is silent, how they stood when it last said anything."""
        away = now - self.heard if self._silent(self.heard, now) else 0
        now -= away  # nobody is silent, and nothing late, because we hear nothing
        globe, standing, sharing = self.globe, standings(self.globe, self.zones, now), holds(self.globe)
        tasks = [self._task(g, now) for g in globe.tasks.values()]
        tasks += [
            TaskView(
                name,
                "",
                "refused",
                0,
                0,
                {},
                why=clean(r.reason),
                since=self.globe_book.moved.get(name, 0),
                phase="refused",
            )
            for name, r in globe.refused.items()
            if name not in globe.tasks
        ]
        zones = tuple(self._zone(name, now) for name in sorted(self.books))
        return Snapshot(
            at=now,
            namespace=self.namespace,
            caught_up=self.caught_up,
            leader=globe.leader.holder,
            leader_token=globe.leader.token,
            tasks=tuple(tasks),
            zones=zones,
            letters=dict(sorted(self.letters.reasons.items(), key=lambda x: -x[1])),
            voids=dict(self.globe_book.voids),
            tenants=self._tenants(standing, zones),
            policy=sharing.policy,
            policy_args=dict(sharing.args),
            policy_by=sharing.by,
            away=away,
        )

    def _tenants(self, standing: Mapping[str, Standing], zones: Sequence[ZoneView]) -> tuple[TenantView, ...]:
        where: dict[str, list[str]] = {}
        """By task, the zones where a round of it is open and waits."""
        for z in zones:
            for r in z.rounds:
                if r.state == "open" and r.queued:
                    where.setdefault(r.task, []).append(z.zone)
        sharing = [s for s in standing.values() if s.tasks or s.devices]
        weights, devices = sum(s.weight for s in sharing), sum(s.devices for s in sharing)
        out = []
        for name, s in standing.items():
            q, mine = s.quota, tuple(open_tasks(self.globe, name))
            waits = {task: tuple(where[task]) for task in mine if task in where}
            part, now = (s.weight / weights, s.devices / devices if devices else None) if s in sharing else (None, None)
            has = (q.tasks, s.devices, q.devices, s.bytes, q.bytes)
            out.append(TenantView(name, s.weight, mine, *has, share=part, share_now=now, waits=waits))
        return tuple(out)

    def _task(self, g: GlobalTask, now: int) -> TaskView:
        task, e = g.spec.task, g.spec.epochs
        zones = {z: self.books[z].zone for z in g.zones if z in self.books}
        here = {z: zones[z].tasks.get(task) for z in zones}
        done = {z: t.merged_rounds if t and t.epoch == g.epoch else 0 for z, t in here.items()}
        moved = [self.books[z].moved.get(task, 0) for z in zones] if g.state == "open" else []
        waits = task_waits(g, self.globe, zones, now)
        return TaskView(
            task=task,
            tenant=g.spec.tenant,
            state=g.state,
            epoch=g.epoch,
            epochs=e.count,
            rounds={z: (n, e.rounds) for z, n in done.items()},
            accuracy={n: x.accuracy for n, x in sorted(self.accuracy.get(task, {}).items())},
            waits=waits,
            since=max(self.globe_book.moved.get(task, 0), *moved, 0) if waits else 0,
            why=clean(g.why),
            phase=phase(g),
            losses={n: x.loss for n, x in sorted(self.accuracy.get(task, {}).items())},
        )

    def _zone(self, name: str, now: int) -> ZoneView:
        book = self.books[name]
        zone = book.zone
        fleets, aggregators = self.sources.of(FleetReport, name), self.sources.of(AggregatorReport, name)
        devices: dict[str, int] = {}
        busy = 0
        for fleet in fleets.values():
            if isinstance(fleet.report, FleetReport) and not self._silent(fleet.heard, now):
                devices |= {k: devices.get(k, 0) + n for k, n in fleet.report.states.items()}
                busy += fleet.report.busy
        logs = {task: book.logs.get(task, Log()) for task in zone.tasks}
        unread = {task: logs[task].unread(t) for task, t in zone.tasks.items()}
        shards = []
        for s, h in enumerate(zone.shards):
            words = [log.word(s) for task, log in logs.items() if not zone.tasks[task].retired]
            source = aggregators.get(h.holder)
            gone = self._silent(source.heard if source else self._caught_up, now)
            here = {task: t.next[s] for task, t in zone.tasks.items() if not t.retired}
            word = shard_word(h.holder, gone, words)
            shards.append(ShardView(s, h.holder, h.token, here, sum(u[s] for u in unread.values()), word))
        heard, open_ = self.announced.get(name), [t for t in zone.tasks.values() if t.state == "open" and not t.retired]
        tasks = [g for g in self.globe.tasks.values() if name in g.zones]
        allowance, want = Allowance(self.globe, zone, name, now), short(zone)
        rounds = tuple(self._round(g, name, shards, unread, devices, allowance, want, now) for g in tasks)
        return ZoneView(
            zone=name,
            position=zone.position,
            leader=zone.leader.holder,
            leader_token=zone.leader.token,
            leader_silent=bool(zone.leader.token and open_ and heard is not None and now - heard > QUIET),
            rounds=rounds,
            shards=tuple(shards),
            devices=devices,
            busy=busy,
            fleets=tuple(self._source(n, fleets, now) for n in fleets),
            aggregators=tuple(self._source(n, aggregators, now) for n in aggregators),
            voids=dict(book.voids),
            blocks=sum(logs[task].blocks(t) for task, t in zone.tasks.items()),
            sent_bytes=sum(s.bytes for s in fleets.values()),
            read_bytes=sum(s.bytes for s in aggregators.values()),
            unread=sum(map(sum, unread.values())),
            schedule=self._schedule(name, zone, now),
            seen=self.present[name].devices if name in self.present else None,
            local=self._local(fleets.values(), now),
        )

    def _local(self, fleets: Iterable[Source], now: int) -> LocalView | None:
        """The time of day by the fleet that was heard last."""
        for f in sorted(fleets, key=lambda f: -f.heard):
            if isinstance(f.report, FleetReport) and (at := f.report.local) and not self._silent(f.heard, now):
                hours = (at.hours + (now - f.heard) * 24 / at.day) % 24
                return LocalView(hours, is_night(hours), at.day)
        return None

    def _schedule(self, name: str, zone: Zone, now: int) -> ScheduleView | None:
        if name not in self.advice:
            return None
        (advice, heard), said = self.advice[name], self.orders.get(name)
        order = tuple(t for t in said.order if t in zone.tasks and not zone.tasks[t].retired) if said else ()
        why = {t: said.why.get(t, "") for t in order} if said else {}
        silent = self._silent(heard, now)
        return ScheduleView(advice.source, heard, silent, order, why, advice.workers, advice.wanted, advice.why)

    def _round(
        self,
        g: GlobalTask,
        name: str,
        shards: Sequence[ShardView],
        unread: Mapping[str, list[int]],
        devices: Mapping[str, int],
        allowance: Allowance,
        want: Sequence[str],
        now: int,
    ) -> RoundView:
        """A task in a zone; `want` are those there that want more devices."""
        book, task = self.books[name], g.spec.task
        t = book.zone.tasks.get(task)
        left, known = unread.get(task, []), {z: self.books[z].zone for z in g.zones if z in self.books}
        r = t.rounds.get(t.round) if t else None
        o = r.opened if r else None
        presence = self.present.get(name)
        lack = shortage(g, book.zone, presence, allowance)
        sharing, plan = self.globe.sharing, self.plans.get(name)
        shared = rivals(task, want, sharing.sharing.policy) if sharing else ""
        waits = zone_waits(g, book.zone, name, shards, left, devices, known, now, lack, shared)
        able = presence.eligible.get(task) if presence else None
        if able is None and presence and not g.spec.needs.public and g.state != "ended":
            able = Eligible(presence.devices)
        return RoundView(
            task=task,
            epoch=t.epoch if t else 0,
            round=t.round if t else 0,
            state=("over" if t.retired else t.state) if t else "new",
            devices=r.contributors if r else 0,
            demand=o.demand if o else g.spec.rounds.demand,
            registered=len(r.devices) if r else 0,
            lapsed=len(r.lapsed) if r else 0,
            deadline_left=o.deadline - now if o and t and t.state == "open" else None,
            rounds_done=t.merged_rounds if t and t.epoch == g.epoch else 0,
            rounds_goal=g.spec.epochs.rounds,
            mean_loss=book.losses.get(task),
            waits=waits,
            since=max(book.moved.get(task, 0), self.globe_book.moved.get(task, 0)) if waits else 0,
            segment=segment(t),
            total=book.total(task) if t else segment(None),
            unread=sum(left),
            blocks=book.logs.get(task, Log()).blocks(t) if t else 0,
            places=o.places if o else g.spec.rounds.places,
            eligible=able.devices if able else None,
            below=dict(able.below) if able else {},
            curve=book.curves.get(task, ()),
            place=Place(UNSAID.policy, chosen=True) if sharing is None else plan.of(task) if plan else None,
        )

    def _source(self, name: str, among: Mapping, now: int) -> SourceView:
        s = among[name]
        return SourceView(name, s.heard, self._silent(s.heard, now), s.blocks, s.bytes)

    def _silent(self, heard: int | None, now: int) -> bool:
        return heard is not None and now - heard > self.silent_ms
