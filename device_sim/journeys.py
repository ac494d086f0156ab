"""Devices that travel: where each is, which zone serves it there, and when it sleeps. Pure functions of the seed.

"Edge devices … are dynamically assigned to specific zones based on geo-location. As devices move across zones, they seamlessly
transition" (OLearning §4.1). A device belongs to the zone whose time is nearest to its own; its nights are those of where it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from device_sim.availability import Free
from device_sim.pseudonym import seed_of


def zone_at(utc_offset_h: float, zones: Mapping[str, float]) -> str:
    """The zone (by name its UTC offset, in hours) whose time is nearest; ties go by name. Raises `ValueError` for no zones."""
    if not zones:
        raise ValueError("no zones: there must be at least one")

    def apart(zone: str) -> float:
        d = abs(utc_offset_h - zones[zone]) % 24
        return min(d, 24 - d)

    return min(sorted(zones), key=apart)


@dataclass(frozen=True)
class Trips:
    """Every so often a device spends some days in another zone: each of its days begins a trip with the chance `chance`.

    `homes`: by zone, what is free there (a device's nights in that zone's time); `home` is its own. A trip lasts 1 to `longest` days
    of `day_ms`. Raises `ValueError` for a chance not in [0, 1] or a home that is none of the zones.
    """

    device: str
    home: str
    homes: Mapping[str, Free]
    chance: float
    day_ms: int
    seed: int = 0
    origin_ms: int = 0
    longest: int = 2
    _known: dict[int, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.chance <= 1:
            raise ValueError(f"the chance of a trip is from 0 to 1, not {self.chance}")
        if self.home not in self.homes:
            raise ValueError(f"the home {self.home} is none of the zones {', '.join(self.homes)}")

    def zone(self, now_ms: int) -> str:
        """Where the device is."""
        day = (now_ms - self.origin_ms) // self.day_ms
        if day not in self._known:
            if len(self._known) > 1_000:
                self._known.clear()
            self._known[day] = self._zone(day)
        return self._known[day]

    def _zone(self, day: int) -> str:
        others = sorted(z for z in self.homes if z != self.home)
        for began in range(day, day - self.longest, -1):  # the latest trip that still lasts
            if not others or seed_of(self.seed, self.device, "trip", began) >= self.chance * 2**63:
                continue
            if began + 1 + seed_of(self.seed, self.device, "days", began) % self.longest > day:
                return others[seed_of(self.seed, self.device, "where", began) % len(others)]
        return self.home

    # ------------------------------------------------------------------ when it is free

    def window(self, now_ms: int) -> tuple[int, int] | None:
        """The free window [start, end) where it is, that holds `now_ms`, in epoch ms; it lies in one zone: a trip cuts it."""
        found = self.homes[self.zone(now_ms)].window(now_ms)
        if found is None:
            return None
        start, end = found
        here, began, at = self.zone(now_ms), self._midnight(now_ms), self._midnight(now_ms) + self.day_ms
        while began > start and self.zone(began - 1) == here:
            began -= self.day_ms
        while at < end and self.zone(at) == here:
            at += self.day_ms
        return max(start, began), min(end, at)

    def next_start(self, now_ms: int) -> int:
        """When the first free window after `now_ms` begins, in epoch ms."""
        at = now_ms
        while True:
            midnight = self._midnight(at) + self.day_ms
            begins = self.homes[self.zone(at)].next_start(at)
            if begins < midnight:
                return begins
            if self.homes[self.zone(midnight)].window(midnight) is not None and self.zone(midnight) != self.zone(at):
                return midnight
            at = midnight

    def windows(self, from_ms: int, to_ms: int) -> list[tuple[int, int]]:
        """All windows that have some of [from_ms, to_ms), in order and disjoint."""
        out: list[tuple[int, int]] = []
        at = from_ms if self.window(from_ms) else self.next_start(from_ms)
        while at < to_ms:
            found = self.window(at)
            assert found
            out.append(found)
            at = found[1] if self.window(found[1]) else self.next_start(found[1])
        return out

    def _midnight(self, now_ms: int) -> int:
        return self.origin_ms + (now_ms - self.origin_ms) // self.day_ms * self.day_ms
