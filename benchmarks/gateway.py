"""How much one gateway serves: phones with so many connections open ask, register, send deltas and fetch models, by HTTP.

The gateway is a process of its own, as in production, and so are the broker and the phones (`phones.py`). Behind the broker a plain client
answers each registration (`echo.py`), and nobody reads deltas: so what is measured is the gateway's own. The limit, of the same run: bare
handlers on the same HTTP server that answer the same bytes with no Kafka behind (`bare.py`). The peer: the same load put to Kafka by a
plain client, without a gateway.
"""

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

from benchmarks import load
from benchmarks.control import TASK, echoed
from benchmarks.line import Line, Report, number
from benchmarks.phones import WAYS
from benchmarks.plane import Failed, Roles, beside, last_words
from benchmarks.rss import cpu_s, now_mb
from schemas.blocks import BLOCK, Manifest, Tensor, layout
from schemas.messages import Announcement, Ref
from schemas.task import Training
from schemas.topics import topic
from streams.models import Writing

SIZES = layout((Tensor("w", (BLOCK,)),)).sizes
CONNECTIONS = (100, 1_000, 10_000)
POLLS, REGISTRATIONS, DELTAS, MODELS = 10_000, 5_000, 400, 1_000
STEADY, SECONDS = 100, 10
"""Registrations a second of the steady load, for so long: far from what a gateway can do, so that waits are its own."""
STARTING = 60.0
PLAIN = "a plain Kafka client"
Tokens = Callable[[bytes, str], str]


def run(
    report: Report,
    *,
    bootstrap: str,
    token: Tokens,
    connections: Sequence[int] = CONNECTIONS,
    polls: int = POLLS,
    registrations: int = REGISTRATIONS,
    deltas: int = DELTAS,
    models: int = MODELS,
    steady: int = STEADY,
    seconds: int = SECONDS,
) -> None:
    """Measure each number of connections and report it. `token`: a device's, by the gateway's secret. Raises `Failed`."""
    work = {
        "open": "open",
        "hear": "hear",
        "polls": f"polls {polls}",
        "registrations": f"register {registrations} 0",
        "steady": f"register {steady * seconds} {steady}",
        "deltas": f"deltas {deltas}",
        "models": f"models {models}",
    }
    burst, waits = (echoed(bootstrap, n, rate, 0) for n, rate in ((registrations, 0), (steady * seconds, steady)))
    written, cost = asyncio.run(_plain_deltas(bootstrap, deltas))
    for n in connections:
        with tempfile.TemporaryDirectory() as folder:
            secret, tokens = Path(folder) / "secret", Path(folder) / "tokens"
            secret.write_bytes(secrets.token_bytes(32))
            tokens.write_text("\n".join(token(secret.read_bytes(), f"phone-{i}") for i in range(n + WAYS)))
            with _gateway(bootstrap, Path(folder), secret) as server:
                seen = _watched(server, tokens, work)
            with _bare() as server:
                limit = _watched(server, tokens, work)
        report_case = _Case(report, n, seen, limit)
        report_case.rate("polls", polls, "1/s")
        report_case.rate("registrations", registrations, "1/s", peer=burst["answers"] / burst["seconds"])
        report_case.waits(f"steady rate={number(steady)}/s seconds={seconds}", steady * seconds, waits)
        report_case.rate("deltas", seen["deltas"]["bytes"] / 1e6, "MB/s", peer=written, plain_us_a_mb=_us(cost, 1))
        report_case.rate("models", seen["models"]["bytes"] / 1e6, "MB/s")
        report_case.hears()
        report_case.memory()


Seen = dict[str, dict[str, float]]
"""By kind of work: seconds, CPU seconds of the server (`cpu_s`) and of the phones, and what else they say."""


@dataclass
class _Case:
    """The lines of one number of connections."""

    report: Report
    connections: int
    seen: Seen
    limit: Seen
    about: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.about = {
            "cores": os.cpu_count(),
            "load": [round(x, 1) for x in os.getloadavg()],
            "limit_is": "bare handlers on the same HTTP server that answer the same bytes, no Kafka behind",
        }

    def _say(self, case: str, value: float, unit: str, limit: float, settings: dict[str, Any], peer: float = 0) -> None:
        name = f"{case} connections={number(self.connections)}"
        whose = (PLAIN, peer) if peer else ("", None)
        self.report(Line("gateway", name, value, unit, limit, settings | self.about, *whose))

    def rate(self, what: str, n: float, unit: str, peer: float = 0, **more: float) -> None:
        """So many of something, or MB of it, as fast as they go: how many a second, and what each costs."""
        mine, bare = self.seen[what], self.limit[what]
        each = "us_each" if unit == "1/s" else "us_a_mb"
        settings = {
            each: _us(mine["cpu_s"], n),
            f"limit_{each}": _us(bare["cpu_s"], n),
            f"phones_{each}": _us(mine["phones_cpu_s"], n),
            "busy": round(mine["cpu_s"] / mine["seconds"], 2),
            "questions_meanwhile": round(mine["polls"]),
            "limit_questions_meanwhile": round(bare["polls"]),
        } | more
        if "p50_ms" in mine:
            settings |= {name: round(mine[name], 1) for name in ("p50_ms", "p99_ms")}
            settings |= {f"limit_{name}": round(bare[name], 1) for name in ("p50_ms", "p99_ms")}
            settings["requests_s"] = round((n + mine["polls"]) / mine["seconds"], 1)
            settings["us_a_request"] = _us(mine["cpu_s"], n + mine["polls"])
        self._say(what, n / mine["seconds"], unit, n / bare["seconds"], settings, peer)

    def waits(self, case: str, n: int, plain: dict[str, float]) -> None:
        """The way of a steady load there and back: what 99 of 100 waited at most."""
        mine, bare = self.seen["steady"], self.limit["steady"]
        settings = {name: round(mine[name], 2) for name in ("p50_ms", "max_ms")}
        settings |= {"limit_p50_ms": round(bare["p50_ms"], 2), "plain_p50_ms": round(plain["p50_ms"], 2)}
        settings |= {"us_each": _us(mine["cpu_s"], n), "limit_us_each": _us(bare["cpu_s"], n)}
        self._say(case, mine["p99_ms"], "ms", bare["p99_ms"], settings, plain["p99_ms"])

    def hears(self) -> None:
        """From when a round is announced until the last phone has heard of it."""
        mine, bare = self.seen["hear"], self.limit["hear"]
        settings = {
            "us_each": _us(mine["cpu_s"], self.connections),
            "limit_us_each": _us(bare["cpu_s"], self.connections),
        }
        self._say("all hear of a round", 1000 * mine["last"], "ms", 1000 * bare["last"], settings)

    def memory(self) -> None:
        """What a phone that waits takes, in kB."""
        mine, bare = (1000 * s["open"]["mb"] / self.connections for s in (self.seen, self.limit))
        settings = {"whole_mb": round(self.seen["models"]["rss_mb"], 1), "idle_mb": round(self.seen["open"]["idle"], 1)}
        self._say("memory a phone", mine, "kB", bare, settings)


def _us(cpu: float, n: float) -> float:
    """Microseconds of CPU by piece."""
    return round(1e6 * cpu / n, 1)


# ------------------------------------------------------------------ who serves


@dataclass(frozen=True)
class Server:
    pid: int
    url: str
    check: Callable[[], None]
    announce: Callable[[], float]
    """Have another round announced: when that was said, by the monotonic clock."""


@contextlib.contextmanager
def _gateway(bootstrap: str, folder: Path, secret: Path) -> Iterator[Server]:
    """A gateway of a zone where a round is open, with a plain client that answers registrations."""
    roles = Roles(bootstrap, folder, load.SHARDS)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{s.getsockname()[1]}"
    try:
        manifest = asyncio.run(_model(bootstrap, roles.namespace))
        asyncio.run(_announced(bootstrap, roles.namespace, manifest, 1))
        with beside("the plain client", "benchmarks.echo", bootstrap, roles.namespace, load.ZONE):
            process = roles.start("gateway", "gateway", zone=load.ZONE, secret=str(secret), listen=where)
            end = time.monotonic() + STARTING
            while not _healthy(f"http://{where}/v1/health"):
                roles.check()
                if time.monotonic() > end:
                    raise Failed(f"the gateway is not ready: {last_words(roles.log('gateway'))}")
                time.sleep(0.1)
            again = partial(_announced, bootstrap, roles.namespace, manifest, 2)
            yield Server(process.pid, f"http://{where}", roles.check, lambda: asyncio.run(again()))
    finally:
        roles.stop()
        asyncio.run(load.drop_topics(bootstrap, roles.namespace))


def _healthy(url: str) -> bool:
    with contextlib.suppress(OSError), urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


@contextlib.contextmanager
def _bare() -> Iterator[Server]:
    with beside("the bare server", "benchmarks.bare", TASK) as (process, url):
        yield Server(process.pid, url, lambda: None, lambda: _posted(f"{url}/announce"))


async def _model(bootstrap: str, namespace: str) -> Manifest:
    """The zone's topics, and a model of one block."""
    await load.make_topics(bootstrap, load.Load(namespace, 1, BLOCK, tasks=(TASK,)))
    async with load.Writer(bootstrap) as writer:
        vector, models = np.linspace(-1, 1, BLOCK, dtype=np.float32), topic(namespace, load.ZONE, "models")
        return await writer.model(Writing(models, load.SHARDS, TASK, 0, "1/1", vector, SIZES))


async def _announced(bootstrap: str, namespace: str, manifest: Manifest, n: int) -> float:
    """Announce round n of its task: when, by the monotonic clock. Deltas of the round before still count."""
    a = Announcement(
        task=TASK, tenant="bench", round=n, open=True, cause=Ref("bench", n), model="none", model_args={}, data="none",
        data_args={}, training=Training(), sizes=SIZES, unit=load.UNIT, largest=load.LARGEST, base=manifest, deadline=2**53,
        staleness=1,
    )  # fmt: skip
    async with load.Writer(bootstrap) as writer:
        began = time.monotonic()
        await writer.announce(load.Load(namespace, 1, BLOCK), a)
        return began


def _posted(url: str) -> float:
    began = time.monotonic()
    with urlopen(url, data=b"", timeout=STARTING):
        return began


async def _plain_deltas(bootstrap: str, n: int) -> tuple[float, float]:
    """MB/s at which a plain client writes as many deltas, and CPU seconds a MB."""
    mine = load.Load(f"bench-{secrets.token_hex(4)}", n, BLOCK, tasks=(TASK,))
    await load.make_topics(bootstrap, mine)
    try:
        async with load.Writer(bootstrap) as writer:
            began, cpu = time.monotonic(), time.process_time()
            await writer.deltas(mine)
            took, used = time.monotonic() - began, time.process_time() - cpu
            return mine.payload / took / 1e6, 1e6 * used / mine.payload
    finally:
        await load.drop_topics(bootstrap, mine.namespace)


# ------------------------------------------------------------------ who asks


def _watched(server: Server, tokens: Path, work: dict[str, str]) -> Seen:
    """Let the phones do their work, and look at what it takes the server."""
    command = [sys.executable, "-m", "benchmarks.phones", server.url, TASK, str(tokens)]
    seen: Seen = {}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as phones:
        try:
            assert phones.stdin
            assert phones.stdout
            assert phones.stderr
            for what, words in work.items():
                cpu, idle = cpu_s(server.pid), now_mb(server.pid)
                phones.stdin.write(f"{words}\n")
                phones.stdin.flush()
                said = 0.0
                if what == "hear":
                    time.sleep(0.5)
                    said = server.announce()
                if not (line := phones.stdout.readline()):
                    server.check()
                    raise Failed(f"the phones ended at {words!r}: {phones.stderr.read().strip()[-500:]}")
                rss = now_mb(server.pid)
                found = json.loads(line)
                more = {"cpu_s": cpu_s(server.pid) - cpu, "idle": idle, "rss_mb": rss, "mb": rss - idle}
                seen[what] = found | more | {"last": found.get("last", 0.0) - said}
        finally:
            phones.kill()
    server.check()
    return seen
