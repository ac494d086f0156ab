"""Several real brokers on this machine, as one cluster: KRaft, each broker and controller at once.

Ports are below those that the system gives to outgoing connections: else a client that knocks at the port of a broker
that is down may be given that very port for its own end, and has a connection with itself.
"""

import asyncio
import os
import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient

from streams.broker import LocalBroker, Member
from streams.jars import BrokerError
from streams.queries import close

_HOST, _PORTS = "127.0.0.1", range(20_000, 32_000)
_FRUGAL = "-XX:TieredStopAtLevel=1 -XX:ParallelGCThreads=1 -Xmn64m"
"""For the Java launcher: brokers that are to share two cores with twenty processes compile and collect little."""


def free_ports(n: int) -> list[int]:
    found: set[int] = set()
    while len(found) < n:
        port = random.choice(_PORTS)
        with socket.socket() as s:
            try:
                s.bind((_HOST, port))
                found.add(port)
            except OSError:
                continue
    return sorted(found)


class Brokers:
    """`n` brokers; `nodes[i]` has its data in `folder/i`. Topics have min(3, n) replicas."""

    def __init__(self, folder: Path, n: int = 3):
        ports = free_ports(2 * n)
        voters = ",".join(f"{i + 1}@{_HOST}:{ports[n + i]}" for i in range(n))
        self.nodes = [LocalBroker(folder / str(i), ports[i], Member(i + 1, ports[n + i], voters)) for i in range(n)]

    @property
    def bootstrap(self) -> str:
        return ",".join(b.bootstrap for b in self.nodes)

    def start(self) -> str:
        """All of them, together: one alone has no quorum. Raises `BrokerError`."""
        os.environ.setdefault("JDK_JAVA_OPTIONS", _FRUGAL)
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            starts = [threads.submit(b.start) for b in self.nodes]
        try:
            for s in starts:
                s.result()
        except BrokerError:
            self.stop()
            raise
        return self.bootstrap

    def stop(self) -> None:
        for b in self.nodes:
            b.kill()

    def __enter__(self) -> "Brokers":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@dataclass(frozen=True)
class Health:
    """How many partitions each node leads (-1: nobody), and whether every replica of every partition is in sync."""

    leads: Counter[int]
    whole: bool

    def led(self, away: int = 0) -> bool:
        """Has every partition a leader, other than that node?"""
        return bool(self.leads) and not self.leads[-1] and not self.leads[away]


async def health(bootstrap: str) -> Health:
    """As any of these brokers says; nobody leads if none answers."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="chaos-health", request_timeout_ms=2_000)
    try:
        async with asyncio.timeout(5):
            await admin.start()
            parts = [p for t in await admin.describe_topics() for p in t["partitions"]]
    except (errors.KafkaError, OSError):
        return Health(Counter(), False)
    finally:
        await close(admin)
    whole = all(set(p["isr"]) == set(p["replicas"]) for p in parts)
    return Health(Counter(p["leader"] for p in parts), whole)
