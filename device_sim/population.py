"""The devices of a fleet, as a person asks for them: how many, where, when they are free, how fast, how often they fail or travel."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from device_sim.availability import Availability, Clock, Free
from device_sim.busy import ALWAYS_MS, SPANS, Busy
from device_sim.capacity import Bandwidth, Capacities, Usual, bandwidths, capacities
from device_sim.device import Device, Habit
from device_sim.forecast import Forecast
from device_sim.habits import Habits
from device_sim.journeys import Trips
from device_sim.pace import Pace, Phone, Steady
from device_sim.phones import Phones, UsualPhones, phones, reported
from device_sim.pseudonym import seed_of
from device_sim.whims import Whims
from schemas.sharing import Abilities

DAYS = ("nights", "habits")
"""A device's day: one long window a night (`device_sim.availability`), or what its person does (`device_sim.habits`)."""
STEADY, USUAL = "steady", "usual"
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Population:
    """`count` devices of a zone; the first has the number `first`, which says whose share of the data is whose.

    `day_ms`: ms of the plane's clock that stand for 24 h (0: always free), from `origin_ms` on, which is midnight UTC. `capacity`:
    "steady" (a run takes what the fleet's manner says), "usual", or the path of a capacity file; `bandwidth`: of a file with series.
    `phones`: what devices report of themselves: "" (nothing), "usual", or the path of a phones file; with the bandwidth of their
    capacity, if they have one. `busy`: the share of their time in which they have other work (`device_sim.busy`).
    `offsets`: by zone its UTC offset in hours, with `zone` among them; `travel`: the chance that a device begins a trip on a day.
    `homes`: places, with their UTC offsets, where the zone's devices live instead, in equal parts, one after the other; each device
    is what it would be in a zone of that name.
    Raises `ValueError`, in words, for what cannot be.
    """

    zone: str
    count: int
    first: int = 0
    offsets: Mapping[str, float] = field(default_factory=dict)
    homes: Mapping[str, float] = field(default_factory=dict)
    day_ms: int = 0
    origin_ms: int = 0
    day: str = "nights"
    capacity: str = STEADY
    bandwidth: str = ""
    phones: str = ""
    travel: float = 0.0
    busy: float = 0.0
    whims: Whims | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.day not in DAYS:
            raise ValueError(f"no day {self.day!r} is known; known: {', '.join(DAYS)}")
        if not 0 <= self.busy <= 1:  # nor is NaN
            raise ValueError(f"busy is a share of their time from 0 to 1, not {self.busy}")
        if self.travel and not self.day_ms:
            raise ValueError("devices that travel need days: give a day some seconds")
        if self.travel and self.homes:
            raise ValueError(f"zone {self.zone} has several UTC offsets: no device of it can travel")
        if self.offsets and self.zone not in self.offsets:
            raise ValueError(f"the zones with their offsets do not name {self.zone}: {', '.join(self.offsets)}")

    def devices(self) -> list[Device]:
        return [self._device(n) for n in range(self.first, self.first + self.count)]

    @property
    def clock(self) -> Clock | None:
        """What its devices' clocks show; None if they have no days, or homes with several UTC offsets."""
        offsets = set(self.homes.values()) or {self.offsets.get(self.zone, 0.0)}
        return Clock(offsets.pop(), self.day_ms, self.origin_ms) if self.day_ms and len(offsets) == 1 else None

    def _device(self, number: int) -> Device:
        home, offset = self._home(number)
        id = f"{home}-{number}"
        pace = self._pace(id)
        made = Device(
            id, number, pace=pace, abilities=self._able(id, pace), zone=self.zone, whims=self.whims, habit=self._habit
        )
        if self.busy:
            made.busy = Busy(id, self.busy, max(1, self.day_ms // SPANS) if self.day_ms else ALWAYS_MS, self.seed)
        if self.day_ms:
            made.nights = self._free(id, offset)
            made.learns = partial(self._forecast, offset)
            if self.travel and len(self.offsets) > 1:
                free = partial(self._free, id)
                made.journey = trips = Trips(
                    id, offset, self.offsets, free, self.travel, self.day_ms, self.seed, self.origin_ms
                )
                made.nights = trips
        return made

    def _home(self, number: int) -> tuple[str, float]:
        """Where a device lives, and the UTC offset there."""
        if not self.homes:
            return self.zone, self.offsets.get(self.zone, 0.0)
        return list(self.homes.items())[(number - self.first) * len(self.homes) // self.count]

    def _forecast(self, offset: float, now: int) -> Forecast:
        return Forecast(offset, self.day_ms, now, self.origin_ms)

    @cached_property
    def _habit(self) -> Habit:
        return Habit(horizon_ms=self.day_ms or DAY_MS)

    def _free(self, id: str, offset: float) -> Free:
        kind = Availability if self.day == "nights" else Habits
        return kind(id, offset, self.day_ms, self.seed, self.origin_ms)

    def _pace(self, id: str) -> Pace:
        if self.capacity == STEADY:
            return Steady()
        series = self._series[seed_of(self.seed, "bandwidth", id) % len(self._series)] if self._series else None
        return Phone(self._capacities.of(self.seed, id), series, self.day_ms / DAY_MS if self.day_ms else 1.0)

    def _able(self, id: str, pace: Pace) -> Abilities:
        if not self.phones:
            return {}
        link = {"bandwidth": pace.bandwidth.mean_mbps} if isinstance(pace, Phone) and pace.bandwidth else {}
        return reported(self._phones.of(self.seed, id) | link)

    @cached_property
    def _phones(self) -> Phones | UsualPhones:
        return UsualPhones() if self.phones == USUAL else phones(Path(self.phones))

    @cached_property
    def _capacities(self) -> Capacities | Usual:
        return Usual() if self.capacity == USUAL else capacities(Path(self.capacity))

    @cached_property
    def _series(self) -> tuple[Bandwidth, ...]:
        return bandwidths(Path(self.bandwidth)) if self.bandwidth else ()
