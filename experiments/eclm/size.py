"""Accuracy over the size of sub-models: ECLM's Fig. 13 (§7.4), before any adaptation.

    olearning experiment eclm-size-har --data FOLDER --out DIR

Sub-models of the cloud's model after the offline stage, with ability-enhancing and, with as many passes end to end, without. *Random*: of
each layer so many shrunk modules as a share of all says, drawn by chance for each device; *derived*: for what the device has, with the
same room. A point is the mean over devices of the accuracy on their own held-out samples, at one share. A last partition has all cells: IID.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np

from device_sim.pseudonym import seed_of
from experiments.asked import Asked
from experiments.drawing import COLOURS, band, markdown, panels, save, spread
from experiments.eclm import worlds
from experiments.eclm.cloud import Cloud, Offline, named, trainings
from experiments.eclm.ways import Eclm, accuracy
from experiments.eclm.worlds import ALL, Subject, each, load, models_folder, subject, world
from learning.modular.model import sub_model
from schemas.modules import Choice

SHARES = (0.07, 0.15, 0.3, 0.5, 0.75, 1.0)
QUICK = (0.2, 1.0)
KINDS = {"random": "random", "derived": "derived"}


def run(asked: Asked, whole: Subject) -> None:
    """Fig. 13: with and without enhancing, on all partitions."""
    s = subject(asked, whole)
    data, shares = load(asked, s), QUICK if asked.quick else SHARES
    hows = trainings(data.people)
    of: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for seed in range(asked.seeds):
        for partition in (*s.partitions, ALL):
            there = Cloud(world(data, s, partition, seed), models_folder(asked))
            for name, how in hows.items():
                settings = {
                    "subject": s.name,
                    "partition": partition,
                    "seed": seed,
                    "shares": list(shares),
                    "passes": list(s.passes),
                }
                found = asked.runs.of(settings | named(how), partial(measured, there, how, shares))
                asked.say(f"{s.name} {partition}, seed {seed}, {name}")
                of.setdefault((partition, name), []).append(found)
        show(of, s, shares, asked)


har, har_run, cifar10, speech = each(run, worlds.HAR, worlds.HAR_RUN, worlds.CIFAR, worlds.WORDS)


def measured(there: Cloud, how: Offline, shares: Sequence[float]) -> dict[str, Any]:
    """By kind the points: share, mean values of a sub-model, mean accuracy."""
    out: dict[str, Any] = {kind: [] for kind in KINDS}
    s, whole = there.world.subject, there.modular(how)
    for share in shares:
        eclm = Eclm(there, whole, share)
        points: dict[str, list[tuple[int, float]]] = {kind: [] for kind in KINDS}
        for d in there.world.devices[: s.tested]:
            mine, test = there.world.of(d)
            for kind, choice in (
                ("derived", eclm.choice(d, mine)),
                ("random", drawn(whole.choice, share, there.world.seed, d.number)),
            ):
                points[kind].append((eclm.size(choice), accuracy(sub_model(whole, choice), test)))
        for kind, some in points.items():
            out[kind].append([share, fmean(n for n, _ in some), fmean(a for _, a in some)])
    return out


def drawn(whole: Choice, share: float, seed: int, number: int) -> Choice:
    """Of each layer that share of its shrunk modules, one at least, by chance; and the residual one."""
    dice = np.random.default_rng(seed_of(seed, "random", number))
    out = []
    for layer in whole:
        shrunk = len(layer) - 1
        some = dice.choice(shrunk, max(1, int(share * shrunk)), replace=False)
        out.append((*sorted(int(n) for n in some), shrunk))
    return tuple(out)


def show(
    of: Mapping[tuple[int, str], Sequence[Mapping[str, Any]]], s: Subject, shares: Sequence[float], asked: Asked
) -> None:
    """A panel for each partition."""
    partitions = list(dict.fromkeys(p for p, _ in of))
    figure, (axes,) = panels(1, len(partitions), width=4.6)
    rows: list[list[object]] = []
    for ax, partition in zip(axes, partitions, strict=True):
        title = {0: "one person a device", ALL: "all cells (IID)"}.get(partition, f"{partition} classes a device")
        for kind in KINDS:
            for name, line in zip(dict.fromkeys(n for _, n in of), ("-", ":", "--"), strict=False):
                found = of[partition, name]
                xs = [fmean(f[kind][i][1] for f in found) / 1e3 for i in range(len(shares))]
                lines = [[point[2] for point in f[kind]] for f in found]
                label = f"{kind}, {name}"
                band(
                    ax,
                    xs,
                    lines,
                    color=COLOURS[2 if kind == "derived" else 1],
                    linestyle=line,
                    marker="o",
                    markersize=3,
                    label=label,
                )
                rows.append(
                    [f"{title}: {label}", *(spread([100 * line[i] for line in lines], 1) for i in range(len(shares)))]
                )
        ax.set(title=f"{s.name}: {title}", xlabel="thousand values of a sub-model", ylabel="accuracy")
    axes[0].legend(fontsize=7)
    save(figure, asked.out / asked.name)
    (asked.out / "table.md").write_text(
        markdown(["accuracy [%], room for this share of the modules", *(f"{100 * x:.0f} %" for x in shares)], rows)
    )
