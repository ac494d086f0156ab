"""The limit of admissions: a plain client that answers each registration with an admission of its device, and decides nothing.

    python -m benchmarks.echo BOOTSTRAP NAMESPACE ZONE

No ledger, no state, no order between partitions: a fetch, a copy, a batch. It says a word when it listens, and is ended from outside.
"""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas.messages import Admission, Ref
from schemas.topics import topic
from schemas.wire import HEADERS, encode

CAUSE = Ref("bench-0123456789abcdef", 1000)
CAUSED = [*HEADERS, ("cause", b"bench-0123456789abcdef@1000")]


def answer(device: str) -> bytes:
    return encode(Admission(device, "control", 1, 1000, 2**40, CAUSE))


async def main(bootstrap: str, namespace: str, zone: str) -> None:
    wishes, answers = (topic(namespace, zone, w).name for w in ("registrations", "admissions"))
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False, fetch_max_wait_ms=100, check_crcs=False
    )
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_batch_size=2**20)
    await consumer.start()
    await producer.start()
    mine = [TopicPartition(wishes, p) for p in await producer.partitions_for(wishes)]
    await producer.partitions_for(answers)
    consumer.assign(mine)
    for tp in mine:
        consumer.seek(tp, 0)
    print("listening", flush=True)
    while True:
        got = await consumer.getmany(timeout_ms=200)
        for tp, records in got.items():
            batch = producer.create_batch()
            for r in records:
                if batch.append(timestamp=None, key=r.key, value=answer(r.key.decode()), headers=CAUSED) is None:
                    await producer.send_batch(batch, answers, partition=tp.partition)
                    batch = producer.create_batch()
                    batch.append(timestamp=None, key=r.key, value=answer(r.key.decode()), headers=CAUSED)
            batch.close()
            await producer.send_batch(batch, answers, partition=tp.partition)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
