"""What a coordinator works at: the ledger it may lead, whether it does, and what it asked and offered.

Leaders are processors like others: the group of the ledger's one partition elects them, their claim fences them, and they act
only after reading it back.
"""

from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import Generic

from processors.checkpoints import Checkpoints
from processors.claims import Claims
from processors.offers import Offers
from schemas.facts import LEADERSHIP, Abandoned, Checkpoint, Claimed, Founded
from schemas.messages import Ref
from schemas.topics import GLOBAL, topic
from schemas.wire import Message
from streams.ledger import Globe, Ledger, S, Zone, leads
from streams.letters import dead_letter
from streams.processor import Answer, Assigned, Effect, Membership, Record, Requests, Stop, send
from streams.reading import WRONG, Reading

EVERY = 1_000
"""A ledger's leader makes a checkpoint after so many records."""


class Desk(Generic[S]):
    """One ledger's leadership. `token` is that under which this life leads, or 0. `every`: see `Founded`, if it founds one."""

    tick = 50

    def __init__(self, namespace: str, scope: str, partitions: int, name: str, life: str, state: S, every: int):
        self.namespace, self.scope, self.partitions, self.name, self.life = namespace, scope, partitions, name, life
        self.ledger_topic = topic(namespace, scope, "ledger")
        self.membership: Membership | None = Membership(f"{namespace}.{scope}.leaders", self.ledger_topic.name)
        self.every = every
        self.reading: Reading[S] = Reading(namespace, scope, state, self._jumped)
        self.readings: list[Reading] = [self.reading]
        """Of its own ledger, and of the others that it reads."""
        self.ledger: Ledger[S] = self.reading.ledger
        self.claims = Claims(name, life)
        self.requests = Requests()
        self.offers = Offers(self.ledger_topic)
        self.checkpoints: Checkpoints[S] = Checkpoints(self.ledger, namespace, scope, self.requests, self.offers)
        self.token = 0

    def ref(self, offset: int) -> Ref:
        return self.ledger.ref(offset)

    def begin(self) -> Iterator[Effect]:
        """Read the ledgers from where they begin."""
        for reading in self.readings:
            yield from reading.start()

    def read(self, reading: Reading, record: Record) -> Generator[Effect, None, tuple[Message | None, str] | None]:
        """A record of a ledger, as `Reading.record`; stops at what is wrong."""
        try:
            return (yield from reading.record(record))
        except WRONG as e:
            yield Stop(str(e))
            return None

    def answered(self, answer: Answer) -> list[Effect] | None:
        """What comes of an answer to one of the readings; None for any other."""
        try:
            return next((effects for r in self.readings if (effects := r.answer(answer)) is not None), None)
        except WRONG as e:
            return [Stop(str(e))]

    def assigned(self, event: Assigned) -> None:
        self.claims.want(frozenset({LEADERSHIP}) if event.seats else frozenset())

    def checkpoint(self, now: int) -> Iterator[Effect]:
        """While we lead: see to it that the ledger is checkpointed and cut."""
        yield from self.checkpoints.react(self.token, self.needed(), now)

    def ready(self) -> bool:
        """Whether what a leader acts on is read to the end that it had."""
        return self.reading.caught_up

    def needed(self) -> int:
        """The first offset of the ledger that others may need, whatever checkpoints there are."""
        return self.ledger.state.position

    def claim(self, now: int) -> Iterator[Effect]:
        """Found the ledger if nobody did; claim the leadership if the group says so and the ledger does not yet."""
        state = self.ledger.state
        if not self.ready() or not self.claims.wanted:
            return  # a claim names the token it replaces: that must be today's
        if not state.ledger:
            founded = Founded(f"{self.scope}-{self.life}", self.scope, self.partitions, every=self.every)
            yield from self.offers.make("founded", founded, now)
        elif claim := self.claims.make({LEADERSHIP: state.leader}, now):
            yield send(self.ledger_topic, claim)

    def feed(self, record: Record) -> Iterator[Effect]:
        """Fold a record of the ledger; `fold_fact` and `led` say what that brought."""
        got = yield from self.read(self.reading, record)
        if got is None:
            return
        fact, void = got
        if fact is None and self.token:
            yield dead_letter(self.namespace, record, void, self.name)
        if isinstance(fact, Claimed | Abandoned) and not void:
            token = leads(self.ledger.state, self.name, self.life)
            if token != self.token:
                yield from self._led(token)
        if self.token and isinstance(fact, Checkpoint) and not void:
            yield from self.checkpoints.cut()
        if self.token and fact is not None:
            yield from self.fold_fact(fact, record, void)

    def _led(self, token: int) -> Iterator[Effect]:
        self.token = token
        self.offers.forget()  # whatever was offered or asked under another token is void
        self.requests.forget()
        self.checkpoints.forget()
        yield from self.led()
        if token:
            yield from self.checkpoints.cut()  # a predecessor may not have come to it

    def _jumped(self) -> Iterator[Effect]:
        """The ledger's state is a checkpoint's now. What the records before it said is unknown: take over anew, if we lead."""
        token = leads(self.ledger.state, self.name, self.life)
        if token or self.token:
            yield from self._led(token)

    def led(self) -> Iterator[Effect]:
        """The leadership came or went."""
        raise NotImplementedError

    def fold_fact(self, fact: Message, record: Record, void: str) -> Iterator[Effect]:
        """A fact came while we lead; `void` says why it is void, or ""."""
        return iter(())


def untaken(scope: str, zone: Zone, globe: Globe) -> dict[str, int]:
    """By task of which the globe has yet to take a zone's results, the offset in that zone's ledger from which on it looks for them."""
    out = {}
    for task, t in zone.tasks.items():
        g = globe.tasks.get(task)
        taken = g.taken.get(scope, 0) if g else 0  # unknown: that fact is still to be read
        if t.manifest and t.manifest_at >= taken and task not in globe.over:
            out[task] = taken
    return out


class ZoneDesk(Desk[Zone]):
    """A zone's: with the global ledger to read, which says what tasks and epochs there are."""

    def __init__(self, namespace: str, zone: str, partitions: int, name: str, life: str, every: int = EVERY):
        super().__init__(namespace, zone, partitions, name, life, Zone(), every)
        self.globe_reading = Reading(namespace, GLOBAL, Globe())
        self.readings.append(self.globe_reading)
        self.globe: Ledger[Globe] = self.globe_reading.ledger

    @property
    def zone(self) -> Zone:
        return self.ledger.state

    def ready(self) -> bool:
        return self.reading.caught_up and self.globe_reading.caught_up

    def needed(self) -> int:
        """The global leader takes the rounds' results from here, task by task, and reads them again after a restart: those of a task
        of which there is one that is not taken."""
        return min([self.zone.position, *untaken(self.scope, self.zone, self.globe.state).values()])


class GlobalDesk(Desk[Globe]):
    """The globe's: with the ledgers of all zones to read."""

    def __init__(self, namespace: str, zones: Sequence[str], partitions: int, name: str, life: str, every: int = EVERY):
        super().__init__(namespace, GLOBAL, partitions, name, life, Globe(), every)
        self.zone_readings = {z: Reading(namespace, z, Zone(), partial(self.zone_jumped, z)) for z in zones}
        self.readings += self.zone_readings.values()
        self.zones: dict[str, Ledger[Zone]] = {z: r.ledger for z, r in self.zone_readings.items()}

    @property
    def globe(self) -> Globe:
        return self.ledger.state

    def zone_jumped(self, zone: str) -> Iterator[Effect]:
        """The state of that zone's ledger is a checkpoint's now."""
        return iter(())
