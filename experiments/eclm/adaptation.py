"""Adapting again and again: ECLM's Figs. 10 and 11 (§7.3), and Fig. 1(a) (§2.1).

    olearning experiment eclm-adaptation-har --data FOLDER --out DIR

At each step half of every device's samples are replaced by those of a new context (`shifting.py`); then a round of 25 devices is done in
the ways with a cloud. Two devices are watched: the weakest and the strongest phone of all. What each way does on a watched device:

- local: 10 passes over what it has now, from the model that it has; the original network.
- AdaptiveNet-like: a new search in its supernet and 10 passes on the path, which stay in the supernet.
- FedAvg: takes the global model, and (adapted) 3 passes.
- ECLM: a sub-model for its present data, and 3 passes. *Without local* it is used as it comes; *without cloud* it is fetched once, at the
  first step, and goes on by itself.

Time is processor time on this machine of what the device does at a step: to search, to ask for and make its model, and to train.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from torch import nn

from device_sim.pseudonym import seed_of
from experiments.asked import Asked
from experiments.drawing import COLOURS, band, markdown, panels, save, spread
from experiments.eclm import adaptive, worlds
from experiments.eclm.cloud import Cloud, Offline
from experiments.eclm.shifting import Shifting
from experiments.eclm.ways import (
    ALONE,
    LOCAL,
    Adaptive,
    Alone,
    Eclm,
    FedAvg,
    accuracy,
    limits_of,
    participants,
    trained,
)
from experiments.eclm.worlds import Device, Samples, Subject, each, load, models_folder, subject, world

STEPS, QUICK = 30, 2
HALF = 0.5
WAYS = {
    "none": ("no adaptation", COLOURS[6]),
    "local": ("local adaptation", COLOURS[3]),
    "adaptive+": ("AdaptiveNet-like", COLOURS[4]),
    "fedavg": ("FedAvg", COLOURS[1]),
    "fedavg, adapted": ("FedAvg, adapted locally", COLOURS[5]),
    "without local": ("ECLM without local", COLOURS[0]),
    "without cloud": ("ECLM without cloud", "#999999"),
    "eclm": ("ECLM", COLOURS[2]),
}
RUNS = ("none", "local", "adaptive+", "fedavg", "without cloud", "eclm")
"""What is run; FedAvg's and ECLM's runs say what is fetched and what it is adapted to."""
TOGETHER = {"fedavg": ("fedavg", "fedavg, adapted"), "eclm": ("without local", "eclm")}
PAPER = {
    ("har", "eclm"): "1.68 above local",
    ("cifar10", "eclm"): "4.33 above local",
    ("speech", "eclm"): "6.81 above local",
}
FASTER = {"har": "14.5", "cifar10": "45.5", "speech": "75.3"}


def run(asked: Asked, whole: Subject) -> None:
    """Figs. 10 and 11: all ways over all steps, a seed after another."""
    s, data = subject(asked, whole), None
    steps, partition = (QUICK if asked.quick else STEPS), s.partitions[0]
    of: dict[str, list[Mapping[str, Any]]] = {way: [] for way in WAYS}
    data = load(asked, s)
    for seed in range(asked.seeds):
        there = Cloud(world(data, s, partition, seed), models_folder(asked))
        for way in RUNS:
            settings = {
                "subject": s.name,
                "partition": partition,
                "seed": seed,
                "way": way,
                "steps": steps,
                "share": HALF,
                "devices": s.devices,
            }
            found = asked.runs.of(settings, partial(measured, there, way, steps, HALF))
            for name in TOGETHER.get(way, (way,)):
                of[name].append(found[name])
            asked.say(
                f"{s.name}, seed {seed}, {way}: "
                + ", ".join(f"{fmean(map(fmean, v['accuracy'])):.4f}" for v in found.values())
            )
        show(of, s, asked)


har, cifar10, speech = each(run, worlds.HAR, worlds.CIFAR, worlds.WORDS)


def watched(there: Cloud) -> list[Device]:
    """The weakest and the strongest phone."""
    by_room = sorted(there.world.devices, key=lambda d: (sum(d.room), d.number))
    return [by_room[0], by_room[-1]]


def measured(there: Cloud, way: str, steps: int, share: float) -> dict[str, dict[str, Any]]:
    """By name of what is said, `accuracy` of the watched devices by step (steps, 2) and `seconds` a step on them, means."""
    shift, ours = Shifting(there.world, share), watched(there)
    act, each_round = _way(there, way)
    said: dict[str, dict[str, Any]] = {n: {"accuracy": [], "seconds": []} for n in TOGETHER.get(way, (way,))}
    for number in range(1, steps + 1):
        shift.step()
        if each_round:
            some = participants(there.world, there.world.subject.participants, number)
            each_round([(d, shift.of(d)[0]) for d in some], number)
        scores: dict[str, list[float]] = {name: [] for name in said}
        for d in ours:
            mine, test = shift.of(d)
            for name in said:
                began = time.process_time()
                module = act(name, d, mine, number)
                said[name]["seconds"].append(time.process_time() - began)
                scores[name].append(accuracy(module, test))
        for name, values in scores.items():
            said[name]["accuracy"].append(values)
    return {name: {"accuracy": v["accuracy"], "seconds": fmean(v["seconds"])} for name, v in said.items()}


Act = Callable[[str, Device, Samples, int], nn.Module]
Round = Callable[[Sequence[tuple[Device, Samples]], int], int]


def _way(there: Cloud, way: str) -> tuple[Act, Round | None]:
    """What a device does at a step to have its model, and the round before, if there are rounds."""
    kept: dict[int, Any] = {}
    if way in ("none", "local"):
        plain = Alone(there)

        def alone(name: str, d: Device, mine: Samples, number: int) -> nn.Module:
            module: nn.Module = kept.setdefault(d.number, plain.fetched())
            return module if name == "none" else trained(module, mine, ALONE, "local", number, d.number)

        return alone, None
    if way == "adaptive+":
        net, limits = Adaptive(there), limits_of(there)

        def search(name: str, d: Device, mine: Samples, number: int) -> nn.Module:
            if d.number not in kept:
                kept[d.number] = copy.deepcopy(net.net).requires_grad_(True)
            mine_net = kept[d.number]
            found = adaptive.search(mine_net, net.costs, mine, limits[d.number].macs // 3, seed_of("search", number))
            mine_net.path = found.path
            trained(mine_net, mine, ALONE, "adaptive", number, d.number)
            return mine_net

        return search, None
    if way == "fedavg":
        fed = FedAvg(there)

        def take(name: str, d: Device, mine: Samples, number: int) -> nn.Module:
            module = fed.fetched(d, mine)
            return module if name == "fedavg" else fed.train(d, module, mine, "adapted", number, d.number)

        return take, fed.round
    eclm = Eclm(there, there.modular(Offline()))
    if way == "without cloud":

        def once(name: str, d: Device, mine: Samples, number: int) -> nn.Module:
            module = kept.get(d.number) or kept.setdefault(d.number, eclm.fetched(d, mine))
            return trained(module, mine, LOCAL, "without", number, d.number)

        return once, None

    def ask(name: str, d: Device, mine: Samples, number: int) -> nn.Module:
        module = eclm.fetched(d, mine)
        return module if name == "without local" else eclm.train(d, module, mine, "adapted", number, d.number)

    return ask, eclm.round


# ------------------------------------------------------------------ what is shown


def show(of: Mapping[str, Sequence[Mapping[str, Any]]], s: Subject, asked: Asked) -> None:
    """Accuracy by step of either device, and accuracy over time; the table."""
    figure, (axes,) = panels(1, 3, width=5)
    for at, (ax, title) in enumerate(zip(axes, ("the weakest phone", "the strongest phone"), strict=False)):
        for way, found in of.items():
            lines = [smooth([step[at] for step in f["accuracy"]]) for f in found]
            band(ax, range(1, len(lines[0]) + 1), lines, color=WAYS[way][1], label=WAYS[way][0])
        ax.set(title=f"{s.name}: {title}", xlabel="step (mean of the last ten)", ylabel="accuracy")
    for way, found in of.items():
        y, x = fmean(mean_of(f) for f in found), fmean(f["seconds"] for f in found)
        axes[2].scatter([1000 * x], [y], color=WAYS[way][1], label=WAYS[way][0])
    axes[2].set(title="all steps", xlabel="processor time of a device's step [ms]", ylabel="mean accuracy")
    axes[2].legend(fontsize=7)
    save(figure, asked.out / asked.name)
    rows = []
    for way, found in of.items():
        gain = [100 * (mean_of(f) - mean_of(local)) for f, local in zip(found, of["local"], strict=True)]
        times = [f["seconds"] / local["seconds"] for f, local in zip(found, of["local"], strict=True)]
        rows.append([
            WAYS[way][0], spread([100 * mean_of(f) for f in found], 2), spread(gain, 2), PAPER.get((s.name, way), ""),
            spread([1000 * f["seconds"] for f in found], 1), spread([100 * (1 - t) for t in times], 1),
            FASTER.get(s.name, "") if way == "eclm" else "",
        ])  # fmt: skip
    head = [
        s.name,
        "accuracy, all steps [%]",
        "above local",
        "the paper",
        "ms a step",
        "less than local [%]",
        "the paper",
    ]
    (asked.out / "table.md").write_text(markdown(head, rows))


def mean_of(found: Mapping[str, Any]) -> float:
    """Over all steps and both devices."""
    return fmean(map(fmean, found["accuracy"]))


def smooth(values: Sequence[float], many: int = 10) -> list[float]:
    """The mean of the last so many."""
    return [fmean(values[max(0, i + 1 - many) : i + 1]) for i in range(len(values))]
