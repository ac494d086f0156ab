"""Numbers as a person says them."""

from collections.abc import Iterable
from datetime import datetime


def clock(ms: int) -> str:
    """A time by this machine's clock."""
    return datetime.fromtimestamp(ms / 1000).strftime("%H:%M:%S")


def span(ms: int) -> str:
    """So many milliseconds."""
    s = max(0, ms) / 1000
    if s < 10:
        return f"{s:.1f} s"
    if s < 120:
        return f"{s:.0f} s"
    return f"{s / 60:.0f} min" if s < 7200 else f"{s / 3600:.1f} h"


def size(n: int) -> str:
    """So many bytes."""
    return f"{n / 1e6:,.1f} MB" if n >= 1e5 else f"{n / 1e3:,.1f} kB"


def many(n: int, what: str) -> str:
    """So many of something whose plural has an s."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def runs(numbers: Iterable[int]) -> list[list[int]]:
    """[from, to) of each run of numbers."""
    out: list[list[int]] = []
    for n in sorted(numbers):
        if out and out[-1][1] == n:
            out[-1][1] = n + 1
        else:
            out.append([n, n + 1])
    return out


def listed(numbers: Iterable[int], between: str = ", ") -> str:
    """0, 1, 2, 5 -> "0–2, 5"."""
    return between.join(f"{a}–{b - 1}" if b - a > 1 else str(a) for a, b in runs(numbers))
