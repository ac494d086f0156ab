"""Many devices in one process, as load: they register, each once, and hear whether they are admitted. No role runs here.

    python -m benchmarks.crowd --bootstrap HOST:PORT --namespace N --zone Z --task T --first 0 --count 1000 --rate 0 --checkins 0

`rate`: registrations a second, spread evenly; 0: all at once. `checkins`: so many check-ins of each device before. Prints one JSON line:
how long it took from the first registration to the last answer, and the times from a registration to its answer.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Iterable, Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas.messages import Admission, Announcement, CheckIn, Refusal, Registration
from schemas.partitioner import shard_of
from schemas.topics import read, topic
from schemas.wire import HEADERS, Malformed, Message, decode, encode

SLICE = 0.005
"""Seconds that one hand-over of a steady load stands for."""
TOGETHER = 500
"""Records of a batch."""
PATIENCE = 60.0
"""Seconds without an answer after which the rest is given up."""
ABILITIES = {"cpu": 300.0, "ram": 6.0, "memory": 2000.0, "os": 13.0, "bandwidth": 20.0}
Wire = tuple[int, bytes, bytes]
"""Partition, key and value."""


class Crowd:
    """Devices of a zone with P partitions. `sent` and `answered`: when, by device (seconds of the monotonic clock; 0: not)."""

    def __init__(self, args: argparse.Namespace, partitions: int):
        self.args, self.partitions = args, partitions
        self.names = [f"{i:032x}" for i in range(args.first, args.first + args.count)]
        self.number = {name.encode(): i for i, name in enumerate(self.names)}
        self.sent, self.answered = [0.0] * args.count, [0.0] * args.count
        self.slots: list[int | None] = [None] * args.count
        self.refused = 0

    def name(self, what: str) -> str:
        return topic(self.args.namespace, self.args.zone, what).name

    def wire(self, messages: Iterable[Message]) -> list[Wire]:
        return [
            (shard_of(n, self.partitions), n.encode(), encode(m)) for n, m in zip(self.names, messages, strict=True)
        ]

    async def send(self, producer: AIOKafkaProducer, what: str, wire: Sequence[Wire], numbers: range) -> None:
        """Hand these devices' records over, in as few batches as they take."""
        by_shard: dict[int, list[int]] = {}
        for i in numbers:
            by_shard.setdefault(wire[i][0], []).append(i)
        for p, mine in by_shard.items():
            for at in range(0, len(mine), TOGETHER):
                batch, now = producer.create_batch(), time.monotonic()
                for i in mine[at : at + TOGETHER]:
                    if batch.append(timestamp=None, key=wire[i][1], value=wire[i][2], headers=list(HEADERS)) is None:
                        raise RuntimeError(f"{TOGETHER} records do not fit a batch")
                    if what == "registrations":
                        self.sent[i] = now
                batch.close()
                await producer.send_batch(batch, self.name(what), partition=p)

    async def register(self, producer: AIOKafkaProducer, wire: Sequence[Wire], checkins: Sequence[Wire]) -> None:
        """All devices, at the rate asked for."""
        n, rate, began = self.args.count, self.args.rate, time.monotonic()
        step = max(1, round(rate * SLICE)) if rate else TOGETHER * self.partitions
        for at in range(0, n, step):
            if rate and (early := began + at / rate - time.monotonic()) > 0:
                await asyncio.sleep(early)
            numbers = range(at, min(at + step, n))
            for _ in range(self.args.checkins):
                await self.send(producer, "checkins", checkins, numbers)
            await self.send(producer, "registrations", wire, numbers)
            if rate:  # waits count from when it was their turn: what holds up who sends holds up devices
                self.sent[at : at + step] = [began + i / rate for i in numbers]

    async def listen(self, consumer: AIOKafkaConsumer) -> None:
        """Until each has its answer."""
        left, last = self.args.count, time.monotonic()
        while left and time.monotonic() - last < PATIENCE:
            got = await consumer.getmany(timeout_ms=200)
            now = time.monotonic()
            for records in got.values():
                last = now
                for r in records:
                    i = self.number.get(r.key)
                    if i is None or self.answered[i]:
                        continue
                    self.answered[i], left = now, left - 1
                    answer = decode(r.value, (Admission, Refusal))
                    if isinstance(answer, Admission):
                        self.slots[i] = answer.slot
                    else:
                        self.refused += 1

    def said(self) -> dict[str, float]:
        waits = sorted(1000 * (a - s) for a, s in zip(self.answered, self.sent, strict=True) if a)
        if not waits:
            raise RuntimeError("nobody got an answer")
        return {
            "seconds": max(self.answered) - min(self.sent),
            "sending": max(self.sent) - min(self.sent),
            "answers": len(waits),
            "admitted": len(waits) - self.refused,
            "refused": self.refused,
            "p50_ms": waits[len(waits) // 2],
            "p99_ms": waits[(99 * len(waits) - 1) // 100],
            "max_ms": waits[-1],
            "cpu_s": time.process_time(),
        }


async def _open_round(consumer: AIOKafkaConsumer, name: str, task: str) -> int:
    """The number of the task's open round, as announced."""
    tp = TopicPartition(name, 0)
    consumer.assign([tp])
    await consumer.seek_to_beginning(tp)
    while True:
        for r in (await consumer.getmany(timeout_ms=200)).get(tp, ()):
            try:
                message = read(name, r.value)
            except Malformed:
                continue
            if isinstance(message, Announcement) and message.task == task and message.open:
                return message.round


async def registered(args: argparse.Namespace) -> Crowd:
    """All devices, once each has its answer."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=args.bootstrap,
        group_id=None,
        enable_auto_commit=False,
        fetch_max_wait_ms=100,
        check_crcs=False,
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=args.bootstrap, acks="all", enable_idempotence=True, max_batch_size=2**18
    )
    await consumer.start()
    await producer.start()
    try:
        admissions = topic(args.namespace, args.zone, "admissions").name
        crowd = Crowd(args, len(await producer.partitions_for(admissions)))
        n = args.round or await _open_round(consumer, crowd.name("announcements"), args.task)
        wishes = crowd.wire(Registration(name, args.task, n, ABILITIES) for name in crowd.names)
        here = crowd.wire(CheckIn(name, ABILITIES) for name in crowd.names)
        mine = [TopicPartition(admissions, p) for p in range(crowd.partitions)]
        consumer.assign(mine)
        await consumer.seek_to_end(*mine)
        for what in ("registrations", "checkins"):
            await producer.partitions_for(crowd.name(what))
        listening = asyncio.create_task(crowd.listen(consumer))
        await asyncio.sleep(0.3)  # its first fetch is under way
        await asyncio.gather(crowd.register(producer, wishes, here), listening)
        return crowd
    finally:
        await producer.stop()
        await consumer.stop()


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for word in ("bootstrap", "namespace", "zone", "task"):
        parser.add_argument(f"--{word}", required=True)
    for word in ("first", "count", "rate", "checkins", "round"):
        parser.add_argument(f"--{word}", type=int, default=0)
    return parser.parse_args(words)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(registered(arguments())).said()))
