"""Who stops while the broker is away leaves no task behind, and with it no connection, in a process that lives on."""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from streams.broker import LocalBroker
from streams.kafka import Kafka
from streams.processor import Answer, Assigned, CreateTopics, Follow, Membership, Stop
from tests.streams.worlds import Probe, named


def tasks() -> Counter[str]:
    return Counter(t.get_coro().__qualname__ for t in asyncio.all_tasks())  # type: ignore[union-attr]


@pytest.mark.kafka
@pytest.mark.timeout(300)
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
def test_nothing_is_left_of_who_stops_while_the_broker_is_away(tmp_path: Path, sign: signal.Signals) -> None:
    class Here:
        namespace = "closing"

    receipts, shards = named(Here(), "receipts"), named(Here(), "shards")  # type: ignore[arg-type]

    async def main(broker: LocalBroker) -> Counter[str]:
        async with Kafka(broker.bootstrap, "closing") as kafka:
            made = ((receipts, 1), (shards, 4))
            maker = Probe(
                first=(CreateTopics("made", made),),
                react=lambda event: [Stop("made", ok=True)] if isinstance(event, Answer) else [],
            )
            await kafka.host(maker)
            before = tasks()
            probe = Probe(first=(Follow(receipts.name, 0, 0),), membership=Membership("closing.g", shards.name))
            seated = asyncio.Event()
            probe.react = lambda event: seated.set() or () if isinstance(event, Assigned) else ()  # type: ignore[func-returns-value]
            hosted = asyncio.create_task(kafka.host(probe))
            async with asyncio.timeout(30):
                await seated.wait()
            assert broker.pid
            os.kill(broker.pid, sign)
            await asyncio.sleep(1)
            hosted.cancel()
            await asyncio.wait({hosted})
            for _ in range(100):  # what was cancelled takes a turn or more to end
                if not tasks() - before:
                    break
                await asyncio.sleep(0.05)
            return tasks() - before

    with LocalBroker(tmp_path) as broker:
        try:
            left = asyncio.run(main(broker))
        finally:
            broker.kill()
    assert left == Counter()
