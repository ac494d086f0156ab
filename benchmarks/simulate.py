"""How many updates a second a simulation makes on the platform's own path in memory: from the announcement to the merged model.

With devices that train nothing: what the platform itself costs. The limit: the same deltas rounded and added to a 64-bit sum by one
thread, and nothing else. With real training: the limit is the bare loop of training, one device after the other, without a plane.
"""

import resource
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from benchmarks.line import Line, Report, number
from learning.codecs import write_values
from schemas.blocks import Layout, Tensor, codec, layout, slices

DEVICES, PARAMETERS = (100, 1_000), (10_000, 1_200_000)
UPDATES = 10_000
"""So many updates of 10,000 values a case, fewer of larger ones."""
FLOWER = {(100, 10_000): 257.0, (1_000, 10_000): 148.0, (100, 1_200_000): 54.0}
"""Updates a second of Flower 1.x' simulation engine (Ray) on such a machine, with a client that trains nothing. Measured once, in
another run: so it stands in the settings, not as the peer."""


class Simulated(Protocol):
    """What a simulation came to."""

    updates: int
    rounds: int
    bids: int
    virtual_ms: int
    seconds: float


Simulate = Callable[[int, Layout, int], Simulated]
"""Devices, the model's layout, rounds -> a simulation of one zone in which all devices take part in every round and train nothing."""
Train = Callable[[int, int], tuple[Simulated, float]]
"""Devices, rounds -> a simulation with real training, and the seconds of the bare loop that trains as often."""


def run(
    report: Report,
    simulate: Simulate,
    train: Train,
    devices: Sequence[int] = DEVICES,
    parameters: Sequence[int] = PARAMETERS,
    updates: int = UPDATES,
) -> None:
    """Measure each case and report it."""
    for n in parameters:
        for d in devices:
            rounds = max(2, round(min(updates, updates * 1e5 / n) / d))
            cpu = time.process_time()
            made = simulate(d, layout((Tensor("w", (n,)),)), rounds)
            cpu = time.process_time() - cpu
            settings = _settings(made, cpu)
            if (d, n) in FLOWER:
                settings["flower_ray_updates_s_another_run"] = FLOWER[d, n]
            report(
                Line(
                    bench="simulate",
                    case=f"devices={d} parameters={number(n)}",
                    value=made.updates / made.seconds,
                    unit="updates/s",
                    limit=bare(n),
                    settings=settings
                    | {"limit_is": "one thread rounds and adds the same deltas, in blocks, and does nothing else"},
                    peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
                )
            )
    for d in devices:
        rounds = max(2, round(updates / 4 / d))
        cpu = time.process_time()
        made, loop = train(d, rounds)
        cpu = time.process_time() - cpu
        report(
            Line(
                bench="simulate",
                case=f"devices={d} training mlp 64-64-10",
                value=made.updates / made.seconds,
                unit="updates/s",
                limit=made.updates / loop,
                settings=_settings(made, cpu)
                | {"limit_is": "the bare torch loop, one device after the other, without a plane"},
            )
        )


def _settings(made: Simulated, cpu: float) -> dict[str, Any]:
    return {
        "updates": made.updates,
        "rounds": made.rounds,
        "bids": made.bids,
        "virtual_s": round(made.virtual_ms / 1000),
        "cpu_s": round(cpu, 2),
    }


def bare(n: int, seconds: float = 0.5) -> float:
    """Deltas of `n` values a second that one thread rounds to int32 and adds up, block by block."""
    sizes, how = layout((Tensor("w", (n,)),)).sizes, codec("int32")
    delta, total = np.random.default_rng(0).standard_normal(n) * 0.01, np.zeros(n, np.int64)
    made, began = 0, time.perf_counter()
    while (taken := time.perf_counter() - began) < seconds:
        for piece in slices(sizes):
            data, _ = write_values(delta[piece] * 10, how, -24, 65536.0)
            total[piece] += np.frombuffer(data, "<i4")
        made += 1
    return made / taken
