"""The live page over a plane in memory that runs in step with the real clock, in a process of its own, for a browser to look at.

    python -m tests.olearning.served PORT [--zones east,west] [--tasks 3]

Says "ready" when it listens. Lines on its standard input: `crash NAME`, `restart NAME`, `freeze` (the log answers no more), `thaw`, `break ZONE`
(its counts do not add up any more), `refuse TASK` (it is submitted for a zone that is not there). It ends with its input.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from device_sim.availability import Clock
from device_sim.fleet import Manner
from olearning.monitor.board import Board
from olearning.monitor.guard import read_users
from olearning.monitor.serve import listen, serve
from olearning.view import View
from schemas.messages import Evaluation
from schemas.topics import GLOBAL, topic
from streams.memory import Memory
from streams.processor import send
from tests.plane import NS, Plane, spec

DAY_MS = 60_000
MANNER = Manner(training=(300, 2_500), reaction=300, report=500, resend=0.1)


def now() -> int:
    return time.time_ns() // 1_000_000


def over_in(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


class Live:
    """The plane and its view."""

    def __init__(self, zones: tuple[str, ...], tasks: int, devices: int):
        self.plane = Plane(Memory(seed=5, start=now()), zones=zones, scheduler=True, devices=devices, manner=MANNER)
        self.frozen = 0
        for n, zone in enumerate(zones):
            fleet = self.plane.hosts[f"fleet-{zone}"].processor
            fleet.clock = Clock(24 / len(zones) * n, DAY_MS, self.plane.memory.now)  # type: ignore[attr-defined]
        self.view = View(NS)
        self.told: set[tuple[str, int]] = set()
        self.plane.memory.host(lambda life: self.view)
        for n in range(tasks):
            self.submit(f"toy-{n}", ("acme", "birch", "cedar")[n % 3], epochs=200)

    def submit(self, task: str, tenant: str, zones: tuple[str, ...] = (), **more) -> None:
        self.plane.submit(
            replace(spec(task, rounds=2, demand=max(2, self.plane.devices - 1), **more), tenant=tenant, zones=zones)
        )

    def clock(self) -> int:
        """The plane's, which may be behind; while the log is away, time goes on."""
        return self.plane.memory.now + (now() - self.frozen if self.frozen else 0)

    async def run(self) -> None:
        while True:
            memory = self.plane.memory
            if not self.frozen:
                memory.run(over_in(0.05), limit=max(0, now() - memory.now))
                self._score()
            await asyncio.sleep(0.05)

    def _score(self) -> None:
        """What an evaluator would say."""
        for g in self.view.snapshot(self.plane.memory.now).tasks:
            task = g.task
            for epoch in range(g.epoch + (g.state in ("merged", "ended"))):
                if (task, epoch) not in self.told:
                    self.told.add((task, epoch))
                    right = 1 - 0.9 * (0.6 + len(g.tenant) / 40) ** epoch
                    said = Evaluation("eval", self.plane.memory.now, task, epoch, epoch, right, 2.3 * 0.75**epoch, 360)
                    self.plane.memory.append(send(topic(NS, GLOBAL, "metrics"), said))

    def obey(self, line: str) -> None:
        word, _, what = line.strip().partition(" ")
        match word:
            case "crash":
                self.plane.hosts[what].crash()
            case "restart":
                self.plane.hosts[what].restart()
            case "freeze" | "thaw":
                self.frozen = now() if word == "freeze" else 0
            case "break":
                book = self.view.books[what]
                task, t = next(iter(book.zone.tasks.items()))
                wrong = replace(t.tally, offsets=t.tally.offsets + 1)
                book.reading.ledger.state = replace(book.zone, tasks=book.zone.tasks | {task: replace(t, tally=wrong)})
            case "refuse":
                self.submit(what, "acme", zones=("mars",))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--zones", default="east,west")
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--password-file", type=Path)
    options = parser.parse_args()
    live = Live(tuple(options.zones.split(",")), options.tasks, options.devices)
    users = read_users(options.password_file) if options.password_file else []
    sock = listen("127.0.0.1", options.port)
    work = [asyncio.create_task(live.run()), asyncio.create_task(serve(Board(live.view, live.clock), sock, users))]
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while (line := await reader.readline()) and not any(w.done() for w in work):
        live.obey(line.decode())
    for w in work:
        if w.done():
            w.result()
        w.cancel()
    await asyncio.gather(*work, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
