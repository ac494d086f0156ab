"""A line of a benchmark: what was measured, beside the limit and the peer of the same run."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Line:
    """One figure. `case` names what varies: `consume workers=1 devices=50 parameters=11.2M`.

    `limit` and `peer_value` were measured in the same run, in the same unit. Which way is better is the unit's matter: of
    seconds fewer, of bytes a second more. Memory in MB (10^6 bytes).
    """

    bench: str
    case: str
    value: float
    unit: str
    limit: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Under which conditions, and what the figure is made of."""
    peer: str = ""
    peer_value: float | None = None
    peak_rss_mb: float | None = None
    """Of the process measured, less what it takes when idle."""
    memory_limit_mb: float | None = None

    def __post_init__(self) -> None:
        for name in ("value", "limit", "peer_value"):
            x = getattr(self, name)
            if x is not None and not 0 < x < float("inf"):
                raise ValueError(f"{self.bench} {self.case}: a {name} of {x} was not measured")
        if bool(self.peer) != (self.peer_value is not None):
            raise ValueError(f"{self.bench} {self.case}: a peer and its value come together")

    @property
    def ratio(self) -> float:
        """Value over limit."""
        return self.value / self.limit

    @property
    def peer_ratio(self) -> float | None:
        """Value over the peer's."""
        return None if self.peer_value is None else self.value / self.peer_value

    def as_json(self) -> dict[str, Any]:
        """For programs. What was not measured, or has no limit, is left out."""
        out = {
            "bench": self.bench,
            "case": self.case,
            "value": _round(self.value),
            "unit": self.unit,
            "limit": _round(self.limit),
            "ratio": _round(self.ratio),
            "peer": self.peer or None,
            "peer_value": _round(self.peer_value),
            "peer_ratio": _round(self.peer_ratio),
            "peak_rss_mb": _round(self.peak_rss_mb),
            "memory_limit_mb": _round(self.memory_limit_mb),
            "settings": dict(self.settings),
        }
        return {k: v for k, v in out.items() if v is not None}


Report = Callable[[Line], None]
"""Who is told of each line as it is measured."""


def table(lines: Iterable[Line]) -> Table:
    """For people."""
    out = Table(box=None, pad_edge=False)
    out.add_column("case", no_wrap=True)
    for name in ("value", "unit", "limit", "ratio", "peer", "ratio to it", "peak MB", "at most"):
        out.add_column(name, justify="left" if name in ("unit", "peer") else "right", no_wrap=True)
    for x in lines:
        peer = f"{x.peer} {_text(x.peer_value)}" if x.peer else ""
        cells = (_text(x.value), x.unit, _text(x.limit), _text(x.ratio), peer, _text(x.peer_ratio))
        out.add_row(f"{x.bench} {x.case}", *cells, _text(x.peak_rss_mb), _text(x.memory_limit_mb))
    return out


def number(n: int) -> str:
    """A count as cases name it: 10k, 1.2M, 11.2M; exact if it is no round one."""
    for unit, suffix in ((10**6, "M"), (10**3, "k")):
        if n >= unit and (10 * n) % unit == 0:
            return f"{n / unit:.1f}".removesuffix(".0") + suffix
    return str(n)


def count(text: str) -> int:
    """What `number` names: 1.2M is 1,200,000. Raises `ValueError`."""
    scale = {"k": 10**3, "M": 10**6}.get(text[-1:], 1)
    digits = text[:-1] if scale > 1 else text
    value = float(digits) * scale if digits.replace(".", "", 1).isdecimal() else 0
    if value < 1 or abs(value - round(value)) > 1e-6:
        raise ValueError(f"{text!r} is not a count: write 500, 10k or 1.2M")
    return round(value)


def _round(x: float | None) -> float | None:
    """Four figures are more than a measurement holds."""
    return None if x is None else float(f"{x:.4g}")


def _text(x: float | None) -> str:
    return "" if x is None else f"{x:.4g}" if x >= 0.001 else f"{x:.2g}"
