"""Nights: when a device is idle, charging and on Wi-Fi.

Each device has one long window a night, about 21:30 to 6:30 of its zone's local time. A device keeps habits (an offset of
its own) and no night is like the last (a jitter), both drawn from the seed. A day of 24 h is compressed into `day_ms`
real milliseconds. That devices train at night, by local time, is OLearning's premise (diurnal availability, as Yang et
al., 2021, measured on 136k phones).

Everything is a pure function of the arguments: no state, no clock.
"""

from dataclasses import dataclass
from itertools import count, takewhile
from typing import Protocol

from device_sim.pseudonym import seed_of

BEDTIME_H = 21.5
LENGTH_H = 9.0
HABIT_H = 1.5
"""A device's own bedtime lies within ± this of `BEDTIME_H`, for good."""
JITTER_H = 0.5
"""A night's start lies within ± this of the device's own bedtime."""
STRETCH_H = 1.0
"""A night's length lies within ± this of `LENGTH_H`."""


@dataclass(frozen=True)
class Clock:
    """What clocks show in a place `utc_offset_h` hours from UTC; `day_ms` and `origin_ms` as in `Availability`."""

    utc_offset_h: float
    day_ms: int
    origin_ms: int = 0

    def hours(self, now_ms: int) -> float:
        """[0, 24)"""
        return ((now_ms - self.origin_ms) * 24 / self.day_ms + self.utc_offset_h) % 24


def is_night(hours: float) -> bool:
    """Is it night, for the middle one of a place's devices, when its clocks show `hours`?"""
    return (hours - BEDTIME_H) % 24 < LENGTH_H


class Free(Protocol):
    """When a device is free: nights, or `device_sim.habits.Habits`. All times in epoch ms; a window is [start, end)."""

    def window(self, now_ms: int) -> tuple[int, int] | None:
        """The window that holds `now_ms`, or None."""
        ...

    def next_start(self, now_ms: int) -> int:
        """When the first window after `now_ms` begins; during a window that is the next one."""
        ...

    def windows(self, from_ms: int, to_ms: int) -> list[tuple[int, int]]:
        """All windows, whole, that have some of [from_ms, to_ms), in order and disjoint."""
        ...


@dataclass(frozen=True)
class Availability:
    """The nights of one device.

    `utc_offset_h`: local time minus UTC, in hours; `day_ms`: real ms that stand for 24 h; `origin_ms`: when, in epoch ms,
    midnight UTC of simulated day 0 is. Nights before the origin exist too. Raises `ValueError` for a day under 24 ms.
    """

    device: str
    utc_offset_h: float
    day_ms: int
    seed: int
    origin_ms: int = 0

    def __post_init__(self) -> None:
        if self.day_ms < 24:
            raise ValueError(f"a day of {self.day_ms} ms is too short: at least 24")

    def night(self, n: int) -> tuple[int, int]:
        """[start, end) in epoch ms of the night that begins on the evening of local day n."""
        habit = HABIT_H * self._die("habit")
        start = 24 * n + BEDTIME_H - self.utc_offset_h + habit + JITTER_H * self._die("start", n)
        length = LENGTH_H + STRETCH_H * self._die("length", n)
        return self._ms(start), self._ms(start + length)

    def window(self, now_ms: int) -> tuple[int, int] | None:
        """The night [start, end), in epoch ms, that holds `now_ms`; None by day."""
        n = self._evening(now_ms)
        for start, end in (self.night(n), self.night(n + 1)):
            if start <= now_ms < end:
                return start, end
        return None

    def next_start(self, now_ms: int) -> int:
        """When the first night after `now_ms` begins, in epoch ms; during a night that is the next one."""
        n = self._evening(now_ms)
        return min(start for start, _ in map(self.night, (n, n + 1, n + 2)) if start > now_ms)

    def windows(self, from_ms: int, to_ms: int) -> list[tuple[int, int]]:
        """All nights, whole, that have some of [from_ms, to_ms), in order."""
        if from_ms >= to_ms:
            return []
        begun = takewhile(lambda night: night[0] < to_ms, map(self.night, count(self._evening(from_ms))))
        return [(start, end) for start, end in begun if end > from_ms]

    def _evening(self, now_ms: int) -> int:
        """The local day whose bedtime, before habit and jitter, was the last: its night may be yet to come, the next begun."""
        hours = (now_ms - self.origin_ms) * 24 / self.day_ms
        return int((hours + self.utc_offset_h - BEDTIME_H) // 24)

    def _ms(self, hours: float) -> int:
        return self.origin_ms + round(hours * self.day_ms / 24)

    def _die(self, *what: str | int) -> float:
        """A throw in [-1, 1), the same each time for the same device, seed and name."""
        return seed_of(self.seed, self.device, *what) / 2**62 - 1
