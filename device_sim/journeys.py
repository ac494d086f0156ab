"""Devices that travel: where each is, which zone serves it there, and when it sleeps. Pure functions of the seed.

"Edge devices … are dynamically assigned to specific zones based on geo-location. As devices move across zones, they seamlessly
transition" (OLearning §4.1). A device belongs to the zone whose time is nearest to that of the place where it is; its nights are
those of that place.
"""

from collections.abc import Callable, Mapping
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
    """Every so often a device spends some days elsewhere: each of its days begins a trip with the chance `chance`.

    A place is a UTC offset in hours: `home` is the device's own, a trip leads to that of a zone, an hour more or less. `free` gives
    what is free there. A trip lasts 1 to `longest` days of `day_ms`, from a midnight UTC to another. Raises `ValueError` for a chance
    not in [0, 1], and for no zones.
    """

    device: str
    home: float
    zones: Mapping[str, float]
    free: Callable[[float], Free]
    chance: float
    day_ms: int
    seed: int = 0
    origin_ms: int = 0
    longest: int = 2
    _places: dict[int, float] = field(default_factory=dict, repr=False, compare=False)
    _free: dict[float, Free] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.chance <= 1:
            raise ValueError(f"the chance of a trip is from 0 to 1, not {self.chance}")
        zone_at(self.home, self.zones)

    def zone(self, now_ms: int) -> str:
        """The zone that serves the device where it is."""
        return zone_at(self.place(now_ms), self.zones)

    def place(self, now_ms: int) -> float:
        """Where it is: a UTC offset in hours."""
        day = (now_ms - self.origin_ms) // self.day_ms
        if day not in self._places:
            if len(self._places) > 1_000:
                self._places.clear()
            self._places[day] = self._place(day)
        return self._places[day]

    def _place(self, day: int) -> float:
        for began in range(day, day - self.longest, -1):  # the latest trip that still lasts
            if seed_of(self.seed, self.device, "trip", began) >= self.chance * 2**63:
                continue
            if began + 1 + self._die("days", began, self.longest) > day:
                towards = self.zones[sorted(self.zones)[self._die("where", began, len(self.zones))]]
                return towards + self._die("exactly", began, 3) - 1
        return self.home

    def _die(self, what: str, day: int, most: int) -> int:
        return seed_of(self.seed, self.device, what, day) % most

    # ------------------------------------------------------------------ when it is free

    def window(self, now_ms: int) -> tuple[int, int] | None:
        """The free window [start, end) where it is, that holds `now_ms`, in epoch ms; it lies at one place: a trip cuts it."""
        found = self._at(now_ms).window(now_ms)
        if found is None:
            return None
        start, end = found
        here, began, at = self.place(now_ms), self._midnight(now_ms), self._midnight(now_ms) + self.day_ms
        while began > start and self.place(began - 1) == here:
            began -= self.day_ms
        while at < end and self.place(at) == here:
            at += self.day_ms
        return max(start, began), min(end, at)

    def next_start(self, now_ms: int) -> int:
        """When the first free window after `now_ms` begins, in epoch ms."""
        at = now_ms
        while True:
            midnight = self._midnight(at) + self.day_ms
            begins = self._at(at).next_start(at)
            if begins < midnight:
                return begins
            new = begins == midnight or self.place(midnight) != self.place(at)
            if new and self._at(midnight).window(midnight) is not None:
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

    def _at(self, now_ms: int) -> Free:
        """What is free where it is."""
        place = self.place(now_ms)
        if place not in self._free:
            self._free[place] = self.free(place)
        return self._free[place]

    def _midnight(self, now_ms: int) -> int:
        return self.origin_ms + (now_ms - self.origin_ms) // self.day_ms * self.day_ms
