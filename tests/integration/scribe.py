"""Reads everything that a namespace says, for a test that asks about all of it afterwards."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from schemas.messages import Announcement
from schemas.topics import GLOBAL, parse, read, topic
from schemas.wire import Malformed, Message
from streams.ledger import Globe, Ledger, Zone
from streams.processor import Answer, Effect, Ends, Follow, Input, Membership, Record, Requests, Stop

SAID = ("checkins", "announcements", "registrations", "admissions", "receipts")


@dataclass(frozen=True)
class Heard:
    zone: str
    at: int
    message: Message


@dataclass
class Scribe:
    """Stops when all of `tasks` have ended, a moment later."""

    namespace: str
    zones: tuple[str, ...]
    tasks: tuple[str, ...]
    origin: int = 0
    """When midnight UTC of the first simulated day was (ms)."""
    settle: int = 3_000
    name: str = "scribe"
    tick: int = 100
    membership: Membership | None = None
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    facts: list[tuple[str, int, Any]] = field(default_factory=list)
    """Zone, time and accepted fact."""
    heard: list[Heard] = field(default_factory=list)
    ended: int = 0

    def __post_init__(self) -> None:
        self.requests = Requests()
        self.ledgers = {z: Ledger(Globe() if z == GLOBAL else Zone()) for z in (GLOBAL, *self.zones)}

    def start(self, now: int) -> Iterator[Effect]:
        for z in self.ledgers:
            yield Follow(topic(self.namespace, z, "ledger").name, 0, 0)
            for what in SAID if z != GLOBAL else ("metrics", "evaluations"):
                name = topic(self.namespace, z, what).name
                yield Ends(self.requests.new((name,)), name)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Answer(tag, value):
                (name,) = self.requests.close(tag)
                yield from (Follow(name, p, 0) for p in value)
            case Record():
                self._record(event)
        g = self.ledgers[GLOBAL].state
        over = all(task in g.over for task in self.tasks)
        if over and not self.ended:
            self.ended = now
        if self.ended and now - self.ended > self.settle:
            yield Stop("all is said", ok=True)

    def _record(self, record: Record) -> None:
        t = parse(record.topic)
        if t.kind.what == "ledger":
            fact, void = self.ledgers[t.zone].feed(record)
            if fact is not None and not void:
                self.facts.append((t.zone, record.timestamp, fact))
            return
        try:
            message = read(record.topic, record.value, record.headers)
        except Malformed:
            return
        if not isinstance(message, Announcement) or record.partition == 0:
            self.heard.append(Heard(t.zone, record.timestamp, message))

    # ------------------------------------------------------------------ asking

    def of(self, kind: type, zone: str = "", task: str = "") -> list[Any]:
        """The accepted facts of a kind, in the order of the ledgers."""
        return [
            f
            for z, _, f in self.facts
            if isinstance(f, kind) and zone in ("", z) and task in ("", getattr(f, "task", task))
        ]

    def said(self, kind: type, zone: str = "", task: str = "") -> list[Any]:
        """The messages of a kind."""
        return [
            h.message
            for h in self.heard
            if isinstance(h.message, kind) and zone in ("", h.zone) and task in ("", getattr(h.message, "task", task))
        ]
