"""The picture and the tables of `experiments/storage.py`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.drawing import COLOURS, band, markdown, panels, save, spread
from experiments.worked import SUM, WRITE, WRITE_MIXED

Day = Mapping[str, Any]
"""By name of a way, what the day came to with it."""
Workers = Sequence[Mapping[str, Mapping[str, int]]]
"""By number of tasks, bound (s) and way, how many workers it takes."""
OWN, POOLED = "task-oriented, own workers", "task-oriented, one pool"
SLOW = "shared, a commit in 10 min"
WAYS = ("shared", SLOW, "shared, as many workers", OWN, POOLED)
CRASHES = ("crashes", "crashes, a commit in 10 min")
MANNERS = {"own": OWN, "pooled": POOLED, "shared": "shared"}
DAY_S, GB = 86_400, 1_000


def tables(days: Sequence[Day], workers: Sequence[Workers], many: Sequence[int]) -> str:
    """Mean ± standard deviation over seeds."""
    parts = [
        ("What is held, and at what latency", _held(days)),
        ("Efficiency gain over task-oriented aggregation", _gains(days)),
        ("Workers that it takes", _needed(workers, many)),
        ("What a crash costs", _crashes(days)),
    ]
    return "\n".join(f"**{title}**\n\n{table}" for title, table in parts)


def _all(days: Sequence[Day], way: str, *keys: str, one: float = 1) -> list[float]:
    out = []
    for d in days:
        x: Any = d[way]
        for key in keys:
            x = x[key]
        out.append(x / one)
    return out


def _held(days: Sequence[Day]) -> str:
    head = ["way", "workers", "p99, s", "p99 by the queues, s", "busy worker-hours", f"if a sum takes {WRITE_MIXED} s",
            "sums written, GB", "in the service: peak, GB", "mean, GB", "mean as % of its peak", "to lose nothing: peak, GB",
            "mean, GB"]  # fmt: skip
    rows = []
    for way in WAYS:
        peak, average = (_all(days, way, "held", "service", x, one=GB) for x in ("peak", "mean"))
        rows.append([
            way,
            spread(_all(days, way, "workers"), 0),
            spread(_all(days, way, "p99_s"), 2),
            spread(_all(days, way, "model_p99_s"), 2),
            spread(_all(days, way, "busy_s", one=3600), 2),
            spread([_busy_mixed(d[way]) / 3600 for d in days], 2),
            spread([x * SUM / 1e9 for x in _all(days, way, "sums")], 0),
            spread(peak, 2),
            spread(average, 2),
            spread([100 * a / p for a, p in zip(average, peak, strict=True)], 0),
            *(spread(_all(days, way, "held", "kept", x, one=GB), 2) for x in ("peak", "mean")),
        ])  # fmt: skip
    return markdown(head, rows)


def _busy_mixed(came: Mapping[str, Any]) -> float:
    """Seconds of work, if sums are written while deltas are added."""
    return float(came["busy_s"] - came["sums"] * (WRITE - WRITE_MIXED))


def _gains(days: Sequence[Day]) -> str:
    head = ["shared, against", "the paper", "worker-seconds, allotted", "busy", f"busy, if a sum takes {WRITE_MIXED} s",
            "byte-hours in the service", "byte-hours to lose nothing"]  # fmt: skip
    rows = []
    for ours in ("shared", SLOW):
        for theirs in (OWN, POOLED):
            gains = [[100 * (1 - a / b) for a, b in zip(_costs(d[ours]), _costs(d[theirs]), strict=True)] for d in days]
            said = "over 40 to 50 %" if theirs == OWN else "–"
            rows.append([f"{ours}; {theirs}", said, *(f"{spread(g, 0)} %" for g in zip(*gains, strict=True))])
    return markdown(head, rows)


def _costs(came: Mapping[str, Any]) -> tuple[float, ...]:
    """What a gain is counted in."""
    held = came["held"]
    return came["workers"], came["busy_s"], _busy_mixed(came), held["service"]["mean"], held["kept"]["mean"]


def _needed(workers: Sequence[Workers], many: Sequence[int]) -> str:
    bounds = list(workers[0][0])
    head = ["tasks", *(f"{MANNERS[m]}, p99 ≤ {b} s" for b in bounds for m in MANNERS)]
    rows = [
        [n, *(spread([w[i][b][m] for w in workers], 0) for b in bounds for m in MANNERS)] for i, n in enumerate(many)
    ]
    return markdown(head, rows)


def _crashes(days: Sequence[Day]) -> str:
    head = ["way", "crashes", "uploaded again, the paper's rule: GB a crash", "uploaded again, here: GB",
            "read again from the log: GB a crash", "p99, s", "longest, s"]  # fmt: skip
    rows = []
    for way in CRASHES:
        count = _all(days, way, "crashes")
        rows.append([
            way,
            f"{sum(count):.0f}",
            spread([mean(d[way]["lost_mb"]) / GB for d in days], 2),
            "0",
            spread([a / n for a, n in zip(_all(days, way, "again_mb", one=GB), count, strict=True)], 2),
            spread(_all(days, way, "p99_s"), 2),
            spread(_all(days, way, "most_s"), 2),
        ])  # fmt: skip
    return markdown(head, rows)


# ------------------------------------------------------------------ the picture


def picture(days: Sequence[Day], workers: Sequence[Workers], many: Sequence[int], to: Path) -> None:
    figure, ((day, kept), (needs, crashed)) = panels(2, 2, 5.2, 3.6)
    lines: Iterable[tuple[str, str]] = ((OWN, COLOURS[1]), ("shared", COLOURS[0]), (SLOW, COLOURS[2]))
    for way, colour in lines:
        for ax, what in ((day, "service"), (kept, "kept")):
            share = [_share(d[way]["held"][what]["tens"], d[OWN]["held"][what]["tens"]) for d in days]
            hours = [1 + (10 * i + 5) / 60 for i in range(len(share[0]))]
            band(ax, hours, share, color=colour, label=way)
    day.set(title="held by the aggregation (after Fig. 9)", ylabel="% of task-oriented's peak")
    kept.set(title="held so that no crash loses anything", ylabel="% of task-oriented's peak")
    for ax in (day, kept):
        ax.set(xlabel="hour (UTC)", ylim=(0, None))
        ax.legend(fontsize=7)
    _draw_needed(needs, workers, many)
    _draw_crashes(crashed, days)
    save(figure, to)


def _share(mb: Sequence[float], of: Sequence[float]) -> list[float]:
    return [100 * x / max(of) for x in mb]


def _draw_needed(ax: Any, workers: Sequence[Workers], many: Sequence[int]) -> None:
    bounds = list(workers[0][0])
    colours = dict(zip(MANNERS, (COLOURS[1], COLOURS[3], COLOURS[0]), strict=True))
    for b, style in zip(bounds, ("-", ":"), strict=True):
        for m, name in MANNERS.items():
            lines = [[tasks[b][m] for tasks in w] for w in workers]
            band(ax, many, lines, color=colours[m], linestyle=style, label=f"{name}, p99 ≤ {b} s")
    ax.set(title="workers that it takes (after Fig. 2)", xlabel="tasks", yscale="log", xscale="log")
    ax.legend(fontsize=6)


def _draw_crashes(ax: Any, days: Sequence[Day]) -> None:
    lost = sorted(x / GB for d in days for x in d[CRASHES[0]]["lost_mb"])
    ax.plot(
        range(1, len(lost) + 1),
        lost,
        "o",
        color=COLOURS[1],
        markersize=3,
        label="the paper's rule: devices upload again",
    )
    for way, colour in zip(CRASHES, (COLOURS[0], COLOURS[2]), strict=True):
        again = mean(d[way]["again_mb"] / d[way]["crashes"] / GB for d in days)
        commits = way.removeprefix(CRASHES[0]) or ", a commit in 9 s"
        ax.axhline(again, color=colour, linestyle=":", label=f"read again from the log, mean{commits}")
    ax.axhline(0, color=COLOURS[6], label="here: devices upload again")
    ax.set(title="after a crash of one of two workers", xlabel="crashes, by what was lost", ylabel="GB")
    ax.legend(fontsize=7)
