"""When a device will be free: the small on-device model of OLearning §5.2, learned from the device's own history alone.

"A device has m different available time slots (the longest continuous available time window), which can be predicted based on
the historical operation by an on-device model." The paper does not say which; this one counts.

A week of local time is cut into bins. For each bin the model keeps two frequencies, both fading with age: how often the device
was free throughout the bin, and how often throughout it and the one before. The first says where a window may begin, the second
how likely it goes on, so the chance that the device is free from bin a to the end of bin c is

    P(a) · Π_{b=a+1..c} P(b | b-1)

and a window is predicted as far as that chance is at least `sure`. So a window ends where real ones began to end, and begins
where most had begun: a plan seldom overruns.

A bin of the week is seen once a week. Until it has been seen often, it leans on the same time of the other days (Monday to
Friday, or the weekend), and those lean on a prior: free at night. Times are in epoch ms; a day of 24 h lasts `day_ms`; simulated
day 0 is a Monday. No clock, no I/O.
"""

from array import array
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BINS = 48
"""Bins a day."""
WEEK = 7 * BINS
HALF_LIFE_DAYS = 10.0
"""After so many days what was seen counts half."""
FADE = 0.5 ** (7 / HALF_LIFE_DAYS)
"""What is left of a count when its bin is seen again, a week later."""
SURE = 0.8
"""A predicted window holds to its end with this chance at least, by what the model knows."""
DAYS_ALIKE = 3.0
"""A bin of the week counts the same time of the days alike as if it had been seen so many times itself."""
PRIOR = 1.0
"""And days alike count the prior as so many of them."""
NIGHT = (22.0, 25.0, 5.5, 8.5)
"""The prior: a night begins between the first two hours and ends between the last two, each time alike likely."""
NIGHTLY = 0.95
"""And the device is free in so many nights."""
UNIT = 1000
"""A sighting just made, in the counts: whole numbers of 16 bits."""


class Forecast:
    """What one device knows of its own free time: 2 × 336 counts of 16 bits.

    `since_ms`: from when on it is told all. Raises `ValueError` for a day with less than 1 ms a bin.
    """

    def __init__(self, utc_offset_h: float, day_ms: int, since_ms: int, origin_ms: int = 0):
        if day_ms < BINS:
            raise ValueError(f"a day of {day_ms} ms is too short: at least {BINS}")
        self.utc_offset_h, self.day_ms, self.origin_ms = utc_offset_h, day_ms, origin_ms
        self.since_ms = self.seen_ms = since_ms
        self._zero = origin_ms - round(utc_offset_h * day_ms / 24)
        self._first = self._bin(since_ms - 1) + 1
        """The first bin that is seen whole."""
        self._whole = since_ms == self._edge(self._first)
        """Whether the device was free from the beginning of the present bin on; of a bin that was not seen whole, that is no."""
        self._before = False
        """Whether it was throughout the bin before."""
        self._free = array("H", bytes(2 * WEEK))
        self._stayed = array("H", bytes(2 * WEEK))
        self._chances: tuple[Floats, Floats] | None = None

    # ------------------------------------------------------------------ learning

    def observe(self, start_ms: int, end_ms: int) -> None:
        """The device was free in [start, end), and not from what was observed last until then. Alike means: not free until then.

        Raises `ValueError` for a window that begins before what was observed last, or ends before it begins.
        """
        if not self.seen_ms <= start_ms <= end_ms:
            raise ValueError(f"a window [{start_ms}, {end_ms}) after {self.seen_ms}: tell them in order, each once")
        self._pass(start_ms, False)
        self._pass(end_ms, True)

    def _pass(self, to_ms: int, free: bool) -> None:
        if to_ms == self.seen_ms:
            return
        at, to = self._bin(self.seen_ms), self._bin(to_ms)
        self._whole &= free
        if at < to:
            self._count(at, self._whole)
            for b in range(at + 1, to):
                self._count(b, free)
            self._whole = free or to_ms == self._edge(to)
        self.seen_ms = to_ms

    def _count(self, b: int, free: bool) -> None:
        i, stayed = b % WEEK, free and self._before
        self._free[i] = round(FADE * self._free[i]) + UNIT * free
        self._stayed[i] = round(FADE * self._stayed[i]) + UNIT * stayed
        self._before, self._chances = free, None

    # ------------------------------------------------------------------ predicting

    def windows(
        self, now_ms: int, horizon_ms: int, m: int, sure: float = SURE, free: bool | None = None
    ) -> list[tuple[int, int]]:
        """The m longest windows predicted within [now, now + horizon), in order of time; fewer if there are not as many.

        Each holds to its end with a chance of `sure` at least, by what is known. `free`: whether the device is free now, if
        that is known. Raises `ValueError` if there is no horizon, or `sure` is not within (0, 1].
        """
        if horizon_ms <= 0 or m < 0 or not 0 < sure <= 1:
            raise ValueError(f"no windows within {horizon_ms} ms, {m} of them, {sure} sure")
        first, last = self._bin(now_ms), self._bin(now_ms + horizon_ms - 1)
        bins = np.arange(first, last + 1)
        edges = self._zero - (-np.arange(first, last + 2) * self.day_ms // BINS)
        edges[0], edges[-1] = now_ms, now_ms + horizon_ms
        begun, goes_on = (curve[bins % WEEK] for curve in self.chances())
        if free is not None:
            begun[0] = goes_on[0] if free else 0.0
        with np.errstate(divide="ignore"):
            fall = np.concatenate(([0.0], -np.cumsum(np.log(np.maximum(goes_on[1:], 1e-12)))))
            most = fall + np.log(begun) - np.log(sure) + 1e-9
        stops = np.where(begun >= sure, np.searchsorted(fall, most, side="right"), np.arange(len(bins)))
        return sorted(_longest(edges, stops, m))

    def chances(self) -> tuple[Floats, Floats]:
        """For each bin of the local week, from Monday's midnight: the chance that the device is free throughout it, and that
        it is so if it was throughout the bin before."""
        if self._chances is None:
            w, last = np.arange(WEEK), self._bin(self.seen_ms) - 1
            visits = (last - w) // WEEK - (self._first - 1 - w) // WEEK
            seen = (1 - FADE ** np.maximum(visits, 0)) / (1 - FADE)
            free = np.minimum(_leaning(self._free, seen, PRIOR_FREE), 1.0)
            stayed = _leaning(self._stayed, seen, PRIOR_STAYED)
            self._chances = free, np.minimum(stayed / np.maximum(np.roll(free, 1), 1e-9), 1.0)
        return self._chances

    # ------------------------------------------------------------------ state

    def state(self) -> dict[str, Any]:
        """All it knows, as numbers and lists of whole numbers."""
        return {
            "utc_offset_h": self.utc_offset_h,
            "day_ms": self.day_ms,
            "origin_ms": self.origin_ms,
            "since_ms": self.since_ms,
            "seen_ms": self.seen_ms,
            "whole": int(self._whole),
            "before": int(self._before),
            "free": self._free.tolist(),
            "stayed": self._stayed.tolist(),
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Forecast":
        """From what `state` gave. Raises `ValueError` if that has other bins."""
        if not len(state["free"]) == len(state["stayed"]) == WEEK:
            raise ValueError(f"a forecast with {len(state['free'])} bins a week, and there are {WEEK}")
        out = cls(state["utc_offset_h"], state["day_ms"], state["since_ms"], state["origin_ms"])
        out.seen_ms, out._whole, out._before = state["seen_ms"], bool(state["whole"]), bool(state["before"])
        out._free, out._stayed = array("H", state["free"]), array("H", state["stayed"])
        return out

    # ------------------------------------------------------------------ bins

    def _bin(self, ms: int) -> int:
        """The bin that holds a time, counted from the local midnight of simulated day 0."""
        return (ms - self._zero) * BINS // self.day_ms

    def _edge(self, b: int) -> int:
        """The first ms of a bin."""
        return self._zero - (-b * self.day_ms // BINS)


def _leaning(sightings: array, seen: Floats, prior: Floats) -> Floats:
    """Frequencies by bin: its own, leaning on those of the days alike, which lean on the prior."""
    counts, seen = (np.frombuffer(sightings, np.uint16) / UNIT).reshape(7, BINS), seen.reshape(7, BINS)
    alike = np.empty((7, BINS))
    for days in (slice(0, 5), slice(5, 7)):
        alike[days] = (counts[days].sum(0) + PRIOR * prior) / (seen[days].sum(0) + PRIOR)
    return ((counts + DAYS_ALIKE * alike) / (seen + DAYS_ALIKE)).ravel()


def _longest(edges: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], m: int) -> list[tuple[int, int]]:
    """The m longest of the windows that begin with bin a and stop before `stops[a]`, without any overlap."""
    found: list[tuple[int, int]] = []
    for _ in range(m):
        lengths = edges[stops] - edges[:-1]
        a = int(lengths.argmax())
        stop = int(stops[a])
        if stop <= a:
            break
        found.append((int(edges[a]), int(edges[stop])))
        np.minimum(stops[:a], max(a - 1, 0), out=stops[:a])
        stops[a : stop + 1] = np.arange(len(stops))[a : stop + 1]
    return found


def _prior() -> tuple[Floats, Floats]:
    """By bin of a day: the chance to be free throughout it, and throughout it and the one before."""
    edges = np.arange(-1, BINS + 1) * 24 / BINS
    free, stayed = np.zeros(BINS), np.zeros(BINS)
    for night in (0, -24):
        begin_0, begin_1, end_0, end_1 = (
            NIGHT[0] + night,
            NIGHT[1] + night,
            NIGHT[2] + 24 + night,
            NIGHT[3] + 24 + night,
        )
        begun = np.clip((edges - begin_0) / (begin_1 - begin_0), 0, 1)
        lasts = np.clip((end_1 - edges) / (end_1 - end_0), 0, 1)
        free += NIGHTLY * begun[1:-1] * lasts[2:]
        stayed += NIGHTLY * begun[:-2] * lasts[2:]
    return free, stayed


PRIOR_FREE, PRIOR_STAYED = _prior()
