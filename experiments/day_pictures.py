"""The picture and the table of accuracy by day, after OLearning's Figs. 5 and 6.

    python -m experiments.day_pictures FOLDER NAME

draws the runs that are in a folder by now, all or some, and leaves out what it lacks.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.drawing import COLOURS, band, markdown, panels, save, spread
from experiments.record import Runs

SMOOTH = 5
"""Days of the moving average."""
NEAR = 0.01
"""A run has settled when it stays so near to its end, or better."""
NAMES = {
    "olearning": "OLearning",
    "pyramidfl": "PyramidFL",
    "pyramidfl-code": "PyramidFL, the code's utility",
    "oort": "Oort",
    "random": "random",
}
STYLES = {"prox": "-", "yogi": "--", "yogi-globe": ":"}
PAPER = {("har", "prox"): 15.04, ("har", "yogi"): 16.62, ("speech", "prox"): 37.82, ("speech", "yogi"): 30.95}
"""The paper's improvement over PyramidFL with four zones, in per cent, and what it was measured on."""


@dataclass(frozen=True)
class Line:
    """A line of the figure: who chooses devices, the optimiser, and how many zones there are, or how many times as many devices."""

    method: str
    optimiser: str
    zones: int


Done = Mapping[tuple[Line, int], Mapping[str, Any]]
"""By line and seed what came out."""


def smooth(values: Sequence[float], window: int = SMOOTH) -> list[float]:
    """The mean of each value and up to `window` - 1 before it."""
    return [mean(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))]


def final(accuracy: Sequence[float]) -> float:
    """The mean of the last `SMOOTH` days."""
    return mean(accuracy[-SMOOTH:])


def settled(accuracy: Sequence[float]) -> int:
    """The first day, from 1 on, since which the moving average is never more than `NEAR` below the final accuracy."""
    below = [i for i, x in enumerate(smooth(accuracy)) if x < final(accuracy) - NEAR]
    return below[-1] + 2 if below else 1


def reached(accuracy: Sequence[float], target: float) -> int | None:
    """The first day, from 1 on, on which the moving average is at the target."""
    return next((i + 1 for i, x in enumerate(smooth(accuracy)) if x >= target), None)


def at(xs: Sequence[float], accuracy: Sequence[float], x: float) -> float:
    """The mean over the last tenth of what led to x, where `xs`, which rises, says how far each day had come: the same span for lines whose
    days are not alike. Where no day ends in it, that of the last day before, or of the first."""
    days = [i for i, v in enumerate(xs) if 0.9 * x < v <= x] or [i for i, v in enumerate(xs) if v <= x][-1:] or [0]
    return mean(accuracy[i] for i in days)


def by_line(done: Done) -> dict[Line, list[Mapping[str, Any]]]:
    """The runs of each line, one a seed, in the order of the seeds."""
    out: dict[Line, list[Mapping[str, Any]]] = {}
    for (line, _), run in sorted(done.items(), key=lambda x: x[0][1]):
        out.setdefault(line, []).append(run)
    return out


def picture(done: Done, to: Path) -> None:
    """Above by day, a panel for each number of zones; below, of the most zones, by local steps and by bytes."""
    runs = by_line(done)
    zones = sorted({line.zones for line in runs})
    figure, axes = panels(2, max(2, len(zones)))
    for ax, z in zip(axes[0], zones, strict=False):
        for line, some in runs.items():
            if line.zones == z:
                _draw(ax, line, some, "days")
        ax.set(title=_zones(z), xlabel="days", ylabel="accuracy on unseen people")
    for ax, x, label in zip(axes[1], ("steps", "bytes"), ("local steps", "bytes over the air"), strict=False):
        for line, some in runs.items():
            if line.zones == zones[-1]:
                _draw(ax, line, some, x)
        ax.set(title=_zones(zones[-1]), xlabel=label, ylabel="accuracy", xscale="log")
    for ax in [*axes[0, len(zones) :], *axes[1, 2:]]:
        ax.set_visible(False)
    handles, labels = axes[0, len(zones) - 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize=8, ncols=4)
    save(figure, to)


def _draw(ax: Any, line: Line, some: Sequence[Mapping[str, Any]], x: str) -> None:
    days = min(len(run["accuracy"]) for run in some)
    xs = range(1, days + 1) if x == "days" else [mean(run[x][i] for run in some) for i in range(days)]
    ys = [smooth(run["accuracy"])[:days] for run in some]
    colour = COLOURS[list(NAMES).index(line.method)]
    band(
        ax,
        list(xs),
        ys,
        color=colour,
        linestyle=STYLES[line.optimiser],
        label=f"{NAMES[line.method]}, {line.optimiser}",
    )


def table(done: Done, work: str) -> str:
    """A row a line: accuracy at the end, the day it settled, local steps, bytes; and beside PyramidFL what the paper has."""
    runs = by_line(done)
    rows = []
    for line, some in sorted(runs.items(), key=lambda x: (x[0].zones, x[0].optimiser, list(NAMES).index(x[0].method))):
        ends = [final(r["accuracy"]) for r in some]
        rows.append(
            (
                f"{_zones(line.zones)}, {line.optimiser}: {NAMES[line.method]}",
                spread(ends),
                spread([float(settled(r["accuracy"])) for r in some], 0),
                f"{mean(r['steps'][-1] for r in some):,.0f}",
                f"{mean(r['bytes'][-1] for r in some) / 1e9:.1f}",
                f"{mean(r['hours'][-1] for r in some):.1f}",
            )
        )
    head = (
        "line",
        "accuracy, last 5 days",
        "settled on day",
        "local steps",
        "GB over the air",
        "hours of virtual time",
    )
    return markdown(head, rows) + "\n" + _beside(done, work)


def _zones(count: int) -> str:
    return f"{count} zone{'s' * (count > 1)}"


def _beside(done: Done, work: str) -> str:
    """OLearning beside PyramidFL, seed by seed: what it gains after all days, when it is where that ends, and what it has with as many
    steps."""
    rows = []
    for line in sorted({x for x, _ in done if x.method == "olearning"}, key=lambda x: (x.zones, x.optimiser)):
        peer = replace(line, method="pyramidfl")
        seeds = sorted(s for x, s in done if x == line and (peer, s) in done)
        pairs = [(done[line, s], done[peer, s]) for s in seeds]
        if not pairs:
            continue
        gains = [100 * (final(o["accuracy"]) / final(p["accuracy"]) - 1) for o, p in pairs]
        days = [reached(o["accuracy"], final(p["accuracy"])) for o, p in pairs]
        alike = [
            (at(o["steps"], o["accuracy"], m), at(p["steps"], p["accuracy"], m))
            for o, p in pairs
            for m in [min(o["steps"][-1], p["steps"][-1])]
        ]
        rows.append(
            (
                f"{_zones(line.zones)}, {line.optimiser}",
                spread(gains, 1),
                f"{PAPER[work, line.optimiser]}" if line.zones == 4 and (work, line.optimiser) in PAPER else "",
                ", ".join("never" if d is None else str(d) for d in days),
                " / ".join(f"{mean(x):.3f}" for x in zip(*alike, strict=True)),
            )
        )
    head = (
        "OLearning over PyramidFL",
        "% more accurate at the end",
        "the paper",
        "has PyramidFL's last accuracy on day",
        "accuracy of the two after as many local steps",
    )
    return markdown(head, rows)


def main(words: Sequence[str]) -> None:
    """The command."""
    folder, name = Path(words[0]), words[1]
    done: dict[tuple[Line, int], dict[str, Any]] = {}
    work = ""
    for row in Runs(folder, "").rows.values():
        s = row["settings"]
        work = s["work"]
        done[Line(s["method"], s["optimiser"], s["zones"]), s["seed"]] = row["result"]
    picture(done, folder / name)
    (folder / "table.md").write_text(table(done, work))


if __name__ == "__main__":
    main(sys.argv[1:])
