"""Pictures and tables, alike in all experiments."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's, which all eyes tell apart."""


def panels(rows: int, columns: int, width: float = 4.0, height: float = 3.2) -> tuple[Any, Any]:
    """A figure and its panels (rows, columns), sizes in inches a panel."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), layout="constrained", squeeze=False
    )
    for ax in axes.flat:
        ax.grid(alpha=0.25)
    return figure, axes


def save(figure: Any, to: Path) -> None:
    """Write it as `to`.png and `to`.svg: the same bytes for the same picture."""
    with plt.rc_context({"svg.hashsalt": "olearning"}):
        figure.savefig(to.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(to.with_suffix(".png"), dpi=110, pil_kwargs={"optimize": True}, metadata={"Software": None})
    plt.close(figure)


def band(ax: Any, xs: Sequence[float], lines: Sequence[Sequence[float]], **style: Any) -> None:
    """The mean over seeds as a line, and from the least to the most as a band. `lines` (seeds, len(xs))."""
    ys = list(zip(*lines, strict=True))
    ax.plot(xs, [mean(y) for y in ys], linewidth=1.5, **style)
    if len(lines) > 1:
        ax.fill_between(xs, [min(y) for y in ys], [max(y) for y in ys], color=style.get("color"), alpha=0.15, lw=0)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard deviation (of the sample) and how many."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f} (1)" if values else "–"
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f} ({len(values)})"


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; the first column is text, the rest numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]) + "\n"
