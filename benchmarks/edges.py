"""A process of edges that `distribute` measures. Told on standard input what to do, a line each, it answers with a JSON object a line.

    python -m benchmarks.edges BOOTSTRAP FILE COUNT

FILE holds the versions' manifests and their blocks' sizes. A line is `raw N`: as many plain clients as there are edges read the blocks
of version N and drop them; `blocks N` or `differences N`: each edge has the version, from its blocks alone or however is shortest.
An edge keeps one version. `seconds` are of this process' monotonic clock, which all processes of a machine share.
"""

import asyncio
import gc
import json
import sys
import time
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from device_sim.edge import Edge, Gone
from schemas.blocks import Manifest
from schemas.messages import Announcement, Ref
from schemas.task import Training
from streams.processor import Fetch, Requests
from streams.queries import Cluster


class Versions(msgspec.Struct):
    """What FILE holds."""

    sizes: tuple[int, ...]
    manifests: tuple[Manifest, ...]


def announced(manifest: Manifest, sizes: tuple[int, ...]) -> Announcement:
    """A round from that model."""
    return Announcement(
        task="t", tenant="bench", round=1, open=True, cause=Ref("l", 1), model="m", model_args={}, data="d", data_args={},
        training=Training(), sizes=sizes, unit=-24, largest=1.0, base=manifest, deadline=0,
    )  # fmt: skip


class OneEdge:
    """An edge, and what carries out what it asks for."""

    def __init__(self, bootstrap: str, name: str, versions: Versions):
        self.cluster, self.versions = Cluster(bootstrap, name), versions
        self.edge = Edge(Requests(), room=0)

    async def have(self, n: int, differences: bool) -> None:
        manifest = self.versions.manifests[n]
        a = announced(
            manifest if differences else msgspec.structs.replace(manifest, differences=()), self.versions.sizes
        )
        todo = list(self.edge.want(a))
        while todo:
            effect = todo.pop()
            if isinstance(effect, Gone):
                raise RuntimeError(effect.why)
            todo += await self._ask(effect)
        if self.edge.model(a) is None:
            raise RuntimeError(f"version {n} is not there")
        self.edge.trim([a])

    async def _ask(self, ask: Fetch) -> list[Fetch | Gone]:
        found = await self.cluster.fetch(ask.topic, ask.places)
        _, number = self.edge.requests.close(ask.tag)
        return list(self.edge.answer(number, found))


async def read(consumer: AIOKafkaConsumer, manifest: Manifest) -> int:
    """Read a version's blocks with a plain client; their records' bytes."""
    tp = TopicPartition(manifest.topic, manifest.blocks[0].partition)
    first, end = manifest.blocks[0].offset, manifest.blocks[-1].offset + 1
    consumer.assign([tp])
    consumer.seek(tp, first)
    size = 0
    while first < end:
        for r in (await consumer.getmany(tp, timeout_ms=100, max_records=end - first)).get(tp, ()):
            size, first = size + len(r.value), r.offset + 1
    consumer.pause(tp)
    return size


async def work(bootstrap: str, versions: Versions, count: int) -> None:
    edges = [OneEdge(bootstrap, f"edge-{i}", versions) for i in range(count)]
    plain: list[AIOKafkaConsumer] = []
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        how, n = line.split()
        if how == "raw" and not plain:
            plain = [AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None) for _ in edges]
            await asyncio.gather(*(c.start() for c in plain))
        before, held = sum(e.edge.fetched for e in edges), sum(e.edge.held for e in edges)
        gc.collect()
        began = time.monotonic()
        if how == "raw":
            size = sum(await asyncio.gather(*(read(c, versions.manifests[int(n)]) for c in plain)))
        else:
            await asyncio.gather(*(e.have(int(n), how == "differences") for e in edges))
            size = sum(e.edge.fetched for e in edges) - before
        print(json.dumps({"began": began, "done": time.monotonic(), "bytes": size, "held": held}), flush=True)
    for c in plain:
        await c.stop()
    for e in edges:
        await e.cluster.stop()


if __name__ == "__main__":
    what = msgspec.msgpack.decode(Path(sys.argv[2]).read_bytes(), type=Versions)
    asyncio.run(work(sys.argv[1], what, int(sys.argv[3])))
