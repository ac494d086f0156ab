"""How fast versions of a model go out to edges from a real broker: MB of model a second, all edges together.

Each edge is a fleet's copy of models (`device_sim/edge.py`) with clients of its own, as a fleet has; they are spread over two
processes at most. Measured from when the first asks until the last has the version whole, its checksums right. The limit, of the same
run: as many plain clients read the records of the same blocks, check their CRC and drop them.

Versions are made, not trained: from one to the next each value moves by a normal step of `STEP` of the values' own size, which is
about what a round of FedAvg does in the middle of a training; so the differences are as short as those measured there
(`benchmarks/differences.py`).
"""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks.edges import Versions
from benchmarks.line import Line, Report, number
from benchmarks.load import ZONE, Writer, drop_topics
from benchmarks.plane import Failed, last_words, put_out
from benchmarks.sent import pid_of, written
from learning.differences import differences
from schemas.blocks import Manifest, Tensor, layout
from schemas.topics import topic
from streams.models import Writing

EDGES = (1, 4, 16, 64)
PARAMETERS = (1_200_000, 11_200_000)
REPEAT = 3
STEP = 0.03
PROCESSES = 2
MB = 1e6


def run(
    report: Report,
    *,
    bootstrap: str,
    edges: Sequence[int] = EDGES,
    parameters: Sequence[int] = PARAMETERS,
    repeat: int = REPEAT,
) -> None:
    """Measure each number of edges with each size of model and report it. Raises `Failed`."""
    for n in parameters:
        namespace = f"bench-{secrets.token_hex(4)}"
        with tempfile.TemporaryDirectory() as folder:
            try:
                versions, about = asyncio.run(_write(bootstrap, namespace, n, 2 * repeat + 1))
                file = Path(folder) / "versions"
                file.write_bytes(msgspec.msgpack.encode(versions))
                for count in edges:
                    _case(report, bootstrap, file, count, n, repeat, about)
            finally:
                asyncio.run(drop_topics(bootstrap, namespace))


async def _write(bootstrap: str, namespace: str, n: int, count: int) -> tuple[Versions, dict[str, Any]]:
    """Versions in the log, as a leader writes them, each with its differences; and what these came to."""
    sizes, dice = layout((Tensor("w", (n,)),)).sizes, np.random.default_rng(0)
    to, partitions = topic(namespace, ZONE, "models"), 8
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(to.name, partitions, 1, topic_configs=to.config())])
    finally:
        await admin.close()
    vector = (0.05 * dice.standard_normal(n)).astype(np.float32)
    manifests: list[Manifest] = []
    short, full, took = 0, 0, 0.0
    async with Writer(bootstrap) as writer:
        for version in range(count):
            before = vector
            extra: dict[int, tuple[int, bytes]] = {}
            if manifests:
                vector = before + (STEP * 0.05 * dice.standard_normal(n)).astype(np.float32)
                began = time.process_time()
                extra = differences(before, manifests[-1], vector, sizes)
                took += time.process_time() - began
                short, full = short + sum(len(x) for _, x in extra.values()), full + vector.nbytes
            writing = Writing(to, partitions, "t", version, "1/1", vector, sizes, extra)
            manifests.append(await writer.model(writing))
    about = {"differences_share": round(short / full, 4), "differences_cpu_s_a_version": round(took / (count - 1), 4)}
    return Versions(sizes, tuple(manifests)), about


def _case(report: Report, bootstrap: str, file: Path, count: int, n: int, repeat: int, about: dict[str, Any]) -> None:
    crew = _Crew(bootstrap, file, count)
    try:
        crew.do("blocks 0")  # clients connect
        crew.do("raw 0")
        broker, seen = pid_of(bootstrap), {"raw": [], "blocks": [], "differences": []}  # type: ignore[var-annotated]
        for i in range(repeat):
            for how, version in (("raw", 2 * i + 1), ("blocks", 2 * i + 1), ("differences", 2 * i + 2)):
                before = written(broker)
                seconds, size = crew.do(f"{how} {version}")
                after = written(broker)
                sent = after - before if before is not None and after is not None else None
                seen[how].append((seconds, size, sent))
    finally:
        crew.stop()
    limit = median(size / seconds for seconds, size, _ in seen["raw"]) / MB
    for how in ("blocks", "differences"):
        rates = sorted(4 * n * count / seconds for seconds, _, _ in seen[how])
        settings: dict[str, Any] = {
            "repeat": repeat,
            "slowest": round(rates[0] / MB, 1),
            "fastest": round(rates[-1] / MB, 1),
            "model_mb": round(4 * n * count / MB, 2),
            "fetched_mb": round(median(size for _, size, _ in seen[how]) / MB, 2),
            "broker_sent_mb": _sent(seen[how]),
            "broker_sent_plain_mb": _sent(seen["raw"]),
            "processes": min(count, PROCESSES),
            "cores": os.cpu_count(),
            "limit_is": "as many plain clients read the same blocks' records and drop them",
        } | (about if how == "differences" else {})
        case = f"edges={count} parameters={number(n)} by={how}"
        report(Line("distribute", case, median(rates) / MB, "MB/s", limit, settings))


def _sent(seen: list[tuple[float, int, int | None]]) -> float | None:
    """MB that the broker's process wrote meanwhile, to sockets and files."""
    known = [sent for _, _, sent in seen if sent is not None]
    return round(median(known) / MB, 2) if known else None


class _Crew:
    """The processes of edges. Raises `Failed` if one ends."""

    def __init__(self, bootstrap: str, file: Path, count: int):
        self.log = file.with_name(f"edges-{count}.log")
        shares = [len(range(i, count, PROCESSES)) for i in range(min(count, PROCESSES))]
        with self.log.open("wb") as log:
            self.running = [
                subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.edges", bootstrap, str(file), str(share)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
                for share in shares
            ]

    def do(self, line: str) -> tuple[float, int]:
        """Let all do it: seconds from when the first began until the last was done, and bytes of records read."""
        for p in self.running:
            assert p.stdin
            p.stdin.write(line + "\n")
            p.stdin.flush()
        answers = []
        for p in self.running:
            assert p.stdout
            said = p.stdout.readline()
            if not said:
                raise Failed(f"a process of edges ended: {last_words(self.log)}")
            answers.append(json.loads(said))
        seconds = max(a["done"] for a in answers) - min(a["began"] for a in answers)
        return seconds, sum(a["bytes"] for a in answers)

    def stop(self) -> None:
        for p in self.running:
            if p.stdin:
                p.stdin.close()
        for p in self.running:
            put_out(p)
            if p.stdout:
                p.stdout.close()
