"""One aggregator on real Kafka: how fast it adds deltas, beside raw consuming of the same log and numpy's own speed.

    python -m benchmarks.aggregation [--devices 200] [--values 1000000] [--bootstrap HOST:PORT]

Deltas of one round lie in the log before anything is timed. Then, in turn and in one process each: the same client reads
the log and drops it (the limit that the client sets); an aggregator takes the shards, judges, adds, and commits.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from processors.aggregator import Aggregator
from schemas.blocks import DeltaBlock, Manifest, Place, Tensor, layout, slices
from schemas.facts import LEADERSHIP, Admitted, Claimed, Closed, Founded, Opened, Slot
from schemas.messages import Ref
from schemas.topics import GLOBAL, task_topics, topic, zone_topics
from streams.broker import LocalBroker
from streams.kafka import Kafka
from streams.ledger import Ledger, Zone
from streams.processor import Answer, CreateTopics, Effect, Ends, Follow, Input, Membership, Record, Stop, send

ZONE, TASK, SHARDS, UNIT = "z", "t", 8, -24


class Once:
    """Sends what it is given and stops when all has landed."""

    membership: Membership | None = None
    name, tick = "once", 1_000

    def __init__(self, effects: list):
        self.effects, self.left = effects, len(effects)

    def start(self, now: int) -> Iterator[Effect]:
        yield from self.effects

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        if isinstance(event, Answer):
            self.left -= 1
            if not self.left:
                yield Stop(event.error or "landed", ok=not event.error)


class Drain:
    """Reads a topic to the ends it has, and drops it."""

    membership: Membership | None = None
    name, tick = "drain", 1_000

    def __init__(self, name: str):
        self.topic, self.left, self.began, self.bytes = name, 0, 0.0, 0

    def start(self, now: int) -> Iterator[Effect]:
        yield Ends("ends", self.topic)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        if isinstance(event, Answer):
            self.left = sum(event.value.values())
            yield from (Follow(self.topic, p, 0) for p, end in event.value.items() if end)
        elif isinstance(event, Record):
            self.began = self.began or time.perf_counter()
            self.left -= 1
            self.bytes += len(event.value or b"")
            if not self.left:
                yield Stop("drained", ok=True)


class Done:
    """Follows the zone's ledger until every shard is done with round 1."""

    membership: Membership | None = None
    name, tick = "done", 1_000

    def __init__(self, namespace: str):
        self.ledger: Ledger[Zone] = Ledger(Zone())
        self.topic = topic(namespace, ZONE, "ledger").name
        self.first = 0.0

    def start(self, now: int) -> Iterator[Effect]:
        yield Follow(self.topic, 0, 0)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        if isinstance(event, Record):
            self.ledger.feed(event)
            zone = self.ledger.state
            if any(h.token for h in zone.shards):
                self.first = self.first or time.perf_counter()
            if TASK in zone.tasks and min(zone.tasks[TASK].at) > 1:
                yield Stop("done", ok=True)


def everything(namespace: str, devices: int, values: int) -> tuple[list, list, int]:
    """The ledger's first facts, the deltas, and their payload in bytes."""
    sizes = layout((Tensor("w", (values,)),)).sizes
    rng = np.random.default_rng(0)
    q = rng.integers(-(2**20), 2**20, values, dtype=np.int32)
    names = [f"device-{i}" for i in range(devices)]
    base = Manifest("m", 0, tuple(Place(0, i, f"k{i}", 0) for i in range(len(sizes))))
    opened = Opened(
        2, TASK, 1, 1, Ref("g", 0), base, devices, devices, 1, 2**62, 0, 2**40, 0, sizes, UNIT, 2**40, 1_000_000
    )  # fmt: skip
    slots = tuple(Slot(TASK, 1, i, d) for i, d in enumerate(names))
    ledger = topic(namespace, ZONE, "ledger")
    facts = [
        Founded("L", ZONE, SHARDS),
        Founded("L", ZONE, SHARDS),  # void: so that the claim's offset is 2
        Claimed("leader", "l", {LEADERSHIP: 0}),
        opened,
        Admitted(2, 0, {}, slots),
    ]
    deltas = topic(namespace, ZONE, "deltas", TASK)
    blocks = []
    for d, name in enumerate(names):
        for i, piece in enumerate(slices(sizes)):
            data = q[piece].data.cast("B")
            block = DeltaBlock(TASK, 1, d, name, i, "int32", 0, 1, 1, 0, data)
            blocks.append(send(deltas, block, name, tag=(d, i)))
    return [send(ledger, f, tag=i) for i, f in enumerate(facts)], blocks, 4 * values * devices


async def measure(bootstrap: str, devices: int, values: int) -> dict[str, float]:
    namespace = f"bench-{os.urandom(4).hex()}"
    facts, blocks, payload = everything(namespace, devices, values)
    out: dict[str, float] = {"payload_mb": payload / 1e6, "blocks": len(blocks)}
    async with Kafka(bootstrap, "bench") as kafka:
        topics = [*zone_topics(namespace, ZONE), *zone_topics(namespace, GLOBAL), *task_topics(namespace, ZONE, TASK)]
        await kafka.host(Once([CreateTopics(0, tuple((t, t.partitions(SHARDS)) for t in topics))]))
        for fact in facts:
            await kafka.host(Once([fact]))
        began = time.perf_counter()
        for at in range(0, len(blocks), 200):
            assert (await kafka.host(Once(blocks[at : at + 200]))).ok
        out["produce_mb_s"] = payload / 1e6 / (time.perf_counter() - began)
        drain = Drain(topic(namespace, ZONE, "deltas", TASK).name)
        await kafka.host(drain)
        out["consume_mb_s"] = payload / 1e6 / (time.perf_counter() - drain.began)
        ends = Once([Ends("ends", drain.topic)])
        found: dict[int, int] = {}
        ends.handle = lambda e, now: [found.update(e.value), Stop("", True)][1:] if isinstance(e, Answer) else []  # type: ignore
        await kafka.host(ends)
        closed = Closed(2, TASK, 1, "demand", found)
        await kafka.host(Once([send(topic(namespace, ZONE, "ledger"), closed, tag=0)]))
        aggregator = Aggregator(namespace, ZONE, "a", "l", commit_interval=2_000)
        done = Done(namespace)
        adding = asyncio.create_task(kafka.host(aggregator))
        await kafka.host(done)
        out["aggregate_mb_s"] = payload / 1e6 / (time.perf_counter() - done.first)
        adding.cancel()
        r = done.ledger.state.tasks[TASK].rounds[1]
        assert r.counts.counted == len(blocks), r.counts
        assert r.contributors == devices
        out["commits"] = len(r.commits)
    acc, q = np.zeros(values, np.int64), np.ones(values, np.int32)
    began = time.perf_counter()
    for _ in range(50):
        np.add(acc, q, out=acc, casting="same_kind")
    out["numpy_add_mb_s"] = 50 * q.nbytes / 1e6 / (time.perf_counter() - began)
    out["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return out


def idle_mb() -> float:
    """What a process of the plane takes that has loaded everything and waits."""
    code = "import olearning.cli; print(next(x for x in open('/proc/self/status') if x.startswith('VmRSS')).split()[1])"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) / 1024


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--devices", type=int, default=200)
    p.add_argument("--values", type=int, default=1_000_000)
    p.add_argument("--bootstrap", default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS", ""))
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        local = None if args.bootstrap else LocalBroker(Path(folder))
        try:
            out = asyncio.run(measure(args.bootstrap or local.start(), args.devices, args.values))  # type: ignore
        finally:
            if local:
                local.stop()
    out["idle_role_mb"] = idle_mb()
    out["share_of_consume"] = out["aggregate_mb_s"] / out["consume_mb_s"]
    print(json.dumps({k: round(v, 2) for k, v in out.items()}, indent=2))


if __name__ == "__main__":
    main()
