"""What all open pages share: the last snapshot, the last minutes, the last events; taken once a second, however many look on."""

import time
from collections import deque
from typing import Protocol

from olearning.happenings import Event
from olearning.monitor.facts import Facts
from olearning.monitor.trend import Trend
from olearning.snapshot import Snapshot

MOST_EVENTS = 1_000


class Source(Protocol):
    """Where it comes from; `olearning.view.View` is one."""

    def snapshot(self, now: int) -> Snapshot: ...

    def drain(self) -> list[Event]: ...


class Board:
    def __init__(self, source: Source, clock) -> None:  # type: ignore[no-untyped-def]
        self.source, self.clock = source, clock
        self.trend = Trend()
        self.events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self.beat = 0
        self.looked = time.monotonic()
        self.took = 0.0
        """Seconds that the last look took."""
        self.facts = Facts(source.snapshot(clock()))

    def look(self) -> None:
        """Take a new snapshot."""
        began = time.monotonic()
        self.facts = Facts(self.source.snapshot(self.clock()))
        self.trend.add(self.facts)
        self.events.extend(self.source.drain())
        self.beat += 1
        self.looked = time.monotonic()
        self.took = self.looked - began
