"""Storage and workers of aggregation over a day: OLearning §7.3 with Fig. 9, §3's Fig. 2, and §6's rule for crashes.

The paper measured its own platform in production; this replays a made-up day of uploads over time zones (`experiments/uploads.py`).
Shared-task aggregation (aggregators add each delta on arrival, any of them for any task) is compared with task-oriented
aggregation (deltas are cached until a round is complete): as the paper has it, with workers of its own for each task; and, which
the paper has not, task-oriented in one pool, so that one sees what comes of adding on arrival and what of sharing workers.

Real aggregators, with work that takes its time (`experiments/pools.py`): what is held, each round's latency, what a crash
costs; every sum is compared with what was sent. Queues driven by the same kind of trace (`experiments/queues.py`): how many
workers it takes, with up to 100 tasks.

A round's latency is from when its last delta has arrived until all are added and committed. An efficiency gain, which the paper
does not define, is here 1 - shared / task-oriented in worker-seconds, and in byte-hours, where both meet the same bound on the
99th percentile of latency.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from statistics import mean
from typing import Any

from experiments import storage_figures as figures
from experiments.asked import Asked
from experiments.pools import KINDS, Pools
from experiments.queues import latencies, needed, p99
from experiments.uploads import MINUTE, Round, day
from experiments.worked import DELTA, Way

HOURS, WARM = 25, 1
"""The first hour is not measured."""
TASKS, DEMAND, DEVICES = 4, 100, 1_200
MANY, MANY_DEVICES = (1, 2, 5, 10, 20, 50, 100), 30_000
BOUND, TIGHT = 10_000, 2_000
"""ms that 99 of 100 rounds wait at most. With the first, one worker of its own is enough for a task that waits for its rounds to be
complete."""
MB = 1_000_000
CRASHES = 12
SHARED = Way("one", 1)
OWN = Way("task", 1, complete=True)
POOLED = Way("one", 1, complete=True)


def run(asked: Asked) -> None:
    """A day's uploads to real aggregators in each way, the workers that it takes, crashes; then the tables and the picture."""
    many = MANY[:3] if asked.quick else MANY
    days: list[dict[str, Any]] = []
    workers: list[list[Any]] = []
    for seed in range(1, asked.seeds + 1):
        days.append(_days(asked, seed, *((2, 10, 100, 2) if asked.quick else (TASKS, DEMAND, DEVICES, HOURS))))
        workers.append([])
        for tasks in many:
            size = (tasks, 10, 300, 2) if asked.quick else (tasks, DEMAND, MANY_DEVICES, HOURS)
            asked.say(f"seed {seed}: workers for {tasks} tasks")
            settings = {"what": "workers", "seed": seed, **_named(*size)}
            workers[-1].append(asked.runs.of(settings, partial(_workers, seed, *size)))
    text = figures.tables(days, workers, many)
    (asked.out / "table.md").write_text(text)
    figures.picture(days, workers, many, asked.out / asked.name)
    asked.say(text)


def _named(tasks: int, demand: int, devices: int, hours: int) -> dict[str, int]:
    return {"tasks": tasks, "demand": demand, "devices": devices, "hours": hours}


def _days(asked: Asked, seed: int, tasks: int, demand: int, devices: int, hours: int) -> dict[str, Any]:
    """By name what each way came to on the same day."""
    rounds = day(seed, tasks, demand, devices, hours)
    shared = replace(SHARED, workers=needed(rounds, lambda n: replace(SHARED, workers=n), BOUND))
    pooled = replace(POOLED, workers=needed(rounds, lambda n: replace(POOLED, workers=n), BOUND))
    own = replace(OWN, workers=needed(rounds, lambda n: replace(OWN, workers=n), BOUND))
    ways = {
        "shared": shared,
        "shared, a commit in 10 min": replace(shared, interval=10 * MINUTE),
        "shared, as many workers": replace(shared, workers=tasks * own.workers),
        "task-oriented, own workers": own,
        "task-oriented, one pool": pooled,
        "crashes": replace(shared, workers=2, crashes=CRASHES),
        "crashes, a commit in 10 min": replace(shared, workers=2, crashes=CRASHES, interval=10 * MINUTE),
    }
    out = {}
    for name, way in ways.items():
        asked.say(f"seed {seed}: {name}")
        settings = {"what": "day", "seed": seed, **_named(tasks, demand, devices, hours), **asdict(way)}
        out[name] = asked.runs.of(settings, partial(_day, rounds, way, seed, hours))
    return out


def _day(rounds: Sequence[Round], way: Way, seed: int, hours: int) -> dict[str, Any]:
    """The day replayed to real aggregators. MB and seconds; `model_p99_s`: what the queues say of it."""
    pools = Pools(rounds, way, seed)
    held = pools.run(hours)[60 * WARM :]
    return {
        "workers": len(pools.pools) * way.workers,
        "rounds": len(rounds),
        "deltas": sum(len(r.uploads) for r in rounds),
        "busy_s": pools.memory.busy_ms / 1000,
        "sums": pools.memory.sums,
        "p99_s": p99(pools.latencies) / 1000,
        "most_s": max(pools.latencies) / 1000,
        "model_p99_s": p99(latencies(rounds, way)) / 1000,
        "crashes": way.crashes,
        "again_mb": pools.memory.again * DELTA / MB,
        "lost_mb": [x / MB for x in pools.lost],
        "held": {what: _curve([getattr(h, what) for h in held]) for what in KINDS},
    }


def _curve(held: Sequence[int]) -> dict[str, Any]:
    """Peak and mean of what was held at each minute, and the mean of each 10 minutes. MB."""
    minutes = [x / MB for x in held]
    tens = [round(mean(minutes[i : i + 10]), 1) for i in range(0, len(minutes), 10)]
    return {"peak": max(minutes), "mean": round(mean(minutes), 1), "tens": tens}


def _workers(seed: int, tasks: int, demand: int, devices: int, hours: int) -> dict[str, Any]:
    """By bound in seconds, the least number of workers of each way."""
    rounds = day(seed, tasks, demand, devices, hours)
    return {
        f"{bound // 1000}": {
            "shared": needed(rounds, lambda n: replace(SHARED, workers=n), bound),
            "own": tasks * needed(rounds, lambda n: replace(OWN, workers=n), bound),
            "pooled": needed(rounds, lambda n: replace(POOLED, workers=n), bound),
        }
        for bound in (BOUND, TIGHT)
    }
