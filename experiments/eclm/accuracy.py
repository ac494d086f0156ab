"""Accuracy after an adaptation step, and the bytes it takes: ECLM's Table 1 and Fig. 7 (§7.2).

    olearning experiment eclm-accuracy-har --data FOLDER --out DIR

Each device has new data that the cloud has not seen. On-device ways adapt to it alone; the others in rounds of 25 of the 100 devices. A
device is tested on held-out samples of its own cells (a person, or its classes), and the mean over devices is said.

Fig. 7: bytes sent both ways until the mean accuracy of what devices fetch first reaches a target: `CLOSE` of the way from where FedAvg
begins to what the least of FedAvg, HeteroFL and ECLM comes to. The selector goes to each device once, and is counted.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from experiments.asked import Asked
from experiments.drawing import COLOURS, band, markdown, panels, save, spread
from experiments.eclm import worlds
from experiments.eclm.cloud import Cloud, Offline
from experiments.eclm.ways import (
    ALONE,
    Adaptive,
    Alone,
    Eclm,
    FedAvg,
    Federated,
    HeteroFL,
    limits_of,
    once,
    rounds,
    trained,
)
from experiments.eclm.worlds import BY_CELL, BY_CLASS, Subject, each, load, models_folder, subject, world

CLOSE = 0.9
WAYS = {
    "none": ("no adaptation", COLOURS[6]),
    "local": ("local adaptation", COLOURS[3]),
    "adaptive": ("AdaptiveNet-like, search", COLOURS[4]),
    "adaptive+": ("AdaptiveNet-like, search and fine-tune", COLOURS[4]),
    "fedavg": ("FedAvg", COLOURS[1]),
    "heterofl": ("HeteroFL", COLOURS[5]),
    "heterofl-masked": ("HeteroFL, masked loss", COLOURS[0]),
    "eclm": ("ECLM", COLOURS[2]),
    "eclm-plain": ("ECLM, modules not enhanced", "#999999"),
    "eclm-class": ("ECLM, enhanced by class", "#44bb99"),
}
FEDERATED = ("fedavg", "heterofl", "heterofl-masked", "eclm", "eclm-plain", "eclm-class")
_HAR = {"none": 93.96, "local": 96.07, "adaptive+": 97.42, "fedavg": 97.35, "heterofl": 98.31, "eclm": 98.63}
PAPER: Mapping[tuple[str, int], Mapping[str, float]] = {
    ("har", 0): _HAR,
    ("har-run", 0): _HAR,
    ("cifar10", 2): {
        "none": 73.55,
        "local": 84.19,
        "adaptive+": 87.63,
        "fedavg": 73.68,
        "heterofl": 70.19,
        "eclm": 90.86,
    },
    ("cifar10", 5): {
        "none": 73.55,
        "local": 73.56,
        "adaptive+": 81.17,
        "fedavg": 76.12,
        "heterofl": 77.32,
        "eclm": 85.76,
    },
    ("speech", 5): {
        "none": 62.72,
        "local": 60.52,
        "adaptive+": 69.33,
        "fedavg": 70.48,
        "heterofl": 71.73,
        "eclm": 80.87,
    },
    ("speech", 10): {
        "none": 62.72,
        "local": 59.04,
        "adaptive+": 67.91,
        "fedavg": 73.55,
        "heterofl": 72.34,
        "eclm": 77.16,
    },
}
"""Table 1 [%]."""
Results = Mapping[int, Mapping[str, Sequence[Mapping[str, Any]]]]
"""By partition and way the results, one a seed."""


def run(asked: Asked, whole: Subject) -> None:
    """Table 1, and Fig. 7's bytes: all ways on all partitions; what there is is shown after each seed."""
    s = subject(asked, whole)
    data = load(asked, s)
    of: dict[int, dict[str, list[Mapping[str, Any]]]] = {p: {way: [] for way in WAYS} for p in s.partitions}
    for seed in range(asked.seeds):
        for partition in s.partitions:
            there = Cloud(world(data, s, partition, seed), models_folder(asked))
            for way in WAYS:
                if way == ("heterofl-masked" if data.people else "eclm-class"):
                    continue  # a person does all that there is: nothing is masked; a class that is a cell is "eclm"
                settings = {
                    "subject": s.name, "partition": partition, "seed": seed, "way": way, "devices": s.devices,
                    "rounds": s.rounds, "passes": list(s.passes),
                }  # fmt: skip
                found = asked.runs.of(settings, partial(measured, there, way))
                asked.say(f"{s.name} {partition}, seed {seed}, {way}: {found['fetched']:.4f} {found['adapted']:.4f}")
                of[partition][way].append(found)
        show(of, s, asked)


har, har_run, cifar10, speech = each(run, worlds.HAR, worlds.HAR_RUN, worlds.CIFAR, worlds.WORDS)


def measured(cloud: Cloud, way: str) -> dict[str, Any]:
    """One way: accuracy as `fetched` and as `adapted`; of ways with rounds the curve and all bytes."""
    s = cloud.world.subject
    if way in FEDERATED:
        return rounds(federated(cloud, way), cloud.world, s.participants, s.rounds, s.every)
    if way in ("none", "local"):
        plain = Alone(cloud)
        alone = once(cloud, lambda d, mine: plain.fetched())
        if way == "none":
            return {"fetched": alone, "adapted": alone}
        return {
            "fetched": alone,
            "adapted": once(cloud, lambda d, mine: trained(plain.fetched(), mine, ALONE, "local", d.number)),
        }
    net, limits = Adaptive(cloud), limits_of(cloud)
    searched = once(cloud, lambda d, mine: net.found(mine, limits[d.number], d.number))
    if way == "adaptive":
        return {"fetched": searched, "adapted": searched}
    tuned = once(
        cloud, lambda d, mine: trained(net.found(mine, limits[d.number], d.number), mine, ALONE, "tuned", d.number)
    )
    return {"fetched": searched, "adapted": tuned}


def federated(cloud: Cloud, way: str) -> Federated:
    """A way with rounds, at its beginning."""
    if way == "fedavg":
        return FedAvg(cloud)
    if way.startswith("eclm"):
        by = BY_CLASS if way == "eclm-class" else BY_CELL
        return Eclm(cloud, cloud.modular(Offline(enhanced=way != "eclm-plain", subtasks=by)))
    return HeteroFL(cloud, limits_of(cloud), masked=way.endswith("masked"))


# ------------------------------------------------------------------ what is shown


def target(found: Mapping[str, Mapping[str, Any]]) -> float:
    """The accuracy that bytes are counted to, of one seed: of what FedAvg, HeteroFL and ECLM all come to."""
    start = found["fedavg"]["curve"][0][2]
    least = min(max(point[2] for point in found[way]["curve"]) for way in ("fedavg", "heterofl", "eclm"))
    return float(start + CLOSE * (least - start))


def reached(curve: Sequence[Sequence[float]], accuracy: float) -> tuple[float, float] | None:
    """(rounds, bytes) when it is first there; None if never."""
    return next(((r, sent) for r, sent, now in curve if now >= accuracy), None)


def show(of: Results, s: Subject, asked: Asked) -> None:
    """Pictures and tables of what there is."""
    draw(of, s, asked)
    (asked.out / "table.md").write_text(
        "\n".join(table(p, some, s) + "\n" + table_of_bytes(p, some) for p, some in of.items())
    )


def draw(of: Results, s: Subject, asked: Asked) -> None:
    """Of each partition the accuracy of all ways, and the curve over bytes."""
    figure, axes = panels(len(of), 2, width=5)
    for (left, right), (partition, some) in zip(axes, of.items(), strict=True):
        there = {way: rows for way, rows in some.items() if rows}
        for at, (way, rows) in enumerate(there.items()):
            label, colour = WAYS[way]
            left.barh(at, 100 * fmean(r["adapted"] for r in rows), color=colour, alpha=0.5)
            left.barh(at, 100 * fmean(r["fetched"] for r in rows), color=colour, height=0.4)
            if (said := PAPER.get((s.name, partition), {}).get(way)) is not None:
                left.plot([said], [at], marker="D", color="black", markersize=4)
            if way in FEDERATED:
                xs = [fmean(points) / 1e6 for points in zip(*([p[1] for p in r["curve"]] for r in rows), strict=True)]
                band(right, xs, [[p[2] for p in r["curve"]] for r in rows], color=colour, label=label)
        lowest = min(100 * r["fetched"] for rows in there.values() for r in rows)
        left.set(xlim=(max(0, lowest - 8), 100), xlabel="accuracy [%]: dark fetched, light adapted; ◆ the paper")
        left.set_yticks(range(len(there)), [WAYS[way][0] for way in there], fontsize=7)
        left.invert_yaxis()
        title = "one person a device" if not partition else f"{partition} classes a device"
        left.set_title(f"{s.name}: {title}")
        right.set(xlabel="MB sent, both ways", ylabel="accuracy of what is fetched")
        right.legend(fontsize=7)
    save(figure, asked.out / asked.name)


def table(partition: int, some: Mapping[str, Sequence[Mapping[str, Any]]], s: Subject) -> str:
    """Accuracy [%] of each way beside the paper's."""
    said = PAPER.get((s.name, partition), {})
    rows = []
    for way, (label, _) in ((way, of) for way, of in WAYS.items() if some[way]):
        found = some[way]
        both = (spread([100 * r[what] for r in found], 2) for what in ("fetched", "adapted"))
        rows.append([label, *both, f"{said[way]:.2f}" if way in said else ""])
    of = "one person" if not partition else f"{partition} classes"
    return markdown([f"{s.name}, {of} a device [%]", "as fetched", "adapted locally", "the paper"], rows)


def table_of_bytes(partition: int, some: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Bytes of a round, and until the target."""
    many, ways = len(some["eclm"]), [way for way in FEDERATED if some[way]]
    targets = [target({way: some[way][i] for way in ways}) for i in range(many)]
    rows = []
    for way in ways:
        curves = [r["curve"] for r in some[way]]
        each = [c[-1][1] / c[-1][0] / 1e6 for c in curves]
        hits = [reached(c, goal) for c, goal in zip(curves, targets, strict=True)]
        there = [h for h in hits if h is not None]
        ours = [reached(some["eclm"][i]["curve"], targets[i]) for i in range(many)]
        ratio = [h[1] / o[1] for h, o in zip(hits, ours, strict=True) if h and o and o[1]]
        rows.append([
            WAYS[way][0], spread(each, 2), spread([h[0] for h in there], 1), spread([h[1] / 1e6 for h in there], 1),
            spread(ratio, 2), {"fedavg": "4.60 on average", "heterofl": "2.76 on average"}.get(way, ""),
        ])  # fmt: skip
    head = [
        "to " + spread([100 * t for t in targets], 2) + " %",
        "MB a round",
        "rounds",
        "MB",
        "times ECLM's",
        "the paper",
    ]
    return markdown(head, rows)
