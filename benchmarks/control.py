"""The control plane under load: how fast a zone admits devices and how long they wait, alone and beside deltas at full rate.

The roles are processes of their own, as in production; all devices are one process (`crowd.py`), which registers each once and notes
when its answer comes. The limit: the same devices, answered by a plain client that decides nothing and writes no ledger (`echo.py`).
"""

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import load
from benchmarks.flood import DEVICES as FLOOD
from benchmarks.line import Line, Report, number
from benchmarks.plane import ZONE, Failed, Roles, beside, plane
from benchmarks.rss import cpu_s
from processors.submitter import Submitter
from schemas.blocks import BLOCK, Tensor, layout
from schemas.task import Epochs, Rounds, TaskSpec
from streams.kafka import Kafka

TASK = "control"
DEVICES = (1_000, 10_000, 100_000)
STEADY = 10_000
"""Registrations a second of the steady load, for `SECONDS`."""
SECONDS = 5
BESIDE = 500
"""And of the one that has deltas at full rate beside it, for `LONGER` seconds: far from what the zone can do, so that what is seen is
how one plane disturbs the other."""
LONGER = 20
PATIENCE = 600.0


def run(
    report: Report,
    *,
    bootstrap: str,
    devices: Sequence[int] = DEVICES,
    steady: int = STEADY,
    seconds: int = SECONDS,
    beside: int = BESIDE,
    longer: int = LONGER,
) -> None:
    """Measure each and report it. Raises `Failed`."""
    for n in devices:
        for checkins in (0, 1):
            _burst(report, bootstrap, n, checkins)
    _steady(report, bootstrap, steady, seconds)
    _two_planes(report, bootstrap, beside, longer)


# ------------------------------------------------------------------ how fast


def _burst(report: Report, bootstrap: str, n: int, checkins: int) -> None:
    """All devices at once; with `checkins`, each checks in before it registers."""
    limit = echoed(bootstrap, n, 0, checkins)
    with _zone(bootstrap, n) as roles:
        before = _cpu(roles)
        said = _crowd(roles, n, checkins=checkins)
        used = _cpu(roles)
    more = " checkins=1" if checkins else ""
    report(
        Line(
            bench="control",
            case=f"registrations devices={number(n)}{more}",
            value=said["answers"] / said["seconds"],
            unit="1/s",
            limit=limit["answers"] / limit["seconds"],
            settings=_settings(said, limit) | {"us_a_device": _each(before, used, n)},
        )
    )


def _steady(report: Report, bootstrap: str, rate: int, seconds: int) -> None:
    n = rate * seconds
    limit = echoed(bootstrap, n, rate, 0)
    with _zone(bootstrap, n) as roles:
        said = _crowd(roles, n, rate=rate)
    report(_waits(f"steady rate={number(rate)}/s seconds={seconds}", said, limit, _settings(said, limit)))


def _settings(said: dict[str, float], limit: dict[str, float]) -> dict[str, Any]:
    return {
        "p50_ms": round(said["p50_ms"], 2),
        "p99_ms": round(said["p99_ms"], 2),
        "max_ms": round(said["max_ms"], 2),
        "sent_in_s": round(said["sending"], 3),
        "limit_p50_ms": round(limit["p50_ms"], 2),
        "limit_p99_ms": round(limit["p99_ms"], 2),
        "crowd_cpu_s": round(said["cpu_s"], 2),
        "cores": os.cpu_count(),
        "load": [round(x, 1) for x in os.getloadavg()],
        "limit_is": "the same devices, answered by a plain client that decides nothing and writes no ledger",
    }


def _waits(case: str, said: dict[str, float], limit: dict[str, float], settings: dict[str, Any]) -> Line:
    """A line of the time that 99 of 100 devices waited at most."""
    return Line(bench="control", case=case, value=said["p99_ms"], unit="ms", limit=limit["p99_ms"], settings=settings)


# ------------------------------------------------------------------ the two planes


def _two_planes(report: Report, bootstrap: str, rate: int, seconds: int) -> None:
    """The same steady registrations, without and with deltas as fast as a client can write them."""
    n = rate * seconds
    with _zone(bootstrap, 2 * n + FLOOD, aggregators=1) as roles:
        idle = _crowd(roles, n, rate=rate)
        with _flood(roles) as flood:
            time.sleep(2)
            busy = _crowd(roles, n, first=n, rate=rate)
            written = flood()
    settings = {
        "idle_p50_ms": round(idle["p50_ms"], 2),
        "busy_p50_ms": round(busy["p50_ms"], 2),
        "idle_max_ms": round(idle["max_ms"], 1),
        "busy_max_ms": round(busy["max_ms"], 1),
        "deltas_mb_s": round(written, 1),
        "block_bytes": 4 * BLOCK,
        "cores": os.cpu_count(),
        "load": [round(x, 1) for x in os.getloadavg()],
        "limit_is": "p99 of the same registrations without deltas (aim: at most twice)",
    }
    report(_waits(f"deltas beside registrations rate={number(rate)}/s seconds={seconds}", busy, idle, settings))


@contextlib.contextmanager
def _flood(roles: Roles) -> Iterator[Callable[[], float]]:
    """Deltas at full rate, for as long as the block lasts; what is yielded ends them and gives their MB/s."""
    command = [sys.executable, "-m", "benchmarks.flood", roles.bootstrap, roles.namespace, ZONE, TASK]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def stop() -> float:
            out, _ = process.communicate("stop\n", timeout=60)
            return float(json.loads(out)["mb_s"])

        try:
            yield stop
        finally:
            process.kill()


# ------------------------------------------------------------------ processes


@contextlib.contextmanager
def _zone(bootstrap: str, places: int, aggregators: int = 0) -> Iterator[Roles]:
    """A plane whose one task has a round open with so many places."""
    with tempfile.TemporaryDirectory() as folder, plane(bootstrap, Path(folder), aggregators) as roles:
        asyncio.run(_submit(roles, places))
        yield roles


async def _submit(roles: Roles, places: int) -> None:
    spec = TaskSpec(
        task=TASK,
        model="none",
        data="none",
        rounds=Rounds(places, over_commit=1.0, minimum=1, deadline_s=36_000.0, lease_s=36_000.0),
        epochs=Epochs(1, 1, deadline_s=0.0),
        zones=(ZONE,),
    )
    async with Kafka(roles.bootstrap, "bench") as kafka:
        shape = layout((Tensor("all", (BLOCK,)),))
        stop = await kafka.host(
            Submitter(roles.namespace, "bench", spec, shape, np.zeros(BLOCK, np.float32), patience=60_000)
        )
    roles.check()
    if not stop.ok:
        raise Failed(stop.reason)


def _crowd(roles: Roles, n: int, **more: int) -> dict[str, float]:
    said = _said(roles.bootstrap, roles.namespace, ZONE, n, **more)
    roles.check()
    if said["admitted"] != n:
        raise Failed(f"{said['admitted']} of {n} devices were admitted, {said['refused']} refused")
    return said


def _said(bootstrap: str, namespace: str, zone: str, n: int, **more: int) -> dict[str, float]:
    words = {"bootstrap": bootstrap, "namespace": namespace, "zone": zone, "task": TASK, "count": n, **more}
    command = [
        sys.executable, "-m", "benchmarks.crowd", *(x for k, v in words.items() for x in (f"--{k}", str(v)))
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise Failed(f"{n} devices were not done after {PATIENCE:.0f} s") from None
    if done.returncode:
        raise Failed(f"the devices ended with exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    out: dict[str, float] = json.loads(done.stdout)
    if out["answers"] != n:
        raise Failed(f"{out['answers']:.0f} of {n} devices got an answer")
    return out


def echoed(bootstrap: str, n: int, rate: int, checkins: int) -> dict[str, float]:
    """What the devices see of the plain client."""
    namespace = f"bench-{secrets.token_hex(4)}"
    asyncio.run(load.make_topics(bootstrap, load.Load(namespace, 1, 1, tasks=())))
    try:
        with beside("the plain client", "benchmarks.echo", bootstrap, namespace, load.ZONE):
            return _said(bootstrap, namespace, load.ZONE, n, rate=rate, checkins=checkins, round=1)
    finally:
        asyncio.run(load.drop_topics(bootstrap, namespace))


def _cpu(roles: Roles) -> dict[str, float]:
    return {name: cpu_s(process.pid) for name, process in roles.running.items()}


def _each(before: dict[str, float], after: dict[str, float], n: int) -> dict[str, float]:
    """Microseconds of CPU by role and device."""
    return {name: round(1e6 * (after[name] - before[name]) / n, 1) for name in before}
