"""The figures of a run, drawn from what was recorded of it. matplotlib is loaded only when one is drawn.

Colours are Okabe and Ito's, which colour-blind people can tell apart; lines differ in their markers as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
ZONES = (BLUE, ORANGE, GREEN, PURPLE, SKY)
MARKS = ("o", "s", "^", "D", "v")
QUIET, BLACK = "#555555", "#000000"
SIZE = (11.0, 4.6)
Nights = Mapping[str, Sequence[tuple[int, int]]]
"""By zone, [start, end) in ms."""


@dataclass
class Series:
    """A run as recorded. Times in ms, as the log has them."""

    start: int = 0
    end: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def zones(self) -> list[str]:
        return sorted({z for s in self.samples for z in s["zones"]})

    @property
    def kills(self) -> list[dict[str, Any]]:
        return [n for n in self.notes if n.get("killed")]

    def seconds(self, at: int) -> float:
        return (at - self.start) / 1000

    def column(self, zone: str, what: str) -> list[float]:
        """A number of a zone at each sample; 0 before the zone is there."""
        return [s["zones"].get(zone, {}).get(what, 0) for s in self.samples]

    def scores(self, task: str) -> list[tuple[int, int, float]]:
        """(epoch, when, accuracy), by epoch."""
        last = {
            e["values"]["epoch"]: (e["at"], e["values"]["accuracy"])
            for e in self.events
            if e["kind"] == "evaluation" and e["values"]["task"] == task
        }
        return [(n, *last[n]) for n in sorted(last)]

    def rounds(self, task: str, zone: str) -> list[int]:
        """When the rounds of a zone that gave a model were finalised."""
        return [
            e["at"]
            for e in self.events
            if (e["kind"], e["zone"], e["values"].get("step")) == ("round", zone, "finalised")
            and e["values"]["task"] == task
            and e["values"]["model"]
        ]


def accuracy(run: Series, task: str, to: Path, goal: float, central: float | None, untrained: float | None) -> None:
    """Accuracy of the global model by epoch, and when it was reached beside the rounds of the zones."""
    figure, (left, right) = _figure(1, 2, gridspec_kw={"width_ratios": (2, 3)})
    scores = run.scores(task)
    line = {"color": BLUE, "marker": "o", "linewidth": 2, "markersize": 6, "zorder": 3}
    levels = [
        (central, "central training", GREEN, "--"),
        (goal, "goal", RED, "-."),
        (untrained, "untrained", QUIET, ":"),
    ]
    for axes in (left, right):
        for y, label, colour, dashes in levels:
            if y is not None:
                axes.axhline(y, color=colour, linestyle=dashes, linewidth=1.5, label=f"{label} ({y:.3f})", zorder=2)
        axes.set_ylim(-0.02, 1.02)
        axes.set_ylabel("accuracy on held-out data")
    epochs, times, values = zip(*scores, strict=True) if scores else ((), (), ())
    last = f" ({values[-1]:.3f})" if values else ""
    left.plot(epochs, values, **line, label=f"global model{last}")
    left.set_xlabel("epoch (0: before training)")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set_title("by epoch", loc="left")
    right.step([run.seconds(t) for t in times], values, where="post", **line)
    right.set_xlim(0, 1.02 * max(1.0, run.seconds(run.end)))
    right.set_xlabel("time since the start [s]")
    right.set_title("over time, with the rounds each zone finalised", loc="left")
    right.set_ylim(bottom=-0.02 - 0.06 * len(run.zones))
    for i, zone in enumerate(run.zones):
        at = [run.seconds(t) for t in run.rounds(task, zone)]
        y = -0.04 - 0.06 * i
        style = {"marker": "|", "markersize": 11, "markeredgewidth": 2, "linestyle": "none"}
        right.plot(at, [y] * len(at), color=ZONES[i % len(ZONES)], label=f"rounds of {zone}", **style)
    _kills(run, right)
    _legend(figure, left, right)
    _save(figure, to, f"{task}: accuracy of the global model")


def traffic(run: Series, to: Path, nights: Nights) -> None:
    """What the devices delivered, and what waited to be read."""
    figure, (top, low) = _figure(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 2)}, size=(11.0, 6.2))
    at = [run.seconds(s["at"]) for s in run.samples]
    every = max(1, len(at) // 12)
    most = max((max(run.column(z, "sent_bytes"), default=0) for z in run.zones), default=0)
    unit, size = ("MB", 1e6) if most >= 1e5 else ("kB", 1e3)
    for i, zone in enumerate(run.zones):
        style = {
            "color": ZONES[i % len(ZONES)],
            "marker": MARKS[i % len(MARKS)],
            "markevery": (i * every // 2, every),
            "linewidth": 2,
            "markersize": 5,
        }
        top.plot(at, [b / size for b in run.column(zone, "sent_bytes")], label=zone, **style)
        low.plot(at, run.column(zone, "unread"), label=zone, drawstyle="steps-post", **style)
        for axes in (top, low):
            for n, (start, end) in enumerate(nights.get(zone, ())):
                low_edge = 0.94 - 0.06 * i  # a band for each zone, so that nights may overlap
                span = (max(0.0, run.seconds(start)), min(run.seconds(end), run.seconds(run.end)))
                label = f"night in {zone}" if axes is top and not n else None
                if span[0] < span[1]:
                    colour = ZONES[i % len(ZONES)]
                    axes.axvspan(*span, low_edge, low_edge + 0.055, color=colour, alpha=0.3, linewidth=0, label=label)
                    axes.axvspan(*span, 0, low_edge, color=colour, alpha=0.05, linewidth=0)
    for axes in (top, low):
        _kills(run, axes)
        axes.set_ylim(bottom=0)
        bottom, high = axes.get_ylim()
        axes.set_ylim(bottom, max(high, 1e-3) * (1 + 0.08 * len(run.zones)))
    top.set_xlim(0, 1.02 * max(1.0, run.seconds(run.end)))
    top.set_ylabel(f"deltas delivered [{unit}]")
    top.set_title("deltas that devices sent", loc="left")
    low.set_ylabel("unread [blocks]")
    low.set_title("backlog: blocks in the log that no commit covers yet", loc="left")
    low.set_xlabel("time since the start [s]")
    _legend(figure, top, low)
    _save(figure, to, "Traffic of the run")


def _figure(rows: int, columns: int, size: tuple[float, float] = SIZE, **more: Any) -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", **more)
    for a in axes.flat:
        a.grid(True, color="#dddddd", linewidth=0.8)
        a.set_axisbelow(True)
        a.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _kills(run: Series, axes: Any) -> None:
    for note in run.kills:
        label = f"{note['killed']} killed"
        axes.axvline(run.seconds(note["at"]), color=BLACK, linestyle=(0, (5, 2)), linewidth=1.8, label=label, zorder=4)


def _legend(figure: Any, *axes: Any) -> None:
    """One for all, below: it hides no line."""
    found: dict[str, Any] = {}
    for a in axes:
        for handle, label in zip(*a.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)


def _save(figure: Any, to: Path, title: str) -> None:
    import matplotlib.pyplot as plt

    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    figure.savefig(to, dpi=140)
    plt.close(figure)
