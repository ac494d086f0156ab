"""Where a task's delta logs end, as asked now and then: so what lies in them unread, and since when."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.messages import Waiting

MOST = 64
"""Ends remembered of a log that grows and is not read."""


@dataclass
class Landed:
    """`ends` by shard, as asked last."""

    ends: dict[int, int] = field(default_factory=dict)
    _seen: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """By shard, (when, end) whenever it had grown, as far as that is not read."""

    def answered(self, ends: Mapping[int, int], read: Mapping[int, int], now: int) -> None:
        """The logs end there now. `read`: to where, by shard; the others are of no interest."""
        self.ends = dict(ends)
        self._seen = {s: self._grown(self._seen.get(s, []), ends[s], at, now) for s, at in read.items()}

    def _grown(self, seen: list[tuple[int, int]], end: int, read: int, now: int) -> list[tuple[int, int]]:
        seen = [x for x in seen if read < x[1] <= end]
        if end > (seen[-1][1] if seen else read):
            if len(seen) >= MOST:
                del seen[1::2]  # the oldest stays
            seen.append((now, end))
        return seen

    def waiting(self, s: int, read: int, now: int) -> Waiting:
        """What of a shard that is read to there is not read."""
        since = next((at for at, end in self._seen.get(s, ()) if end > read), now)
        return Waiting(read, max(read, self.ends.get(s, 0)), max(0, now - since))
