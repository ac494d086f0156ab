"""The scheduler (OLearning §6, the elastic manager): reads what aggregators report, says which of a tenant's tasks come first in each
zone, what tenants weigh there (`olearning tenant set`), how many aggregators a zone's load calls for, and how fast its edges may send
(`processors/credits.py`).

It advises. Its orders are no facts: nothing rests on one, an aggregator obeys only a fresh one, and none means that all is
read as it comes. So it may be killed at any time, and two may speak at once. The group of the metrics' one partition says
who does; the others listen, so that who takes over knows as much.
"""

from collections.abc import Iterator

from processors import priorities
from processors.credits import Edges
from processors.loads import Loads
from processors.priorities import PATIENCE, Demand, Steady
from schemas.messages import AggregatorReport, FleetReport, Priorities, SchedulerReport
from schemas.topics import GLOBAL, read, topic
from schemas.wire import Malformed
from streams.ledger import Globe
from streams.processor import Answer, Assigned, Effect, Ends, Follow, Input, Membership, Record, Send, Stop, Tick, send
from streams.reading import WRONG, Reading

INTERVAL = 1_000
AGAIN = 2_000
"""ms after which an order that did not change is said again: aggregators follow none that is old."""


class Scheduler:
    """`patience` in ms."""

    tick = 250

    def __init__(
        self,
        namespace: str,
        name: str,
        life: str,
        patience: int = PATIENCE,
        interval: int = INTERVAL,
    ):
        self.namespace, self.name = namespace, name
        self.patience, self.interval = patience, interval
        self.metrics = topic(namespace, GLOBAL, "metrics")
        self.membership: Membership | None = Membership(f"{namespace}.{GLOBAL}.schedulers", self.metrics.name)
        self.reading = Reading(namespace, GLOBAL, Globe())
        self.zones: dict[str, Loads] = {}
        self.edges: dict[str, Edges] = {}
        self.steady: dict[str, Steady] = {}
        self.speaks = False
        self.said: dict[str, tuple[tuple[str, ...], dict[str, float], int]] = {}
        """By zone, the order and the weights said last, and when."""
        self.reports: dict[str, SchedulerReport] = {}
        """By zone, the last one that was sent."""
        self.reported = 0

    def start(self, now: int) -> Iterator[Effect]:
        yield from self.reading.start()
        yield Ends("metrics", self.metrics.name)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        try:
            match event:
                case Record(topic=self.metrics.name):
                    self._hear(event, now)
                case Record():
                    yield from self.reading.record(event)
                case Answer(tag="metrics", error=error) if error:
                    yield Stop(f"{self.name}: {error}")
                case Answer(tag="metrics", value=ends):  # what was said before this life is of no use
                    yield Follow(self.metrics.name, 0, ends[0], "gap")
                case Answer(tag="gap", value=(_, int(end))):
                    yield Follow(self.metrics.name, 0, end, "gap")
                case Answer():
                    yield from self.reading.answer(event) or ()
                case Assigned(seats):
                    self.speaks = bool(seats)
                case Tick() if now - self.reported >= self.interval:
                    self.reported = now
                    yield from self._say(now)
        except WRONG as e:
            yield Stop(str(e))

    def _hear(self, record: Record, now: int) -> None:
        try:
            message = read(record.topic, record.value, record.headers)
        except Malformed:
            return  # nothing rests on it
        if isinstance(message, AggregatorReport) and message.zone in self.reading.state.zones:
            self.zones.setdefault(message.zone, Loads()).hear(message, now)
        elif isinstance(message, FleetReport):
            for zone in {message.zone, *message.elsewhere} & self.reading.state.zones.keys():
                self.edges.setdefault(zone, Edges(zone))
            for edges in self.edges.values():
                edges.hear(message, now)

    # ------------------------------------------------------------------ what it says

    def _say(self, now: int) -> Iterator[Effect]:
        for zone, loads in self.zones.items():
            loads.forget(now)
            if self.speaks:
                demands = loads.demands({name: t.spec.tenant for name, t in self.reading.state.tasks.items()})
                yield from self._order(zone, demands, now)
                yield self._report(zone, loads, demands, now)
                yield from self._credits(zone, loads, demands, now)

    def _order(self, zone: str, demands: list[Demand], now: int) -> Iterator[Send]:
        ordered = priorities.order(demands, self.patience)
        names = tuple(d.task for d in ordered)
        weights = self._weights({d.tenant for d in demands})
        *before, at = self.said.get(zone, ((), {}, 0))
        if [names, weights] != before or (names and now - at >= AGAIN):
            self.said[zone] = names, weights, now
            why = priorities.reasons(ordered, self.patience)
            order = Priorities(self.name, zone, now, names, why, weights)
            yield send(topic(self.namespace, zone, "priorities"), order, key=zone)

    def _weights(self, tenants: set[str]) -> dict[str, float]:
        """What these tenants weigh, as far as it is not 1."""
        known = self.reading.state.tenants
        return {t: known[t].tenant.weight for t in sorted(tenants & known.keys()) if known[t].tenant.weight != 1.0}

    def _credits(self, zone: str, loads: Loads, demands: list[Demand], now: int) -> Iterator[Send]:
        """How fast the zone's edges may send, as long as it is known what its aggregators manage."""
        edges = self.edges.setdefault(zone, Edges(zone))
        edges.forget(now)
        capacity = loads.capacity * len(loads.aggregators)
        if capacity and edges.names:
            credits = edges.credits(self.name, capacity, sum(d.bytes for d in demands), now)
            yield send(topic(self.namespace, zone, "credits"), credits, key=zone)

    def _report(self, zone: str, loads: Loads, demands: list[Demand], now: int) -> Send:
        workers, capacity = len(loads.aggregators), loads.capacity
        arriving, backlog = sum(d.rate for d in demands), sum(d.bytes for d in demands)
        number, why = workers, "no aggregator had more to do than it can: what one manages is not known"
        if capacity:
            shards = self.reading.state.zones[zone].partitions
            number = priorities.wanted(arriving, backlog, capacity, shards)
            number = self.steady.setdefault(zone, Steady()).after(number, now)
            why = priorities.in_words(arriving, backlog, capacity)
        load = round(arriving), backlog, round(capacity)
        said = self.reports[zone] = SchedulerReport(self.name, zone, now, workers, number, *load, why)
        return send(self.metrics, said, key=self.name)
