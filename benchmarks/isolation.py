"""What a flooding tenant costs another: the time until a quiet tenant's round is over at one aggregator, alone and beside a flood.

All deltas lie in the log before anything is timed, so nothing but the aggregator is measured: `LOUD` tasks of one tenant, each as large
as the quiet tenant's only one. The limit is the quiet tenant's fair share: half of the aggregator, so twice its time alone. The control
is the same aggregator with turns that never end, which is one without shares.
"""

import asyncio
import os
import secrets
from typing import Any

from benchmarks.aggregate import MB, Workers, _held
from benchmarks.line import Line, Report, number
from benchmarks.load import SHARDS, Load, Writer, drop_topics, make_topics
from benchmarks.plane import Failed
from processors.shares import TURN

LOUD = 10
NEVER = 10**15
QUIET = "quiet"


def run(
    report: Report, *, bootstrap: str, devices: int = 30, parameters: int = 1_200_000, loud: int = LOUD, repeat: int = 3
) -> None:
    """Measure and report it, in the middle of `repeat` runs of each kind. Raises `Failed`."""
    flood = tuple(f"loud-{i}" for i in range(loud))
    alone, shared, free = [], [], []
    for _ in range(repeat):
        alone.append(asyncio.run(_once(bootstrap, devices, parameters, (), TURN)))
        shared.append(asyncio.run(_once(bootstrap, devices, parameters, flood, TURN)))
        free.append(asyncio.run(_once(bootstrap, devices, parameters, flood, NEVER)))
    middle = {k: sorted(r[0] for r in runs)[repeat // 2] for k, runs in _named(alone, shared, free)}
    rates = {k: round(sorted(r[1] for r in runs)[repeat // 2], 1) for k, runs in _named(alone, shared, free)}
    report(
        Line(
            bench="isolation",
            case=f"flood={loud}x devices={devices} parameters={number(parameters)}",
            value=middle["shared"],
            unit="s",
            limit=2 * middle["alone"],
            settings={
                "alone_s": round(middle["alone"], 3),
                "without_shares_s": round(middle["free"], 3),
                "all_s": {k: [round(r[0], 3) for r in runs] for k, runs in _named(alone, shared, free)},
                "mb_s": rates,
                "turn_mb": round(TURN / MB, 1),
                "repeat": repeat,
                "shards": SHARDS,
                "cores": os.cpu_count(),
                "limit_is": "the quiet tenant's fair share: twice its time alone",
            },
        )
    )


Runs = list[tuple[float, float]]


def _named(alone: Runs, shared: Runs, free: Runs) -> list[tuple[str, Runs]]:
    return [("alone", alone), ("shared", shared), ("free", free)]


async def _once(
    bootstrap: str, devices: int, parameters: int, flood: tuple[str, ...], turn: int
) -> tuple[float, float]:
    """Seconds until the quiet tenant's round was over, and MB/s of all that was read."""
    tenants = (QUIET, *("loud" for _ in flood))
    load = Load(f"bench-{secrets.token_hex(4)}", devices, parameters, tasks=(QUIET, *flood), tenants=tenants)
    await make_topics(bootstrap, load)
    try:
        async with Writer(bootstrap) as writer:
            await writer.deltas(load)
            await writer.facts(load, *load.foundation())
            with Workers() as workers:
                workers.start("aggregate", bootstrap, load.namespace, "worker", str(turn))
                await _held(bootstrap, load, 1)
                await writer.facts(load, *load.opening(), *load.closing())
                measured = await workers.results()
    finally:
        await drop_topics(bootstrap, load.namespace)
    (said,) = measured.workers
    over: dict[str, Any] = said["over"]  # type: ignore[assignment]
    blocks = len(load.tasks) * devices * len(load.sizes)
    if said["blocks"] < blocks:
        raise Failed(f"the worker read {said['blocks']} blocks of {blocks}")
    return over[QUIET] - said["first"], measured.rate()
