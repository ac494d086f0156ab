"""A device's day: when it is free, made from its person's charging, Wi-Fi and screen use.

Free is idle (the screen off for a while), charging and on Wi-Fi. Each person keeps habits: bedtime and sleep, work, how the
phone is charged, how often and how long it is looked at, how regular the days are. Each day throws dice of its own, and
nights before a weekend are late. A day of 24 h is compressed into `day_ms` real milliseconds; simulated day 0 is a Monday.

What is known, and from where:

- Phones charge 18.6 h a day in the median of FLASH's 1,000 (Yang et al., WWW 2021). `STYLES` is made to meet that, which takes
  many phones that lie on a charger whenever their person is at home or at a desk.
- Availability is diurnal, with its peak at night (Yang et al., 2021: 136k phones); between the hours of the most and the fewest
  participants lies a factor of 4 (Bonawitz et al., MLSys 2019, for phones of mostly one time zone).

All else is assumed: the shapes and ranges of the habits below, that everyone has Wi-Fi at home, that being away means no
charger but at the desk. docs/availability.md shows what comes out.

Everything is a pure function of the arguments: no clock, and no state but a cache of the last days.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import shake_128
from typing import NamedTuple

import numpy as np

from device_sim.pseudonym import seed_of
from device_sim.spans import Span, both, solid, without

STYLES = {"docked": 0.62, "overnight": 0.18, "desk": 0.10, "top-ups": 0.10}
"""How a phone is charged, and the share of people who do so. Docked: on a stand at home and at the desk. Overnight: from
bedtime. Desk: overnight, and at the desk, or on days off until going out. Top-ups: a few times in the evening, never overnight."""
WORKERS = 0.6
"""The share of people who are away at work from Monday to Friday."""
OFFICE_WIFI = 0.5
"""The share of them who have Wi-Fi there."""
NIGHT_WORKERS = 0.04
"""The share of people who live `NIGHT_SHIFT_H` later than all others."""
NIGHT_SHIFT_H = 10.0
BED_H = 23.25
"""Bedtime, by local time, in the mean of people."""
FORGOTTEN = 0.05
"""The share of nights in which a phone is not plugged in that should be."""
QUIET_H = 1 / 12
"""A phone is idle when its screen has been off for so long."""
LOOK_H = 1 / 60
"""The shortest look at the screen."""
DICE = 256
"""Throws a day: 16 for the day, and two for each look at the screen."""
CACHE = 3
"""Days that a device keeps."""


class Person(NamedTuple):
    """Habits. Hours; `bed` and `rise` are those before a working day, of the same night."""

    bed: float
    rise: float
    late: float
    """So much later to bed before a weekend's day."""
    lie_in: float
    """So much later out of bed on a weekend's day."""
    loose: float
    """A bedtime lies within ± this of the habit, a rising within a quarter of it."""
    style: str
    works: bool
    office_wifi: bool
    ready: float
    """From rising until leaving."""
    away: float
    """From leaving until coming back, for work on a working day."""
    out: float
    """The same on other days."""
    commute: float
    carried: float
    """From coming back until a docked phone is laid on its stand."""
    gap: float
    """Between two looks at the screen, in the mean."""
    calm: float
    """So many times rarer while at the desk."""
    longest: float
    """The longest look; the mean is a quarter."""
    restless: float
    """The chance of a look in the night."""
    top_ups: int


class Day(NamedTuple):
    """From one rising to the next, in hours of local time from midnight of simulated day 0; spans in order and disjoint."""

    rise: float
    bed: float
    next_rise: float
    charging: list[Span]
    wifi: list[Span]
    screen: list[Span]

    def free(self) -> list[Span]:
        """Charging, on Wi-Fi, and the screen off for `QUIET_H`."""
        return list(without(both(self.charging, self.wifi), [(a, b + QUIET_H) for a, b in self.screen]))


@dataclass(frozen=True)
class Habits:
    """When one device is free. It has the face of `Availability`, and takes the same arguments.

    `utc_offset_h`: local time minus UTC, in hours; `day_ms`: real ms that stand for 24 h; `origin_ms`: when, in epoch ms,
    midnight UTC of simulated day 0 is. Raises `ValueError` for a day under 24 ms.
    """

    device: str
    utc_offset_h: float
    day_ms: int
    seed: int
    origin_ms: int = 0
    _cycles: dict[int, tuple[int, int, array, array]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.day_ms < 24:
            raise ValueError(f"a day of {self.day_ms} ms is too short: at least 24")

    def window(self, now_ms: int) -> tuple[int, int] | None:
        """The window [start, end), in epoch ms, that holds `now_ms`; None if the device is not free then."""
        _, _, starts, ends = self._cycle(self._number(now_ms))
        i = bisect_right(starts, now_ms) - 1
        return (starts[i], ends[i]) if i >= 0 and now_ms < ends[i] else None

    def next_start(self, now_ms: int) -> int:
        """When the first window after `now_ms` begins, in epoch ms; during a window that is the next one."""
        n = self._number(now_ms)
        while True:
            _, _, starts, _ = self._cycle(n)
            i = bisect_right(starts, now_ms)
            if i < len(starts):
                return starts[i]
            n += 1

    def windows(self, from_ms: int, to_ms: int) -> list[tuple[int, int]]:
        """All windows, whole, that have some of [from_ms, to_ms), in order."""
        if from_ms >= to_ms:
            return []
        found: list[tuple[int, int]] = []
        n = self._number(from_ms)
        while (cycle := self._cycle(n))[0] < to_ms:
            found += ((s, e) for s, e in zip(cycle[2], cycle[3], strict=True) if s < to_ms and e > from_ms)
            n += 1
        return found

    # ------------------------------------------------------------------ days

    @cached_property
    def person(self) -> Person:
        """The device's habits, drawn from its name and the seed."""
        u = iter(self._dice("person", 32))
        bed = BED_H + 1.25 * _tent(u) + (NIGHT_SHIFT_H if next(u) < NIGHT_WORKERS else 0)
        return Person(
            bed=bed,
            rise=bed + 7.5 + _tent(u),
            late=1.5 * next(u),
            lie_in=0.5 + 1.5 * next(u),
            loose=0.3 + 1.2 * next(u) ** 2,
            style=_pick(STYLES, next(u)),
            works=next(u) < WORKERS,
            office_wifi=next(u) < OFFICE_WIFI,
            ready=0.75 + next(u),
            away=9.5 + 1.5 * _tent(u),
            out=1.0 + 6.0 * next(u),
            commute=0.25 + next(u),
            carried=4.0 * next(u),
            gap=0.4 + 0.6 * next(u),
            calm=1.0 + 3.0 * next(u),
            longest=0.2 + 0.6 * next(u),
            restless=0.3 * next(u) ** 2,
            top_ups=2 + int(3 * next(u)),
        )

    def day(self, n: int) -> Day:
        """From the rising of local day n to the next one."""
        p, dice = self.person, self._dice(f"day {n}", DICE)
        u, looks = iter(dice[:16]), iter(dice[16:])
        rise, next_rise, at_work = self._rise(n), self._rise(n + 1), p.works and not _weekend(n)
        bed = 24 * n + p.bed + p.loose * _tent(u) + (p.late if _weekend(n + 1) else 0)
        leave = rise + p.ready + 0.5 * next(u)
        back = leave + (p.away + p.loose * _tent(u) if at_work else 2 * p.out * next(u) ** 2)
        back = min(max(back, leave), bed - 0.5)
        leave = min(leave, back)
        home = [(rise, leave), (back, next_rise)]
        desk = (leave + p.commute, max(leave + p.commute, back - p.commute))
        night = [] if next(u) < FORGOTTEN else [(bed, next_rise)]
        match p.style:
            case "docked":
                stand = (min(back + p.carried, bed), next_rise) if leave < back else home[1]
                charging = [home[0], *([desk] if at_work else []), stand]
            case "overnight":
                charging = night
            case "desk":
                charging = [desk if at_work else home[0], *night]
            case _:
                charging = list(self._top_ups(back, bed, u))
        wifi = [home[0], desk, home[1]] if at_work and p.office_wifi else home
        screen = list(self._screen(rise, bed, desk if at_work else (bed, bed), looks))
        if next(u) < p.restless:
            woken = bed + (next_rise - bed) * next(u)
            screen.append((woken, min(woken + p.longest / 4, next_rise)))
        return Day(rise, bed, next_rise, solid(charging), solid(wifi), screen)

    def _rise(self, n: int) -> float:
        """When the person rises on local day n."""
        p, die = self.person, seed_of(self.seed, self.device, "rise", n) / 2**62 - 1
        return 24 * (n - 1) + p.rise + (p.lie_in if _weekend(n) else 0) + p.loose / 4 * die

    def _top_ups(self, back: float, bed: float, u: Iterator[float]) -> Iterator[Span]:
        """A few stretches of half an hour to two hours, each in its part of the evening."""
        part = (bed - back) / self.person.top_ups
        for k in range(self.person.top_ups):
            start = back + (k + 0.5 * next(u)) * part
            yield start, min(start + 0.5 + 1.5 * next(u), back + (k + 1) * part)

    def _screen(self, rise: float, bed: float, desk: Span, looks: Iterator[float]) -> Iterator[Span]:
        """Looks at the screen: the first at rising, the last until bedtime, rarer at the desk."""
        p, at, end = self.person, rise, rise
        for pause, length in zip(looks, looks, strict=True):
            start = max(at, end)
            stop = start + LOOK_H + p.longest * length**3
            if stop + LOOK_H >= bed:
                break
            yield start, stop
            end, at = stop, start + p.gap * (0.4 + 1.2 * pause) * (p.calm if desk[0] <= start < desk[1] else 1)
        yield max(end, bed - p.longest / 2), bed

    # ------------------------------------------------------------------ their windows

    def _number(self, now_ms: int) -> int:
        """The local day whose rising was the last at or before `now_ms`."""
        for n, (begins, ends, _, _) in self._cycles.items():
            if begins <= now_ms < ends:
                return n
        hours = (now_ms - self.origin_ms + self._offset_ms) * 24 / self.day_ms
        n = int((hours - self.person.rise) // 24) + 1
        while self._ms(self._rise(n)) > now_ms:
            n -= 1
        while self._ms(self._rise(n + 1)) <= now_ms:
            n += 1
        return n

    def _cycle(self, n: int) -> tuple[int, int, array, array]:
        """Begin and end of a day, and the starts and ends of its windows, in epoch ms."""
        if (known := self._cycles.get(n)) is not None:
            return known
        day = self.day(n)
        spans = [(self._ms(a), self._ms(b)) for a, b in day.free()]
        starts, ends = array("q", [a for a, b in spans if a < b]), array("q", [b for a, b in spans if a < b])
        while len(self._cycles) >= CACHE:
            del self._cycles[next(iter(self._cycles))]
        self._cycles[n] = found = (self._ms(day.rise), self._ms(day.next_rise), starts, ends)
        return found

    @cached_property
    def _offset_ms(self) -> int:
        return round(self.utc_offset_h * self.day_ms / 24)

    def _ms(self, hours: float) -> int:
        return self.origin_ms - self._offset_ms + round(hours * self.day_ms / 24)

    def _dice(self, what: str, most: int) -> list[float]:
        """Throws in [0, 1), the same each time for the same device, seed and name, on every machine."""
        key = seed_of(self.seed, self.device, what).to_bytes(8, "big")
        return (np.frombuffer(shake_128(key).digest(4 * most), "<u4") / 2**32).tolist()


def _weekend(n: int) -> bool:
    return n % 7 >= 5


def _tent(u: Iterator[float]) -> float:
    """In [-1, 1), most often near 0."""
    return next(u) + next(u) - 1


def _pick(shares: dict[str, float], u: float) -> str:
    for name, share in shares.items():
        u -= share
        if u < 0:
            return name
    return name
