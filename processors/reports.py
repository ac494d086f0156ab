"""What an aggregator says of its work: its report, by which the scheduler decides and operators look (`processors/loads.py` puts a zone's
together), and marks for the tools that show lag. Nobody's sums depend on either."""

from collections.abc import Iterator, Mapping

from processors.work import Work
from schemas.messages import TaskLoad
from streams.ledger import Zone
from streams.processor import Mark

MOST_SAID = 8_000
"""Shards of tasks that one report speaks of: it must fit a record."""
REMARK = 60_000
"""ms after which offsets for lag tools are said again: a mark may get lost, and Kafka forgets those of a group that is silent for a week."""


def loads(works: Mapping[str, Work], zone: Zone, now: int) -> tuple[TaskLoad, ...]:
    """What there is to say of each task that is worked for."""
    return tuple(load(task, works, zone, now) for task in sorted(works))


def load(task: str, works: Mapping[str, Work], zone: Zone, now: int) -> TaskLoad:
    """The same of one of them."""
    t, work = zone.tasks[task], works[task]
    r = t.rounds.get(t.round)
    size = work.bytes // work.blocks if work.blocks else 0
    if not size and r and r.opened:
        size = 4 * sum(r.opened.sizes) // len(r.opened.sizes)  # none was read yet: as int32, about
    known = [(s, shard) for s, shard in work.shards.items() if s in work.landed.ends]
    some = known[: MOST_SAID // len(works)]
    waiting = {s: work.landed.waiting(s, shard.position, now) for s, shard in some}
    return TaskLoad(task, t.round, work.blocks, work.bytes, dict(work.outcomes), work.unread, waiting, size)


class Marks:
    """How far accepted commits go, as the offsets of a consumer group without members."""

    def __init__(self, group: str):
        self.group = group
        self._said: dict[tuple[str, int], int] = {}
        self._all = 0
        """When all of it was said last."""

    def new(self, works: Mapping[str, Work], zone: Zone, now: int) -> Iterator[Mark]:
        """What is new since the last mark, of the shards that are held; all of it now and then."""
        if now - self._all >= REMARK:
            self._all, self._said = now, {}
        at = {(w.topic, s): zone.tasks[k].next[s] for k, w in works.items() for s in w.shards}
        if new := dict(at.items() - self._said.items()):
            yield Mark(self.group, new)
        self._said = at
