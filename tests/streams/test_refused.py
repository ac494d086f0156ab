"""What a broker will never take is said, and not tried without end."""

import asyncio
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.topics import Topic
from streams.appends import Append
from streams.kafka import Kafka, wall_clock
from streams.processor import Send
from tests.streams.worlds import KafkaWorld, make_topics, named

pytestmark = pytest.mark.kafka
HOUR = 3_600_000


async def admin(bootstrap: str, *wanted: NewTopic, gone: str = "") -> None:
    """Make topics, and delete one."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        if wanted:
            await client.create_topics(list(wanted))
        if gone:
            await client.delete_topics([gone])
    finally:
        await client.close()


async def append(kafka: Kafka, t: Topic) -> tuple[Any, str]:
    """Where it landed, or why it did not."""
    over: asyncio.Future[tuple[Any, str]] = asyncio.get_running_loop().create_future()
    kafka.appends(t.name).put(Append(Send(t.name, b"x", "key", 0), lambda _, *what: over.set_result(what)))
    async with asyncio.timeout(30):
        return await over


def test_a_time_that_the_broker_does_not_take_is_said(broker: str) -> None:
    """Of a topic whose records have their senders' time, as one has that was not made here."""
    t = named(KafkaWorld(broker), "receipts")

    async def main() -> tuple[Any, str]:
        await admin(broker, NewTopic(t.name, 1, 1, topic_configs={"message.timestamp.type": "CreateTime"}))
        async with Kafka(broker, clock=lambda: wall_clock() + 2 * HOUR) as kafka:
            return await append(kafka, t)

    assert asyncio.run(main()) == (None, f"{t.name}: [Error 32] InvalidTimestampError")


@pytest.mark.timeout(90)
def test_of_a_topic_that_is_deleted_it_is_noticed_that_it_is_gone(broker: str) -> None:
    """Also where nothing is under way to it, and the producer has learnt meanwhile that it is not there."""
    world = KafkaWorld(broker)
    t, other = named(world, "receipts"), named(world, "receipts", "elsewhere")
    make_topics(world, (t, 1), (other, 1))

    async def main() -> int | None:
        async with Kafka(broker) as kafka:
            cluster = kafka.cluster(t.name)
            assert await append(kafka, t) == ((0, 0), "")
            await admin(broker, gone=t.name)
            assert await append(kafka, other) == ((0, 0), "")  # a topic that is new to the producer: it asks about all
            late = asyncio.create_task(append(kafka, t))
            for _ in range(300):
                if kafka.pulse.again["appending"]:
                    break
                await asyncio.sleep(0.1)
            there = await cluster.partitions(t.name)
            late.cancel()
            return there

    assert asyncio.run(main()) is None
    world.end()
