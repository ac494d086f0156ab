"""The picture and the table of what `olearning bench plan --json` measured, like OLearning's Figs. 7 and 8.

    python -m benchmarks.plan_picture OUT LINES.jsonl…

Writes OUT.png and prints the table as Markdown. Later lines replace earlier ones of the same case.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.picture import LIMIT, Row, read

WAYS = {
    "by_reward": ("by reward", "#d55e00"),
    "greedy": ("greedy (MTHM)", "#e69f00"),
    "by_slot": ("slot by slot", "#cc79a7"),
    "unhinted": ("CP-SAT 2 s", "#56b4e9"),
    "hinted": ("CP-SAT 2 s, hint", "#0072b2"),
    "plan": ("plan", "#009e73"),
}
"""Okabe and Ito's colours, as in `benchmarks.picture`."""
TIMES = "30-300"
LEAST = 0.968
"""Lower edge of Fig. 8's panels."""
SIZES = {"50": "#cc79a7", "150": "#0072b2", "300": "#d55e00"}


def latest(rows: Iterable[Row], stage: str) -> list[Row]:
    """The last line of each case of this kind: those of the usual times first, then by m and tasks."""
    out = {r["case"]: r for r in rows if r["bench"] == "plan" and r["stage"] == stage}
    return sorted(
        out.values(),
        key=lambda r: (r["times"] != TIMES, r["times"], *map(float, (r["m"], r["tasks"], r.get("seconds", 0)))),
    )


def draw(rows: list[Row], to: Path) -> None:
    """Shares of the best known reward, above by tasks, below by CP-SAT's limit, for three m."""
    figure, panels = plt.subplots(2, 3, figsize=(12, 6.6), layout="constrained")
    fig_7, fig_8 = ([r for r in latest(rows, stage) if r["times"] == TIMES] for stage in ("plan", "within"))
    for above, below, m in zip(*panels, ("5", "20", "50"), strict=True):
        _by_tasks(above, [r for r in fig_7 if r["m"] == m], f"m = {m}")
        _by_limit(below, [r for r in fig_8 if r["m"] == m], f"m = {m}")
    for ax in panels.flat:
        ax.grid(alpha=0.25)
    for row, corner in zip(panels, ("lower left", "lower right"), strict=True):
        row[0].set_ylabel("reward, of the best known")
        row[2].legend(fontsize=6, loc=corner)
    figure.savefig(to.with_suffix(".png"), dpi=90, pil_kwargs={"optimize": True})
    plt.close(figure)


def _by_tasks(ax: Any, rows: list[Row], title: str) -> None:
    xs = [int(r["tasks"]) for r in rows]
    for name, (label, colour) in WAYS.items():
        style = {"linewidth": 3, "alpha": 0.5} if name == "plan" else {"marker": "o", "markersize": 3, "linewidth": 1}
        ax.plot(xs, [r["settings"]["share"][name] for r in rows], color=colour, label=label, **style)
    ax.plot(xs, [r["limit"] / r["peer_value"] for r in rows], **LIMIT, label="no plan is above")
    ax.set(title=title, xlabel="tasks", ylim=(0.45, 1.05))


def _by_limit(ax: Any, rows: list[Row], title: str) -> None:
    for tasks, colour in SIZES.items():
        of = [r for r in rows if r["tasks"] == tasks]
        xs = [float(r["seconds"]) for r in of]
        for name, style in (("hinted", "o-"), ("unhinted", "s:"), ("greedy", "--")):
            label = {"hinted": f"{tasks} tasks, hint", "unhinted": f"{tasks}, without", "greedy": f"{tasks}, greedy"}[
                name
            ]
            ys = [max(r["settings"]["share"][name], LEAST) for r in of]
            ax.plot(xs, ys, style, color=colour, markersize=3, linewidth=1, label=label)
    ax.set(title=f"{title} (lower edge: less, or none)", xlabel="CP-SAT's limit [s]", xscale="log", ylim=(LEAST, 1.003))


def table(rows: list[Row]) -> Iterator[str]:
    """As Markdown: what plans are worth, in percent of the best known; how far greedy's is below the bound, and what CP-SAT adds to
    it; and ms. Without sizes where all tasks fit."""
    yield f"| times [s] | m | tasks | best of bound | {' | '.join(label for label, _ in WAYS.values())} | below | gain | ms: greedy | hint | plan |"
    yield "|---|--:|--:|--:|" + "--:|" * (len(WAYS) + 5)
    for r in latest(rows, "plan"):
        share, took = r["settings"]["share"], r["settings"]["took"]
        if not below(r):
            continue
        cells = [
            r["times"],
            r["m"],
            r["tasks"],
            *(f"{100 * x:.1f}" for x in (r["peer_value"] / r["limit"], *map(share.get, WAYS))),
        ]
        cells += [f"{below(r):.1f}", f"{gain(r):.1f}", *(_ms(took[n]) for n in ("greedy", "hinted", "plan"))]
        yield f"| {' | '.join(cells)} |"


def below(row: Row) -> float:
    """How far greedy's plans are below the bound [%]."""
    return 100 * max(0.0, 1 - row["settings"]["share"]["greedy"] * row["peer_value"] / row["limit"])


def gain(row: Row) -> float:
    """What CP-SAT, starting from greedy's plan, adds to it in 2 s [%]."""
    share = row["settings"]["share"]
    return 100 * (share["hinted"] / share["greedy"] - 1)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.0f}" if seconds >= 0.01 else f"{1000 * seconds:.1f}"


if __name__ == "__main__":
    lines = read(map(Path, sys.argv[2:]))
    draw(lines, Path(sys.argv[1]))
    print(*table(lines), sep="\n")
