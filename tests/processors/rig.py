"""One zone without devices: the test writes registrations and blocks, aggregators and a zone coordinator do the rest.

The globe is a few facts written here. What must come out is plain numpy (`oracle`).
"""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from processors.aggregator import Aggregator
from processors.zone import ZoneCoordinator
from schemas.blocks import DeltaBlock, Manifest, ModelBlock, Place, Tensor, layout, slices
from schemas.facts import LEADERSHIP, Claimed, Committed, EpochOpened, Finalised, Founded, TaskAdmitted, ZoneJoined
from schemas.messages import Registration
from schemas.sets import bitmap
from schemas.task import Epochs, Limits, Rounds, TaskSpec
from schemas.topics import GLOBAL, read, task_topics, topic, zone_topics
from schemas.wire import Message, checksum
from streams.ledger import Ledger, Round, Zone
from streams.memory import Host, Memory
from streams.models import assemble
from streams.processor import send

NS, Z, P = "test", "z", 4
LAYOUT = layout((Tensor("w", (7,)), Tensor("b", (5,), group="head")))
SIZES, UNIT = LAYOUT.sizes, -24
START = np.linspace(-1, 1, 12, dtype=np.float32)
DEVICES = [f"phone-{i}" for i in range(9)]
RULES = {"demand": 3, "over_commit": 1.0, "minimum": 2, "deadline_s": 5.0, "lease_s": 30.0}


class Rig:
    """A zone with its coordinator and aggregators, and a globe that opened an epoch of one task."""

    def __init__(self, aggregators: int = 1, seed: int = 0, rounds: int = 9, **rules: Any):
        self.memory = Memory(seed=seed)
        for zone in (GLOBAL, Z):
            for t in zone_topics(NS, zone):
                self.memory.create(t.name, t.partitions(P))
        for t in task_topics(NS, Z, "t"):
            self.memory.create(t.name, P)
        self.deltas = topic(NS, Z, "deltas", "t")
        spec = TaskSpec(
            task="t",
            model="m",
            data="d",
            rounds=Rounds(**{**RULES, **rules}),
            epochs=Epochs(1, rounds),
            limits=Limits(heaviest=1000),
        )
        manifest = self.model_zero()
        for fact in (
            Founded("ledger-g", GLOBAL, P),
            Claimed("g", "1", {LEADERSHIP: 0}),
            ZoneJoined(1, Z, "ledger-z", P),
            TaskAdmitted(1, spec, LAYOUT, manifest, (Z,)),
            EpochOpened(1, "t", 1, manifest),
        ):
            self.put(topic(NS, GLOBAL, "ledger"), fact)
        self.leader = self.memory.host(lambda life: ZoneCoordinator(NS, Z, P, "zone", life))
        self.aggregators: list[Host] = []
        for n in range(aggregators):
            self.aggregators.append(
                self.memory.host(lambda life, n=n: Aggregator(NS, Z, f"agg-{n}", life, 200, 500))  # type: ignore[misc]
            )

    def model_zero(self) -> Manifest:
        places = []
        for i, piece in enumerate(slices(SIZES)):
            data = START[piece].tobytes()
            at = self.put(topic(NS, GLOBAL, "models"), ModelBlock("t", 0, i, memoryview(data)), f"zero/{i}")
            places.append(Place(*at, f"zero/{i}", checksum(data)))
        return Manifest(topic(NS, GLOBAL, "models").name, 0, tuple(places))

    def put(self, to: Any, message: Message, key: str | None = None, partition: int | None = None) -> tuple[int, int]:
        return self.memory.append(send(to, message, key, partition))

    # ------------------------------------------------------------------ what devices do

    def register(self, n: int, devices: list[str], owe: Mapping[str, tuple[int, ...]] = MappingProxyType({})) -> None:
        for d in devices:
            wish = Registration(d, "t", n, blocks=bitmap(owe[d], len(SIZES)) if d in owe else b"")
            self.put(topic(NS, Z, "registrations"), wish, d)

    def send(self, *blocks: DeltaBlock) -> list[tuple[int, int]]:
        return [self.put(self.deltas, b, b.device) for b in blocks]

    def admit(self, n: int, devices: list[str], owe: Mapping[str, tuple[int, ...]] = MappingProxyType({})) -> None:
        """Open round n, and give these devices its slots; those who `owe` some of the blocks, for these."""
        self.until(lambda: self.at(n, "open"))
        self.register(n, devices, owe)
        self.until(lambda: set(devices) <= set(self.round(n).devices))

    def slot(self, n: int, device: str) -> int:
        return self.round(n).devices.index(device)

    # ------------------------------------------------------------------ what the ledger says

    @property
    def zone(self) -> Zone:
        return self.leader.processor.zone  # type: ignore[attr-defined]

    def round(self, n: int) -> Round:
        return self.zone.tasks["t"].rounds[n]

    def at(self, n: int, state: str) -> bool:
        t = self.zone.tasks.get("t")
        return bool(t and (t.round, t.state) == (n, state))

    def until(self, holds: Any, limit: int = 60_000) -> None:
        assert self.memory.run(holds, limit), self.zone.tasks.get("t")

    def facts(self, kind: type) -> list[Any]:
        ledger: Ledger = Ledger(Zone())
        pairs = [ledger.feed(r) for r in self.memory.records(topic(NS, Z, "ledger").name)]
        return [f for f, void in pairs if not void and isinstance(f, kind)]

    def finalised(self, n: int) -> Finalised:
        self.until(lambda: any(f.round == n for f in self.facts(Finalised)))
        return next(f for f in self.facts(Finalised) if f.round == n)

    def vector(self, manifest: Manifest) -> np.ndarray:
        records = {p.key: self.memory.records(manifest.topic, p.partition)[p.offset].value for p in manifest.blocks}
        return assemble(manifest, records)

    def counts(self, n: int) -> dict[str, int]:
        """By outcome, over a round's commits; on the way, the identity: offsets = the sum of all outcomes, with no gap."""
        commits = [c for c in self.facts(Committed) if c.round == n]
        out: Counter[str] = Counter()
        for c in commits:
            out.update({k: getattr(c.counts, k) for k in c.counts.__struct_fields__})
        length = 0
        for s in range(P):
            mine = [c.stretches[s] for c in commits if s in c.stretches]
            assert all(a.end == b.start for a, b in pairwise(mine))
            length += mine[-1].end - mine[0].start if mine else 0
        assert sum(out.values()) == length
        return dict(+out)

    def messages(self, what: str, zone: str = Z) -> list[Any]:
        t = topic(NS, zone, what)
        records = [r for p in range(t.partitions(P)) for r in self.memory.records(t.name, p)]
        return [read(r.topic, r.value, r.headers) for r in records]


def blocks(device: str, slot: int, n: int = 1, weight: int | None = None) -> list[DeltaBlock]:
    """A device's delta: numbers drawn from its name, an exponent by block."""
    dice = np.random.default_rng([*device.encode(), n])
    weight = weight or int(dice.integers(1, 100))
    out = []
    for i, size in enumerate(SIZES):
        q = dice.integers(-(2**31), 2**31, size, dtype=np.int64).astype("<i4")
        out.append(DeltaBlock("t", n, slot, device, i, "int32", 2 * i, weight, weight, 7, memoryview(q.tobytes())))
    return out


def oracle(base: np.ndarray, counted: list[DeltaBlock]) -> np.ndarray:
    """FedAvg in plain numpy: base + Σ w·δ / Σ w, each block for itself."""
    new = base.copy()
    for i, piece in enumerate(slices(SIZES)):
        here = [b for b in counted if b.block == i]
        if here:
            total = sum(np.frombuffer(b.data, "<i4").astype(np.int64) * 2**b.exponent for b in here)
            new[piece] = base[piece].astype(np.float64) + total * 2.0**UNIT / sum(b.weight for b in here)
    return new


def changed(b: DeltaBlock, **to: Any) -> DeltaBlock:
    fields = {f: getattr(b, f) for f in b.__struct_fields__}
    return DeltaBlock(**{**fields, **to})
