"""How far devices' updates are apart: ECLM's Fig. 14 (§7.4).

    olearning experiment eclm-divergence-har --data FOLDER --out DIR

The variance over devices of what each changed in a round, a value, the mean over values (paper: "calculate their variance as a divergence
metric"); of modules, over those devices that trained them, and values that fewer than two trained are left out. Beside it the share of
updates that cancels: variance / mean square, 0 if all change alike, 1 if the mean is nothing. Global model (FedAvg) on IID data, on each
partition, and ECLM on each.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean

import numpy as np

from experiments.asked import Asked
from experiments.drawing import COLOURS, band, markdown, panels, save, spread
from experiments.eclm import worlds
from experiments.eclm.cloud import Cloud, Offline
from experiments.eclm.ways import Eclm, FedAvg, participants
from experiments.eclm.worlds import ALL, Float32, Subject, each, load, models_folder, subject, world

ROUNDS, QUICK = 10, 2


def run(asked: Asked, whole: Subject) -> None:
    """Fig. 14: all lines, a seed after another."""
    s = subject(asked, whole)
    data, number = load(asked, s), QUICK if asked.quick else ROUNDS
    lines = [
        ("fedavg", ALL),
        *(("fedavg", p) for p in s.partitions),
        *(("eclm", p) for p in s.partitions),
        ("eclm", ALL),
    ]
    of: dict[tuple[str, int], list[Sequence[Sequence[float]]]] = {line: [] for line in lines}
    for seed in range(asked.seeds):
        for way, partition in lines:
            there = Cloud(world(data, s, partition, seed), models_folder(asked))
            settings = {"subject": s.name, "partition": partition, "seed": seed, "way": way, "rounds": number}
            of[way, partition].append(asked.runs.of(settings, partial(measured, there, way, number)))
            asked.say(f"{s.name} {partition}, seed {seed}, {way}")
        show(of, s, asked)


har, har_run, cifar10, speech = each(run, worlds.HAR, worlds.HAR_RUN, worlds.CIFAR, worlds.WORDS)


def measured(there: Cloud, way: str, number: int) -> list[tuple[float, float]]:
    """Of each round the variance a value, and the share that cancels."""
    fed: FedAvg | Eclm = FedAvg(there) if way == "fedavg" else Eclm(there, there.modular(Offline()))
    data = {d.number: there.world.of(d)[0] for d in there.world.devices}
    out = []
    for r in range(1, number + 1):
        fed.round([(d, data[d.number]) for d in participants(there.world, there.world.subject.participants, r)], r)
        out.append(divergence([u if isinstance(u, dict) else {0: u} for u in fed.updates]))
    return out


def divergence(updates: Sequence[Mapping[int, Float32]]) -> tuple[float, float]:
    """Of what devices changed, by block: the mean over values of the variance over who has them; and that by the mean square."""
    variance = square = values = 0.0
    for b in {b for u in updates for b in u}:
        those = np.stack([u[b] for u in updates if b in u]).astype(np.float64)
        if len(those) > 1:
            variance += float(those.var(axis=0).sum())
            square += float((those**2).mean(axis=0).sum())
            values += those.shape[1]
    return (variance / values, variance / square) if square else (0.0, 0.0)


def show(of: Mapping[tuple[str, int], Sequence[Sequence[Sequence[float]]]], s: Subject, asked: Asked) -> None:
    """Either measure by round."""
    figure, (axes,) = panels(1, 2, width=4.6)
    rows: list[list[object]] = []
    for n, ((way, partition), found) in enumerate(of.items()):
        label = (
            {"fedavg": "global model", "eclm": "ECLM"}[way]
            + ", "
            + {0: "one person", ALL: "IID"}.get(partition, f"{partition} classes")
        )
        for ax, at in zip(axes, (0, 1), strict=True):
            band(
                ax,
                range(1, len(found[0]) + 1),
                [[p[at] for p in line] for line in found],
                color=COLOURS[n],
                label=label,
            )
        means = [[fmean(p[at] for p in line) for line in found] for at in (0, 1)]
        rows.append([label, spread([1e6 * v for v in means[0]], 2), spread(means[1], 3)])
    axes[0].set(title=s.name, xlabel="round", ylabel="variance of updates, a value")
    axes[1].set(title=s.name, xlabel="round", ylabel="share of updates that cancels", ylim=(0, 1))
    axes[1].legend(fontsize=7)
    save(figure, asked.out / asked.name)
    (asked.out / "table.md").write_text(markdown([s.name, "variance a value [1e-6]", "share that cancels"], rows))
