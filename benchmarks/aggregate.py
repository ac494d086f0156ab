"""How fast deltas are added up: from memory, from a broker by one and by two workers, with several tasks, while a worker joins.

Each case lies in the log before anything is timed; every worker is a process of its own. The limits are measured in the
same run: one thread that adds an array in place; plain clients that read the same records and drop them.
"""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import limits
from benchmarks.holders import holders
from benchmarks.line import Line, Report, number
from benchmarks.load import EXPONENTS, SHARDS, ZONE, Load, Writer, drop_topics, make_topics
from benchmarks.plane import Failed
from processors.aggregator import Aggregator
from schemas.wire import HEADERS, encode
from streams.processor import Answer, Assigned, Effect, Ends, Record, Send

MB = 1e6
IN_MEMORY = 1_500 * MB
"""Bytes of deltas that the first stage keeps ready."""
BESIDES = 150.0
"""MB that an aggregator may take beside one sum of 64-bit integers, for each open task."""
PATIENCE = 600.0


def run(
    report: Report,
    *,
    bootstrap: str,
    cases: Sequence[tuple[int, int]],
    codecs: Sequence[str] = ("int32", "int8"),
    peer: str = "",
    quick: bool = False,
) -> None:
    """Measure each (devices, parameters) and report it. `peer` "flower" adds the same up as Flower does. Raises `Failed`."""
    if quick:
        cases, codecs = [(3, 200_000)], ("int32",)
    for parameters in sorted({p for _, p in cases}):
        add_limit = limits.add_rate(parameters)
        for codec in codecs:
            devices = max(d for d, p in cases if p == parameters)
            _add(report, Load("bench", devices, parameters, codec), add_limit)
    for devices, parameters in cases:
        for codec in codecs:
            load = Load("", devices, parameters, codec)
            flower = peer if codec == "int32" else ""
            asyncio.run(_consume(report, bootstrap, load, (1, 2), flower))
    devices, parameters = cases[len(cases) // 2]
    load = Load("", devices, parameters)
    for n in (2,) if quick else (2, 4, 8):
        tasks = tuple(f"t{i}" for i in range(n))
        asyncio.run(_consume(report, bootstrap, replace(load, devices=max(1, devices // n), tasks=tasks), (1,), ""))
    asyncio.run(_join(report, bootstrap, load))


# ------------------------------------------------------------------ from memory


def _add(report: Report, load: Load, limit: float) -> None:
    """From the bytes of records in memory to the sum: decode, judge, add."""
    one = replace(load, devices=1).payload
    load = replace(load, devices=max(1, min(load.devices, int(IN_MEMORY // one))))
    worker = _ready(load)
    at, records = [0] * SHARDS, []
    for shard, device, value in load.blocks("t"):
        records.append(Record(load.deltas("t"), shard, at[shard], device, value, 1_000, HEADERS))
        at[shard] += 1
    began = time.perf_counter()
    for record in records:
        for _ in worker.handle(record, 1_000):
            pass
    took = time.perf_counter() - began
    counted = sum(acc.counts.get("counted", 0) for acc in worker.work["t"].accumulators())
    if counted != len(records):
        raise Failed(f"{counted} of {len(records)} blocks were counted")
    report(
        Line(
            bench="aggregate",
            case=f"add devices={load.devices} parameters={number(load.parameters)} codec={load.codec}",
            value=load.payload / took / MB,
            unit="MB/s",
            limit=limit / MB,
            settings={
                "million_values_s": round(load.devices * load.parameters / took / MB, 1),
                "us_a_block": round(1e6 * took / len(records), 1),
                "exponent": EXPONENTS[load.codec],
                "limit_is": "one thread adds float32 to float32 in place",
            },
        )
    )


def _ready(load: Load) -> Aggregator:
    """An aggregator that holds all shards and knows the round."""
    worker = Aggregator(load.namespace, ZONE, "a", "l", commit_interval=10**9)
    written = 0

    def tell(*facts: bytes) -> None:
        nonlocal written
        for fact in facts:
            effects = list(worker.handle(Record(load.ledger, 0, written, None, fact, 1_000, HEADERS), 1_000))
            written += 1
            answer(effects)

    def answer(effects: Iterable[Effect]) -> None:
        for e in effects:
            if isinstance(e, Ends):
                ends = {0: written} if e.topic == load.ledger else dict.fromkeys(range(SHARDS), 0)
                answer(list(worker.handle(Answer(e.tag, ends), 1_000)))
            elif isinstance(e, Send) and e.value and e.topic == load.ledger:
                tell(e.value)

    answer(list(worker.start(1_000)))
    tell(*(encode(f) for f in load.foundation()))
    answer(list(worker.handle(Assigned(frozenset(range(SHARDS))), 1_000)))
    tell(*(encode(f) for f in load.opening()))
    return worker


# ------------------------------------------------------------------ from the broker


@dataclass(frozen=True)
class Measured:
    """What the workers of a case said, together."""

    workers: list[dict[str, float]]

    @property
    def size(self) -> float:
        return sum(w["bytes"] for w in self.workers)

    def seconds(self, until: str = "last") -> float:
        return max(w[until] for w in self.workers) - min(w["first"] for w in self.workers if w["first"])

    def rate(self, until: str = "last") -> float:
        """MB/s."""
        return self.size / self.seconds(until) / MB


class Workers:
    """Processes of `benchmarks.worker`."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for p in self.running:
            p.kill()
            p.wait()

    def start(self, *args: str) -> None:
        command = [sys.executable, "-m", "benchmarks.worker", *args]
        self.running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))

    async def results(self) -> Measured:
        said = []
        for p in self.running:
            try:
                out, err = await asyncio.to_thread(p.communicate, timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                raise Failed(f"a worker was not done after {PATIENCE:.0f} s") from None
            if p.returncode:
                raise Failed(f"a worker ended with exit code {p.returncode}: {err.strip()[-500:]}")
            said.append(json.loads(out))
        return Measured(said)


def _shares(workers: int) -> Iterator[str]:
    yield from (",".join(map(str, range(i, SHARDS, workers))) for i in range(workers))


async def _raw(bootstrap: str, load: Load, workers: int, crc: str) -> float:
    """MB/s at which plain clients read the load."""
    with Workers() as raw:
        for shards in _shares(workers):
            raw.start("raw", bootstrap, ",".join(map(load.deltas, load.tasks)), shards, crc)
        return (await raw.results()).rate()


async def _aggregated(bootstrap: str, load: Load, writer: Writer, workers: int) -> Measured:
    """The load's rounds, added up by so many workers in a namespace of their own."""
    await writer.facts(load, *load.foundation())
    with Workers() as aggregators:
        for i in range(workers):
            aggregators.start("aggregate", bootstrap, load.namespace, f"worker-{i}")
        await _held(bootstrap, load, workers)
        await writer.facts(load, *load.opening(), *load.closing())
        return await aggregators.results()


async def _held(bootstrap: str, load: Load, workers: int, patience: float = 60.0) -> None:
    """Until the workers hold the shards, each its share."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        found = await holders(bootstrap, load.ledger)
        if len(found) == SHARDS and len(set(found.values())) == workers:
            return
        await asyncio.sleep(0.3)
    raise Failed(f"{workers} workers did not share the shards within {patience:.0f} s: {found}")


async def _consume(report: Report, bootstrap: str, load: Load, workers: Sequence[int], peer: str) -> None:
    """Read from the broker and add; then the commit of the sum."""
    written = None
    for n in workers:
        load = replace(load, namespace=f"bench-{secrets.token_hex(4)}")
        await make_topics(bootstrap, load)
        try:
            async with Writer(bootstrap) as writer:
                began = time.perf_counter()
                await writer.deltas(load)
                written = load.payload / (time.perf_counter() - began) / MB
                before, no_crc = await _raw(bootstrap, load, n, "crc"), await _raw(bootstrap, load, n, "no")
                measured = await _aggregated(bootstrap, load, writer, n)
                crc = (before + await _raw(bootstrap, load, n, "crc")) / 2  # a machine's speed drifts
        finally:
            await drop_topics(bootstrap, load.namespace)
        blocks = len(load.tasks) * load.devices * len(load.sizes)
        if sum(w["blocks"] for w in measured.workers) != blocks:
            raise Failed(f"the workers read {[w['blocks'] for w in measured.workers]} blocks, not {blocks} in all")
        several = f"tasks={len(load.tasks)} " if len(load.tasks) > 1 else ""
        settings: dict[str, Any] = {
            "with_commit_mb_s": round(measured.rate("done"), 1),
            "limit_before": round(before, 1),
            "limit_without_crc": round(no_crc, 1),
            "ratio_without_crc": round(measured.rate() / no_crc, 3),
            "cpu_s": [round(w["cpu_s"], 2) for w in measured.workers],
            "shares": [int(w["blocks"]) for w in measured.workers],
            "written_mb_s": round(written, 1),
            "shards": SHARDS,
            "cores": os.cpu_count(),
            "limit_is": "plain aiokafka clients, as many, read the same records with their CRC check and drop them, before and after: the mean",
        }
        flower = None
        if peer == "flower" and n == 1 and len(load.tasks) == 1:
            from benchmarks.flower import peer as other

            flower = await asyncio.to_thread(other.aggregate, load.devices, load.parameters)
            settings["peer_peak_mb"] = round(flower.peak_mb, 1)
            settings["peer_settings"] = flower.settings
        report(
            Line(
                bench="aggregate",
                case=f"consume workers={n} {several}devices={load.devices} parameters={number(load.parameters)}"
                + ("" if load.codec == "int32" else f" codec={load.codec}"),
                value=measured.rate(),
                unit="MB/s",
                limit=crc,
                settings=settings,
                peer="flower" if flower else "",
                peer_value=flower.rate / MB if flower else None,
                peak_rss_mb=max(w["peak_mb"] - w["idle_mb"] for w in measured.workers),
                memory_limit_mb=len(load.tasks) * (8 * load.parameters / MB + BESIDES),
            )
        )


# ------------------------------------------------------------------ a worker joins


async def _join(report: Report, bootstrap: str, load: Load) -> None:
    """One worker is at work, another joins; what is read twice for that, and what moved."""
    load = replace(load, namespace=f"bench-{secrets.token_hex(4)}")
    await make_topics(bootstrap, load)
    try:
        async with Writer(bootstrap) as writer:
            await writer.deltas(load)
            limit = await _raw(bootstrap, load, 2, "crc")
            await writer.facts(load, *load.foundation())
            with Workers() as workers:
                workers.start("aggregate", bootstrap, load.namespace, "worker-0")
                await _held(bootstrap, load, 1)
                await writer.facts(load, *load.opening(), *load.closing())
                workers.start("aggregate", bootstrap, load.namespace, "worker-1")
                measured = await workers.results()
            found = await holders(bootstrap, load.ledger)
    finally:
        await drop_topics(bootstrap, load.namespace)
    once = load.devices * len(load.sizes)
    again = sum(w["blocks"] for w in measured.workers) - once
    moved = sum(holder == "worker-1" for holder in found.values())
    report(
        Line(
            bench="aggregate",
            case=f"join workers=1+1 devices={load.devices} parameters={number(load.parameters)}",
            value=measured.rate(),
            unit="MB/s",
            limit=limit,
            settings={
                "shards_moved": moved,
                "shards": SHARDS,
                "replayed_mb": round(again * load.payload / once / MB, 1),
                "payload_mb": round(load.payload / MB, 1),
                "shares": [int(w["blocks"]) for w in measured.workers],
                "limit_is": "two plain clients from the start",
            },
            peak_rss_mb=max(w["peak_mb"] - w["idle_mb"] for w in measured.workers),
            memory_limit_mb=8 * load.parameters / MB + BESIDES,
        )
    )
