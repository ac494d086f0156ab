"""The global coordinator: configurator and global leader, under one leadership and one token. Reads every zone's ledger."""

from collections.abc import Iterator, Sequence

from processors.configurator import Configurator
from processors.desk import GlobalDesk
from processors.global_leader import GlobalLeader
from schemas.facts import ZoneJoined
from schemas.topics import GLOBAL, topic
from streams.processor import Answer, Assigned, Effect, Follow, Input, Record, Stop


class GlobalCoordinator(GlobalDesk):
    def __init__(self, namespace: str, zones: Sequence[str], partitions: int, name: str, life: str):
        super().__init__(namespace, zones, partitions, name, life)
        self.tasks_topic = topic(namespace, GLOBAL, "tasks")
        self._zone_of = {topic(namespace, z, "ledger").name: z for z in zones}
        self.configurator = Configurator(self)
        self.leader = GlobalLeader(self)

    def start(self, now: int) -> Iterator[Effect]:
        yield from self.begin()
        yield Follow(self.tasks_topic.name, 0, 0)
        yield from (Follow(name, 0, 0) for name in self._zone_of)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Record(topic=name) if name == self.ledger_topic.name:
                yield from self.feed(event)
            case Record(topic=name) if name in self._zone_of:
                zone = self._zone_of[name]
                fact, void = self.zones[zone].feed(event)
                if fact is not None and not void:
                    self.leader.zone_fact(zone, event.offset, fact)
            case Record():
                yield from self.configurator.submission(event)
            case Assigned():
                self.assigned(event)
            case Answer(tag, value, error):
                asked = self.requests.close(tag)
                ours = asked is not None and asked[0] in ("topics", "version 0")
                if error and not ours:
                    yield Stop(f"global: {error}")
                elif self.heard(asked, value) or asked is None or not self.token:
                    pass
                elif ours:
                    self.configurator.answer(asked, value, error)
                else:
                    yield from self.leader.answer(asked, value, now)
        yield from self.claim(now)
        if self.token:
            yield from self._join(now)
            yield from self.configurator.react(now)
            yield from self.leader.react(now)

    def led(self) -> Iterator[Effect]:
        self.leader.forget()
        return iter(())

    def _join(self, now: int) -> Iterator[Effect]:
        if strangers := [z for z in self.globe.zones if z not in self.zones]:
            yield Stop(f"zones {', '.join(strangers)} are part of the globe and not named here: add them to --zones")
            return
        for name, ledger in self.zones.items():
            zone = ledger.state
            if zone.ledger and name not in self.globe.zones:
                joined = ZoneJoined(self.token, name, zone.ledger, zone.partitions)
                yield from self.offers.make(("joined", name), joined, now)
