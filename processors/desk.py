"""What a coordinator works at: the ledger it may lead, whether it does, and what it asked and offered.

Leaders are processors like others: the group of the ledger's one partition elects them, their claim fences them, and they act
only after reading it back.
"""

from collections.abc import Iterator, Sequence
from typing import Generic

from processors.claims import Claims
from processors.offers import Offers
from schemas.facts import LEADERSHIP, Claimed, Founded
from schemas.messages import Ref
from schemas.topics import GLOBAL, topic
from schemas.wire import Message
from streams.ledger import Globe, Ledger, S, UnknownRules, Zone, leads
from streams.letters import dead_letter
from streams.processor import Assigned, Effect, Ends, Follow, Membership, Record, Requests, Stop, send


class Desk(Generic[S]):
    """One ledger's leadership. `token` is that under which this life leads, or 0."""

    tick = 50

    def __init__(self, namespace: str, scope: str, partitions: int, name: str, life: str, state: S):
        self.namespace, self.scope, self.partitions, self.name, self.life = namespace, scope, partitions, name, life
        self.ledger_topic = topic(namespace, scope, "ledger")
        self.membership: Membership | None = Membership(f"{namespace}.{scope}.leaders", self.ledger_topic.name)
        self.ledger: Ledger[S] = Ledger(state)
        self.claims = Claims(name, life)
        self.requests = Requests()
        self.offers = Offers(self.ledger_topic)
        self.token = 0
        self._caught_up: int | None = None

    def ref(self, offset: int) -> Ref:
        return self.ledger.ref(offset)

    def begin(self) -> Iterator[Effect]:
        """Read the ledger from its start, and learn how far that has to go before a claim can name today's token."""
        yield Follow(self.ledger_topic.name, 0, 0)
        yield Ends(self.requests.new(("caught up",)), self.ledger_topic.name)

    def assigned(self, event: Assigned) -> None:
        self.claims.want(frozenset({LEADERSHIP}) if event.seats else frozenset())

    def heard(self, asked: tuple | None, value: dict[int, int]) -> bool:
        """Whether an answer was the desk's own."""
        if asked != ("caught up",):
            return False
        self._caught_up = value[0]
        return True

    def claim(self, now: int) -> Iterator[Effect]:
        """Found the ledger if nobody did; claim the leadership if the group says so and the ledger does not yet."""
        state = self.ledger.state
        if self._caught_up is None or state.position < self._caught_up or not self.claims.wanted:
            return
        if not state.ledger:
            founded = Founded(f"{self.scope}-{self.life}", self.scope, self.partitions)
            yield from self.offers.make("founded", founded, now)
        elif claim := self.claims.make({LEADERSHIP: state.leader}, now):
            yield send(self.ledger_topic, claim)

    def feed(self, record: Record) -> Iterator[Effect]:
        """Fold a record of the ledger; `fold_fact` and `led` say what that brought."""
        try:
            fact, void = self.ledger.feed(record)
        except UnknownRules as e:
            yield Stop(str(e))
            return
        if fact is None and self.token:
            yield dead_letter(self.namespace, record, void, self.name)
        if isinstance(fact, Claimed) and not void:
            token = leads(self.ledger.state, self.name, self.life)
            if token != self.token:  # whatever was offered or asked under another token is void
                self.token = token
                self.offers.forget()
                self.requests.forget()
                yield from self.led()
        if self.token and fact is not None:
            yield from self.fold_fact(fact, record, void)

    def led(self) -> Iterator[Effect]:
        """The leadership came or went."""
        raise NotImplementedError

    def fold_fact(self, fact: Message, record: Record, void: str) -> Iterator[Effect]:
        """A fact came while we lead; `void` says why it is void, or ""."""
        return iter(())


class ZoneDesk(Desk[Zone]):
    """A zone's: with the global ledger to read, which says what tasks and epochs there are."""

    def __init__(self, namespace: str, zone: str, partitions: int, name: str, life: str):
        super().__init__(namespace, zone, partitions, name, life, Zone())
        self.globe: Ledger[Globe] = Ledger(Globe())

    @property
    def zone(self) -> Zone:
        return self.ledger.state


class GlobalDesk(Desk[Globe]):
    """The globe's: with the ledgers of all zones to read."""

    def __init__(self, namespace: str, zones: Sequence[str], partitions: int, name: str, life: str):
        super().__init__(namespace, GLOBAL, partitions, name, life, Globe())
        self.zones: dict[str, Ledger[Zone]] = {z: Ledger(Zone()) for z in zones}

    @property
    def globe(self) -> Globe:
        return self.ledger.state
