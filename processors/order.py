"""What an aggregator reads first. It obeys by pausing partitions: a worse task waits while a better one of its tenant has work here,
and a tenant that had more than its share waits for the others (`processors/shares.py`).

- Only the partitions of this aggregator count, and what is known to be in their logs: once the better task is read to there,
  the others go on at once.
- A better task makes others wait when more than `MANY` blocks of it lie unread, until they are read: a pause drops what the
  client has fetched, so it must be worth it.
- A task that does not come forward for `STUCK` ms makes nobody wait, and an order older than `STALE` ms is none. So no order,
  and no scheduler that dies, holds up the plane.
- The partitions of a closed round never wait for an order (design §6, Close). For a tenant's share they do: it has its share of
  what is read, closed rounds or not, and else a flood would go first by closing its round.
- Shares need no scheduler. It says what tenants weigh; until it does, all weigh the same.

Task-oriented (the paper's baseline, §7.3), there is no order to hear: blocks are cached in the log until a round's are all
there, or it is closed; then tasks go one at a time, by name, and there are no shares.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from processors.shares import TURN, Shares
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

    def __init__(self, namespace: str, zone: str, task_oriented: bool = False, turn: int = TURN):
        self.topic = topic(namespace, zone, "priorities").name
        self.task_oriented = task_oriented
        self.shares = Shares(turn)
        self.tasks: tuple[str, ...] = ()
        """Best first, as heard last."""
        self.heard = -STALE - 1
        self.first: frozenset[str] = frozenset()
        """The tasks that others wait for."""
        self.waiting: frozenset[str] = frozenset()
        """The tasks that wait for them."""
        self.ahead: frozenset[str] = frozenset()
        """The tasks of tenants that had more than their share."""
        self.tenants: dict[str, str] = {}
        """By task, whose it is."""
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
            self.shares.weights = message.weights

    # ------------------------------------------------------------------ obeying it

    def obey(self, works: Mapping[str, Work], zone: Zone, now: int) -> Iterator[Effect]:
        """Pause what has to wait now, resume what need not any more."""
        if len(works) < 2 and not self.waiting and not self.ahead and not self.task_oriented:
            return  # there is nothing to choose
        self._going = {task: self._look(task, work, now) for task, work in works.items()}
        self.tenants = {task: tenant_of(zone.tasks[task]) for task in works}
        self.first, self.waiting = self._decide(works, zone, now)
        self.ahead = self._share(works)
        for task, work in works.items():
            for s, shard in work.shards.items():
                waits = self.waits(task, shard, s, zone.tasks[task])
                if waits != shard.waits:
                    shard.waits = waits
                    if not shard.paused:
                        yield Pause(work.topic, s) if waits else Resume(work.topic, s)

    def waits(self, task: str, shard: Shard, s: int, t: ZoneTask) -> bool:
        """Has this partition to wait?"""
        if task in self.ahead:
            return True
        r = t.rounds.get(t.at[s])
        if r and r.closed and shard.position < r.closed.ends[s]:
            return False
        return task in self.waiting or (self.task_oriented and task not in self.first)

    def took(self, record: Record, works: Mapping[str, Work]) -> bool:
        """A block was read: whether that is a reason to `obey` anew. It is if a tenant's turn is over, or if this was the last known
        block of a log that others wait for."""
        task = record.topic.rsplit(".", 1)[-1]
        over = task in self.tenants and self.shares.served(self.tenants[task], len(record.value or b""))
        work = works.get(task) if task in self.first or self.ahead else None
        return over or bool(work and record.offset + 1 >= work.landed.ends.get(record.partition, 0))

    def wrote(self, task: str, bytes: int) -> None:
        """So much of a task's sums is written: that is work for its tenant as well."""
        if task in self.tenants:
            self.shares.served(self.tenants[task], bytes)

    def hungry(self, works: Mapping[str, Work]) -> list[str]:
        """Tasks that may have got something to read since their logs' ends were asked, while others' flow: where tenants share, that
        is to be known soon."""
        if self.task_oriented or len(set(self.tenants.values())) < 2:
            return []
        return [task for task, work in works.items() if not work.unread]

    def _decide(self, works: Mapping[str, Work], zone: Zone, now: int) -> tuple[frozenset[str], frozenset[str]]:
        """The tasks that are read now and make others wait: at most one of each tenant. And those others."""
        if self.task_oriented:
            ready = [task for task in sorted(works) if all_there(works[task], zone.tasks[task]) and works[task].unread]
            first = min(ready, key=lambda task: self._going[task].stuck, default="")
            return frozenset({first}), frozenset(works.keys() - {first})
        best: dict[str, str] = {}
        waiting: set[str] = set()
        for task in self.tasks if now - self.heard <= STALE else ():
            if task not in works:
                continue
            tenant = self.tenants[task]
            if tenant in best:
                waiting.add(task)
            elif not self._going[task].stuck and works[task].unread > (0 if task in self.first else MANY):
                best[tenant] = task
        return frozenset(best.values()) if waiting else frozenset(), frozenset(waiting)

    def _share(self, works: Mapping[str, Work]) -> frozenset[str]:
        """The tasks of tenants that had more than their share, while others have something to read."""
        if self.task_oriented:
            return frozenset()
        ready = {self.tenants[k] for k, w in works.items() if w.readable and not self._going[k].stuck}
        ahead = self.shares.decide(set(self.tenants.values()), ready)
        return frozenset(task for task, tenant in self.tenants.items() if tenant in ahead)

    def _look(self, task: str, work: Work, now: int) -> Going:
        read = tuple(shard.position for shard in work.shards.values())
        before = self._going.get(task, Going())
        if read != before.read or not work.unread:
            return Going(read, now)
        if task in self.waiting or task in self.ahead:
            return before._replace(since=now)  # it was not let
        return before._replace(stuck=before.stuck or now - before.since >= STUCK)


def tenant_of(t: ZoneTask) -> str:
    """Whose a task is, as its present round says."""
    r = t.rounds.get(t.round)
    return r.opened.tenant if r and r.opened else ""


def all_there(work: Work, t: ZoneTask) -> bool:
    """Do as many blocks of the round lie in the log of the zone as its demand comes to? Where slots owe parts of the model: as many as
    they come to who owe least."""
    r = t.rounds.get(t.round)
    if r is None or r.opened is None or t.state != "open":
        return False
    here = [s for s, at in enumerate(t.at) if at == t.round]
    landed = r.tally.offsets + sum(max(0, work.landed.ends.get(s, 0) - t.next[s]) for s in here)
    if not r.opened.partial:
        return landed >= r.opened.demand * len(r.opened.sizes)
    owed = sorted(r.owed(slot) for slot in range(len(r.devices)))[: r.opened.demand]
    return len(owed) == r.opened.demand and landed >= sum(owed)
