"""What is asked of a cluster beside the stream of records, where no broker is needed to see it."""

import asyncio

import pytest

from schemas.topics import GLOBAL, topic
from streams import queries
from streams.queries import MAKING, PATIENCE, Cluster, Refused


def test_a_topic_that_the_broker_makes_is_waited_for_longer_than_one_that_is_not_there(monkeypatch):
    clock, ledger = [0.0], topic("lab", GLOBAL, "ledger")

    async def sleep(seconds: float) -> None:
        clock[0] += seconds

    async def partitions(name: str) -> int | None:
        return 1 if clock[0] > (PATIENCE + MAKING) / 2 else None

    async def made(ask: object) -> None:
        """The broker said yes."""

    async def go() -> None:
        cluster = Cluster("nowhere:9092", "test")
        monkeypatch.setattr(cluster, "partitions", partitions)
        monkeypatch.setattr(cluster, "_persist", made)
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock[0])
        monkeypatch.setattr(queries.asyncio, "sleep", sleep)
        with pytest.raises(Refused, match=f"{ledger.name} does not exist, or no broker leads it: 30 s were waited"):
            await cluster.known(ledger.name)
        clock[0] = 0.0
        await cluster.create([(ledger, 1)])

    asyncio.run(go())
