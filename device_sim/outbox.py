"""An edge's deltas of one zone on their way to the log: at once, or as fast as the zone's credits allow.

The scheduler says how many bytes a second this edge may send (`processors/credits.py`). It is kept to by a token bucket: what is
sent takes its bytes out, they come back at that rate, up to `BURST_S` seconds' worth; a block goes when there is anything in it at
all, and may leave it in debt, so that one that is larger than the bucket goes as well.

Credits delay, they never forbid. What comes late to a round is lost work, so each block has a moment from which on it waits for no
credit: half way between when it came and when it is due, which is the end of its device's lease or the round's deadline, whichever
is first. So credit takes no more than half of the time that a delta has left; the other half is the network's. The same moment
says which goes first. A block that is due already goes at once. Where credits are not heard of, or not for `STALE` ms, all goes
at once: a scheduler that dies holds up nobody.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from schemas.messages import Announcement, Credits
from streams.processor import Send

STALE = 6_000
BURST_S = 0.25


@dataclass(frozen=True, slots=True)
class Parcel:
    """A block of a delta, of a round of a task."""

    send: Send
    task: str
    round: int

    @property
    def size(self) -> int:
        return self.send.size


def due(a: Announcement, lease: int) -> int:
    """When a block of a round is to be there at the latest, of a device that holds its slot until `lease` (ms)."""
    at = min(lease, a.deadline)
    if a.serve:  # it may close so long after it has its devices, which it had not before this one came
        at = min(at, lease - a.lease + a.serve)
    return at


@dataclass
class Outbox:
    """Times in ms. `waiting`: bytes in it."""

    edge: str
    rate: int = 0
    heard: int = -STALE - 1
    tokens: float = 0.0
    since: int = 0
    """When the bucket was looked at."""
    waiting: int = 0
    sent: int = 0
    sent_bytes: int = 0
    """Blocks that went, and their bytes."""
    left: int = 0
    """Blocks whose round was over before they went."""
    _heap: list[tuple[int, int, Parcel]] = field(default_factory=list)
    _count: int = 0

    def hear(self, m: Credits, timestamp: int, now: int) -> None:
        """Credits that the log took at `timestamp`; old ones are none."""
        if not self.limited(now):
            self.since, self.tokens = now, 0.0
        self._fill(now)
        self.rate, self.heard = m.shares.get(self.edge, m.other), min(timestamp, now)

    def limited(self, now: int) -> bool:
        return now - self.heard <= STALE

    def put(self, parcel: Parcel, due: int, now: int) -> None:
        """`due`: when it is to be there at the latest."""
        self._count += 1
        self.waiting += parcel.size
        heapq.heappush(self._heap, (now + max(0, due - now) // 2, self._count, parcel))

    def take(self, now: int, over: Callable[[Parcel], bool]) -> Iterator[Send]:
        """What goes now; `over`: whether a block's round takes no more."""
        free = not self.limited(now)
        self._fill(now)
        while self._heap and (free or self.tokens > 0 or self._heap[0][0] <= now):
            _, _, parcel = heapq.heappop(self._heap)
            self.waiting -= parcel.size
            if over(parcel):
                self.left += 1
                continue
            self.tokens -= parcel.size
            self.sent += 1
            self.sent_bytes += parcel.size
            yield parcel.send

    def _fill(self, now: int) -> None:
        seconds = max(0, now - self.since) / 1000  # a clock may be set back
        self.tokens = min(self.tokens + seconds * self.rate, max(seconds, BURST_S) * self.rate)
        self.since = now
