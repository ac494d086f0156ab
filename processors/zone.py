"""The zone coordinator: zone selector and zone leader, under one leadership and one token."""

from collections.abc import Iterable, Iterator

from processors.desk import EVERY, ZoneDesk
from processors.selector import Selector
from processors.zone_leader import Appraisal, ZoneLeader, worth
from schemas.facts import Retired
from schemas.wire import Message
from streams.processor import Answer, Assigned, Effect, Input, Record, Stop, Tick


class ZoneCoordinator(ZoneDesk):
    """`appraise`: what rounds are worth to devices, if not what the paper says."""

    def __init__(
        self,
        namespace: str,
        zone: str,
        partitions: int,
        name: str,
        life: str,
        every: int = EVERY,
        appraise: Appraisal = worth,
    ):
        super().__init__(namespace, zone, partitions, name, life, every)
        self.leader = ZoneLeader(self, appraise)
        self.selector = Selector(self)

    def start(self, now: int) -> Iterator[Effect]:
        return self.begin()

    def handle(self, event: Input, now: int) -> Iterable[Effect]:
        if isinstance(event, Record) and event.topic == self.selector.registrations.name:
            return self._registration(event, now)
        return self._handle(event, now)

    def _registration(self, record: Record, now: int) -> Iterable[Effect]:
        """Nothing but the selector's next offer can come of it: there are tens of thousands of these a second, and no generator for each."""
        effects = self.selector.registration(record)
        if self.token and self.selector.offered is None:
            return [*effects, *self.selector.react(now)]
        return effects

    def _handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Record(topic=name) if name == self.ledger_topic.name:
                yield from self.feed(event)
            case Record(topic=name) if name == self.globe_reading.topic:
                yield from self.read(self.globe_reading, event)
            case Record(topic=name) if name == self.selector.plans.crowd.topic:
                self.selector.plans.crowd.checkin(event)
                return  # the next tick looks what it means
            case Assigned():
                self.assigned(event)
            case Answer() if (effects := self.answered(event)) is not None:
                yield from effects
            case Answer(tag=("registrations", int(p)), value=log):
                yield from self.selector.skip(p, log)
            case Answer(tag=("crowd", int(n)), value=dict(ends)):
                yield from self.selector.plans.crowd.ended(n, ends)
            case Answer(tag=("crowd", int(n), int(p)), value=log):
                yield from self.selector.plans.crowd.skip(n, p, log)
            case Answer(error=error) if error:
                yield Stop(f"zone {self.scope}: {error}")
            case Answer(tag, value):
                asked = self.requests.close(tag)
                if not self.checkpoints.heard(asked, value) and asked is not None and self.token:
                    yield from self.leader.answer(asked, value, now)
            case Tick() if self.token:
                yield from self.selector.tick(now)
        yield from self.claim(now)
        if self.token:
            yield from self.checkpoint(now)
            yield from self.leader.react(now)
            yield from self.selector.react(now)

    def led(self) -> Iterator[Effect]:
        self.leader.forget()
        yield from self.selector.begin() if self.token else self.selector.end()

    def fold_fact(self, fact: Message, record: Record, void: str) -> Iterator[Effect]:
        if isinstance(fact, Retired) and not void:
            self.leader.retired(fact.task)
        return self.selector.fact(fact, record.offset, void)
