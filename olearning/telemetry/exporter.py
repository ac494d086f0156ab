"""Serves what a process shows: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever starts and restarts it.

Requests are answered in threads of their own, so that a role whose event loop stands still can be told from one that is gone. What is
read of a processor's state is read in the loop, between two inputs.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from olearning.errors import USAGE, Trouble
from olearning.telemetry import metrics as m
from olearning.telemetry.counts import Counts
from olearning.telemetry.metrics import Sample, families, histogram
from olearning.telemetry.sources import samples_of, unready
from olearning.telemetry.traces import traced
from streams.kafka import Kafka, wall_clock
from streams.processor import Processor
from streams.pulse import LANES

PATIENCE = 5.0
"""Seconds that a request waits for the event loop."""
STANDS_STILL, AT_WORK = 60.0, 900.0
"""Seconds without a turn of the loop, or without an input handled, after which a role is not well; the second for one that trains or
scores: a run on a large model takes its time."""
COORDINATES = frozenset({"global", "zone", "aggregator", "scheduler", "gateway", "view"})
"""The kinds of roles that do neither."""
BEAT, WINDOW = 0.5, 15.0
"""Seconds between two looks whether the loop is late, and after which an old lateness is forgotten, or twice that."""


@dataclass
class Watched:
    """A processor, the same as it is hosted (it may be wrapped), and what was counted of it. `kafka` None: hosted in memory."""

    kind: str
    name: str
    zone: str
    processor: Processor
    hosted: Processor
    counts: Counts
    kafka: Kafka | None
    clock: Callable[[], int]

    async def look(self) -> tuple[list[Sample], str]:
        """What there is to say of it, and why it is not ready or ""."""

        def at() -> tuple[list[Sample], str]:
            found = [*samples_of(self.processor, self.clock()), *self.counts.samples()]
            return found, unready(self.processor)

        if self.kafka is None:
            return at()
        try:
            return await self.kafka.look(self.hosted, at)
        except KeyError:
            return [], f"{self.name} is not started yet, or stopped"


class Exporter(Collector):
    """Of one process; to be entered in its event loop. `port` None: it serves nothing, 0: a free one."""

    def __init__(self, port: int | None):
        self.port = port
        self.watched: dict[str, Watched] = {}
        self._kafka: Kafka | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: WSGIServer | None = None
        self._beating: asyncio.Task[None] | None = None
        self._due = time.monotonic()
        self._late = [0.0, 0.0]
        """The longest lateness of this window and of the one before."""
        self._waits = "it starts"

    def watch(self, watched: Watched) -> None:
        """Show this from now on, in the place of what had its name."""
        self.watched[watched.name] = watched
        self._kafka = watched.kafka or self._kafka

    async def __aenter__(self) -> "Exporter":
        """Raises `Trouble` if the port is not to be had."""
        if self.port is None:
            return self
        self._loop = asyncio.get_running_loop()
        self._beating = asyncio.create_task(self._beat(), name="beat")
        try:
            self._server = make_server("", self.port, self._app(), _Server, _Silent)
        except (OSError, OverflowError) as e:
            raise Trouble(
                f"metrics cannot be served at port {self.port} ({e}): choose another --metrics-port", USAGE
            ) from None
        self.port = self._server.server_port
        serve = partial(self._server.serve_forever, poll_interval=0.2)  # for so long its end may wait
        threading.Thread(target=serve, name="metrics", daemon=True).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._beating:
            self._beating.cancel()
        if self._server:
            await asyncio.to_thread(self._server.shutdown)
            self._server.server_close()

    async def _beat(self) -> None:
        turned = time.monotonic()
        while True:
            self._due = time.monotonic() + BEAT
            await asyncio.sleep(BEAT)
            now = time.monotonic()
            self._late[0] = max(self._late[0], now - self._due)
            if now - turned > WINDOW:
                self._late, turned = [0.0, self._late[0]], now

    # ------------------------------------------------------------------ in threads

    def _app(self) -> Callable[[dict, Callable], Iterable[bytes]]:
        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        metrics = make_wsgi_app(registry)
        words = {"/healthz": self.ill, "/readyz": self.unready}

        def app(environ: dict, start: Callable) -> Iterable[bytes]:
            if (path := environ.get("PATH_INFO")) == "/metrics":
                return metrics(environ, start)
            if path not in words:
                start("404 Not Found", [("Content-Type", "text/plain")])
                return [b"/metrics, /healthz or /readyz\n"]
            why = words[path]()
            start("503 Service Unavailable" if why else "200 OK", [("Content-Type", "application/json")])
            return [json.dumps({"ok": not why, "why": why}).encode() + b"\n"]

        return app

    def describe(self) -> list[Family]:
        return []  # so that nothing is collected when this is registered

    def collect(self) -> Iterator[Family]:
        looks = self._look() or []
        yield from families([*self._process(), *(s for found, _ in looks for s in found)])
        if self._kafka:
            pulse = self._kafka.pulse
            yield histogram(m.RUNS, [((), list(pulse.runs), pulse.seconds)])
        for metric in (m.TO_CLOSE, m.TO_END):
            times = [
                (k, t.counts, t.total)
                for w in list(self.watched.values())
                for k, t in list(w.counts.times[metric].items())
            ]
            if times:
                yield histogram(metric, times)

    def _process(self) -> Iterator[Sample]:
        version = metadata.version("olearning")
        for w in list(self.watched.values()):
            yield m.INFO, (w.kind, w.name, w.zone, version), 1.0
        yield m.LAG, (), max(*self._late, time.monotonic() - self._due)
        if self._kafka is None:
            return
        p = self._kafka.pulse
        yield m.QUEUE, (), self._kafka.waiting
        for lane, numbers in zip(LANES, zip(p.read, p.read_bytes, p.sent, p.sent_bytes, strict=True), strict=True):
            for metric, n in zip((m.READ, m.READ_BYTES, m.SENT, m.SENT_BYTES), numbers, strict=True):
                yield metric, (lane,), n
        for metric, by in ((m.AGAIN, p.again), (m.LETTERS, p.letters)):
            for what, n in list(by.items()):
                yield metric, (what,), n

    def _look(self) -> list[tuple[list[Sample], str]] | None:
        """What all processors say; None if the loop has no time for it now."""

        async def look() -> list[tuple[list[Sample], str]]:
            found = []
            for w in list(self.watched.values()):
                samples, waits = await w.look()
                found.append(([(m.READY, (w.kind, w.name), float(not waits)), *samples], waits))
            self._waits = ", ".join(filter(None, (waits for _, waits in found))) if found else self._waits
            return found

        assert self._loop
        with contextlib.suppress(RuntimeError):  # the loop ends
            asked = asyncio.run_coroutine_threadsafe(look(), self._loop)
            try:
                return asked.result(PATIENCE)
            except TimeoutError:
                asked.cancel()
        return None

    def ill(self) -> str:
        """Why this process should be started again, or ""."""
        now = time.monotonic()
        most = STANDS_STILL if COORDINATES.issuperset(w.kind for w in list(self.watched.values())) else AT_WORK
        if now - self._due > most:
            return f"its event loop stands still since {now - self._due:.0f} s"
        at = self._kafka.pulse.at if self._kafka else None
        if at is not None and now - at > most:
            return f"it handled nothing for {now - at:.0f} s"
        return ""

    def unready(self) -> str:
        """What it still waits for before it can do its part, or ""; what was so last, while it is at work."""
        self._look()
        return self._waits


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer asks the name service for its own name, which may take long
        self.server_name, self.server_port = "", self.server_address[1]
        self.setup_environ()


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def watched(
    kind: str,
    zone: str,
    processor: Processor,
    kafka: Kafka | None,
    clock: Callable[[], int] = wall_clock,
    around: Processor | None = None,
) -> Watched:
    """What there is to show of a processor. To be hosted is what it says (`hosted`): the processor, or `around` if something stands
    around it, traced if traces are sent."""
    hosted = traced(around or processor, kind)
    return Watched(kind, processor.name, zone, processor, hosted, Counts(processor), kafka, clock)
