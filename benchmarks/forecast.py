"""How well a device foresees its own free time: the on-device forecast on made habits, beside two plain ones and foresight.

Each device is told its history as it goes, and predicts its next 24 hours after so many weeks of it. Half-way through the local
day by default: at midnight most devices are in the middle of their longest window. Who predicts:

- `foresight`: the m longest windows as they will be; what a forecast of m windows can reach.
- `model`: `device_sim.forecast`.
- `yesterday`: the m longest windows of the last 24 hours, once more.
- `prior`: the model before it has seen anything, the same night for all.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from device_sim.availability import Free
from device_sim.forecast import SURE, Forecast
from device_sim.habits import Habits

HOUR = 3_600_000
DAY = 24 * HOUR
WEEKS = (0, 1, 2, 4)
OFFSETS = (-8, 0, 1, 8)
"""Devices' zones, in turns."""
Windows = list[tuple[int, int]]


@dataclass
class Row:
    """What one way to predict reached after so many weeks. Shares are of time or windows of all devices together, NaN of none."""

    who: str
    weeks: int
    devices: int = 0
    windows: int = 0
    held: int = 0
    """Predicted windows in which the device was free from start to end."""
    predicted_ms: int = 0
    free_ms: int = 0
    both_ms: int = 0
    late: list[float] = field(default_factory=list)
    """By how many hours a predicted window began after the real one it shares most time with."""
    early: list[float] = field(default_factory=list)
    """By how many hours it ended before that."""

    def add(self, predicted: Windows, real: Windows, now: int) -> None:
        """One device's day from `now` on. Edges at the ends of that day are none of the windows' own, and no error."""
        horizon = (now, now + DAY)
        self.devices += 1
        self.windows += len(predicted)
        self.predicted_ms += sum(e - s for s, e in predicted)
        self.free_ms += sum(_shared(w, horizon) for w in real)
        for window in predicted:
            self.both_ms += sum(_shared(window, w) for w in real)
            start, end = max(real, key=lambda w: _shared(window, w), default=(0, 0))
            if not _shared(window, (start, end)):
                continue
            self.held += start <= window[0] and window[1] <= end
            if window[0] > now:
                self.late.append((window[0] - start) / HOUR)
            if window[1] < now + DAY:
                self.early.append((end - window[1]) / HOUR)

    def as_json(self) -> dict[str, Any]:
        """For programs. Nothing where nothing was predicted."""
        shares = {
            "windows_a_day": _over(self.windows, self.devices),
            "precision": _over(self.both_ms, self.predicted_ms),
            "recall": _over(self.both_ms, self.free_ms),
            "held": _over(self.held, self.windows),
        }
        hours = {
            "start_error_h": mean(map(abs, self.late)) if self.late else None,
            "end_error_h": mean(map(abs, self.early)) if self.early else None,
            "start_late_h": mean(self.late) if self.late else None,
            "end_early_h": mean(self.early) if self.early else None,
        }
        out: dict[str, Any] = {"bench": "forecast", "who": self.who, "weeks": self.weeks, "devices": self.devices}
        return out | {k: round(v, 4) for k, v in (shares | hours).items() if v is not None}


def run(
    devices: int = 1000,
    weeks: Sequence[int] = WEEKS,
    m: int = 3,
    sure: float = SURE,
    hour: float = 12,
    seed: int = 0,
    habits: Callable[[str, float, int, int], Free] = Habits,
    say: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Every way to predict after each of `weeks`. The first day is another weekday for each device in turn."""
    rows = {(who, w): Row(who, w) for w in weeks for who in ("foresight", "model", "yesterday", "prior")}
    for i in range(devices):
        if i and i % 500 == 0:
            say(f"{i} of {devices} devices")
        offset = OFFSETS[i % len(OFFSETS)]
        free = habits(f"device-{i}", offset, DAY, seed)
        begin = (i % 7) * DAY + round((hour - offset) * HOUR)
        model, prior = Forecast(offset, DAY, begin), Forecast(offset, DAY, begin)
        for w in sorted(weeks):
            now = begin + 7 * w * DAY
            learn(model, free, now)
            real = free.windows(now, now + DAY)
            yesterday = [(s + DAY, e + DAY) for s, e in longest(free.windows(now - DAY, now), now - DAY, m)]
            rows["foresight", w].add(longest(real, now, m), real, now)
            rows["model", w].add(model.windows(now, DAY, m, sure), real, now)
            rows["yesterday", w].add(yesterday if w else [], real, now)
            rows["prior", w].add(prior.windows(now, DAY, m, sure), real, now)
    return list(rows.values())


def learn(model: Forecast, free: Free, until: int) -> None:
    """Tell a forecast when its device was free since it was told last."""
    since = model.seen_ms
    for start, end in free.windows(since, until):
        model.observe(max(start, since), min(end, until))
    model.observe(until, until)


def longest(windows: Iterable[tuple[int, int]], now: int, m: int) -> Windows:
    """The m longest of what these windows have of a day, in order of time."""
    within = [(max(s, now), min(e, now + DAY)) for s, e in windows]
    return sorted(sorted(within, key=lambda w: w[0] - w[1])[:m])


def table(rows: Iterable[Row]) -> Iterator[str]:
    """As Markdown."""
    yield "| weeks of history | who | windows a day | predicted time that was free | free time that was predicted | windows that held | start off by [h] | end off by [h] |"
    yield "|--:|---|--:|--:|--:|--:|--:|--:|"
    for r in rows:
        x = r.as_json()
        shares = (_cell(x.get(k), 3) for k in ("precision", "recall", "held"))
        hours = (_cell(x.get(k), 2) for k in ("start_error_h", "end_error_h"))
        cells = (str(r.weeks), r.who, _cell(x["windows_a_day"], 2), *shares, *hours)
        yield f"| {' | '.join(cells)} |"


def _shared(one: tuple[int, int], other: tuple[int, int]) -> int:
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))


def _over(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _cell(x: float | None, digits: int) -> str:
    return "–" if x is None else f"{x:.{digits}f}"
