"""Which devices came to a zone lately, and what they can do: what a sharing policy weighs against what tasks need.

From the check-ins alone, by the zone's own pseudonyms. It is what was seen, no decision: whoever leads next reads the last of them again.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from processors.devices import heard
from schemas.messages import CheckIn
from schemas.sharing import ABILITIES, Abilities, amounts
from schemas.topics import topic
from schemas.wire import Malformed
from streams.processor import Effect, Ends, Follow, Record, Unfollow

LATELY = 300_000
"""Devices that checked in within so many ms count,"""
FEW = 200
"""if there are so many;"""
LAST = 1_000
"""else those that checked in last. Only ratios between abilities matter to most policies, so the span itself does not."""
MOST = 10_000
"""Devices that are remembered, those that came last."""


class Crowd:
    """Of one zone, while its coordinator leads and a policy wants to know."""

    def __init__(self, namespace: str, zone: str, name: str):
        self.namespace, self.name = namespace, name
        self.topic = topic(namespace, zone, "checkins").name
        self.seen: dict[str, tuple[int, Abilities]] = {}
        """By device, when it was heard of last (ms), and its abilities; the last one last."""
        self.partitions = 0
        """0: nobody wants to know."""
        self.changed = False
        self._asked = 0

    def follow(self, partitions: int) -> Iterator[Effect]:
        """Begin to read, a little before the end."""
        if not self.partitions:
            self.partitions = partitions
            self._asked += 1
            yield Ends(("crowd", self._asked), self.topic)

    def ended(self, asked: int, ends: dict[int, int]) -> Iterator[Effect]:
        """The check-ins end there."""
        if self.partitions and asked == self._asked:
            for p, end in ends.items():
                yield Follow(self.topic, p, max(0, end - LAST), ("crowd", self._asked, p))

    def skip(self, asked: int, p: int, log: tuple[int, int]) -> Iterator[Effect]:
        """What came before is not kept any more."""
        if self.partitions and asked == self._asked:
            yield Follow(self.topic, p, log[0], ("crowd", self._asked, p))

    def end(self) -> Iterator[Effect]:
        """Nobody wants to know any more: forget all."""
        if self.partitions:
            yield from (Unfollow(self.topic, p) for p in range(self.partitions))
            self.partitions, self.seen, self.changed = 0, {}, False
            self._asked += 1

    def checkin(self, record: Record) -> None:
        if not self.partitions:
            return  # it was under way
        try:
            message = heard(record, CheckIn)
        except Malformed:
            return  # the registry, which reads them all, says so
        before = self.seen.pop(message.device, None)
        if not message.gone:
            self.seen[message.device] = max(record.timestamp, before[0] if before else 0), message.abilities
        self.changed = True
        if len(self.seen) > MOST:
            del self.seen[next(iter(self.seen))]

    def abilities(self, now: int) -> npt.NDArray[np.float64]:
        """Of the devices that count at `now` (ms), float64 of shape (n, 5) in the order of `ABILITIES`."""
        self.changed = False
        here = [a for at, a in self.seen.values() if at > now - LATELY]
        if len(here) < FEW:
            here = [a for _, a in sorted(self.seen.values(), key=lambda x: x[0])[-LAST:]]
        return np.array([amounts(a) for a in here]).reshape(-1, len(ABILITIES))
