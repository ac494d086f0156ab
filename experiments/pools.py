"""A day's uploads replayed to real aggregators on the log in memory, in virtual time: what they hold, and when rounds are done.

Real: the aggregators, the ledger's fold, the log, the group that shares the shards out, crashes. Modelled: that
work takes time (`Worked`), since in virtual time nothing does; and models are small: a delta is one block of four values that stands
for `DELTA` bytes. The leader's facts (opened, admitted, closed, finalised) are written by `Pools`, as the trace has them; it
adds each round's partials up and compares them with what the devices sent, bit by bit.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.uploads import MINUTE, Round
from experiments.worked import DELTA, SUM, VALUES, WORTH_HERE, Way, Worked
from processors.aggregator import Aggregator
from schemas.blocks import DeltaBlock, Manifest, Place, SumBlock
from schemas.facts import LEADERSHIP, Admitted, Claimed, Closed, Finalised, Founded, Opened, Slot
from schemas.messages import Ref
from schemas.topics import GLOBAL, task_topics, topic, zone_topics
from schemas.wire import Message, checksum, decode
from streams.ledger import Ledger, Zone, ZoneTask, summed
from streams.memory import Host
from streams.processor import Processor, Record, send

COARSE = 30_000
"""ms between ticks of aggregators: fewer than really. `Worked` gives those that commits wait for."""
NO_REPORT = 10**9
KINDS = ("service", "kept", "unread", "sums", "uncommitted", "partials")
"""What a `Held` has."""
NAMESPACE, SIZES, TOKEN = "storage", (VALUES,), 1


class Wrong(RuntimeError):
    """What came out is not what was sent: no figure of this run is to be trusted."""


@dataclass
class Pool:
    """The tasks that share workers, and a ledger."""

    zone: str
    tasks: list[str]
    ledger: Ledger[Zone] = field(default_factory=lambda: Ledger(Zone()))
    folded: int = 0
    admitted: int = 0
    hosts: list[Host] = field(default_factory=list)


@dataclass
class Held:
    """Bytes at a moment: deltas that arrived and are not added; sums in workers' memories; deltas that arrived and are in no accepted
    commit; sums written for rounds that are not done."""

    at: int
    unread: int = 0
    sums: int = 0
    uncommitted: int = 0
    partials: int = 0

    @property
    def service(self) -> int:
        """What the aggregation itself holds."""
        return self.unread + self.sums

    @property
    def kept(self) -> int:
        """What must be there so that no crash loses anything."""
        return self.uncommitted + self.partials + self.sums


class Pools:
    """`rounds` is the trace. `run` gives what was held at every minute; then `latencies` and the rest are there."""

    def __init__(self, rounds: Sequence[Round], way: Way, seed: int):
        self.rounds, self.way = rounds, way
        self.memory = Worked(seed, way)
        tasks = sorted({r.task for r in rounds})
        self.pools = [Pool("pool", tasks)] if way.pools == "one" else [Pool(f"of-{t}", [t]) for t in tasks]
        self.of = {task: pool for pool in self.pools for task in pool.tasks}
        self.due: dict[tuple[str, int], npt.NDArray[np.int64]] = {}
        """By task and round, the sum of what its devices sent."""
        self.began: dict[str, list[int]] = {}
        """By task, where its logs ended when its last round began."""
        self.closed: dict[str, int] = {}
        """By task, when its last round was closed."""
        self.latencies: list[int] = []
        """By round, ms from its close until all is added and committed."""
        self.lost: list[int] = []
        """By crash, bytes that devices would upload anew by the paper's rule."""
        for t in zone_topics(NAMESPACE, GLOBAL):
            self.memory.create(t.name, 1)
        for pool in self.pools:
            self._found(pool)
        self.memory.run(limit=MINUTE // 2)  # claims
        self.memory.busy_ms = 0

    # ------------------------------------------------------------------ the plane

    def _found(self, pool: Pool) -> None:
        for t in zone_topics(NAMESPACE, pool.zone):
            self.memory.create(t.name, t.partitions(self.way.shards))
        for task in pool.tasks:
            for t in task_topics(NAMESPACE, pool.zone, task):
                self.memory.create(t.name, self.way.shards)
        self._say(pool, Founded(f"ledger-{pool.zone}", pool.zone, self.way.shards))
        self._say(pool, Claimed("leader", "life", {LEADERSHIP: 0}))
        for n in range(self.way.workers):
            pool.hosts.append(self.memory.host(partial(self._aggregator, pool.zone, f"worker-{n}")))

    def _aggregator(self, zone: str, name: str, life: str) -> Processor:
        way = self.way
        made = Aggregator(NAMESPACE, zone, name, life, way.interval, NO_REPORT, way.complete, WORTH_HERE)
        made.tick = COARSE
        return made

    def _say(self, pool: Pool, fact: Message) -> int:
        return self.memory.append(send(topic(NAMESPACE, pool.zone, "ledger"), fact))[1]

    # ------------------------------------------------------------------ the day

    def run(self, hours: int) -> list[Held]:
        """The trace, and what is held at each minute of it. Raises `Wrong`."""
        held: list[Held] = []
        for at, act in sorted(self._events(hours, held), key=lambda event: event[0]):
            self.memory.run(limit=at - self.memory.now)
            act()
        self.memory.run(limit=10 * MINUTE)
        self._fold()
        if len(self.latencies) != len(self.rounds):
            raise Wrong(f"{len(self.latencies)} of {len(self.rounds)} rounds are done")
        for host in self.memory.hosts:
            if host.stopped:
                raise Wrong(host.stopped.reason)
        return held

    def _events(self, hours: int, held: list[Held]) -> Iterator[tuple[int, Callable[[], Any]]]:
        """What happens when; of what happens at once, this order is kept."""
        for r in self.rounds:
            yield r.opens, partial(self._open, r)
            for at, slot in r.uploads:
                yield at, partial(self._upload, r, slot)
            yield r.closes, partial(self._close, r)
        for minute in range(1, hours * 60):
            yield minute * MINUTE, lambda: held.append(self._held())
        for n in range(self.way.crashes):
            at = (60 * hours * (2 * n + 1) // (2 * self.way.crashes)) * MINUTE + 30_000
            host = self.pools[0].hosts[n % self.way.workers]
            yield at, partial(self._crash, host)
            yield at + MINUTE, host.restart

    def _task(self, task: str) -> ZoneTask | None:
        return self.of[task].ledger.state.tasks.get(task)

    def _open(self, r: Round) -> None:
        self._fold()
        t, pool = self._task(r.task), self.of[r.task]
        if t and t.state != "finalised":
            raise Wrong(f"round {t.round} of {r.task} is not done when the next one opens: too few workers")
        base = Manifest("none", 0, (Place(0, 0, "none", 0),))
        self.began[r.task] = self._ends(r.task)
        self._say(
            pool,
            Opened(
                token=TOKEN, task=r.task, round=r.number, epoch=1, source=Ref("none", 0), base=base, demand=r.demand, places=len(r.devices),
                minimum=1, deadline=2**62, grace=0, lease=2**40, staleness=0, sizes=SIZES, unit=-24, largest=2**30, heaviest=1,
            ),
        )  # fmt: skip
        slots = tuple(Slot(r.task, r.number, i, device) for i, device in enumerate(r.devices))
        pool.admitted = self._say(pool, Admitted(TOKEN, pool.admitted, {}, slots))
        self.due[r.task, r.number] = np.zeros(SIZES[0], np.int64)

    def _upload(self, r: Round, slot: int) -> None:
        device, values = r.devices[slot], _values(r, slot)
        self.due[r.task, r.number] += values
        block = DeltaBlock(r.task, r.number, slot, device, 0, "int32", 0, 1, 1, 0, values.astype("<i4").data.cast("B"))
        self.memory.append(send(topic(NAMESPACE, self.of[r.task].zone, "deltas", r.task), block, device))

    def _close(self, r: Round) -> None:
        self.closed[r.task] = self.memory.now
        self._say(self.of[r.task], Closed(TOKEN, r.task, r.number, "trace", dict(enumerate(self._ends(r.task)))))

    def _ends(self, task: str) -> list[int]:
        return [len(log) for log in self.memory.topics[topic(NAMESPACE, self.of[task].zone, "deltas", task).name]]

    # ------------------------------------------------------------------ the leader

    def _fold(self) -> None:
        """Read the ledgers on; what is done is finalised, and compared."""
        for pool in self.pools:
            name = topic(NAMESPACE, pool.zone, "ledger").name
            log = self.memory.topics[name][0]
            while pool.folded < len(log):
                time = log[pool.folded].timestamp
                fact, void = pool.ledger.feed(self._record(name, pool.folded))
                pool.folded += 1
                if void:
                    continue
                task = getattr(fact, "task", "")
                t = pool.ledger.state.tasks.get(task)
                if t and t.state == "closed" and min(t.at) > t.round:
                    self._finalise(pool, task, t, time)

    def _record(self, name: str, offset: int) -> Record:
        s = self.memory.topics[name][0][offset]
        return Record(name, 0, offset, s.key, s.value, s.timestamp, s.headers)

    def _finalise(self, pool: Pool, task: str, t: ZoneTask, at: int) -> None:
        """The partials must add up to what was sent."""
        r = t.rounds[t.round]
        logs = self.memory.topics[topic(NAMESPACE, pool.zone, "partials").name]
        total = np.zeros(SIZES[0], np.int64)
        for place in (place for c in r.commits for place in c.fact.sums if place):
            block = decode(logs[place.partition][place.offset].value, (SumBlock,))
            if checksum(block.data) != place.checksum:
                raise Wrong(f"the partial at {place.key} is not what was written")
            total += np.frombuffer(block.data, "<i8")
        if (total != self.due[task, t.round]).any():
            raise Wrong(f"round {t.round} of {task} adds up to {total}, and {self.due[task, t.round]} was sent")
        self.latencies.append(at - self.closed[task])
        self._say(pool, Finalised(TOKEN, task, t.round, summed(r), r.contributors, r.contributors, 0, 0.0, None))

    # ------------------------------------------------------------------ what is held

    def _held(self) -> Held:
        self._fold()
        held = Held(self.memory.now)
        for pool in self.pools:
            works = [h.processor.work for h in pool.hosts if h.alive]  # type: ignore[attr-defined]
            accumulators = (acc for work in works for w in work.values() for acc in w.accumulators())
            held.sums += SUM * sum(acc.total is not None for acc in accumulators)
            for task, t in pool.ledger.state.tasks.items():
                read = list(t.next)
                for work in works:
                    if task in work:
                        for s, shard in work[task].shards.items():
                            read[s] = max(read[s], shard.position)
                ends = self._ends(task)
                held.unread += DELTA * (sum(ends) - sum(read))
                held.uncommitted += DELTA * (sum(ends) - sum(t.next))
                if t.state != "finalised":
                    held.partials += SUM * len(summed(t.rounds[t.round]))
        return held

    def _crash(self, host: Host) -> None:
        """By the paper's rule devices upload anew what the worker had of rounds that are not done: all deltas that came to it."""
        self._fold()
        name, shards = host.processor.name, self.pools[0].ledger.state.shards
        mine = [s for s, seat in enumerate(shards) if seat.holder == name]
        lost = 0
        for task in self.pools[0].tasks:
            t = self._task(task)
            if t and t.state != "finalised":
                ends = self._ends(task)
                lost += sum(ends[s] - self.began[task][s] for s in mine)
        self.lost.append(DELTA * lost)
        host.crash()


def _values(r: Round, slot: int) -> npt.NDArray[np.int64]:
    """A delta, as its device sends it."""
    return (np.arange(1, SIZES[0] + 1) * 7919 * (slot + 1) + r.number) % 65_521 - 32_760
