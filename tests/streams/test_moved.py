"""Brokers that come back elsewhere: the address that one was given leads there, those that clients have learnt do not."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from schemas.blocks import Place
from streams import stranded
from streams.broker import LocalBroker, free_port
from streams.kafka import Kafka
from streams.processor import Ends, Follow, Membership, Send
from tests.streams.worlds import KafkaWorld, Probe, make_topics, named

pytestmark = pytest.mark.kafka


class Way:
    """An address that leads to another, as that of a load balancer does."""

    def __init__(self) -> None:
        self.to, self.port = 0, 0

    async def go(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self.to)
            await asyncio.gather(self.pump(reader, back), self.pump(there, writer))
        writer.close()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()


@contextmanager
def leading(to: int) -> Iterator[Way]:
    way, loop = Way(), asyncio.new_event_loop()
    way.to = to
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(way.go, "127.0.0.1", 0), loop).result()
    way.port = server.sockets[0].getsockname()[1]
    yield way
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.mark.timeout(400)
def test_all_goes_on_where_the_brokers_have_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading, appends, membership and questions; of these, fetches by a client that they have used before."""
    monkeypatch.setattr(stranded, "LOST", 1.0)
    with LocalBroker(tmp_path) as before, leading(before.port or 0) as way:
        world = KafkaWorld(f"127.0.0.1:{way.port}")
        t, shards, models = named(world, "receipts"), named(world, "shards"), named(world, "models")
        make_topics(world, (t, 1), (shards, 4), (models, 1))
        m = Membership(f"{world.namespace}.g", shards.name)
        probe = Probe(name="a", first=(Follow(t.name, 0, 0),), membership=m)
        hosted = world.host(probe)
        probe.do(Send(t.name, b"1", partition=0, tag=1), Send(models.name, b"x", key="k", partition=0, tag=2))
        world.run_until(
            lambda: bool(probe.seats == frozenset(range(4)) and len(probe.records) == 1 and probe.answer(2))
        )

        async def fetch() -> None:
            async with Kafka(world.bootstrap) as kafka:
                cluster = kafka.cluster(models.name)
                for _ in range(2):
                    async with asyncio.timeout(30):
                        assert await cluster.fetch(models.name, [Place(0, 0, "k", 0)]) == {"k": b"x"}
                    if way.to == before.port:
                        await asyncio.to_thread(move)

        def move() -> None:
            before.stop()
            way.to = free_port()
            after.port = way.to
            after.start()

        after = LocalBroker(tmp_path, 0)
        try:
            asyncio.run(fetch())
            probe.do(Send(t.name, b"2", partition=0, tag=3), Ends("ends", t.name))
            world.run_until(lambda: bool(probe.answer(3) and probe.answer("ends")), 30)
            world.run_until(lambda: [r.value for r in probe.records][-1] == b"2", 30)
            other = Probe(name="b", membership=m)
            world.host(other)
            world.run_until(lambda: (len(probe.seats or ()), len(other.seats or ())) == (2, 2), 30)
            assert world.stopped(hosted) is None
            world.end()
        finally:
            after.stop()


@pytest.mark.timeout(400)
def test_who_belongs_to_a_group_keeps_its_place_while_the_broker_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long: another join would wait a session for the member that one has been."""
    monkeypatch.setattr(stranded, "LOST", 1.0)

    async def members(group: str) -> list[str]:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
        await admin.start()
        try:
            (answer,) = await admin.describe_consumer_groups([group])
        finally:
            await admin.close()
        return [m[0] for m in answer.groups[0][5]]

    with LocalBroker(tmp_path) as broker:
        world = KafkaWorld(broker.bootstrap, session=30_000)
        t, shards = named(world, "receipts"), named(world, "shards")
        make_topics(world, (t, 1), (shards, 4))
        m = Membership(f"{world.namespace}.g", shards.name)
        probe = Probe(first=(Follow(t.name, 0, 0),), membership=m)
        world.host(probe)
        world.run_until(lambda: probe.seats == frozenset(range(4)))
        before, after = asyncio.run(members(m.group)), list[str]()
        broker.stop()
        time.sleep(5)
        broker.start()
        probe.do(Send(t.name, b"1", partition=0))
        world.run_until(lambda: len(probe.records) == 1)
        world.run_until(lambda: len(now := asyncio.run(members(m.group))) == 1 and not after.extend(now))
        assert after == before
        world.end()
