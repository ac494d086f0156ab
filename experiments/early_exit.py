"""What early exit saves, and what it costs (OLearning §7.1, which says that one can stop early and gives no figure).

The same runs with and without a rule that ends a task: two zones of 26 devices on HAPT's features, 60 days at most. Saved are days, local
steps and bytes of the run without a rule; lost is accuracy, of the last model beside that run's last five days.
"""

from collections.abc import Mapping
from functools import partial
from statistics import mean
from typing import Any

from experiments import works
from experiments.asked import Asked
from experiments.day_pictures import STYLES, final, smooth
from experiments.drawing import COLOURS, band, markdown, panels, save, spread
from experiments.two_layers import Size, by_day, scenario
from learning.rewards import FLOOR

RULES: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "accuracy 0.85": {"accuracy": 0.85},
    "patience 5": {"patience": 5, "delta": 0.01},
    "patience 10": {"patience": 10, "delta": 0.001},
    "reward": {"reward": FLOOR},
}
"""What a task file says in `[stop]`. The last: no zone makes progress (eq. 2 at its floor in all of them)."""
ZONES = 2

Runs = Mapping[tuple[str, str], list[Mapping[str, Any]]]
"""By optimiser and rule the runs, one a seed."""


def run(asked: Asked) -> None:
    """All rules with both optimisers and all seeds, then the picture and the table."""
    size = Size(devices=4, demand=3, rounds=2, days=6) if asked.quick else Size(days=60)
    runs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    with (works.digits if asked.quick else works.features)(asked) as work:
        for seed in range(1, asked.seeds + 1):
            for optimiser in ("prox", "yogi"):
                for rule, stop in RULES.items():
                    settings = {
                        "work": work.name,
                        "days": size.days,
                        "optimiser": optimiser,
                        "rule": rule,
                        "seed": seed,
                    }
                    asked.say(f"{work.name}, seed {seed}: {optimiser}, {rule}")
                    tree = scenario(work, size, optimiser, ZONES, seed, stop)
                    done = asked.runs.of(settings, partial(by_day, asked, tree))
                    runs.setdefault((optimiser, rule), []).append(done)
    picture(runs, asked)
    (asked.out / "table.md").write_text(table(runs))


def saved(full: Mapping[str, Any], short: Mapping[str, Any]) -> dict[str, float]:
    """Shares of the full run's days, local steps and bytes that the short one did without, and the accuracy it lost by that."""
    return {
        "days": 1 - len(short["accuracy"]) / len(full["accuracy"]),
        "steps": 1 - short["steps"][-1] / full["steps"][-1],
        "bytes": 1 - short["bytes"][-1] / full["bytes"][-1],
        "lost": final(full["accuracy"]) - short["accuracy"][-1],
    }


def table(runs: Runs) -> str:
    """A row for each optimiser and rule."""
    rows = []
    for (optimiser, rule), some in runs.items():
        gains = [saved(full, short) for full, short in zip(runs[optimiser, "none"], some, strict=True)]
        days = spread([float(len(r["accuracy"])) for r in some], 1)
        shares = [f"{round(100 * mean(g[what] for g in gains))} %" for what in ("days", "steps", "bytes")]
        rows.append(
            (
                f"{optimiser}: {rule}",
                days,
                *shares,
                spread([r["accuracy"][-1] for r in some]),
                spread([g["lost"] for g in gains]),
            )
        )
    head = ("rule", "ends on day", "days saved", "steps saved", "bytes saved", "accuracy of the last model", "lost")
    return markdown(head, rows)


def picture(runs: Runs, asked: Asked) -> None:
    """Accuracy by day without a rule, and where each rule ends; beside it the share of bytes saved over the accuracy lost."""
    figure, axes = panels(1, 2, width=5.2, height=3.8)
    by_days, by_cost = axes[0]
    for optimiser in ("prox", "yogi"):
        full = runs[optimiser, "none"]
        days = len(full[0]["accuracy"])
        curves = [smooth(r["accuracy"]) for r in full]
        band(
            by_days,
            range(1, days + 1),
            curves,
            color=COLOURS[-1],
            linestyle=STYLES[optimiser],
            label=f"no rule, {optimiser}",
        )
    for (optimiser, rule), some in runs.items():
        if rule == "none":
            continue
        colour, marker = COLOURS[list(RULES).index(rule) - 1], "o" if optimiser == "prox" else "^"
        by_days.scatter(
            [len(r["accuracy"]) for r in some], [r["accuracy"][-1] for r in some], color=colour, marker=marker
        )
        gains = [saved(f, s) for f, s in zip(runs[optimiser, "none"], some, strict=True)]
        by_cost.scatter(
            [g["lost"] for g in gains],
            [100 * g["bytes"] for g in gains],
            color=colour,
            marker=marker,
            label=f"{rule}, {optimiser}",
        )
    by_days.set(xlabel="days", ylabel="accuracy on unseen people", title="where each rule ends")
    by_cost.set(xlabel="accuracy lost", ylabel="% of bytes saved", title="what it saves, and costs")
    by_days.legend(fontsize=7)
    by_cost.legend(fontsize=7)
    save(figure, asked.out / asked.name)
