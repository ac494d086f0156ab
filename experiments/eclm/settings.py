"""What ECLM's settings do, which the paper does not name: one factor at a time around where we start (`docs/modular.md`).

    olearning experiment eclm-settings-har --data FOLDER --out DIR

k, λ of the load-balancing loss, λ of the divergence, κ1 (in mean loads), κ2, and whether a layer has a residual module; more than one of
these, which have no parameters, would be the same function again. Each model is that of the offline stage. Said of it: accuracy of all
modules, and of sub-models derived with room for `SMALL` and `MIDDLE` of the modules, as fetched and after three passes over a device's own
data, means over `TESTED` devices; and the coefficient of variation of modules' loads on held-out samples, the mean over layers: 0 if all have
as many. The start, and λ of the load-balancing loss, also of models that are not enhanced: fine-tuning is without that loss.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from experiments.asked import Asked
from experiments.drawing import COLOURS, band, markdown, panels, save, spread
from experiments.eclm import worlds
from experiments.eclm.cloud import Cloud, Offline, with_form
from experiments.eclm.ways import LOCAL, Eclm, accuracy, trained
from experiments.eclm.worlds import Subject, each, load, models_folder, subject, world
from learning.modular.model import routes, sub_model

SMALL, MIDDLE = 0.07, 0.3
START: Mapping[str, float] = {"k": 4, "balance": 0.01, "guide": 0.1, "load": 1.5, "modules": 4, "residual": 1}
"""Where we start, and `FACTORS` what is tried beside it."""
FACTORS: Mapping[str, Sequence[float]] = {
    "k": (1, 2, 8),
    "balance": (0, 0.001, 0.1),
    "guide": (0.01, 1),
    "load": (0.5, 1, 3),
    "modules": (2, 8),
    "residual": (0,),
}
BEFORE = ("balance",)
"""What is tried without enhancing, too."""
TESTED = 30
WORDS = {
    "k": "k",
    "balance": "λ, balance",
    "guide": "λ, divergence",
    "load": "κ1, × mean load",
    "modules": "κ2",
    "residual": "residual modules a layer",
}
POINTS = {
    "all": ("all modules", COLOURS[6]),
    "middle": (f"{100 * MIDDLE:.0f} %", COLOURS[2]),
    "small": (f"{100 * SMALL:.0f} %", COLOURS[1]),
    "middle, adapted": (f"{100 * MIDDLE:.0f} %, adapted", COLOURS[0]),
    "small, adapted": (f"{100 * SMALL:.0f} %, adapted", COLOURS[4]),
}


class Line(NamedTuple):
    """One setting that is not as at the start, and whether modules are enhanced."""

    factor: str
    value: float
    enhanced: bool


def lines(quick: bool) -> list[Line]:
    """All there are; the start is k's."""
    factors = {"k": (1,)} if quick else FACTORS
    out = [Line("k", START["k"], enhanced) for enhanced in (True, False)]
    for factor, values in factors.items():
        out += [Line(factor, v, on) for v in values for on in (True, False) if on or factor in BEFORE]
    return out


def run(asked: Asked, whole: Subject) -> None:
    """The sweep, a seed after another."""
    s = subject(asked, whole)
    data, partition, there = load(asked, s), s.partitions[0], lines(asked.quick)
    of: dict[Line, list[Mapping[str, Any]]] = {line: [] for line in there}
    for seed in range(asked.seeds):
        clouds: dict[int, Cloud] = {}  # by k: trainings of a model begin alike
        for line in there:
            settings = {"subject": s.name, "partition": partition, "seed": seed, "passes": list(s.passes)}
            k = min(int(line.value if line.factor == "k" else START["k"]), s.form.modules)
            if k not in clouds:
                clouds[k] = Cloud(world(data, with_form(s, k=k), partition, seed), models_folder(asked))
            cloud = clouds[k]
            found = asked.runs.of(settings | line._asdict(), partial(measured, cloud, line))
            said = ", ".join(f"{name} {found[name]:.3f}" for name in (*POINTS, "variation"))
            asked.say(
                f"{s.name}, seed {seed}, {line.factor} {line.value:g}{'' if line.enhanced else ', plain'}: {said}"
            )
            of[line].append(found)
        show(of, s, asked)


har, har_run, cifar10 = each(run, worlds.HAR, worlds.HAR_RUN, worlds.CIFAR)


def measured(there: Cloud, line: Line) -> dict[str, float]:
    """Of a model the accuracies of `POINTS`, and `variation` of loads."""
    at = dict(START) | {line.factor: line.value}
    how = Offline(
        balance=at["balance"],
        guide=at["guide"],
        load=at["load"],
        modules=int(at["modules"]),
        enhanced=line.enhanced,
        residual=bool(at["residual"]),
    )
    whole, devices = there.modular(how), there.world.devices[: min(TESTED, there.world.subject.tested)]
    out = {"variation": variation(routes(whole, there.world.test.x))}
    out["all"] = fmean(accuracy(whole, there.world.of(d)[1]) for d in devices)
    for name, share in (("small", SMALL), ("middle", MIDDLE)):
        eclm, fetched, adapted = Eclm(there, whole, share), [], []
        for d in devices:
            mine, test = there.world.of(d)
            part = sub_model(whole, eclm.choice(d, mine))
            fetched.append(accuracy(part, test))
            adapted.append(accuracy(trained(part, mine, LOCAL, "end", d.number), test))
        out[name], out[f"{name}, adapted"] = fmean(fetched), fmean(adapted)
    return out


def variation(rows: Sequence[Any]) -> float:
    """Of modules' loads, their standard deviation by their mean, the mean over layers. `rows`: of each layer who was sent where,
    (samples, N)."""
    loads = [r.sum(axis=0) for r in rows]
    return fmean(float(np.std(load) / np.mean(load)) for load in loads)


# ------------------------------------------------------------------ what is shown


def show(of: Mapping[Line, Sequence[Mapping[str, Any]]], s: Subject, asked: Asked) -> None:
    """Of each factor a panel of accuracies and one of loads, of enhanced models; and a table of all."""
    tried = [f for f in FACTORS if any(line.factor == f for line in of)]
    figure, axes = panels(2, len(tried), width=3.2, height=2.8)
    rows: list[list[object]] = []
    for (above, below), factor in zip(axes.T, tried, strict=True):
        values = sorted({START[factor], *(line.value for line in of if line.factor == factor)})
        for enhanced in (True, False):
            found = {v: of[at] for v in values if (at := _line(factor, v, enhanced)) in of}
            if len(found) < 2:
                continue  # of models that are not enhanced, there is none of this factor
            for name, (label, colour) in POINTS.items() if enhanced else ():
                points = [[100 * r[name] for r in some] for some in found.values()]
                band(
                    above,
                    range(len(found)),
                    list(zip(*points, strict=True)),
                    color=colour,
                    marker="o",
                    markersize=3,
                    label=label,
                )
            points = [[r["variation"] for r in some] for some in found.values()]
            label = "enhanced" if enhanced else "not enhanced"
            band(
                below,
                range(len(found)),
                list(zip(*points, strict=True)),
                color=COLOURS[0 if enhanced else 3],
                marker="o",
                markersize=3,
                label=label,
            )
            for v, some in found.items():
                start = " (start)" if v == START[factor] else ""
                cells = (spread([100 * r[name] for r in some], 1) for name in POINTS)
                rows.append(
                    [f"{WORDS[factor]} {v:g}{start}, {label}", *cells, spread([r["variation"] for r in some], 2)]
                )
        above.set(title=WORDS[factor], ylabel="accuracy [%]")
        below.set(ylabel="variation of loads", ylim=(0, None))
        for ax in (above, below):
            ax.set_xticks(range(len(values)), [f"{v:g}" for v in values])
    axes[0][0].legend(fontsize=6)
    axes[1][min(1, len(tried) - 1)].legend(fontsize=6)  # λ's has both lines
    save(figure, asked.out / asked.name)
    head = [f"{s.name} [%]", *(label for label, _ in POINTS.values()), "variation of loads"]
    (asked.out / "table.md").write_text(markdown(head, rows))


def _line(factor: str, value: float, enhanced: bool) -> Line:
    return Line("k", START["k"], enhanced) if value == START[factor] else Line(factor, value, enhanced)
