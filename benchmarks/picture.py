"""The picture of what `olearning bench … --json` measured: cost over devices, model size, codec, workers and tasks, and a round.

    python -m benchmarks.picture OUT LINES.jsonl…

Writes OUT.png and OUT.svg. What a file lacks is left out of its panel.
"""

import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.line import count

Row = dict[str, Any]
LIMIT = {"color": "0.45", "linestyle": "--", "linewidth": 1}
COLOURS = {"1.2M": "#0072b2", "11.2M": "#d55e00", "21.3M": "#009e73", "10k": "#cc79a7"}
"""Okabe and Ito's, which all eyes tell apart."""


def read(paths: Iterable[Path]) -> list[Row]:
    """The lines, with what their case names as fields of their own: `workers`, `devices`, `parameters`, `codec`, `tasks`."""
    rows = []
    for path in paths:
        for text in path.read_text().splitlines():
            row = json.loads(text)
            row |= dict(re.findall(r"(\w+)=(\S+)", row["case"]))
            row["stage"] = row["case"].split()[0]
            rows.append({"workers": "1", "tasks": "1", "codec": "int32"} | row)
    return rows


def draw(rows: list[Row], to: Path) -> None:
    figure, panels = plt.subplots(2, 3, figsize=(13, 7.2), layout="constrained")
    consume = [r for r in rows if r["bench"] == "aggregate" and r["stage"] == "consume"]
    single = [r for r in consume if r["tasks"] == "1" and r["codec"] == "int32"]
    _over(panels[0, 0], [r for r in single if r["workers"] == "1"], "devices", lambda r: r["value"], "value")
    panels[0, 0].set(title="read from Kafka and add, 1 worker", xlabel="devices", ylabel="MB/s", ylim=0)
    _over(panels[0, 1], [r for r in single if r["workers"] == "1"], "devices", lambda r: r["peak_rss_mb"], "memory")
    for size, of in _by(single, "parameters").items():
        peers = [r for r in of if "peer_peak_mb" in r["settings"]]
        if peers:
            xs, ys = zip(*sorted((int(r["devices"]), r["settings"]["peer_peak_mb"]) for r in peers), strict=True)
            panels[0, 1].plot(xs, ys, ":", color=_colour(size), label=f"Flower, {size}")
    panels[0, 1].set(title="memory of an aggregator (less idle)", xlabel="devices", ylabel="MB", yscale="log")
    panels[0, 1].legend(fontsize=6, loc="lower right", ncols=2)
    _workers(panels[0, 2], single)
    _tasks(panels[1, 0], [r for r in consume if r["codec"] == "int32"])
    _codecs(panels[1, 1], rows)
    _rounds(panels[1, 2], [r for r in rows if r["bench"] == "round"])
    for ax in panels.flat:
        ax.grid(alpha=0.25)
    for suffix in (".png", ".svg"):
        figure.savefig(to.with_suffix(suffix), dpi=130)


def _colour(size: str) -> str:
    return COLOURS.get(size, "0.3")


def _by(rows: Iterable[Row], name: str) -> dict[str, list[Row]]:
    out: dict[str, list[Row]] = defaultdict(list)
    for r in rows:
        out[r[name]].append(r)
    return dict(sorted(out.items(), key=lambda x: count(x[0]) if x[0][0].isdigit() else 0))


def _over(ax: Any, rows: list[Row], x: str, y: Callable[[Row], float], what: str) -> None:
    for size, of in _by(rows, "parameters").items():
        of.sort(key=lambda r: int(r[x]))
        xs = [int(r[x]) for r in of]
        ax.plot(xs, [y(r) for r in of], "o-", color=_colour(size), label=f"{size} parameters")
        limit = [r["limit"] if what == "value" else r["memory_limit_mb"] for r in of]
        ax.plot(xs, limit, color=_colour(size), linestyle="--", linewidth=1, alpha=0.6)
    ax.plot([], [], **LIMIT, label="limit" if what == "value" else "allowed")
    ax.legend(fontsize=7)


def _workers(ax: Any, rows: list[Row]) -> None:
    for size, of in _by(rows, "parameters").items():
        most = max(int(r["devices"]) for r in of)
        of = sorted((r for r in of if int(r["devices"]) == most), key=lambda r: int(r["workers"]))
        xs = [int(r["workers"]) for r in of]
        ax.plot(xs, [r["value"] for r in of], "o-", color=_colour(size), label=f"{size}, {most} devices")
        ax.plot(xs, [r["limit"] for r in of], color=_colour(size), linestyle="--", linewidth=1, alpha=0.6)
    ax.plot([], [], **LIMIT, label="as many plain clients")
    ax.set(title="workers (2 cores, broker on them)", xlabel="workers", ylabel="MB/s", ylim=0, xticks=[1, 2])
    ax.legend(fontsize=7)


def _tasks(ax: Any, rows: list[Row]) -> None:
    several = [r for r in rows if r["tasks"] != "1"]
    if several:
        size = several[0]["parameters"]
        total = max(int(r["tasks"]) * int(r["devices"]) for r in several)
        one = [r for r in rows if (r["tasks"], r["workers"], r["parameters"]) == ("1", "1", size)]
        of = several + sorted(one, key=lambda r: abs(int(r["devices"]) - total))[:1]  # the one of as many bytes
        of.sort(key=lambda r: int(r["tasks"]))
        xs = [int(r["tasks"]) for r in of]
        ax.plot(xs, [r["value"] for r in of], "o-", color=_colour(size), label=f"{size} parameters")
        ax.plot(xs, [r["limit"] for r in of], **LIMIT, label="plain client")
        ax.legend(fontsize=7)
    ax.set(title="tasks at one worker, the same bytes", xlabel="tasks", ylabel="MB/s", ylim=0)


def _codecs(ax: Any, rows: list[Row]) -> None:
    of = [r for r in rows if r["bench"] == "aggregate" and r["stage"] == "add"]
    of.sort(key=lambda r: (count(r["parameters"]), r["codec"]))
    names = [f"{r['codec']}\n{r['parameters']}" for r in of]
    ax.bar(names, [r["settings"]["million_values_s"] for r in of], color=[_colour(r["parameters"]) for r in of])
    ax.set(title="add from memory, one thread", ylabel="million values/s")
    ax.tick_params(axis="x", labelsize=7)


def _rounds(ax: Any, rows: list[Row]) -> None:
    rows = sorted(rows, key=lambda r: count(r["parameters"]))
    xs = range(len(rows))
    for n, (label, colour, y) in enumerate(
        (
            ("this", "#0072b2", lambda r: r["value"]),
            ("Flower", "#e69f00", lambda r: r.get("peer_value")),
            ("bare TCP, nothing stored", "0.6", lambda r: r["limit"]),
        )
    ):
        ys = [y(r) or 0 for r in rows]
        ax.bar([x + 0.27 * (n - 1) for x in xs], ys, 0.26, color=colour, label=label)
    ax.set(title="a round of 10 devices that train nothing", ylabel="s", yscale="log")
    ax.set_xticks(list(xs), [r["parameters"] for r in rows])
    ax.legend(fontsize=7)


if __name__ == "__main__":
    draw(read(map(Path, sys.argv[2:])), Path(sys.argv[1]))
