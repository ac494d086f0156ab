"""Dropping, in a simulation, what nobody will read again: on Kafka retention does that, here memory is at stake."""

from collections.abc import Iterator, Mapping

from olearning.needed import first, manifests, places
from schemas.blocks import Place
from schemas.topics import GLOBAL, Topic, parse, topic
from streams.ledger import Globe, Zone
from streams.memory import Host, Memory

SHORT = (
    "registrations",
    "admissions",
    "receipts",
    "profiles",
    "submodels",
    "checkins",
    "metrics",
    "dead-letters",
    "evaluations",
)
"""What is over when it is read."""


class Sweeper:
    """`zones`: their coordinators, whose folds say what is still needed; likewise `globe`."""

    def __init__(self, memory: Memory, namespace: str, zones: Mapping[str, Host], globe: Host):
        self.memory, self.namespace, self.zones, self.globe = memory, namespace, zones, globe
        self.before: dict[tuple[str, int], int] = {}
        """Where logs of blocks ended the last time: what came since may not be named yet."""

    def _zone(self, name: str) -> Zone:
        return self.zones[name].processor.zone  # type: ignore[attr-defined]

    def _globe(self) -> Globe:
        return self.globe.processor.globe  # type: ignore[attr-defined]

    def sweep(self) -> None:
        for name, partitions in self.memory.topics.items():
            log = parse(name)
            over = log.kind.per_task and log.task in self._zone(log.zone).over
            for p in range(len(partitions)):
                if over or log.kind.what in SHORT:
                    self.memory.cut(name, p, min(self._read(name, p), len(partitions[p])))
        for z in self.zones:
            for task, t in self._zone(z).tasks.items():
                name = topic(self.namespace, z, "deltas", task).name
                for s, at in enumerate(t.next):
                    held = min((h.offset for h in t.held[s]), default=at)
                    self.memory.cut(name, s, min(at, held, self._read(name, s)))
        for scope in (GLOBAL, *self.zones):
            self._blocks(topic(self.namespace, scope, "models"))
            if scope != GLOBAL:
                self._blocks(topic(self.namespace, scope, "partials"))

    def _read(self, name: str, p: int) -> int:
        """How far everyone who follows a log has come."""
        positions = [h.positions[name, p] for h in self.memory.hosts if (name, p) in h.positions]
        return min(positions) if positions else len(self.memory.topics[name][p])

    def _blocks(self, logs: Topic) -> None:
        """Cut logs of blocks below the first that is named in a ledger, and below what came lately."""
        name, named = logs.name, first(self._named(logs))
        for p, log in enumerate(self.memory.topics[name]):
            end = named[p].offset if p in named else len(log)
            self.memory.cut(name, p, min(end, self.before.get((name, p), 0)))
            self.before[name, p] = len(log)

    def _named(self, logs: Topic) -> Iterator[Place]:
        """The places in a topic that the folds name."""
        if logs.kind.what == "models":
            yield from places(logs, manifests(self._globe(), map(self._zone, self.zones)), self._globe().over.values())
            return
        for t in self._zone(logs.zone).tasks.values():
            for c in (c for r in t.rounds.values() for c in r.commits):
                yield from (x for x in (c.fact.bitmap, *c.fact.sums) if x)

    def updates(self) -> int:
        """Whole deltas that counted, in all zones and tasks."""
        zones = [self._zone(z) for z in self.zones]
        return sum(t.delivered for z in zones for of in (z.tasks, z.over) for t in of.values())
