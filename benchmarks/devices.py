"""Devices that train nothing: they register, send deltas that were ready before, and read the next model. One process.

    python -m benchmarks.devices --bootstrap HOST:PORT --namespace N --zone Z --task T --first 0 --count 10 --rounds 4

Prints a JSON line for each round: when the first block left, when the last one was acknowledged, when the next round was
announced and when its model was read whole, with its checksums (seconds since the epoch).
"""

import argparse
import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from schemas.blocks import DeltaBlock, slices
from schemas.messages import Admission, Announcement, Registration
from schemas.topics import read, topic
from streams.kafka import Kafka
from streams.models import assemble, fetch
from streams.processor import Answer, Effect, Ends, Follow, Input, Membership, Record, Requests, Send, Stop, send

WINDOW = 16 * 2**20
"""Bytes that the devices have on their way, all together, before the next block leaves."""
UNITS = 2**20
"""Values of the deltas are below this many units."""


@dataclass
class Times:
    """Of one round, in seconds since the epoch."""

    round: int
    first: float = 0.0
    """The first block leaves."""
    sent: float = 0.0
    """The last one is acknowledged."""
    heard: float = 0.0
    """The next round's announcement is here."""
    read: float = 0.0
    """Its model is here, all blocks and their checksums."""


class Devices:
    """One edge for all of them: what they hear is read once, what they send is sent by each under its own key, a block of
    each in turn."""

    membership: Membership | None = None
    name, tick = "devices", 1_000

    def __init__(self, namespace: str, zone: str, task: str, numbers: range, rounds: int):
        self.names = [f"device-{i}" for i in numbers]
        self.rounds = rounds
        self.registrations, self.admissions = (topic(namespace, zone, w) for w in ("registrations", "admissions"))
        self.announcements = topic(namespace, zone, "announcements")
        self.deltas = topic(namespace, zone, "deltas", task)
        self.requests = Requests()
        self.announced: Announcement | None = None
        self.slots: dict[str, int] = {}
        self.delta = np.zeros(0, np.int32)
        self.model = np.zeros(0, np.float32)
        self.blocks: Iterator[Send] = iter(())
        self.under_way = 0
        self.times = Times(0)

    def start(self, now: int) -> Iterator[Effect]:
        yield Ends(self.requests.new(("admissions",)), self.admissions.name)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Record():
                message = read(event.topic, event.value, event.headers)
                if isinstance(message, Announcement):
                    yield from self._announced(message)
                elif isinstance(message, Admission):
                    yield from self._admitted(message)
            case Answer(error=error) if error:
                yield Stop(error)
            case Answer(tag, value):
                match self.requests.close(tag):
                    case ("admissions",):
                        yield from (Follow(self.admissions.name, p, end) for p, end in value.items())
                        yield Follow(self.announcements.name, 0, 0)
                    case ("sent", int(size)):
                        self.under_way -= size
                        yield from self._send()
                        if not self.under_way:
                            self.times.sent = time.time()
                    case ("model",):
                        assert self.announced
                        yield from self._arrived(assemble(self.announced.base, value))

    def _announced(self, a: Announcement) -> Iterator[Effect]:
        if a.open and (self.announced is None or a.round > self.announced.round):
            self.announced, self.slots = a, {}
            self.times.heard = time.time()
            yield fetch(a.base, self.requests, "model")

    def _arrived(self, model: np.ndarray) -> Iterator[Effect]:
        """The model of the round that is announced, and so the end of the round before it."""
        self.times.read = time.time()
        assert self.announced
        a, before, self.model = self.announced, self.model, model
        if self.times.first:
            print(json.dumps(vars(self.times)), flush=True)
            off = np.abs(model - before - np.ldexp(self.delta.astype(np.float64), a.unit)).max()
            if off > 1e-6:
                yield Stop(f"round {self.times.round}: a value of the model is off by {off}")
        else:
            self.delta = np.random.default_rng(0).integers(-UNITS, UNITS, sum(a.sizes), dtype=np.int32)
        if self.times.round == self.rounds:
            yield Stop("that was the last round", ok=True)
            return
        for name in self.names:
            yield send(self.registrations, Registration(name, a.task, a.round), name)

    def _admitted(self, m: Admission) -> Iterator[Effect]:
        a = self.announced
        if a and m.round == a.round and m.device in self.names and m.device not in self.slots:
            self.slots[m.device] = m.slot
            if len(self.slots) == len(self.names):
                self.blocks = self._deltas(a)
                self.times = Times(a.round, first=time.time())
                yield from self._send()

    def _send(self) -> Iterator[Send]:
        """The next blocks, as far as the window allows."""
        while self.under_way < WINDOW and (block := next(self.blocks, None)):
            self.under_way += block.size
            yield block

    def _deltas(self, a: Announcement) -> Iterator[Send]:
        for i, piece in enumerate(slices(a.sizes)):
            data = self.delta[piece].data.cast("B")
            for name, slot in self.slots.items():
                block = DeltaBlock(a.task, a.round, slot, name, i, "int32", 0, 1, 1, 0, data)
                sent = send(self.deltas, block, name)
                yield Send(sent.topic, sent.value, name, tag=self.requests.new(("sent", sent.size)))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bootstrap", "namespace", "zone", "task"):
        p.add_argument(f"--{name}", required=True)
    for name in ("first", "count", "rounds"):
        p.add_argument(f"--{name}", type=int, required=True)
    a = p.parse_args()

    async def work() -> Stop:
        numbers = range(a.first, a.first + a.count)
        async with Kafka(a.bootstrap, f"devices-{a.first}") as kafka:
            return await kafka.host(Devices(a.namespace, a.zone, a.task, numbers, a.rounds))

    stop = asyncio.run(work())
    if not stop.ok:
        raise SystemExit(stop.reason)


if __name__ == "__main__":
    main()
