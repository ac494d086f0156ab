"""What limits do: ECLM's Fig. 15 (§7.5): the size of sub-models, the number of modules, and how many devices take part in a round.

    olearning experiment eclm-limits-har --data FOLDER --out DIR

(a) all devices have room for the same share of the modules; (b) N modules a layer, each as wide as before; (c) 20 to 80 devices a round, and
the time until the mean accuracy first reaches a target (`CLOSE` of the way from where FedAvg begins to what the least of all lines comes
to), as modelled: a round takes as long as its slowest device, its multiplications at `SPEED` and its bytes at `BAND`, which stand for the
table's median phone; others are faster or slower as their CPU scores are.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from experiments.asked import Asked
from experiments.drawing import COLOURS, band, markdown, panels, save, spread
from experiments.eclm import worlds
from experiments.eclm.accuracy import CLOSE, reached
from experiments.eclm.cloud import Cloud, Offline, with_form
from experiments.eclm.ways import LOCAL, Eclm, FedAvg, participants, rounds
from experiments.eclm.worlds import BEST, Device, Samples, Subject, each, load, models_folder, subject, world
from learning.modular.costs import measure

SHARES = (0.1, 0.2, 0.3, 0.5, 1.0)
MODULES = (8, 16, 32)
MANY = (20, 40, 60, 80)
ROUNDS = 12
SPEED, BAND, MEDIAN = 2e9, 1e6, 6.1
"""Multiplications and bytes a second of a phone of CPU score `MEDIAN`, the table's median."""


Line = tuple[str, float]
Results = Mapping[Line, Sequence[Mapping[str, Any]]]


def run(asked: Asked, whole: Subject) -> None:
    """Fig. 15: all three panels."""
    s = subject(asked, whole)
    data, partition = load(asked, s), s.partitions[0]
    shares, modules, many = ((0.5,), (4,), (2, 3)) if asked.quick else (SHARES, MODULES, MANY)
    lines: list[Line] = [("size", x) for x in shares] + [("modules", n) for n in modules]
    lines += [(way, n) for n in many for way in ("fedavg", "eclm")]
    of: dict[Line, list[Mapping[str, Any]]] = {line: [] for line in lines}
    for seed in range(asked.seeds):
        for line in lines:
            what, value = line
            form = with_form(s, modules=int(value)) if what == "modules" else s
            there = Cloud(world(data, form, partition, seed), models_folder(asked))
            settings = {
                "subject": s.name,
                "partition": partition,
                "seed": seed,
                "what": what,
                "value": value,
                "rounds": min(s.rounds, ROUNDS),
            }
            found = asked.runs.of(settings, partial(measured, there, line))
            asked.say(f"{s.name}, seed {seed}, {what} {value}: {found['fetched']:.4f} {found['adapted']:.4f}")
            of[line].append(found)
            if line in (lines[len(shares) + len(modules) - 1], lines[-1]):
                show({at: rows for at, rows in of.items() if len(rows) == seed + 1}, s, asked)


har, cifar10, speech = each(run, worlds.HAR, worlds.CIFAR, worlds.WORDS)


def measured(there: Cloud, line: Line) -> dict[str, Any]:
    """A run of rounds as `ways.rounds` says it; `seconds`: of each round, as modelled."""
    what, value = line
    s = there.world.subject
    fed: FedAvg | Eclm
    if what == "fedavg":
        fed = FedAvg(there)
    else:
        fed = Eclm(there, there.modular(Offline()), value if what == "size" else None)
    many = int(value) if what in ("fedavg", "eclm") else s.participants
    return rounds(fed, there.world, many, min(s.rounds, ROUNDS), s.every) | {"seconds": seconds(there, fed, many)}


def seconds(there: Cloud, fed: FedAvg | Eclm, many: int) -> list[float]:
    """How long each round takes: its slowest device."""
    s = there.world.subject
    plain = measure(there.network(), s.shape)[1]

    def one(d: Device, mine: Samples) -> float:
        if isinstance(fed, FedAvg):
            macs, sent = plain, 4 * len(fed.vector)
        else:
            cost = fed.structure.cost(fed.choice(d, mine))
            macs, sent = cost.macs, cost.bytes
        return (3 * macs * LOCAL.epochs * len(mine) / SPEED + 2 * sent / BAND) * MEDIAN / (d.room[1] * BEST["cpu"])

    each = {d.number: one(d, there.world.of(d)[0]) for d in there.world.devices}
    return [
        max(each[d.number] for d in participants(there.world, many, r)) for r in range(1, min(s.rounds, ROUNDS) + 1)
    ]


def until(found: Mapping[str, Any], accuracy: float) -> tuple[float, float] | None:
    """(rounds, seconds) until a mean accuracy; None if never."""
    hit = reached(found["curve"], accuracy)
    return None if hit is None else (hit[0], sum(found["seconds"][: int(hit[0])]))


def show(of: Results, s: Subject, asked: Asked) -> None:
    """The three panels and three tables."""
    figure, (axes,) = panels(1, 3, width=4.4)
    tables = []
    for ax, what, words in ((axes[0], "size", "share of the modules"), (axes[1], "modules", "modules a layer")):
        xs = [v for w, v in of if w == what]
        for kind, colour in (("fetched", COLOURS[2]), ("adapted", COLOURS[0])):
            lines = list(zip(*([f[kind] for f in of[what, x]] for x in xs), strict=True))
            band(ax, xs, lines, color=colour, marker="o", markersize=3, label=kind)
        ax.set(title=f"{s.name}: {what}", xlabel=words, ylabel="accuracy")
        ax.legend(fontsize=7)
        rows = [[f"{x:g}", *(spread([100 * f[k] for f in of[what, x]], 2) for k in ("fetched", "adapted"))] for x in xs]
        tables.append(markdown([words, "fetched [%]", "adapted [%]"], rows))
    many = [v for w, v in of if w == "eclm"]
    if many:
        tables.append(_participants(of, many, axes[2], s))
    save(figure, asked.out / asked.name)
    (asked.out / "table.md").write_text("\n".join(tables))


def _participants(of: Results, many: Sequence[float], ax: Any, s: Subject) -> str:
    """The panel, and its table."""
    seeds = range(len(of["eclm", many[0]]))
    goals = [_goal(of, i) for i in seeds]
    rows: list[list[object]] = []
    for way, label, colour in (("fedavg", "FedAvg", COLOURS[1]), ("eclm", "ECLM", COLOURS[2])):
        hits = {n: [until(of[way, n][i], goals[i]) for i in seeds] for n in many}
        means = [(n, fmean(h[1] for h in hits[n] if h)) for n in many if any(hits[n])]
        ax.plot([n for n, _ in means], [t for _, t in means], marker="o", color=colour, label=label)
        first = hits[many[0]]
        for n in many:
            gain = [a[1] / b[1] for a, b in zip(first, hits[n], strict=True) if a and b and b[1]]
            rows.append(
                [
                    f"{label}, {n:g}",
                    spread([h[0] for h in hits[n] if h], 1),
                    spread([h[1] for h in hits[n] if h], 1),
                    spread(gain, 2),
                    {("eclm", 80): "2.33", ("fedavg", 80): "1.06"}.get((way, int(n)), ""),
                ]
            )
    ax.set(
        title=f"{s.name}: participants",
        xlabel="devices a round",
        ylabel="modelled seconds to the target",
        ylim=(0, None),
    )
    ax.legend(fontsize=7)
    head = [
        f"participants, to {spread([100 * g for g in goals], 2)} %",
        "rounds",
        "modelled s",
        f"times faster than {many[0]:g}",
        "the paper",
    ]
    return markdown(head, rows)


def _goal(of: Results, i: int) -> float:
    curves = [found[i]["curve"] for (what, _), found in of.items() if what in ("fedavg", "eclm")]
    start = next(found[i]["curve"][0][2] for (what, _), found in of.items() if what == "fedavg")
    least = min(max(p[2] for p in c) for c in curves)
    return float(start + CLOSE * (least - start))
