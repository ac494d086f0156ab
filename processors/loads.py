"""What the aggregators of a zone report, put together: by task what arrives, what waits and since when; and what one of them
manages.

Several aggregators speak of the same shards in turn, and a dead one's words are still in the log. So what is said of a
shard bears the token of its claim: a newer token's word replaces an older one's, and of one token the later word. What
nobody has spoken of for `SILENT` ms is left out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from processors.priorities import Demand, band
from schemas.messages import AggregatorReport, Waiting

SILENT = 15_000
SMOOTH = 3_000.0
"""ms over which a rate is averaged: what is older counts for about a third."""
BUSY = 0.25
"""An aggregator was busy between two reports if at both so much of what it read in between waited unread, or more."""


@dataclass
class _Shard:
    """A shard of a task, as last said under `token` at `at` by its holder's clock, and heard. `rate`: blocks a second that land."""

    token: int
    at: int
    waiting: Waiting
    heard: int
    rate: float = 0.0

    def hear(self, token: int, at: int, waiting: Waiting, heard: int) -> None:
        if token < self.token or (token == self.token and at <= self.at):
            return
        if token == self.token:  # else by another clock, and it may have lain there for long
            landed = max(0, waiting.end - self.waiting.end) * 1000 / (at - self.at)
            self.rate += (landed - self.rate) * (1 - math.exp((self.at - at) / SMOOTH))
        self.token, self.at, self.waiting, self.heard = token, at, waiting, heard


@dataclass
class _Task:
    shards: dict[int, _Shard] = field(default_factory=dict)
    size: int = 0
    """Bytes of a block."""
    band: int = 0


class Loads:
    """Of one zone."""

    def __init__(self) -> None:
        self.capacity = 0.0
        """Bytes a second that one aggregator reads, judges and adds while there is more than it can do; 0: not known yet."""
        self.aggregators: dict[str, tuple[AggregatorReport, int]] = {}
        """By name, what each reported last, and when that was heard."""
        self._tasks: dict[str, _Task] = {}

    def hear(self, report: AggregatorReport, now: int) -> None:
        """A report that came at `now`. Copies and late ones change nothing."""
        last, _ = self.aggregators.get(report.source, (None, 0))
        if last and report.at <= last.at:
            return
        if last:
            self._measure(last, report)
        self.aggregators[report.source] = report, now
        for load in report.tasks:
            task = self._tasks.setdefault(load.task, _Task())
            task.size = load.size or task.size
            for s, waiting in load.waiting.items():
                token = report.shards.get(s, 0)
                shard = task.shards.setdefault(s, _Shard(token, report.at, waiting, now))
                shard.hear(token, report.at, waiting, now)

    def _measure(self, old: AggregatorReport, new: AggregatorReport) -> None:
        """What an aggregator did between two reports, if it was busy all the time."""
        read = sum(t.bytes for t in new.tasks) - sum(t.bytes for t in old.tasks)
        left = min(sum(t.unread * t.size for t in r.tasks) for r in (old, new))
        if read > 0 and left >= BUSY * read:  # not of a new life, which begins at 0
            done = read * 1000 / (new.at - old.at)
            self.capacity += (done - self.capacity) / 4 if self.capacity else done

    def forget(self, now: int) -> None:
        """Leave out what nobody has spoken of for long."""
        self.aggregators = {name: x for name, x in self.aggregators.items() if now - x[1] < SILENT}
        for name, task in list(self._tasks.items()):
            task.shards = {s: x for s, x in task.shards.items() if now - x.heard < SILENT}
            if not task.shards:
                del self._tasks[name]

    def demands(self, tenants: Mapping[str, str]) -> list[Demand]:
        """One a task. `tenants` by task."""
        out = []
        for name, task in self._tasks.items():
            shards = task.shards.values()
            rate = sum(x.rate for x in shards) * task.size
            task.band = band(rate, task.band)
            blocks = sum(max(0, x.waiting.end - x.waiting.start) for x in shards)
            waited = max(x.waiting.ms for x in shards)
            out.append(Demand(name, rate, task.band, blocks, blocks * task.size, waited, tenants.get(name, "")))
        return out
