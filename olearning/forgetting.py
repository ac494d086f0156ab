"""Tombstones for what topics keep of each task that ever was, and everybody reads at each start: its record in `global.tasks`, its last
score in `evaluations`, the last word on it in each partition of a zone's `announcements`. A tombstone is a key without a value: the
broker deletes what it kept under that key when it compacts the log, and some day the tombstone, too.

A task's records go once it is over for as long as its topics stay (`outlived`): by the global ledger, or by the zone's for what the
zone announces. What that rests on:

- what came of a task is in the ledgers' folds: its name is in `over` there for good, so it is refused whether its record is there or not,
  no score of it is asked for, and no round of it opens;
- who follows these topics leaves tombstones out (`Record.tombstone`): they are no submission and end nothing;
- what someone writes of it later (a submission by other means than the command, an evaluator that was asleep, a new leader's last word)
  is left out as it was before, lies behind the tombstone, and gets another one the next time;
- each partition's last record of a task decides. So who was killed in the midst runs again and writes what is missing; a tombstone that
  lands twice says the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from olearning.errors import Trouble
from olearning.outlived import over_before
from olearning.view import View
from schemas.topics import GLOBAL, Topic, zone_topics
from streams.kafka import Kafka
from streams.ledger import Globe, Zone
from streams.processor import Answer, Effect, Ends, Follow, Input, Membership, Record, Requests, Send, Stop, Unfollow


@dataclass(frozen=True)
class Forgotten:
    """So many partitions of a topic keep a record of a task that is over in the zone (or globe) since `since` (ms since 1970): each gets a
    tombstone for it, or would."""

    topic: str
    zone: str
    task: str
    since: int
    tombstones: int


class Forgetting:
    """Reads such topics to the ends that they have, then writes the tombstones, unless it is a `dry` run; stops when all have landed.
    `view` has read the namespace's ledgers; tasks count that are over there since before `until` (ms)."""

    membership: Membership | None = None
    tick = 1_000
    name = "prune"

    def __init__(self, view: View, until: int, dry: bool = False):
        self.dry, self.written = dry, False
        self.requests = Requests()
        self.topics: dict[str, Topic] = {}
        self.over: dict[str, dict[str, int]] = {}
        """By topic, the tasks whose records go, and since when they are over (ms)."""
        self.kept: dict[tuple[str, str], set[int]] = {}
        """By topic and such a task, the partitions whose last record of it has a value."""
        self.left: dict[tuple[str, int], int] = {}
        """By partition that is not read to it, its end."""
        folds: dict[str, Globe | Zone] = {GLOBAL: view.globe, **view.zones}
        for scope, fold in folds.items():
            over = {task: x.time for task, x in fold.over.items() if x.time < until}
            for t in zone_topics(view.namespace, scope) if over else ():
                if t.kind.compact and t.kind.key == "task":
                    self.topics[t.name], self.over[t.name] = t, over

    @property
    def found(self) -> list[Forgotten]:
        """What gets tombstones, or would."""
        return [
            Forgotten(name, self.topics[name].zone, task, self.over[name][task], len(partitions))
            for (name, task), partitions in sorted(self.kept.items())
            if partitions
        ]

    def start(self, now: int) -> Iterator[Effect]:
        yield from (Ends(self.requests.new(("ends", name)), name) for name in self.topics)
        yield from self._next()

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Record():
                yield from self._read(event)
            case Answer(error=error) if error:
                yield Stop(f"{self.name}: {error}")
                return
            case Answer(tag, value):
                match self.requests.close(tag):
                    case ("ends", str(name)):
                        self.left |= {(name, p): end for p, end in value.items() if end}
                        yield from (Follow(name, p, 0) for p, end in value.items() if end)
        yield from self._next()

    def _read(self, record: Record) -> Iterator[Effect]:
        where, task = (record.topic, record.partition), record.key or ""
        if task in self.over[record.topic]:
            partitions = self.kept.setdefault((record.topic, task), set())
            (partitions.discard if record.tombstone else partitions.add)(record.partition)
        if record.offset + 1 >= self.left.get(where, 0):
            self.left.pop(where, None)
            yield Unfollow(*where)

    def _next(self) -> Iterator[Effect]:
        if self.requests.open or self.left:
            return
        sends = [] if self.dry or self.written else [*self._tombstones()]
        self.written = True
        yield from sends
        if not sends:
            yield Stop("all is written", ok=True)

    def _tombstones(self) -> Iterator[Send]:
        for (name, task), partitions in self.kept.items():
            for p in sorted(partitions):
                yield Send(name, None, task, p, self.requests.new(("tombstone", name, task, p)), ())


async def forgotten(kafka: Kafka, view: View, age: int, dry: bool = False) -> list[Forgotten]:
    """What gets tombstones, or with `dry` would, of tasks that are over for `age` (ms), and no less than deltas are kept. `view` has read
    the namespace's ledgers to their ends. Raises `Trouble` if a topic cannot be read or written."""
    forgetting = Forgetting(view, over_before(kafka.clock(), age), dry)
    stop = await kafka.host(forgetting)
    if not stop.ok:
        raise Trouble(stop.reason)
    return forgetting.found
