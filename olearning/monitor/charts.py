"""The charts' options for ECharts, and in words what each shows, for who cannot see it. Pure functions.

Text is coloured by the page's style, which knows whether it is dark. Lines differ by colour, dash and mark.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from olearning.monitor.trend import Trend
from olearning.snapshot import RoundPoint, RoundView, TaskView, TenantView, ZoneView

Options = dict[str, Any]
Drawn = tuple[Options, str]
"""A chart and its words."""

COLOURS = ("#3f8efc", "#f0960e", "#12a37f", "#d36bb0", "#7f7be0", "#56b4e9", "#c8553d", "#8a8f98")
"""After Okabe and Ito: apart for all eyes, on white and on black."""
MARKS = ("circle", "rect", "triangle", "diamond", "pin", "roundRect", "arrow", "circle")
DASHES = ("solid", "dashed", "dotted")
FAINT = "rgba(128,136,150,.22)"
MOST_LINES = len(COLOURS)


def _base(x: Options, y: Options | list[Options], **more: Any) -> Options:
    return {
        "animationDuration": 300,
        "animationDurationUpdate": 300,
        "color": list(COLOURS),
        "grid": {"left": 8, "right": 14, "top": 34, "bottom": 6, "containLabel": True},
        "legend": {"type": "scroll", "top": 0, "left": 0, "itemWidth": 26, "itemHeight": 9},
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            "backgroundColor": "var(--card)",
            "borderColor": "var(--line)",
            "textStyle": {"color": "var(--ink)", "fontSize": 12},
        },
        "xAxis": {
            "axisLine": {"lineStyle": {"color": FAINT}},
            "axisTick": {"show": False},
            "splitLine": {"show": False},
        }
        | x,
        "yAxis": y,
    } | more


def _axis(name: str = "", **more: Any) -> Options:
    line = {"lineStyle": {"color": FAINT}}
    return {"type": "value", "name": name, "nameGap": 10, "splitLine": line, "splitNumber": 4} | more


def _line(n: int, name: str, data: Sequence[Sequence[float | int | None]], **more: Any) -> Options:
    k = n % MOST_LINES
    return {
        "type": "line",
        "name": name,
        "data": [list(p) for p in data],
        "symbol": MARKS[k],
        "symbolSize": 6,
        "showSymbol": len(data) < 60,
        "lineStyle": {"width": 2, "type": DASHES[n % len(DASHES)]},
        "emphasis": {"focus": "series"},
    } | more


def accuracy(tasks: Sequence[TaskView]) -> Drawn:
    """Of each task by epoch, on held-out data; of the first few."""
    drawn = [t for t in tasks if t.accuracy][:MOST_LINES]
    series = [_line(n, t.task, sorted(t.accuracy.items())) for n, t in enumerate(drawn)]
    words = [f"{t.task} {t.accuracy[max(t.accuracy)]:.3f} after epoch {max(t.accuracy)}" for t in drawn]
    options = _base(
        {"type": "value", "minInterval": 1},
        _axis(min=0, max=1, interval=0.25),
        series=series,
    )
    return options, "Accuracy by epoch: " + (", ".join(words) or "no model is scored yet")


def held_out(t: TaskView) -> Drawn:
    """One task's accuracy and loss on held-out data, by epoch."""
    y = [_axis("accuracy", min=0, max=1, interval=0.25), _axis("loss", splitLine={"show": False}, min=0)]
    series = [
        _line(0, "accuracy", sorted(t.accuracy.items())),
        _line(1, "loss", sorted(t.losses.items()), yAxisIndex=1),
    ]
    options = _base({"type": "value", "minInterval": 1}, y, series=series)
    options["grid"]["top"] = 52
    last = max(t.accuracy, default=None)
    known = "not scored yet" if last is None else f"accuracy {t.accuracy[last]:.3f}, loss {t.losses[last]:.3f} after epoch {last}"  # fmt: skip
    return options, f"Held-out data: {known}"


def losses(rounds: Sequence[tuple[ZoneView, RoundView]]) -> Drawn:
    """One task's loss by round and zone, as the devices had it; a round that failed is a gap."""
    drawn = rounds[:MOST_LINES]
    series = [_line(n, z.zone, [(p.round, _short(p.loss)) for p in r.curve], connectNulls=False) for n, (z, r) in enumerate(drawn)]  # fmt: skip
    options = _base(
        {"type": "value", "minInterval": 1, "min": "dataMin"},
        _axis(scale=True),
        series=series,
    )
    words = [f"{z.zone} {_last(r.curve)}" for z, r in drawn]
    return options, "Loss by round: " + (", ".join(words) or "no round yet")


def _short(x: float | None) -> float | None:
    return None if x is None else round(x, 5)


def _last(curve: Sequence[RoundPoint]) -> str:
    known = [p for p in curve if p.loss is not None]
    return f"{known[-1].loss:.3f} in round {known[-1].round}" if known else "none yet"


def deltas(trend: Trend) -> Drawn:
    """Blocks a second over the last minutes, and how many are unread."""
    kinds = {
        "arriving": lambda s: s.blocks,
        "counted": lambda s: s.counted,
        "doubled": lambda s: s.duplicate,
        "late": lambda s: s.late,
        "refused": lambda s: s.refused,
    }
    series = []
    words = []
    for n, (name, of) in enumerate(kinds.items()):
        points = trend.rates(of)
        more: Options = {"areaStyle": {"opacity": 0.12}} if n == 0 else {}
        series.append(_line(n, name, points, showSymbol=False, **more))
        words.append(f"{name} {points[-1][1] if points else 0:.1f} a second")
    x = {"type": "time", "axisLabel": {"hideOverlap": True}}
    return _base(x, _axis("blocks/s", min=0, nameLocation="end"), series=series) | {
        "animation": False,
        "grid": {"left": 8, "right": 14, "top": 52, "bottom": 6, "containLabel": True},
    }, "Delta blocks: " + ", ".join(words)


def shares(tenants: Sequence[TenantView]) -> Drawn:
    """Of each tenant: its part of the weights of those who have open tasks, and of the devices at work."""
    drawn = [t for t in tenants if t.share is not None][:12]
    names = [t.tenant for t in drawn]
    rows: Mapping[str, list[float]] = {
        "by weight": [round(100 * (t.share or 0), 1) for t in drawn],
        "of devices at work": [round(100 * (t.share_now or 0), 1) for t in drawn],
    }
    series = [
        {"type": "bar", "name": name, "data": values, "barMaxWidth": 14, "itemStyle": {"borderRadius": [0, 4, 4, 0]}}
        for name, values in rows.items()
    ]
    options = _base(
        {"type": "value", "max": 100, "axisLabel": {"formatter": "{value} %"}},
        {"type": "category", "data": names, "inverse": True, "axisTick": {"show": False}, "axisLine": {"show": False}},
        series=series,
    )
    words = [
        f"{n} {a:g} % by weight, {b:g} % of devices at work" for n, a, b in zip(names, *rows.values(), strict=True)
    ]
    return options, "Tenants' shares: " + ("; ".join(words) or "nobody has an open task")


def spark(points: Sequence[float], width: int = 120, height: int = 30) -> str:
    """A line without axes, as an SVG; nothing for fewer than two points."""
    if len(points) < 2:
        return ""
    low, high = min(points), max(points)
    tall = (high - low) or 1.0
    step = (width - 6) / (len(points) - 1)
    xy = [(3 + i * step, 3 + (height - 6) * (1 - (p - low) / tall)) for i, p in enumerate(points)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in xy)
    x, y = xy[-1]
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true" class="spark">'
        f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="2" stroke-linejoin="round"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="currentColor"/></svg>'
    )
