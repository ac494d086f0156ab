"""What each part of OLearning's selector is good for: all of them, and all but one (§5.1, §4.2, §5.2; the paper shows no ablation).

Left out, one at a time (`olearning/without.py` says what stands in its place): a zone's contribution (eq. 1), a task's progress
(eq. 2), the boost of a task that starved, the quality of a device's data (eq. 3), the forecast of its free time; and all five.

A setting in which they can matter: four tasks want 15 devices a round in each of four zones of 12, whose persons have habits (free
windows of 27 minutes in the median by day, and the night). A run takes a phone of median speed about a quarter of an hour of two tasks
and half an hour of the two others, and a round ends within an hour, so no device can do all. Each zone has other amounts and classes
of each task's data, and so has each device.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from device_sim.capacity import Usual
from experiments.asked import Asked
from experiments.drawing import COLOURS, band, markdown, panels, save, spread
from experiments.watched import Round, Rounds, accuracy_at, scores
from experiments.zoned import PLACES, digits

ALL = ("contribution", "progress", "boost", "quality", "forecast")
WAYS: dict[str, tuple[str, ...]] = {"all in": (), **{f"no {m}": (m,) for m in ALL}, "none in": ALL}
DEVICES, QUICK = 12, 6
"""Of a zone; and if it is to be quick."""
TASKS = {"a": (6, 10), "b": (4, 5), "c": (3, 10), "d": (2, 5)}
"""By name how many devices a round wants, and the passes over its data that a device makes."""
DAY, DAYS = 240, 3
"""Virtual seconds a day; a look at the clock is a minute and a half."""
HOUR = DAY / 24
TARGET = 0.8
INFERENCE_MS = 2_000.0
"""Of a sample, in the median. The digits' model would take next to no time, and devices would have it for everything."""
AMONG, WITHIN = 0.3, 1.0
"""Dirichlet's alphas, of classes among zones and within them."""


def run(asked: Asked) -> None:
    """Simulate all ways, for all seeds; then draw."""
    days, results = 1 if asked.quick else DAYS, {}
    small = {"devices": QUICK} if asked.quick else {}
    ways = {way: WAYS[way] for way in ("all in", "none in")} if asked.quick else WAYS
    for seed in range(asked.seeds):
        for way, without in ways.items():
            settings = {"without": list(without), "seed": seed, "days": days, **small}
            asked.say(f"{way}, seed {seed}")
            results[way, seed] = asked.runs.of(settings, partial(simulated, asked, settings))
    _table(asked, results, ways, days)
    _draw(asked, results, ways, days)


def simulated(asked: Asked, s: Mapping[str, Any]) -> dict[str, Any]:
    """What a run came to, by task."""
    with TemporaryDirectory(prefix="olearning-ablation-") as folder:
        tree = scenario(s, Path(folder))
        rounds = Rounds(list(PLACES))
        result = asked.simulate(tree, [rounds])
    out: dict[str, Any] = {"updates": result.updates, "bids": result.bids, "tasks": {}}
    for task in TASKS:
        accuracy = scores([e for e in result.epochs if e.task == task], DAY)
        out["tasks"][task] = measured([r for r in rounds.done if r.task == task]) | {"accuracy": accuracy}
    return out


def scenario(s: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The scenario of a run, as a file of it would say, and in the folder the files that it names."""
    speeds = [Usual(inference_ms=INFERENCE_MS).of(s["seed"], n) for n in range(1_000)]
    capacity = folder / "capacity.npz"
    ms, kbit_s = zip(*speeds, strict=True)
    np.savez(capacity, computation_ms_per_sample=ms, communication_kbps=kbit_s)
    tasks, devices = [], s.get("devices", DEVICES)
    for i, (task, (demand, epochs)) in enumerate(TASKS.items()):
        file = folder / f"{task}-{s['seed']}.npz"
        digits(file, len(PLACES), devices, len(TASKS) * s["seed"] + i, AMONG, WITHIN)
        tasks.append(
            {
                "task": task,
                "model": "mlp",
                "data": "npz",
                "data_args": {"path": str(file), "partition": "user"},
                "training": {"epochs": epochs, "batch": 30, "learning_rate": 0.1},
                "rounds": {"demand": demand, "over_commit": 1.0, "deadline_s": HOUR, "lease_s": HOUR},
                "epochs": {"count": 10**6, "rounds": 4, "deadline_s": 12 * HOUR},
            }
        )
    return {
        "seed": s["seed"],
        "days": s["days"],
        "without": s["without"],
        "zones": {place: {"devices": devices, "utc_offset": hours} for place, hours in PLACES.items()},
        "devices": {"day_seconds": DAY, "day": "habits", "capacity": str(capacity)},
        "clock": {"tick_ms": 250},
        "tasks": tasks,
    }


def measured(rounds: Sequence[Round]) -> dict[str, Any]:
    """What came of a task's rounds."""
    return {
        "rounds": len(rounds),
        "starved": sum(r.starved for r in rounds),
        "admitted": sum(len(r.admitted) for r in rounds),
        "wasted": sum(r.wasted for r in rounds),
        "reward": [float(f"{q:.3g}") for q in np.percentile([r.reward for r in rounds] or [0.0], [10, 50, 90])],
    }


def reached(points: Sequence[Sequence[float]], target: float, days: float) -> float:
    """The day on which the first global model was as good as the target; `days` if none was."""
    return next((at for at, accuracy in points if accuracy >= target), days)


def last(points: Sequence[Sequence[float]], n: int = 3) -> float:
    """The mean accuracy of the last n global models."""
    return mean(accuracy for _, accuracy in points[-n:])


# ------------------------------------------------------------------ what is shown


def _table(asked: Asked, results: Mapping[tuple[str, int], Any], ways: Collection[str], days: int) -> None:
    seeds = range(asked.seeds)

    def cell(way: str, of: Any, digits: int) -> str:
        return spread([of(results[way, s]["tasks"]) for s in seeds], digits)

    def share(tasks: Mapping[str, Any], part: str, whole: str) -> float:
        return sum(t[part] for t in tasks.values()) / max(1, sum(t[whole] for t in tasks.values()))

    def each(of: Any, digits: int) -> list[list[str]]:
        return [[way, *(cell(way, lambda t, k=k: of(t[k]), digits) for k in TASKS)] for way in ways]

    head = [
        "",
        f"days to {TARGET:g}, mean of tasks",
        "the slowest task's",
        "accuracy at the end, mean",
        "the worst task's",
    ]
    head += ["rounds a day", "starved", "slots", "wasted", "bids"]
    rows = []
    for way in ways:
        to = [
            cell(way, lambda t, f=f: f(reached(x["accuracy"], TARGET, days) for x in t.values()), 2)
            for f in (mean, max)
        ]
        end = [cell(way, lambda t, f=f: f(last(x["accuracy"]) for x in t.values()), 3) for f in (mean, min)]
        many = cell(way, lambda t: sum(x["rounds"] for x in t.values()) / days, 0)
        slots = cell(way, lambda t: sum(x["admitted"] for x in t.values()), 0)
        bids = spread([results[way, s]["bids"] for s in seeds], 0)
        starved, wasted = (
            cell(way, lambda t, p=p, w=w: share(t, p, w), 3) for p, w in (("starved", "rounds"), ("wasted", "admitted"))
        )
        rows.append([way, *to, *end, many, starved, slots, wasted, bids])
    tasks = ["", *(f"{task}: {k} devices, {e} passes" for task, (k, e) in TASKS.items())]
    parts = [
        markdown(head, rows),
        f"Days to {TARGET:g} (a task that never came to it counts with {days}):\n\n"
        + markdown(tasks, each(lambda t: reached(t["accuracy"], TARGET, days), 2)),
        "Accuracy at the end, mean of the last three global models:\n\n"
        + markdown(tasks, each(lambda t: last(t["accuracy"]), 3)),
        "Rounds that starved:\n\n" + markdown(tasks, each(lambda t: t["starved"] / max(1, t["rounds"]), 2)),
        "The zone reward that was announced, median over rounds:\n\n"
        + markdown(tasks, each(lambda t: t["reward"][1], 4)),
    ]
    (asked.out / "table.md").write_text("\n".join(parts))


def _draw(asked: Asked, results: Mapping[tuple[str, int], Any], ways: Collection[str], days: int) -> None:
    figure, axes = panels(1, len(TASKS), width=3.4)
    grid = np.arange(0, days + 1e-9, 1 / 24).tolist()
    for ax, (task, (demand, epochs)) in zip(axes[0], TASKS.items(), strict=True):
        for colour, way in zip(COLOURS, ways, strict=False):
            lines = []
            for seed in range(asked.seeds):
                points = results[way, seed]["tasks"][task]["accuracy"]
                lines.append([accuracy_at(points, t) for t in grid])
            if way == "all in":
                band(ax, grid, lines, color=colour, label=way)
            else:
                ax.plot(grid, np.mean(lines, axis=0), color=colour, linewidth=1, label=way)
        ax.set(title=f"task {task}: {demand} devices, {epochs} passes", xlabel="day", ylim=(0, 1), xlim=(0, days))
    axes[0, 0].set_ylabel("accuracy")
    axes[0, 0].legend(fontsize=7)
    save(figure, asked.out / asked.name)
