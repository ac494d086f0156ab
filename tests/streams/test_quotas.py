"""Kafka's own quotas, by client id: what an operator sets for a tenant or an edge slows that one alone (docs/isolation.md)."""

import asyncio
import time
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Float64, Int16, Int32, Schema, String

from schemas.topics import task_topics, topic
from streams.kafka import Kafka
from streams.processor import Answer, CreateTopics, Send, Stop

TEXT = String("utf-8")
ENTITY = ("entity", Array(("entity_type", TEXT), ("entity_name", TEXT)))


class Answered(Response):
    API_KEY, API_VERSION = 49, 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32), ("entries", Array(("error_code", Int16), ("error_message", TEXT), ENTITY))
    )


class AlterV0(RequestStruct):
    API_KEY, API_VERSION, RESPONSE_TYPE = 49, 0, Answered
    SCHEMA = Schema(
        ("entries", Array(ENTITY, ("ops", Array(("key", TEXT), ("value", Float64), ("remove", Boolean))))),
        ("validate_only", Boolean),
    )


class Alter(Request[AlterV0]):
    """AlterClientQuotas (KIP-546), which aiokafka does not have."""

    API_KEY = 49

    def __init__(self, client_id: str, rate: float, remove: bool):
        self.entry = ([("client-id", client_id)], [("producer_byte_rate", rate, remove)])

    def build(self, request_struct_class: type[AlterV0]) -> AlterV0:
        return request_struct_class([self.entry], False)


async def quota(bootstrap: str, client_id: str, rate: float, remove: bool = False) -> None:
    """Let this client id write so many bytes a second, or again as many as it likes."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        answer: Any = await admin._send_request(Alter(client_id, rate, remove))
        assert [e[0] for e in answer.entries] == [0], answer
    finally:
        await admin.close()


class Writer:
    """Writes `blocks` of 100 KB to a task's deltas and stops when all are there."""

    membership, tick = None, 1_000

    def __init__(self, namespace: str, blocks: int):
        self.name, self.blocks, self.left = "writer", blocks, blocks
        self.topics = tuple((t, 1) for t in task_topics(namespace, "z", "t"))
        self.deltas = topic(namespace, "z", "deltas", "t").name

    def start(self, now):
        yield CreateTopics("made", self.topics)

    def handle(self, event, now):
        match event:
            case Answer(tag="made"):
                yield from (Send(self.deltas, bytes(100_000), partition=0, tag=i) for i in range(self.blocks))
            case Answer(error=""):
                self.left -= 1
                if not self.left:
                    yield Stop("all is there", ok=True)


@pytest.mark.kafka
@pytest.mark.timeout(120)
def test_a_quota_slows_the_client_it_is_set_for_and_no_other(broker: str) -> None:
    namespace = f"quota-{time.time_ns()}"

    async def seconds(client: str, blocks: int = 60) -> float:
        async with Kafka(broker, client) as kafka:
            began = time.monotonic()
            stop = await kafka.host(Writer(namespace, blocks))
            assert stop.ok
            return time.monotonic() - began

    async def both() -> tuple[float, float, float]:
        await seconds("anyone", 1)  # the topic is there
        await quota(broker, f"{namespace}-acme-bulk", 200_000)  # what a `Kafka` of that name writes bulk topics as
        try:
            slow = await seconds(f"{namespace}-acme")
            other = await seconds(f"{namespace}-labs")
        finally:
            await quota(broker, f"{namespace}-acme-bulk", 0, remove=True)
        return slow, other, await seconds(f"{namespace}-acme")

    slow, other, after = asyncio.run(both())
    assert slow > 10  # 6 MB at 0.2 MB/s, of which Kafka lets some pass at first
    assert max(other, after) < slow / 2
