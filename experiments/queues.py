"""How long rounds wait for their aggregators, and how many it takes: queues in place of the real ones, where these would take too long.

Each worker does one thing after the other, deltas and sums, in the order in which they come; how long each takes, and when a sum
is due, is as in `experiments/worked.py` and `Patience.due`. What a round waits for is the last of its workers. Times in ms.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from experiments.uploads import Round
from experiments.worked import Way
from schemas.partitioner import shard_of

SHARDS = 240
"""So many that workers have about equal shares."""
QUANTILE = 0.99


def p99(latencies: Sequence[float]) -> float:
    return float(np.quantile(latencies, QUANTILE))


def needed(rounds: Sequence[Round], way: Callable[[int], Way], bound: int, most: int = 1_000) -> int:
    """The least number of workers, of each pool, with which 99 of 100 rounds wait `bound` ms or less; 0: `most` are not enough."""
    enough = lambda n: p99(latencies(rounds, way(n))) <= bound  # noqa: E731
    high = 1
    while not enough(high):
        if high >= most:
            return 0
        high = min(most, 2 * high)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def latencies(rounds: Sequence[Round], way: Way) -> list[int]:
    """By round, in the order of their closes, ms from the close until all is added and committed."""
    if way.complete:
        return _complete(rounds, way)
    return _on_arrival(rounds, way)


@lru_cache(maxsize=2**20)
def _shard(device: str) -> int:
    return shard_of(device, SHARDS)


def _complete(rounds: Sequence[Round], way: Way) -> list[int]:
    """Rounds are added as they close, each by all the workers of its pool."""
    free: defaultdict[tuple[str, int], int] = defaultdict(int)
    out = []
    for r in sorted(rounds, key=lambda r: r.closes):
        shares = np.bincount([_shard(r.devices[slot]) % way.workers for _, slot in r.uploads], minlength=way.workers)
        last = r.closes
        for worker in np.flatnonzero(shares):
            key = ("" if way.pools == "one" else r.task, int(worker))
            free[key] = max(free[key], r.closes) + int(shares[worker]) * way.read_ms + way.write_ms
            last = max(last, free[key])
        out.append(last - r.closes)
    return out


class _Worker:
    """`open`: by task how many deltas its sum has; `due`: when sums that were begun are to be written, in order; `done`: by task,
    when its last sum was written."""

    def __init__(self, way: Way) -> None:
        self.way, self.free = way, 0
        self.open: dict[str, int] = {}
        self.due: deque[tuple[int, str, int]] = deque()
        self.done: dict[str, int] = {}

    def write(self, task: str, at: int) -> int:
        """Write a sum, not before `at`; how many deltas it has."""
        self.free = max(self.free, at) + self.way.write_ms
        self.done[task] = self.free
        return self.open.pop(task)


def _on_arrival(rounds: Sequence[Round], way: Way) -> list[int]:
    events = [(at, 0, i, slot) for i, r in enumerate(rounds) for at, slot in r.uploads]
    events += [(r.closes, 1, i, 0) for i, r in enumerate(rounds)]
    events.sort()
    workers = [_Worker(way) for _ in range(way.workers)]
    began: dict[tuple[int, str], int] = {}
    missing: dict[str, int] = {}
    out = []
    for at, closes, i, slot in events:
        r = rounds[i]
        if closes:
            last = at
            for w in workers:
                _write_due(w, at, began, missing)
                if r.task in w.open:
                    w.write(r.task, at)
                last = max(last, w.done.get(r.task, 0))
            missing.pop(r.task, None)
            out.append(last - at)
            continue
        w = workers[_shard(r.devices[slot]) % way.workers]
        _write_due(w, at, began, missing)
        w.free = max(w.free, at) + way.read_ms
        if r.task not in w.open:
            w.open[r.task] = 0
            w.due.append((at + way.pause_ms, r.task, at))
            began[id(w), r.task] = at
        w.open[r.task] += 1
        left = missing.setdefault(r.task, r.demand)
        if w.open[r.task] >= left / way.workers:
            missing[r.task] = left - w.write(r.task, w.free)
    return out


def _write_due(w: _Worker, now: int, began: dict[tuple[int, str], int], missing: dict[str, int]) -> None:
    """Write the sums that are due and not written yet."""
    while w.due and w.due[0][0] <= now:
        due, task, at = w.due.popleft()
        if task in w.open and began[id(w), task] == at:
            missing[task] -= w.write(task, due)
