"""The gateway from end to end: real sockets, two phones, a plane in memory on the real clock. And what HTTP refuses, in words."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest

from device_sim.device import Device
from device_sim.fleet import Manner
from device_sim.gateway import MOST_BYTES, Gateway
from olearning.errors import Trouble
from olearning.gateway import Api, Hosted, Server, address
from olearning.phone import Phone
from olearning.planes import InMemory
from olearning.roles import Role
from olearning.tokens import Signed, device_check, find_check, read_secret, salt
from schemas.facts import Finalised
from schemas.messages import CheckIn, Registration
from schemas.topics import zone_topics
from schemas.wire import encode
from streams.ledger import Globe, Ledger, Zone
from streams.memory import Host, Memory
from tests.plane import LAYOUT, NS, START, Arithmetic, Plane, spec

SECRET = b"a secret of 24 bytes, so."
TOKENS = Signed(SECRET)
ROUNDS = 4
TASK = spec(demand=2, minimum=2, epochs=1, rounds=ROUNDS)
PHONES = Manner(training=(30, 120), reaction=50, tick=20, resend=1.0)


class House:
    """A plane in memory, a gateway before it, and whatever a test does with them."""

    def __init__(self) -> None:
        self.plane = InMemory(print, pause=0.2)
        self.hosted: Hosted
        self.host: Host
        self.server: Server | None = None
        self.lives = 0
        self.port = 0

    async def start(self) -> None:
        p = {"partitions": "4"}
        roles = [
            Role("global", "global", NS, options={"zones": "east", **p}),
            Role("zone", "zone-east", NS, "east", p),
            Role("aggregator", "agg-east", NS, "east", p | {"commit-interval": "100"}),
        ]
        await self.plane.start(roles)
        for t in zone_topics(NS, "east"):
            self.plane.memory.create(t.name, t.partitions(4))

    async def open(self, check: Callable[[str], Any] = TOKENS) -> None:
        """Start the gateway, at the port that it had."""

        def make(life: str) -> Hosted:
            self.hosted = Hosted(Gateway(NS, "east", "gateway", life, salt(SECRET)))
            return self.hosted

        self.host = self.plane.memory.host(make)
        self.lives += 1
        self.server = Server(Api(self.hosted, check, self.plane.now), "127.0.0.1", self.port)
        await self.server.__aenter__()
        self.port = int(self.server.url.rpartition(":")[2])
        await until(lambda: self.hosted.gateway.ready)

    async def kill(self) -> None:
        """It dies: what it had in memory is gone, and its connections break."""
        self.host.crash()
        assert self.server
        await self.server.__aexit__()

    def fold(self, zone: str) -> Any:
        ledger: Ledger = Ledger(Globe() if zone == "global" else Zone())
        for record in self.plane.memory.records(f"{NS}.{zone}.ledger"):
            ledger.feed(record)
        return ledger.state


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    h = House()
    await h.start()
    await h.open()
    try:
        yield h
    finally:
        assert h.server
        await h.server.__aexit__()
        await h.plane.stop()


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.02)


class Twice(Phone):
    """A phone that says everything twice."""

    async def _post(self, what: str, value: bytes) -> None:
        await super()._post(what, value)
        await super()._post(what, value)


def undisturbed() -> np.ndarray:
    """The same devices in a fleet, in virtual time, with nothing in between."""
    plane = Plane(Memory(seed=3), zones=("east",), devices=2)
    plane.submit(TASK)
    assert plane.memory.run(lambda: plane.ended("toy"), 120_000)
    return plane.model("toy")


def test_two_phones_train_through_a_gateway_that_is_killed_and_no_bit_differs() -> None:
    said: list[str] = []

    async def play() -> tuple[np.ndarray, House, list[Phone]]:
        async with house() as h:
            assert h.server
            phones = [
                kind(
                    h.server.url,
                    TOKENS.token(f"east-{n}"),
                    "east",
                    Device(f"east-{n}", n),
                    Arithmetic(),
                    said.append,
                    PHONES,
                    NS,
                )
                for n, kind in enumerate((Phone, Twice))
            ]
            at_work = [asyncio.create_task(phone.run()) for phone in phones]
            submitter = Plane.submit
            h.plane.memory.host(lambda life: submitted(life))
            await until(
                lambda: (z := h.fold("east")).tasks and z.tasks["toy"].round == 2 and z.tasks["toy"].rounds[2].devices
            )
            await h.kill()
            await asyncio.sleep(0.5)
            await h.open()
            await until(lambda: (g := h.fold("global")).tasks["toy"].state == "ended")
            for task in at_work:
                assert not task.done(), task
                task.cancel()
            await asyncio.gather(*at_work, return_exceptions=True)
            manifest = h.fold("global").tasks["toy"].manifest
            return Plane.vector(h.plane, manifest), h, phones  # type: ignore[arg-type]

    model, h, phones = asyncio.run(play())
    assert model.tobytes() == undisturbed().tobytes()
    assert h.lives == 2
    counts = h.fold("east").tasks["toy"].tally.counts
    assert counts.counted == 2 * ROUNDS * len(LAYOUT.sizes)
    assert counts.duplicate > 0
    assert said == []
    everything = b"".join(
        (r.key or "").encode() + (r.value or b"")
        for name, logs in h.plane.memory.topics.items()
        for log in logs
        for r in log
    )
    assert b"east-0" not in everything
    assert b"east-1" not in everything


def submitted(life: str) -> Any:
    from processors.submitter import Submitter

    return Submitter(NS, life, TASK, LAYOUT, START, 1)
