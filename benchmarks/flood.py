"""Delta blocks as fast as a plain client can write them, until a line comes on standard input: then their MB/s are printed.

    python -m benchmarks.flood BOOTSTRAP NAMESPACE ZONE TASK

They are those of a few devices that are admitted first, one block each, sent again and again: an aggregator reads, judges and unpacks each
of them, and counts the first.
"""

import asyncio
import json
import sys
import time

from aiokafka import AIOKafkaProducer

from benchmarks.crowd import arguments, registered
from schemas.blocks import BLOCK, DeltaBlock
from schemas.partitioner import shard_of
from schemas.topics import topic
from schemas.wire import HEADERS, encode

DEVICES = 64
FIRST = 10**9
"""Their numbers are not those of the crowd."""
WINDOW = 64
"""Blocks on their way at once."""


async def main(bootstrap: str, namespace: str, zone: str, task: str) -> None:
    words = {
        "bootstrap": bootstrap,
        "namespace": namespace,
        "zone": zone,
        "task": task,
        "first": FIRST,
        "count": DEVICES,
    }
    crowd = await registered(arguments([x for k, v in words.items() for x in (f"--{k}", str(v))]))
    name, size = topic(namespace, zone, "deltas", task).name, 0
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_request_size=2**21, max_batch_size=2**20
    )
    await producer.start()
    over = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    await producer.partitions_for(name)
    blocks = []
    for slot, device in zip(crowd.slots, crowd.names, strict=True):
        assert slot is not None, "a device of the flood was not admitted"
        b = DeltaBlock(task, 1, slot, device, 0, "int32", 0, 1, 1, 0, memoryview(bytes(4 * BLOCK)))
        blocks.append((shard_of(device, crowd.partitions), device.encode(), encode(b)))
    began, under_way = time.monotonic(), set[asyncio.Future]()
    while not over.done():
        for p, key, value in blocks:
            under_way.add(await producer.send(name, value, key=key, partition=p, headers=list(HEADERS)))
            size += len(value)
            if len(under_way) >= WINDOW:
                _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
    took = time.monotonic() - began
    print(json.dumps({"mb_s": size / took / 1e6}))
    await producer.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
