"""The global coordinator: configurator, tenancy and global leader, under one leadership and one token. Reads every zone's ledger."""

from collections.abc import Iterator, Sequence

from processors.configurator import Configurator
from processors.desk import EVERY, GlobalDesk
from processors.global_leader import GlobalLeader
from processors.registry import Registry
from processors.tenancy import Tenancy
from schemas.facts import ZoneJoined
from schemas.messages import Evaluation
from schemas.topics import GLOBAL, parse, read, topic
from schemas.wire import Malformed
from streams.letters import dead_letter
from streams.processor import Answer, Assigned, Effect, Ends, Follow, Input, Record, Stop


class GlobalCoordinator(GlobalDesk):
    def __init__(self, namespace: str, zones: Sequence[str], partitions: int, name: str, life: str, every: int = EVERY):
        super().__init__(namespace, zones, partitions, name, life, every)
        self.tasks_topic, self.tenants_topic = topic(namespace, GLOBAL, "tasks"), topic(namespace, GLOBAL, "tenants")
        self.evaluations = topic(namespace, GLOBAL, "evaluations")
        self._zone_of = {r.topic: z for z, r in self.zone_readings.items()}
        self._unread: dict[tuple[str, str], int] = {}
        """By task and zone, the last result that lies below the checkpoint from which the zone's ledger is read."""
        self._fresh: int | None = None
        """Where the own ledger ended when one of these was first missed; -1: asked."""
        self.registry = Registry(namespace, name)
        self.tenancy = Tenancy(self)
        self.configurator = Configurator(self, self.tenancy, self.registry)
        self.leader = GlobalLeader(self)

    def start(self, now: int) -> Iterator[Effect]:
        yield from self.begin()
        yield Follow(self.tasks_topic.name, 0, 0)
        yield Follow(self.tenants_topic.name, 0, 0)
        yield Follow(self.evaluations.name, 0, 0)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Record(topic=name) if name == self.ledger_topic.name:
                yield from self.feed(event)
                if not self.token:
                    self.configurator.tidy()
                    self.leader.tidy()
            case Record(topic=name) if name in self._zone_of:
                zone = self._zone_of[name]
                got = yield from self.read(self.zone_readings[zone], event)
                if got and got[0] is not None and not got[1]:
                    self.leader.zone_fact(zone, event.offset, got[0])
            case Record(topic=name) if parse(name).kind.what == "checkins":
                yield from self.registry.checkin(event)
                return  # the next tick looks what it means
            case Record(topic=name) if name == self.evaluations.name:
                yield from self._evaluation(event)
            case Record(topic=name) if name == self.tenants_topic.name:
                yield from self.tenancy.record(event)
            case Record():
                self.tenancy.read = event.offset + 1
                yield from self.configurator.submission(event)
            case Assigned():
                self.assigned(event)
            case Answer() if (effects := self.answered(event)) is not None:
                yield from effects
            case Answer(tag=("checkins", str(name), int(p)), value=log):
                yield from self.registry.skip(name, p, log)
            case Answer(tag=("checkins end", str(name)), value=ends) if not event.error:
                self.registry.ended(name, ends)
            case Answer(tag, value, error):
                asked = self.requests.close(tag)
                ours = asked is not None and asked[0] in ("topics", "version 0")
                if error and not ours:
                    yield Stop(f"global: {error}")
                elif self.checkpoints.heard(asked, value) or asked is None or not self.token:
                    pass
                elif asked == ("fresh",):
                    self._fresh = value[0]
                elif asked[0] == "silence":
                    self.tenancy.answer(asked, value, now)
                elif ours:
                    self.configurator.answer(asked, value, error)
                else:
                    yield from self.leader.answer(asked, value, now)
        yield from self.claim(now)
        if self.token:
            yield from self.checkpoint(now)
            yield from self._join(now)
            for zone, joined in self.globe.zones.items():
                yield from self.registry.follow(zone, joined.partitions)
            yield from self.registry.report(now, self.globe.tasks)
            yield from self.tenancy.report(now)
            yield from self.tenancy.react(now)
            yield from self.configurator.react(now)
            yield from self.tenancy.silence(now, self.configurator.pending())
            if missing := self._missing():
                yield from self._doubt(missing)
            else:
                yield from self.leader.react(now)

    def _evaluation(self, record: Record) -> Iterator[Effect]:
        if record.tombstone:
            return
        try:
            message = read(record.topic, record.value, record.headers)
            assert isinstance(message, Evaluation)
            self.leader.evaluated(message)
        except Malformed as e:
            yield dead_letter(self.namespace, record, str(e), self.name)

    def led(self) -> Iterator[Effect]:
        self.leader.forget()
        self.tenancy.forget()
        self.configurator.forget()
        self._fresh = None
        yield from self.registry.end()

    def zone_jumped(self, zone: str) -> Iterator[Effect]:
        """Its results up to here are not known one by one, as `GlobalLeader` needs them until they are taken."""
        tasks = self.zones[zone].state.tasks
        self._unread |= {(task, zone): t.manifest_at for task, t in tasks.items() if t.manifest}
        return iter(())

    def _missing(self) -> str:
        """What of the zones' results is not taken and cannot be read, in words, or "". A zone's leader cuts its ledger nowhere above
        what is taken. So this only finds what someone else cut, and pieces that are lost; and, in one that slept while others
        took them, results that its fold does not know to be taken."""
        for (task, zone), at in list(self._unread.items()):
            g = self.globe.tasks.get(task)
            if task in self.globe.over or (g and at < g.taken.get(zone, 0)):
                del self._unread[task, zone]
            elif g:
                reading = self.zone_readings[zone]
                return (
                    f"the result of {task} in {reading.topic}@{at} is not taken yet, and the ledger can only be read from "
                    f"{reading.origin} on: bring {reading.topic} or its checkpoints back from a backup"
                )
        return ""

    def _doubt(self, missing: str) -> Iterator[Effect]:
        """Read the own ledger to the end it has now; if that is still missing then, nothing can be merged."""
        if self._fresh is None:
            self._fresh = -1
            yield Ends(self.requests.new(("fresh",)), self.ledger_topic.name)
        elif 0 <= self._fresh <= self.globe.position:
            yield Stop(missing)

    def _join(self, now: int) -> Iterator[Effect]:
        if strangers := [z for z in self.globe.zones if z not in self.zones]:
            yield Stop(f"zones {', '.join(strangers)} are part of the globe and not named here: add them to --zones")
            return
        for name, ledger in self.zones.items():
            zone = ledger.state
            if zone.ledger and name not in self.globe.zones:
                joined = ZoneJoined(self.token, name, zone.ledger, zone.partitions)
                yield from self.offers.make(("joined", name), joined, now)
