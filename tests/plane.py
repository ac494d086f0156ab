"""A whole plane in memory, for tests: two zones, aggregators, a globe, fleets that "train" by arithmetic."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from device_sim.device import Device
from device_sim.fleet import Fleet, Manner
from device_sim.portion import blocks_of, portion
from device_sim.pseudonym import seed_of
from processors.aggregator import Aggregator
from processors.desk import EVERY
from processors.globe import GlobalCoordinator
from processors.scheduler import Scheduler
from processors.submitter import Submitter
from processors.zone import ZoneCoordinator
from schemas.blocks import Tensor, layout
from schemas.facts import GLOBAL_FACTS, ZONE_FACTS
from schemas.messages import Announcement
from schemas.sharing import Abilities
from schemas.task import Epochs, Rounds, TaskSpec
from schemas.topics import GLOBAL, Topic, topic, zone_topics
from schemas.wire import Message, decode
from streams.ledger import Globe, Ledger, Zone
from streams.memory import Host, Memory
from streams.models import assemble, look_up
from streams.processor import Record

NS = "test"
LAYOUT = layout((Tensor("w", (7,), group="body"), Tensor("b", (5,), group="head")))
CUTS = np.split(np.arange(12), np.cumsum(LAYOUT.sizes)[:-1])
"""By block, where its values lie."""
START = np.linspace(-1, 1, 12, dtype=np.float32)


@dataclass(frozen=True)
class Done:
    delta: np.ndarray
    samples: int
    loss_sum: float
    weights: dict[int, int] | None = None


class Arithmetic:
    """A stand-in for training: the delta is drawn from a seed and pulls the model towards zero."""

    def objection(self, a: Announcement) -> str:
        return ""

    def size(self, a: Announcement, device: Device) -> tuple[int, int]:
        return 10, 2

    def run(self, a: Announcement, device: Device, base: np.ndarray) -> Done:
        seed = seed_of(a.seed, device.id, a.task, a.round)
        samples, loss = 1 + seed % 50, float(seed % 1000) / 100
        if not a.partial:
            noise = np.random.default_rng(seed).standard_normal(len(base)).astype(np.float32)
            return Done(0.1 * noise - 0.1 * base, samples, loss)
        mine = np.concatenate([CUTS[b] for b in blocks_of(a)])
        noise = np.random.default_rng(seed).standard_normal(len(START)).astype(np.float32)[mine]
        return Done(0.1 * noise - 0.1 * base, samples, loss, weights(seed))


def weights(seed: int) -> dict[int, int]:
    """What a run's blocks weigh where devices train parts of the model: each something else."""
    return {b: 1 + (seed >> (8 * b)) % 50 for b in range(len(LAYOUT.sizes))}


PARTS: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (0, 1))
"""Blocks that a device may take, () for a whole model."""


def part_of(device: str, task: str, n: int) -> tuple[int, ...]:
    """What a device takes in a round whose devices train parts of the model."""
    return PARTS[seed_of(0, device, task, n, "part") % len(PARTS)]


def some_of_it(d: Device, a: Announcement) -> Announcement:
    """A device's part of a round."""
    mine = part_of(d.id, a.task, a.round) if a.partial else ()
    return portion(a, mine) if mine else a


class Archive(Memory):
    """A log that keeps a copy of what is cut from it, where no processor sees it."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.kept: dict[tuple[str, int], list[Record]] = {}

    def cut(self, topic: str, partition: int, offset: int) -> None:
        before = self.records(topic, partition)
        super().cut(topic, partition, offset)
        gone = self.span(topic, partition)[0] - (before[0].offset if before else 0)
        self.kept.setdefault((topic, partition), []).extend(before[: max(0, gone)])

    def whole(self, topic: str, partition: int = 0, first: int = 0) -> list[Record]:
        return [*self.kept.get((topic, partition), ())[first:], *self.records(topic, partition, first)]


@dataclass
class Plane:
    memory: Memory
    zones: tuple[str, ...] = ("east", "west")
    partitions: int = 4
    aggregators: int = 2
    devices: int = 6
    manner: Manner = field(default_factory=lambda: Manner(training=(50, 300), reaction=50, report=500))
    hosts: dict[str, Host] = field(default_factory=dict)
    folds: dict[str, tuple[Ledger, list]] = field(default_factory=dict)
    every: int = EVERY
    scheduler: bool = False
    abilities: Abilities = field(default_factory=dict)
    """What all devices report of themselves."""

    def __post_init__(self) -> None:
        for zone in (GLOBAL, *self.zones):
            for t in zone_topics(NS, zone):
                self.create(t)
        p, every = self.partitions, self.every
        if self.scheduler:
            self.host("scheduler", lambda life: Scheduler(NS, "scheduler", life))
        self.host("global", lambda life: GlobalCoordinator(NS, self.zones, p, "global", life, every))
        for i, zone in enumerate(self.zones):
            self.host(f"zone-{zone}", lambda life, z=zone: ZoneCoordinator(NS, z, p, f"zone-{z}", life, every))
            for n in range(self.aggregators):
                name = f"agg-{zone}-{n}"
                self.host(name, lambda life, z=zone, name=name: Aggregator(NS, z, name, life, 200, 500))
            numbers = range(i * self.devices, (i + 1) * self.devices)
            devices = [
                Device(f"{zone}-{k}", n, abilities=self.abilities, part=some_of_it) for k, n in enumerate(numbers)
            ]
            self.host(
                f"fleet-{zone}",
                lambda life, z=zone, d=devices: Fleet(NS, z, f"fleet-{z}", life, d, Arithmetic(), self.manner),
            )

    def create(self, t: Topic) -> None:
        self.memory.create(t.name, t.partitions(self.partitions))

    def host(self, name: str, make) -> None:
        self.hosts[name] = self.memory.host(make)

    def standbys(self) -> None:
        """A second coordinator for the globe and for each zone."""
        p, every = self.partitions, self.every
        self.host("global-b", lambda life: GlobalCoordinator(NS, self.zones, p, "global-b", life, every))
        for zone in self.zones:
            name = f"zone-{zone}-b"
            self.host(name, lambda life, z=zone, n=name: ZoneCoordinator(NS, z, p, n, life, every))

    def submit(self, spec: TaskSpec, seed: int = 1) -> Host:
        return self.memory.host(lambda life: Submitter(NS, life, spec, LAYOUT, START, seed))

    def outlive(self, task: str, offset: int = 0) -> None:
        """Another one runs until the global ledger begins behind the end of this one, and behind an offset."""
        behind = max(self.globe().over[task].at, offset)
        self.submit(spec("other", epochs=9, rounds=1))
        assert self.memory.run(lambda: self.memory.span(f"{NS}.{GLOBAL}.ledger")[0] > behind, 300_000)

    # ------------------------------------------------------------------ reading

    def zone(self, name: str) -> Zone:
        return self.told(name)[0].state

    def globe(self) -> Globe:
        return self.told(GLOBAL)[0].state

    def told(self, zone: str) -> tuple[Ledger, list[tuple[Message | None, str]]]:
        """A ledger's fold, and by offset what it said of each record. Each is folded once, however often a test asks."""
        ledger, said = self.folds.setdefault(zone, (Ledger(Globe() if zone == GLOBAL else Zone()), []))
        said += [ledger.feed(r) for r in self.ledger(zone, len(said))]
        return ledger, said

    def fold(self, ledger: Ledger, zone: str) -> Ledger:
        for record in self.ledger(zone):
            ledger.feed(record)
        return ledger

    def ledger(self, zone: str, first: int = 0) -> list[Record]:
        """All records that a ledger ever had, from an offset on."""
        whole = self.memory.whole if isinstance(self.memory, Archive) else self.memory.records
        return whole(f"{NS}.{zone}.ledger", first=first)

    def facts(self, zone: str) -> list:
        """The accepted facts of a ledger."""
        return [fact for fact, void in self.told(zone)[1] if not void]

    def all_facts(self, zone: str) -> list:
        types = GLOBAL_FACTS if zone == GLOBAL else ZONE_FACTS
        return [decode(r.value, types) for r in self.ledger(zone)]

    def ended(self, task: str) -> bool:
        return task in self.hosts["global"].processor.globe.over

    def vector(self, manifest) -> np.ndarray:
        found = {p.key: self.memory.records(manifest.topic, p.partition)[p.offset].value for p in manifest.blocks}
        return assemble(manifest, found)

    def model(self, task: str) -> np.ndarray:
        """The global one, of a task that is over, too."""
        globe, name = self.globe(), topic(NS, GLOBAL, "models").name
        if over := globe.over.get(task):
            return look_up(over.model, partial(self.memory.records, name))
        return self.vector(globe.tasks[task].manifest)


def spec(task: str = "toy", demand: int = 6, epochs: int = 2, rounds: int = 3, **more) -> TaskSpec:
    """A task that waits for all six devices of a zone."""
    r = Rounds(demand=demand, over_commit=more.pop("over_commit", 1.0), minimum=more.pop("minimum", demand), **more)
    return TaskSpec(task=task, model="arithmetic", data="none", rounds=r, epochs=Epochs(count=epochs, rounds=rounds))
