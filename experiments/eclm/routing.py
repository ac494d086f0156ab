"""Which modules sub-tasks are sent to: ECLM's Fig. 12 (§7.4).

    olearning experiment eclm-routing-cifar10 --data FOLDER --out DIR

H of each layer (how much of a class's load goes to which module) on held-out samples, for four classes, of which two and two are
alike; with ability-enhancing and without. Overlap of two classes: Σ_n min(h_1n, h_2n), the mean over layers; 1 if they use the
same modules alike.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np

from experiments.asked import Asked
from experiments.drawing import markdown, panels, save, spread
from experiments.eclm import worlds
from experiments.eclm.cloud import Cloud, Offline, named, trainings
from experiments.eclm.worlds import Subject, each, load, models_folder, subject, world
from learning.modular.assignment import matrix
from learning.modular.model import routes

_HAR = (((1, "walking up"), (2, "walking down")), ((3, "sitting"), (4, "standing")))
ALIKE: Mapping[str, Sequence[tuple[tuple[int, str], tuple[int, str]]]] = {
    "har": _HAR,
    "har-run": _HAR,
    "cifar10": (((3, "cat"), (5, "dog")), ((1, "automobile"), (9, "truck"))),
    "digits": (((3, "three"), (8, "eight")), ((4, "four"), (9, "nine"))),
}
"""Pairs of like classes: number and name."""


def run(asked: Asked, whole: Subject) -> None:
    """Fig. 12: with and without enhancing."""
    s = subject(asked, whole)
    data = load(asked, s)
    hows = trainings(data.people)
    of: dict[str, list[Mapping[str, Any]]] = {name: [] for name in hows}
    for seed in range(asked.seeds):
        there = Cloud(world(data, s, s.partitions[0], seed), models_folder(asked))
        for name, how in hows.items():
            settings = {"subject": s.name, "seed": seed, "passes": list(s.passes)} | named(how)
            of[name].append(asked.runs.of(settings, partial(measured, there, how)))
        show(of, s, asked)


har, har_run, cifar10 = each(run, worlds.HAR, worlds.HAR_RUN, worlds.CIFAR)


def measured(there: Cloud, how: Offline) -> dict[str, Any]:
    """H of each layer: `h` (layers, classes, N)."""
    test = there.world.test
    rows = routes(there.modular(how), test.x)
    return {"h": [np.round(matrix(r, test.y, there.world.subject.classes), 5).tolist() for r in rows]}


def overlap(h: Sequence[Sequence[Sequence[float]]], one: int, other: int) -> float:
    """Of two classes, the mean over layers."""
    return fmean(float(np.minimum(np.array(layer[one]), np.array(layer[other])).sum()) for layer in h)


def show(of: Mapping[str, Sequence[Mapping[str, Any]]], s: Subject, asked: Asked) -> None:
    """The first seed's H of the four classes, and the overlaps."""
    four = [c for pair in ALIKE[s.name] for c in pair]
    layers = len(of["enhanced"][0]["h"])
    figure, axes = panels(len(of), layers, width=max(2.6, 7 / layers), height=1.9)
    for row, (name, found) in zip(axes, of.items(), strict=True):
        for i, ax in enumerate(row):
            ax.imshow([found[0]["h"][i][c] for c, _ in four], cmap="Blues", vmin=0, aspect="auto")
            ax.grid(visible=False)
            ax.set(title=f"layer {i + 1}, {name}", xlabel="module")
            ax.set_yticks(range(4), [what for _, what in four] if not i else [""] * 4)
    save(figure, asked.out / asked.name)
    pairs = [(a, b, (a, b) in ALIKE[s.name]) for a, b in combinations(four, 2)]
    rows: list[list[object]] = [
        [
            f"{a[1]}, {b[1]}" + (" (alike)" if alike else ""),
            *(spread([overlap(f["h"], a[0], b[0]) for f in found], 2) for found in of.values()),
        ]
        for a, b, alike in sorted(pairs, key=lambda p: not p[2])
    ]
    (asked.out / "table.md").write_text(markdown([f"{s.name}: overlap of", *of], rows))
