"""A round of one task as it lies in the log: the ledger's facts and the deltas of its devices, ready to be aggregated."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import NodeNotReadyError

from schemas.blocks import DeltaBlock, Manifest, Place, Tensor, layout, slices
from schemas.facts import LEADERSHIP, Admitted, Claimed, Closed, Founded, Opened, Slot
from schemas.messages import Announcement, Ref
from schemas.partitioner import shard_of
from schemas.topics import GLOBAL, task_topics, topic, zone_topics
from schemas.wire import HEADERS, Message, encode
from streams.models import Writing
from streams.processor import Requests

ZONE, SHARDS, UNIT, LARGEST = "z", 8, -24, 2**40
PATIENCE = 10
"""Times that a client that has just started is asked again."""
KINDS: dict[str, Any] = {"int32": np.int32, "int16": np.int16, "int8": np.int8}
EXPONENTS = {"int32": 0, "int16": 8, "int8": 16}
"""So that a value means about the same in each."""


@dataclass(frozen=True)
class Load:
    """`devices` deltas of `parameters` values each, for round 1 of each of the tasks."""

    namespace: str
    devices: int
    parameters: int
    codec: str = "int32"
    tasks: tuple[str, ...] = ("t",)
    tenants: tuple[str, ...] = ()
    """Of the tasks; none: all are of one."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return layout((Tensor("w", (self.parameters,)),)).sizes

    @property
    def payload(self) -> int:
        """Bytes of the deltas' values."""
        return len(self.tasks) * self.devices * self.parameters * np.dtype(KINDS[self.codec]).itemsize

    @property
    def names(self) -> list[str]:
        return [f"device-{i}" for i in range(self.devices)]

    def deltas(self, task: str) -> str:
        return topic(self.namespace, ZONE, "deltas", task).name

    @property
    def ledger(self) -> str:
        return topic(self.namespace, ZONE, "ledger").name

    def foundation(self) -> list[Message]:
        """The ledger's first facts: aggregators may claim shards after these."""
        once = Founded("L", ZONE, SHARDS)
        return [once, once, Claimed("leader", "l", {LEADERSHIP: 0})]  # the second is void: so the leader's token is 2

    def opening(self) -> list[Message]:
        """The round is open, all devices have a slot in it."""
        sizes, n = self.sizes, self.devices
        base = Manifest("m", 0, tuple(Place(0, i, f"k{i}", 0) for i in range(len(sizes))))
        opened = [
            Opened(
                token=2, task=task, round=1, epoch=1, source=Ref("g", 0), base=base, demand=n, places=n, minimum=1,
                deadline=2**62, grace=0, lease=2**40, staleness=0, sizes=sizes, unit=UNIT, largest=LARGEST, heaviest=10**6,
                tenant=tenant,
            ) for task, tenant in zip(self.tasks, self.tenants or ("default",) * len(self.tasks), strict=True)
        ]  # fmt: skip
        slots = tuple(Slot(task, 1, i, d) for task in self.tasks for i, d in enumerate(self.names))
        return [*opened, Admitted(2, 0, {}, slots)]

    def closing(self) -> list[Message]:
        """The round is closed where the deltas end."""
        return [Closed(2, task, 1, "demand", self.ends()) for task in self.tasks]

    def blocks(self, task: str) -> Iterator[tuple[int, str, bytes]]:
        """(shard, device, bytes of its message) of every block of a task, device after device."""
        rng = np.random.default_rng(0)
        kind = KINDS[self.codec]
        most = min(np.iinfo(kind).max, 2**20)
        q = rng.integers(-most, most, self.parameters, dtype=kind)
        for slot, name in enumerate(self.names):
            shard = shard_of(name, SHARDS)
            for i, piece in enumerate(slices(self.sizes)):
                data = q[piece].data.cast("B")
                block = DeltaBlock(task, 1, slot, name, i, self.codec, EXPONENTS[self.codec], 1, 1, 0, data)
                yield shard, name, encode(block)

    def ends(self) -> dict[int, int]:
        """Where the deltas of a task end in each shard."""
        owners = Counter(shard_of(name, SHARDS) for name in self.names)
        return {s: owners[s] * len(self.sizes) for s in range(SHARDS)}


async def make_topics(bootstrap: str, load: Load) -> None:
    """All topics of the load's zone, with their settings."""
    topics = [
        *zone_topics(load.namespace, ZONE),
        *zone_topics(load.namespace, GLOBAL),
        *(t for task in load.tasks for t in task_topics(load.namespace, ZONE, task)),
    ]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        answer = await admin.create_topics(
            [NewTopic(t.name, t.partitions(SHARDS), 1, topic_configs=t.config()) for t in topics]
        )
        if wrong := [e for e in answer.topic_errors if e[1] not in (0, 36)]:
            raise RuntimeError(f"topics could not be made: {wrong}")
    finally:
        await admin.close()


async def drop_topics(bootstrap: str, namespace: str) -> None:
    """What a case wrote is not needed any more."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        for left in reversed(range(PATIENCE)):
            try:
                await admin.delete_topics([n for n in await admin.list_topics() if n.startswith(f"{namespace}.")])
                return
            except NodeNotReadyError:  # a client that has just started may have no connection yet
                if not left:
                    raise
                await asyncio.sleep(0.2)
    finally:
        await admin.close()


class Writer:
    """A plain producer."""

    def __init__(self, bootstrap: str):
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_request_size=2**21, max_batch_size=2**20
        )  # fmt: skip

    async def __aenter__(self) -> "Writer":
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def facts(self, load: Load, *facts: Message) -> int:
        """Append to the ledger; the offset of the last."""
        for fact in facts:
            at = await self._producer.send_and_wait(load.ledger, encode(fact), headers=list(HEADERS))
        return int(at.offset)

    async def model(self, writing: Writing) -> Manifest:
        """A version, as a leader writes it."""
        under_way = [
            (s.key, await self._producer.send(s.topic, s.value, key=s.key.encode(), partition=s.partition))
            for s in writing.sends(Requests(), "block")
            if s.key
        ]
        for key, sent in under_way:
            at = await sent
            writing.stored(key, (at.partition, at.offset))
        return writing.manifest

    async def announce(self, load: Load, a: Announcement) -> None:
        """One copy in every partition."""
        name = topic(load.namespace, ZONE, "announcements").name
        for p in range(SHARDS):
            await self._producer.send_and_wait(name, encode(a), key=a.task.encode(), partition=p, headers=list(HEADERS))

    async def deltas(self, load: Load) -> None:
        """All deltas, in the shards of their devices."""
        under_way: set[asyncio.Future] = set()
        for task in load.tasks:
            for shard, device, value in load.blocks(task):
                sent = await self._producer.send(
                    load.deltas(task), value, key=device.encode(), partition=shard, headers=list(HEADERS)
                )
                under_way.add(sent)
                if len(under_way) >= 128:
                    _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*under_way)
