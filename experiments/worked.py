"""A log in memory whose aggregators take their time: in virtual time nothing else would.

An aggregator does one thing at a time: a delta is handed to it when the one before is added, and a sum that it sends to the
partials lands when it is written. How long that takes is measured, on Kafka (`benchmarks/results/aggregate.jsonl`).
"""

from collections import deque
from dataclasses import dataclass
from functools import partial

from processors.aggregator import Aggregator
from processors.patience import COMMIT_INTERVAL, LONGEST, WORTH
from streams.memory import Host, Memory, Partition
from streams.processor import Send, Tick

PARAMETERS = 11_200_000
DELTA = 4 * PARAMETERS
"""Bytes of a delta as int32: a model of ResNet-18's size, which benchmarks/results/aggregate.jsonl has in all its cases."""
SUM = 8 * PARAMETERS
"""Bytes of a sum of 64-bit integers."""
ADD_MIXED, ADD_ALONE = 267.0e6, 525.0e6
"""Bytes a second that one aggregator reads from a broker and adds: of eight tasks mixed ("consume workers=1 tasks=8 devices=6
parameters=11.2M"), and of one ("consume workers=1 devices=50 parameters=11.2M")."""
WRITE = 0.408
"""Seconds that a sum takes to be written and committed: by how much the last case's rate is less with its commit (479.2 MB/s)."""
WRITE_MIXED = 0.042
"""The same of the case with eight tasks, eight sums in all (267.0 and 256.2 MB/s): other tasks' deltas are added while a sum is on its
way. `Worked` takes `WRITE`: what a round waits for is its own sum."""
VALUES = 4
"""Of the block that stands for a delta."""
WORTH_HERE = WORTH * 8 * VALUES / SUM
"""What an aggregator is told, so that it puts off the commit of such a block's sum as long as that of a real one."""
SESSION = 6_000
"""ms until the group gives up a worker that died: the roles' default."""


@dataclass(frozen=True)
class Way:
    """`pools`: "one" for all tasks, or one of its own for each "task"; `workers` of each; `complete`: task-oriented, a round's deltas
    are cached until it is complete; `interval`: that of the commits as the command has it, in ms; `crashes` in a day, spread evenly."""

    pools: str
    workers: int
    complete: bool = False
    interval: int = COMMIT_INTERVAL
    crashes: int = 0

    @property
    def read_ms(self) -> int:
        """ms that a delta takes. Task by task the sum stays in the caches."""
        return round(1000 * DELTA / (ADD_ALONE if self.complete else ADD_MIXED))

    @property
    def pause_ms(self) -> int:
        """ms between two commits of a worker that has much to do."""
        return max(self.interval, min(SUM // WORTH, LONGEST))

    @property
    def write_ms(self) -> int:
        return round(1000 * WRITE)

    @property
    def shards(self) -> int:
        return max(4, self.workers)


class Worked(Memory):
    """A log whose aggregators are at work for a while: `read_ms` for each delta, `write_ms` for each sum, one thing at a time. And
    they tick when a commit may be due, whatever their own ticks."""

    def __init__(self, seed: int, way: Way):
        super().__init__(seed=seed, latency=(1, 1), session_timeout=SESSION)
        self.way = way
        self.network = self._write
        self.lines: dict[tuple[Host, int], deque[Partition]] = {}
        self.free: dict[tuple[Host, int], int] = {}
        """When a life of a worker has done what it has begun."""
        self.busy_ms = self.sums = self.again = 0
        self.read_to: dict[Partition, int] = {}

    def _work(self, host: Host, ms: int) -> int:
        """Something that takes so long; in how many ms it is done."""
        key = (host, host.lives)
        self.free[key] = max(self.now, self.free.get(key, 0)) + ms
        self.busy_ms += ms
        return self.free[key] - self.now

    def _write(self, host: Host, sent: Send) -> list[int]:
        if ".partials" in sent.topic and not (sent.key or "").endswith("/bits"):
            self.sums += 1
            return [self._work(host, self.way.write_ms) + self.delay()]
        return [self.delay()]

    def _hand_over(self, host: Host, tp: Partition) -> None:
        if ".deltas." not in tp[0]:
            self.batch = 1_000
            super()._hand_over(host, tp)
            return
        line = self.lines.setdefault((host, host.lives), deque())
        line.append(tp)
        if len(line) == 1:
            self._serve(host, line)

    def _serve(self, host: Host, line: deque[Partition]) -> None:
        while line and (line[0] not in host.positions or line[0] in host.paused):
            host.pumping.discard(line.popleft())
        if line:
            self._for(host, self._work(host, self.way.read_ms), partial(self._served, host, line))

    def _remind(self, host: Host) -> None:
        worker = host.processor
        assert isinstance(worker, Aggregator)
        if any(
            self.now - acc.started >= worker.patience.ms(acc) for w in worker.work.values() for acc in w.open.values()
        ):
            self._give(host, Tick())

    def _served(self, host: Host, line: deque[Partition]) -> None:
        tp = line[0]
        at = host.positions.get(tp)
        self.batch = 1
        super()._hand_over(host, tp)
        if at is not None and host.positions.get(tp) == at + 1:
            self.again += at < self.read_to.get(tp, 0)
            self.read_to[tp] = max(at + 1, self.read_to.get(tp, 0))
        self._for(host, self.way.interval, partial(self._remind, host))
        line.popleft()
        self._serve(host, line)
