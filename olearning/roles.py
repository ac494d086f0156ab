"""The roles: what each runs, as a processor for either runtime and as a command line for a process of its own."""

import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from olearning.loading import load_code
from processors.aggregator import Aggregator
from processors.evaluator import Evaluator
from processors.globe import GlobalCoordinator
from processors.patience import COMMIT_INTERVAL
from processors.priorities import PATIENCE
from processors.scheduler import Scheduler
from processors.zone import ZoneCoordinator
from schemas.topics import DEFAULT_PARTITIONS, GLOBAL, Topic, zone_topics
from streams.processor import Answer, CreateTopics, Effect, Input, Membership, Processor, Stop

if TYPE_CHECKING:
    from device_sim.population import Population

KINDS = ("global", "zone", "aggregator", "scheduler", "evaluator", "modules", "fleet", "gateway")
DAY_SECONDS = 60.0
SESSION_TIMEOUT = 6_000
"""ms without a sign of life after which a group gives a role up."""
RARELY = (50_000, 20, 50)
"""How many new objects the collector of circles lets come before it looks, where many come and go that make few circles."""


class Start(StrEnum):
    """When an aggregator starts with a round: when its first block arrives, or when it is complete (or closed)."""

    ARRIVAL, COMPLETE = "arrival", "complete"


@dataclass(frozen=True)
class Role:
    """One role to run. `options` are those of its command, by name; `load` is people's own code, loaded before it is built."""

    kind: str
    name: str
    namespace: str
    zone: str = ""
    options: dict[str, str] = field(default_factory=dict)
    load: tuple[str, ...] = ()

    def command(self, bootstrap: str) -> list[str]:
        """The command line of a process for it."""
        words = [self.kind] if self.kind in ("fleet", "gateway") else ["run", self.kind]
        given = {"name": self.name, "namespace": self.namespace, "bootstrap": bootstrap} | self.options
        if self.zone:
            given["zone"] = self.zone
        pairs = [*given.items(), *(("load", name) for name in self.load)]
        return [sys.executable, "-m", "olearning", *words, *(x for k, v in pairs for x in (f"--{k}", v))]

    def topics(self) -> list[tuple[Topic, int]]:
        """The topics that must be there before it starts, with their partitions."""
        p = int(self.options.get("partitions", DEFAULT_PARTITIONS))
        zones = [GLOBAL, self.zone] if self.zone else [GLOBAL]
        return [(t, t.partitions(p)) for z in zones for t in zone_topics(self.namespace, z)]

    def build(self, life: str) -> Processor:
        """The processor; what trains or scores loads torch now."""
        load_code(self.load)
        o = self.options
        p = int(o.get("partitions", DEFAULT_PARTITIONS))
        match self.kind:
            case "global":
                return GlobalCoordinator(self.namespace, o["zones"].split(","), p, self.name, life)
            case "zone":
                return ZoneCoordinator(self.namespace, self.zone, p, self.name, life)
            case "aggregator":
                interval = int(o.get("commit-interval", COMMIT_INTERVAL))
                task_oriented = o.get("start") == Start.COMPLETE.value
                return Aggregator(self.namespace, self.zone, self.name, life, interval, task_oriented=task_oriented)
            case "scheduler":
                patience = int(o.get("patience", PATIENCE))
                return Scheduler(self.namespace, self.name, life, patience)
            case "evaluator":
                from device_sim.installed import scorer

                return Evaluator(self.namespace, self.name, life, scorer())
            case "modules":
                from learning.modular.derivation import Derivation, warm
                from processors.derivation import Deriver

                warm()
                return Deriver(self.namespace, self.zone, self.name, Derivation)
            case "fleet":
                return self._fleet(life)
            case "gateway":
                return self._gateway(life)
        raise ValueError(f"there is no role {self.kind}; there are {', '.join(KINDS)}")

    def _gateway(self, life: str) -> Processor:
        from device_sim.gateway import Gateway
        from olearning.gateway import Hosted
        from olearning.tokens import read_secret, salt

        secret, room = read_secret(Path(self.options["secret"])), round(1e6 * float(self.options["room-mb"]))
        return Hosted(Gateway(self.namespace, self.zone, self.name, life, salt(secret), room))

    def _fleet(self, life: str) -> Processor:
        from device_sim.edge import ROOM
        from device_sim.fleet import Fleet, Manner
        from device_sim.installed import learners

        crowd, o = population(self.zone, self.options), self.options
        room = round(1e6 * float(o["room-mb"])) if "room-mb" in o else ROOM
        manner = Manner(seed=crowd.seed, resend=float(o.get("resend", 0)), room=room)
        others = [z for z in crowd.offsets if z != self.zone] if crowd.travel else []
        devices = crowd.devices()
        return Fleet(self.namespace, self.zone, self.name, life, devices, learners(), manner, others, crowd.clock)


def population(zone: str, options: Mapping[str, str]) -> "Population":
    """The devices that a fleet's options ask for. Raises `ValueError`, in words, for what cannot be."""
    from device_sim.population import Population
    from device_sim.whims import Whims

    o, seed = options, int(options.get("seed", 0))
    offsets = _offsets(o.get("offsets", "")) or {zone: float(o.get("utc-offset", 0))}
    day_ms = round(1000 * float(o.get("day-seconds", DAY_SECONDS)))
    fails = {what: float(o.get(what, 0)) for what in ("drop", "slow", "late", "interrupted")}
    whims = Whims(seed, **fails, latest_ms=day_ms // 48, pause_ms=2_000) if any(fails.values()) else None
    return Population(
        zone=zone,
        count=int(o["count"]),
        first=int(o.get("first", 0)),
        offsets=offsets,
        homes=_offsets(o.get("homes", "")),
        day_ms=day_ms,
        origin_ms=int(o.get("origin-ms", 0)),
        day=o.get("day", "nights"),
        capacity=o.get("capacity", "steady"),
        bandwidth=o.get("bandwidth", ""),
        phones=o.get("phones", ""),
        travel=float(o.get("travel", 0)),
        busy=float(o.get("busy", 0)),
        whims=whims,
        seed=seed,
    )


def _offsets(text: str) -> dict[str, float]:
    """ "asia=8,europe=1": the zones with their UTC offsets in hours."""
    out = {}
    for part in filter(None, text.split(",")):
        zone, _, hours = part.partition("=")
        try:
            out[zone] = float(hours)
        except ValueError:
            raise ValueError(f"{part!r} is no zone with its UTC offset: write zone=hours, as in asia=8") from None
    return out


def named(name: str, kind: str) -> str:
    """The name that a role is given, or one made up."""
    return name or f"{kind}-{new_life()}"


def new_life() -> str:
    """A life never used before."""
    return secrets.token_hex(6)


class Groundwork:
    """Makes topics, then stops: whoever starts first lays the ground."""

    name = "groundwork"
    membership: Membership | None = None
    tick = 1_000

    def __init__(self, topics: Sequence[tuple[Topic, int]]):
        self.topics = tuple({t.name: (t, p) for t, p in topics}.values())

    def start(self, now: int) -> Iterator[Effect]:
        yield CreateTopics("topics", self.topics)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        if isinstance(event, Answer):
            yield Stop(event.error or "the topics are there", ok=not event.error)
