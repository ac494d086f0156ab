"""What an aggregator reads first. It obeys by pausing partitions: a worse task waits while a better one has work here.

- Only the partitions of this aggregator count, and what is known to be in their logs: once the better task is read to there,
  the others go on at once.
- A better task makes others wait when more than `MANY` blocks of it lie unread, until they are read: a pause drops what the
  client has fetched, so it must be worth it.
- A task that does not come forward for `STUCK` ms makes nobody wait, and an order older than `STALE` ms is none. So no order,
  and no scheduler that dies, holds up the plane.
- The partitions of a closed round never wait (design §6, Close).

Task-oriented (the paper's baseline, §7.3), there is no order to hear: blocks are cached in the log until a round's are all
there, or it is closed; then tasks go one at a time, by name.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from processors.work import Shard, Work
from schemas.messages import Priorities
from schemas.topics import read, topic
from schemas.wire import Malformed
from streams.ledger import Zone, ZoneTask
from streams.processor import Answer, Effect, Ends, Follow, Pause, Record, Resume

STALE = 6_000
MANY = 8
STUCK = 1_000


class Going(NamedTuple):
    """How a task comes forward: to where its shards are read, since when they stand there, and whether that is too long."""

    read: tuple[int, ...] = ()
    since: int = 0
    stuck: bool = False


class Order:
    """Of one aggregator's tasks, for one zone."""

    def __init__(self, namespace: str, zone: str, task_oriented: bool = False):
        self.topic = topic(namespace, zone, "priorities").name
        self.task_oriented = task_oriented
        self.tasks: tuple[str, ...] = ()
        """Best first, as heard last."""
        self.heard = -STALE - 1
        self.first = ""
        """The task that others wait for."""
        self.waiting: frozenset[str] = frozenset()
        """The tasks that wait for it."""
        self._going: dict[str, Going] = {}

    # ------------------------------------------------------------------ hearing of it

    def start(self) -> Iterator[Effect]:
        if not self.task_oriented:
            yield Ends(("order", "end"), self.topic)

    def answer(self, answer: Answer) -> list[Effect] | None:
        """What comes of an answer; None if it was not asked here."""
        match answer:
            case Answer(tag=("order", _), error=error, value=None) if error:
                return []  # there is no such topic: no order, then
            case Answer(tag=("order", "end"), value=ends):
                return [Follow(self.topic, 0, ends[0], ("order", "gap"))]  # older ones are of no use
            case Answer(tag=("order", "gap"), value=(_, int(end))):
                return [Follow(self.topic, 0, end, ("order", "gap"))]
        return None

    def hear(self, record: Record, now: int) -> None:
        try:
            message = read(record.topic, record.value, record.headers)
        except Malformed:
            return
        if isinstance(message, Priorities):
            self.tasks, self.heard = tuple(dict.fromkeys(message.order)), min(record.timestamp, now)

    # ------------------------------------------------------------------ obeying it

    def obey(self, works: Mapping[str, Work], zone: Zone, now: int) -> Iterator[Effect]:
        """Pause what has to wait now, resume what need not any more."""
        if len(works) < 2 and not self.waiting and not self.task_oriented:
            return  # there is nothing to choose
        self.first, self.waiting = self._decide(works, zone, now)
        for task, work in works.items():
            for s, shard in work.shards.items():
                waits = self.waits(task, shard, s, zone.tasks[task])
                if waits != shard.waits:
                    shard.waits = waits
                    if not shard.paused:
                        yield Pause(work.topic, s) if waits else Resume(work.topic, s)

    def waits(self, task: str, shard: Shard, s: int, t: ZoneTask) -> bool:
        """Has this partition to wait?"""
        r = t.rounds.get(t.at[s])
        if r and r.closed and shard.position < r.closed.ends[s]:
            return False
        return task in self.waiting or (self.task_oriented and task != self.first)

    def drained(self, record: Record, works: Mapping[str, Work]) -> bool:
        """Was this the last known block of a log of the task that others wait for?"""
        work = works.get(self.first) if self.waiting else None
        return bool(
            work and work.topic == record.topic and record.offset + 1 >= work.landed.ends.get(record.partition, 0)
        )

    def _decide(self, works: Mapping[str, Work], zone: Zone, now: int) -> tuple[str, frozenset[str]]:
        """The task that is read now and makes others wait, if any; and those."""
        self._going = {task: self._look(task, work, now) for task, work in works.items()}
        if self.task_oriented:
            ready = [task for task in sorted(works) if all_there(works[task], zone.tasks[task]) and works[task].unread]
            first = min(ready, key=lambda task: self._going[task].stuck, default="")
            return first, frozenset(works.keys() - {first})
        if now - self.heard <= STALE:
            for i, task in enumerate(self.tasks):
                if task not in works or self._going[task].stuck:
                    continue
                if works[task].unread > (0 if task == self.first else MANY):
                    return task, frozenset(works.keys() & set(self.tasks[i + 1 :]))
        return "", frozenset()

    def _look(self, task: str, work: Work, now: int) -> Going:
        read = tuple(shard.position for shard in work.shards.values())
        before = self._going.get(task, Going())
        if read != before.read or not work.unread:
            return Going(read, now)
        if task in self.waiting:
            return before._replace(since=now)  # it was not let
        return before._replace(stuck=before.stuck or now - before.since >= STUCK)


def all_there(work: Work, t: ZoneTask) -> bool:
    """Do as many blocks of the round lie in the log of the zone as its demand comes to?"""
    r = t.rounds.get(t.round)
    if r is None or r.opened is None or t.state != "open":
        return False
    here = [s for s, at in enumerate(t.at) if at == t.round]
    landed = r.tally.offsets + sum(max(0, work.landed.ends.get(s, 0) - t.next[s]) for s in here)
    return landed >= r.opened.demand * len(r.opened.sizes)
