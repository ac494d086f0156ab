"""A process that one case measures: an aggregator, or the client alone reading the same records. Prints one JSON object.

python -m benchmarks.worker aggregate BOOTSTRAP NAMESPACE NAME [TURN]
python -m benchmarks.worker raw BOOTSTRAP TOPICS SHARDS CRC
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.load import ZONE
from benchmarks.rss import now_mb, peak_mb
from processors.aggregator import Aggregator
from processors.shares import TURN
from streams.kafka import Kafka
from streams.processor import Effect, Follow, Input, Record, Stop
from streams.reader import AHEAD


class Timed:
    """An aggregator with a watch: it stops when round 1 of every task is over in its fold, and knows when it began to read and
    when its last block was added."""

    def __init__(self, aggregator: Aggregator):
        self.inner = aggregator
        self.name, self.membership, self.tick = aggregator.name, aggregator.membership, aggregator.tick
        self.first = self.last = self.cpu = self.idle = 0.0
        self.blocks = self.bytes = 0
        self.over: dict[str, float] = {}
        """By task, when all shards were done with round 1."""

    def start(self, now: int) -> Iterable[Effect]:
        return self.inner.start(now)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        for effect in self.inner.handle(event, now):
            if isinstance(effect, Follow) and ".deltas." in effect.topic and not self.first:
                self.first, self.idle, self.cpu = time.monotonic(), now_mb(), time.process_time()
            yield effect
        if isinstance(event, Record) and ".deltas." in event.topic:
            self.blocks += 1
            self.bytes += len(event.value or b"")
            self.last = time.monotonic()
            return
        tasks = self.inner.zone.tasks
        for task, t in tasks.items():
            if min(t.at) > 1:
                self.over.setdefault(task, time.monotonic())
        if tasks and len(self.over) == len(tasks):
            yield Stop("all shards are done", ok=True)


async def aggregate(bootstrap: str, namespace: str, name: str, turn: str = str(TURN)) -> dict[str, Any]:
    async with Kafka(bootstrap, name) as kafka:
        timed = Timed(Aggregator(namespace, ZONE, name, name, turn=int(turn)))
        stop = await kafka.host(timed)
        assert stop.ok, stop.reason
        return {
            "over": timed.over, "first": timed.first, "last": timed.last, "done": time.monotonic(), "blocks": timed.blocks, "bytes": timed.bytes,
            "idle_mb": timed.idle or now_mb(), "peak_mb": peak_mb(), "cpu_s": time.process_time() - timed.cpu,
            "switches": resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
        }  # fmt: skip


async def raw(bootstrap: str, topics: str, shards: str, crc: str) -> dict[str, float]:
    """Read what the partitions hold with a plain client, in pieces as large as ours, and drop it."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False, check_crcs=crc == "crc", fetch_max_bytes=AHEAD
    )  # fmt: skip
    await consumer.start()
    try:
        mine = [TopicPartition(topic, int(s)) for topic in topics.split(",") for s in shards.split(",")]
        consumer.assign(mine)
        left = sum((await consumer.end_offsets(mine)).values())
        for tp in mine:
            consumer.seek(tp, 0)
        size, blocks, first, cpu = 0, left, time.monotonic(), time.process_time()
        while left:
            got = await consumer.getmany(timeout_ms=100, max_records=500)
            for records in got.values():
                left -= len(records)
                size += sum(len(r.value) for r in records)
        return {
            "first": first, "last": time.monotonic(), "blocks": blocks, "bytes": size, "cpu_s": time.process_time() - cpu,
        }  # fmt: skip
    finally:
        await consumer.stop()


def main() -> None:
    what, *args = sys.argv[1:]
    print(json.dumps(asyncio.run(aggregate(*args) if what == "aggregate" else raw(*args))))


if __name__ == "__main__":
    main()
