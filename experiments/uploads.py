"""A day's uploads over time zones: which devices take part in which round of which task, and when their deltas arrive.

Devices are free at night by their zone's time (`device_sim/availability.py`). A task's round invites devices that are free
and idle, more than it needs; each trains for a while and uploads, or drops out. The round closes when as many deltas came as it
demands, or at its deadline with those that came; the next one opens after a pause. A device works for one task at a time. So
the tasks compete for devices, and where it is day for most of these, rounds are starved.

Nobody waits for an aggregator: the same day can be replayed to each of them. All that is not the nights is assumed; the
numbers are below. Times in ms from the start of the day, midnight UTC.
"""

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from device_sim.availability import Availability

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
ZONES = {8.0: 0.35, 5.5: 0.20, 1.0: 0.15, -5.0: 0.12, 3.0: 0.10, -8.0: 0.08}
"""By UTC offset in hours, the share of the devices: most live in Asia."""
OVER_COMMIT = 1.3
TRAINING = (5 * MINUTE, 30 * MINUTE)
"""From a round's opening until a device's delta has arrived, even between these."""
DROP = 0.05
"""The chance that a device's delta never arrives."""
DEADLINE = HOUR
PAUSE = (5 * MINUTE, 15 * MINUTE)
"""From a round's close until the task's next one opens."""
REST = HOUR // 2
"""After an upload, until a device takes part again."""
FEW = 0.1
"""With fewer devices free than this share of the demand no round opens; the task looks again after a pause."""


@dataclass(frozen=True)
class Round:
    """`uploads`: (when, slot) in order; slot i belongs to `devices[i]`. `closes` is when the last that counts has arrived, or the
    deadline."""

    task: str
    number: int
    demand: int
    opens: int
    closes: int
    devices: tuple[str, ...]
    uploads: tuple[tuple[int, int], ...]


def day(seed: int, tasks: int, demand: int, devices: int, hours: int) -> list[Round]:
    """The rounds that open in so many hours, by opening."""
    rng = np.random.default_rng(seed)
    begins, ends = _nights(seed, devices, hours)
    idle = np.zeros(devices, np.int64)
    opens = [(int(MINUTE + rng.integers(40 * MINUTE)), t, 1) for t in range(tasks)]
    heapq.heapify(opens)
    rounds = []
    while opens and opens[0][0] < hours * HOUR:
        at, t, number = heapq.heappop(opens)
        arrives = at + rng.integers(*TRAINING, devices)
        free = np.flatnonzero(((begins <= at) & (arrives <= ends)).any(axis=0) & (idle <= at))
        if len(free) < max(1, FEW * demand):
            heapq.heappush(opens, (at + int(rng.integers(*PAUSE)), t, number))
            continue
        chosen = rng.choice(free, min(len(free), round(OVER_COMMIT * demand)), replace=False)
        comes = np.flatnonzero((rng.random(len(chosen)) >= DROP) & (arrives[chosen] <= at + DEADLINE))
        order = comes[np.argsort(arrives[chosen[comes]], kind="stable")][:demand]
        uploads = tuple((int(arrives[chosen[slot]]), int(slot)) for slot in order)
        closes = uploads[-1][0] if len(uploads) == demand else at + DEADLINE
        idle[chosen] = closes
        idle[chosen[order]] = arrives[chosen[order]] + REST
        rounds.append(Round(f"task-{t:03}", number, demand, at, closes, tuple(f"device-{i}" for i in chosen), uploads))
        heapq.heappush(opens, (closes + int(rng.integers(*PAUSE)), t, number + 1))
    return rounds


def _nights(seed: int, devices: int, hours: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Begins and ends of the devices' free windows (windows, devices); a window that is not there is empty."""
    offsets = np.random.default_rng((seed, 1)).choice(list(ZONES), devices, p=list(ZONES.values()))
    nights = [
        Availability(f"device-{i}", float(offset), 24 * HOUR, seed).windows(0, hours * HOUR)
        for i, offset in enumerate(offsets)
    ]
    spans = np.zeros((2, max(map(len, nights)), devices), np.int64)
    for i, windows in enumerate(nights):
        for n, span in enumerate(windows):
            spans[:, n, i] = span
    return spans[0], spans[1]
