"""What is counted as it happens, since no fold keeps it: facts by verdict, how rounds closed and ended and how long they took.

It listens to the readings of a processor (`streams/reading.py`). What a ledger held before it was read to its end is not counted: it
happened before this process, which would count it anew at each start.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from olearning.happenings import kind_of
from olearning.telemetry import metrics as m
from olearning.telemetry.metrics import Metric, Sample
from olearning.telemetry.own import Own
from processors.aggregator import Aggregator
from processors.desk import Desk
from schemas.facts import Closed, Committed, Finalised, Merged, Retired, TaskEnded
from schemas.wire import Message
from streams.ledger import Zone
from streams.processor import Processor, Record
from streams.reading import Reading

WHYS = frozenset({
    "demand", "deadline", "execution time-out", "too few devices", "nobody came", "all who came are done", "the tenant ended it",
})  # fmt: skip
"""Why rounds close (`processors/zone_leader.py`); whatever else a ledger says counts as "other"."""


@dataclass
class Times:
    """How many fell between the bounds of a metric, and above the last; and all together."""

    counts: list[int]
    total: float = 0.0


class Counts:
    """Of one processor: a coordinator counts what its own ledger says, an aggregator its own commits."""

    def __init__(self, processor: Processor):
        self.series: Counter[tuple[Metric, tuple[str, ...]]] = Counter()
        self.times: dict[Metric, dict[tuple[str, ...], Times]] = {m.TO_CLOSE: {}, m.TO_END: {}}
        if isinstance(processor, Desk):
            reading: Reading = processor.reading
            reading.listeners.append(lambda *heard: self._fact(reading, processor.scope, *heard))
        elif isinstance(processor, Aggregator):
            own = Own(processor)
            processor.reading.listeners.append(lambda *heard: self._commit(processor, own, *heard))

    def samples(self) -> Iterator[Sample]:
        for (metric, labels), n in self.series.items():
            yield metric, labels, n

    def _fact(self, reading: Reading, scope: str, before: Any, fact: Message | None, void: str, record: Record) -> None:
        if not reading.caught_up:
            return
        self.series[m.VOIDS if void else m.FACTS, (scope, kind_of(fact))] += 1
        if void:
            return
        match fact:
            case Closed(task=task, round=n, why=why):
                word = why.replace(" ", "-") if why in WHYS else "other"
                self.series[m.CLOSED, (scope, task, word)] += 1
                self._took(m.TO_CLOSE, scope, before, task, n, record.timestamp)
            case Finalised(task=task, round=n, manifest=manifest):
                self.series[m.FINALISED, (scope, task, "model" if manifest else "failed")] += 1
                self._took(m.TO_END, scope, before, task, n, record.timestamp)
            case Merged(task=task, manifest=manifest):
                self.series[m.MERGED, (task, "model" if manifest else "nothing")] += 1
            case Retired(task=task) | TaskEnded(task=task):
                for key in [k for k in self.series if dict(zip(k[0].labels, k[1], strict=True)).get("task") == task]:
                    del self.series[key]

    def _took(self, metric: Metric, scope: str, z: Zone, task: str, n: int, at: int) -> None:
        seconds = (at - z.tasks[task].rounds[n].opened_time) / 1000
        times = self.times[metric].setdefault((scope,), Times([0] * (len(metric.bounds) + 1)))
        times.counts[bisect_left(metric.bounds, seconds)] += 1
        times.total += seconds

    def _commit(self, p: Aggregator, own: Own, before: Any, fact: Message | None, void: str, record: Record) -> None:
        if isinstance(fact, Committed) and own.made(fact):
            self.series[m.COMMITS, (p.zone_name, "void" if void else "accepted")] += 1
