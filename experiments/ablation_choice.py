"""What each part of OLearning's reward is good for where devices have a choice: a second setting of the ablation (§5.1, §4.2, §5.2).

A reward can only show where a device that is free must leave something undone, where what it leaves is not done by the next one anyway, and
where tasks and devices differ in what the parts look at. So, unlike in `ablation`:

    choice        six tasks want three devices a round in each of three zones of eight, whose persons have habits. A round ends within an hour.
                  All phones are alike and a run takes 20 minutes of any task: a device does one or two of a round's time, and no fast one all
    allocation    an epoch is a window of four hours with any number of rounds in it, not a number of rounds: who draws devices gets more rounds
    contribution  zones have other classes of each task's data, and other amounts
    progress      two tasks are easy, two digits to tell apart, and are learned within hours; four are hard, all ten, and take days
    quality       a device has between a handful and some hundred samples of a task, of few classes, and all tasks draw as many a run
    boost         fewer devices are free than are wanted, so tasks whose reward is low may get none
    forecast      as in `ablation`: free windows are about as long as a run by day
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from device_sim.capacity import Usual
from device_sim.data import load
from device_sim.dataset import Dataset
from experiments.ablation import WAYS, last, reached
from experiments.asked import Asked
from experiments.bids import Bid, Bids, changed
from experiments.drawing import COLOURS, band, markdown, panels, save, spread
from experiments.watched import Round, accuracy_at, scores
from experiments.zoned import PLACES, dealt

ZONES = {place: PLACES[place] for place in ("west", "mid", "east")}
DEVICES, QUICK = 8, 4
"""Of a zone; and if it is to be quick."""
CLASSES = {"easy": 2, "hard": 10}
"""By kind of task, the classes."""
TASKS = {f"{kind}-{i}": kind for kind, n in (("easy", 2), ("hard", 4)) for i in range(n)}
TARGET = {"easy": 0.95, "hard": 0.6}
DAY, DAYS = 120, 1
"""Virtual seconds a day; a look at the clock is three minutes."""
HOUR = DAY / 24
DEMAND, STEPS, BATCH = 3, 16, 8
INFERENCE_MS = 3_000.0
"""Of a sample, on all phones: a run takes 20 minutes."""
NOISE = {"easy": 0.3, "hard": 0.0}
"""The standard deviation of what is added to each pixel: easy tasks have few pictures, which are drawn several times."""
AMONG, WITHIN = 0.3, 0.3
"""Dirichlet's alphas, of classes among zones and within them."""
PARTS = ("contribution", "progress", "boost")
"""Of what a zone announces."""
PARTITIONS = 4


def run(asked: Asked) -> None:
    """Simulate all ways, for all seeds; then draw."""
    results = {}
    small = {"devices": QUICK, "days": 0.25} if asked.quick else {"days": DAYS}
    ways = {way: WAYS[way] for way in ("all in", "none in")} if asked.quick else WAYS
    for seed in range(asked.seeds):
        for way, without in ways.items():
            settings = {"without": list(without), "seed": seed, **small}
            asked.say(f"{way}, seed {seed}")
            results[way, seed] = asked.runs.of(settings, partial(simulated, asked, settings))
    _table(asked, results, ways, small["days"])
    _draw(asked, results, ways, small["days"])


def simulated(asked: Asked, s: Mapping[str, Any]) -> dict[str, Any]:
    """What a run came to, by task, and what devices were offered."""
    with TemporaryDirectory(prefix="olearning-choice-") as folder:
        tree = scenario(s, Path(folder))
        bids = Bids(list(ZONES), PARTITIONS)
        result = asked.simulate(tree, [bids])
    out: dict[str, Any] = {"updates": result.updates, "bids": result.bids, "tasks": {}, "offers": offers(bids.bids)}
    for task, kind in TASKS.items():
        accuracy = scores([e for e in result.epochs if e.task == task], DAY)
        rounds = [r for r in bids.done if r.task == task]
        out["tasks"][task] = measured(rounds, reached(accuracy, TARGET[kind], s["days"])) | {"accuracy": accuracy}
    return out


def scenario(s: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The scenario of a run, as a file of it would say, and in the folder the files that it names."""
    capacity, devices = folder / "capacity.npz", s.get("devices", DEVICES)
    ms, kbit_s = zip(*(Usual(INFERENCE_MS, 0.0).of(s["seed"], n) for n in range(1_000)), strict=True)
    np.savez(capacity, computation_ms_per_sample=ms, communication_kbps=kbit_s)
    tasks = []
    for i, (task, kind) in enumerate(TASKS.items()):
        file, seed = folder / f"{task}-{s['seed']}.npz", len(TASKS) * s["seed"] + i
        d = pictures(CLASSES[kind], NOISE[kind], seed)
        owner = dealt(d, len(ZONES), devices, seed, AMONG, WITHIN)
        np.savez(file, X=d.x, y=d.y, user=owner, test_X=d.test_x, test_y=d.test_y)
        tasks.append(
            {
                "task": task,
                "model": "mlp",
                "model_args": {"classes": CLASSES[kind]},
                "data": "npz",
                "data_args": {"path": str(file), "partition": "user"},
                "training": {"steps": STEPS, "batch": BATCH, "learning_rate": 0.1},
                "rounds": {"demand": DEMAND, "over_commit": 1.0, "deadline_s": HOUR, "lease_s": 0.75 * HOUR},
                "epochs": {"count": 10**6, "rounds": 1_000, "window_s": 4 * HOUR, "deadline_s": 8 * HOUR},
            }
        )
    return {
        "seed": s["seed"],
        "days": s["days"],
        "without": s["without"],
        "zones": {place: {"devices": devices, "utc_offset": hours} for place, hours in ZONES.items()},
        "devices": {"day_seconds": DAY, "day": "habits", "capacity": str(capacity)},
        "clock": {"tick_ms": 250},
        "partitions": PARTITIONS,
        "tasks": tasks,
    }


def pictures(classes: int, noise: float, seed: int) -> Dataset:
    """The first so many digits: as many training samples as of all ten, drawn with repetition where these are fewer, each with noise of its own."""
    d, dice = load("digits", {}), np.random.default_rng(seed)
    train, test = np.flatnonzero(d.y < classes), d.test_y < classes
    chosen = dice.choice(train, len(d.y), replace=len(train) < len(d.y))

    def noisy(x: Any) -> Any:
        return (x + noise * dice.standard_normal(x.shape)).astype(np.float32)

    x, test_x = noisy(d.x[chosen]), noisy(d.test_x[test])
    return replace(d, x=x, y=d.y[chosen], test_x=test_x, test_y=d.test_y[test])


def measured(rounds: Sequence[Round], there: float) -> dict[str, Any]:
    """What came of a task's rounds, of which it was `there`, at its target, on that day. `late`: the runs of rounds that opened after it;
    `progress`: its quartiles as announced before and after, None where there was no round."""
    late = [r for r in rounds if r.opened >= there * DAY * 1000]
    early = [r for r in rounds if r.opened < there * DAY * 1000]
    return {
        "rounds": len(rounds),
        "starved": sum(r.starved for r in rounds),
        "admitted": sum(len(r.admitted) for r in rounds),
        "runs": sum(len(r.counted) for r in rounds),
        "late": sum(len(r.counted) for r in late),
        "samples": sum(r.samples for r in rounds),
        "progress": [_quartiles([r.progress for r in part]) for part in (early, late)],
    }


def _quartiles(values: Sequence[float]) -> list[float] | None:
    return [float(f"{q:.3g}") for q in np.percentile(values, [25, 50, 75])] if values else None


def offers(bids: Sequence[Bid]) -> dict[str, float]:
    """How many rounds were open to choose from, in the mean over bids; and by part of what a zone announces, in which share of the bids the
    best of them would have been another without it."""
    found = {part: round(changed(bids, len(ZONES), (part,)), 3) for part in PARTS}
    return found | {"open": round(mean(len(b.offers) for b in bids), 2) if bids else 0.0}


# ------------------------------------------------------------------ what is shown


def _table(asked: Asked, results: Mapping[tuple[str, int], Any], ways: Collection[str], days: float) -> None:
    seeds = range(asked.seeds)

    def cell(way: str, of: Any, digits: int) -> str:
        return spread([of(results[way, s]["tasks"]) for s in seeds], digits)

    def share(part: str, whole: str) -> Any:
        return lambda tasks: sum(t[part] for t in tasks.values()) / max(1, sum(t[whole] for t in tasks.values()))

    def kind(of: Any, which: str) -> Any:
        return lambda tasks: mean(of(tasks[task], TARGET[which]) for task, k in TASKS.items() if k == which)

    columns = {
        "days to the target, easy": (kind(lambda t, goal: reached(t["accuracy"], goal, days), "easy"), 2),
        "hard": (kind(lambda t, goal: reached(t["accuracy"], goal, days), "hard"), 2),
        "accuracy at the end, easy": (kind(lambda t, _: last(t["accuracy"]), "easy"), 3),
        "hard, mean": (kind(lambda t, _: last(t["accuracy"]), "hard"), 3),
        "hard, worst": (
            lambda tasks: min(last(tasks[task]["accuracy"]) for task, k in TASKS.items() if k == "hard"),
            3,
        ),
        "accuracy over time, all": (lambda tasks: mean(over_time(t["accuracy"], days) for t in tasks.values()), 3),
        "runs": (lambda tasks: sum(t["runs"] for t in tasks.values()), 0),
        "of hard tasks": (hard_runs, 3),
        "at the target": (share("late", "runs"), 3),
        "samples a run": (share("samples", "runs"), 1),
        "starved": (share("starved", "rounds"), 3),
        "wasted": (lambda tasks: 1 - share("runs", "admitted")(tasks), 3),
    }
    rows = [[way, *(cell(way, of, digits) for of, digits in columns.values())] for way in ways]
    offered = [spread([results["all in", s]["offers"][part] for s in seeds], 2) for part in ("open", *PARTS)]
    made = []
    for which in TARGET:
        for n, when in enumerate(("before its target", "after")):
            found = [
                q for s in seeds for task, k in TASKS.items() if k == which
                for q in [results["all in", s]["tasks"][task]["progress"][n]] if q
            ]  # fmt: skip
            cells = [f"{np.median([q[i] for q in found]):.2g}" for i in range(3)] if found else ["–"] * 3
            made.append([f"{which}, {when}", *cells])
    parts = [
        markdown(["", *columns], rows),
        f"Days: a task that never came to its target (easy {TARGET['easy']:g}, hard {TARGET['hard']:g}) counts with {days:g}.\n\n"
        "Rounds open to choose from, in the mean over bids, and the share of bids in which the best offer would be another without a "
        "part of the reward:\n\n" + markdown(["", "open", *PARTS], [["all in", *offered]]),
        "Progress as announced, all in, the quartiles (median over tasks and seeds):\n\n"
        + markdown(["task", "25 %", "50 %", "75 %"], made),
    ]
    (asked.out / "table.md").write_text("\n".join(parts))


def over_time(points: Sequence[Sequence[float]], days: float) -> float:
    """The mean accuracy of the global models over the days, each as long as it is the last."""
    ends = [at for at, _ in points[1:]] + [days]
    return sum(a * (min(end, days) - min(at, days)) for (at, a), end in zip(points, ends, strict=True)) / days


def hard_runs(tasks: Mapping[str, Any]) -> float:
    """The share of the runs that were of hard tasks."""
    runs = {task: t["runs"] for task, t in tasks.items()}
    return sum(n for task, n in runs.items() if TASKS[task] == "hard") / max(1, sum(runs.values()))


def _draw(asked: Asked, results: Mapping[tuple[str, int], Any], ways: Collection[str], days: float) -> None:
    figure, axes = panels(1, 3, width=4.2)
    seeds, grid = range(asked.seeds), np.arange(0, days + 1e-9, 1 / 48).tolist()
    for ax, which in zip(axes[0], TARGET, strict=False):
        for colour, way in zip(COLOURS, ways, strict=False):
            lines = []
            for seed in seeds:
                all_of = [t["accuracy"] for task, t in results[way, seed]["tasks"].items() if TASKS[task] == which]
                lines.append([mean(accuracy_at(points, t) for points in all_of) for t in grid])
            if way == "all in":
                band(ax, grid, lines, color=colour, label=way)
            else:
                ax.plot(grid, np.mean(lines, axis=0), color=colour, linewidth=1, label=way)
        ax.set(title=f"{which} tasks", xlabel="day", ylabel="accuracy, mean of tasks", ylim=(0, 1), xlim=(0, days))
    axes[0, 0].legend(fontsize=7, loc="lower right")
    ax = axes[0, 2]
    for n, (colour, way) in enumerate(zip(COLOURS, ways, strict=False)):
        shares = [hard_runs(results[way, s]["tasks"]) for s in seeds]
        ax.barh(n, mean(shares), color=colour, alpha=0.7)
        ax.plot(shares, [n] * len(shares), "k.", markersize=4)
    ax.axvline(sum(k == "hard" for k in TASKS.values()) / len(TASKS), color="grey", linewidth=1, linestyle="--")
    ax.set(title="runs of hard tasks (dashed: by chance)", xlabel="share of all runs", xlim=(0, 1))
    ax.set_yticks(range(len(ways)), list(ways))
    ax.invert_yaxis()
    save(figure, asked.out / asked.name)
