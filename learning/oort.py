"""Oort: which devices a round takes, by how much their data still teaches and how fast they are. A peer to compare with. Pure.

Lai et al., OSDI 2021; followed is the code, github.com/SymbioticLab/Oort `oort/oort.py`, as PyramidFL uses it too. A round exploits
devices that it knows, drawn by score among the best, and explores others, drawn by their number of samples. The score (`scores`) is
the utility of a device's last run, and more the longer ago that was; less for who is slower than a preferred time, which a pacer
raises when utility no longer changes.

Two faults of that code are not here: with nobody tried it took an item of an empty list, and with as many to exploit as were tried
the one after the last. Its blacklist, off by default and in PyramidFL, is left out.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

LOSS_DECAY = 0.2
"""The weight of the newest batch in a device's average of squared losses."""


@dataclass(frozen=True)
class Settings:
    """Oort's settings; the defaults are its own."""

    explored: float = 0.9
    """The share of a round that explores, at first: it is multiplied by `decay` before each round, down to `least_explored`."""
    decay: float = 0.95
    least_explored: float = 0.2
    pacer_step: int = 20
    """Rounds from one look at the pace to the next."""
    pacer_delta: float = 5.0
    """Percentiles that the preferred time moves by."""
    threshold: float = 10.0
    """The percentile of all devices' times that is the preferred time at first; none is from 100 on."""
    penalty: float = 2.0
    clip: float = 0.98
    """Utilities above this quantile count as that."""
    cut_off: float = 0.7
    """Exploited are devices with this share of the best score that has no place any more."""
    window: float = 5.0
    """Explored are devices among so many times the places, those with the most samples."""


HAR = Settings(threshold=10, pacer_delta=0.3, cut_off=0.7, least_explored=0.4)
SPEECH = Settings(threshold=40, pacer_delta=30, cut_off=0.4, least_explored=0.2)
"""As PyramidFL's runs on HARBox and on Google Speech had them, by their logs (github.com/liecn/PyramidFL `training/evals/logs`)."""


class Report(NamedTuple):
    """What a round learned of a device: the utility of its run, and how many seconds it took."""

    utility: float
    seconds: float


def squared_loss(losses: npt.NDArray[np.floating], batch: int) -> float:
    """The mean squared loss of a run, from its losses by sample (n,) in the order of training: by batch, newer ones averaged in
    with the weight `LOSS_DECAY`."""
    if not losses.size:
        raise ValueError("a run has at least one loss")
    means = [
        float(np.mean(np.square(losses[at : at + batch], dtype=np.float64))) for at in range(0, losses.size, batch)
    ]
    average = means[0]
    for newer in means[1:]:
        average = (1 - LOSS_DECAY) * average + LOSS_DECAY * newer
    return average


def utility(squared_loss: float, samples: int, trained: int) -> float:
    """√(mean squared loss) × the samples that it speaks for: those the device has, or those it trained on if fewer."""
    return math.sqrt(squared_loss) * min(samples, trained)


class Oort:
    """The selector. Devices are 0 … n - 1; rounds count from 1.

    `samples` (n,): how many each has, which is its utility until it reports one; `seconds` (n,): what a round would take it.
    `dice` draws. Raises `ValueError` for no devices, or numbers that are not above 0.
    """

    def __init__(
        self,
        samples: Sequence[int],
        seconds: Sequence[float],
        dice: np.random.Generator,
        settings: Settings = Settings(),
    ):
        self.utilities, self.seconds = np.array(samples, np.float64), np.array(seconds, np.float64)
        if self.utilities.ndim != 1 or not self.utilities.size or self.utilities.shape != self.seconds.shape:
            raise ValueError("Oort needs the samples and the seconds of the same devices, at least one")
        if not ((self.utilities > 0) & (self.seconds > 0) & np.isfinite(self.utilities + self.seconds)).all():
            raise ValueError("each device has some samples, and its rounds take more than 0 s")
        self.last: Int64 = np.zeros(self.utilities.size, np.int64)
        """The round of a device's last report; 0: never tried."""
        self.settings, self.threshold, self.explored = settings, settings.threshold, settings.explored
        self._least, self._dice = settings.least_explored, dice
        self._exploited: set[int] = set()
        self._history: list[float] = []

    @property
    def preferred(self) -> float:
        """The preferred time, in seconds: devices that take longer count for less."""
        if self.threshold >= 100:
            return math.inf
        return float(np.sort(self.seconds)[_at(self.seconds.size, self.threshold / 100)])

    def scores(self, now: int, feasible: Int64) -> Float64:
        """What the tried ones of these devices are worth in round `now`, and NaN for the others: (len(feasible),)."""
        known = self.utilities[feasible]
        some = np.sort(known[known > 0])
        if not some.size:
            return np.where(self.last[feasible] > 0, 0.0, np.nan)
        low = 0.999 * some[0]
        value = (np.minimum(known, some[_at(some.size, self.settings.clip)]) - low) / max(some[-1] - low, 1e-4)
        last = np.where(self.last[feasible] > 0, self.last[feasible], np.nan)
        return (value + np.sqrt(0.1 * math.log(now) / last)) * self._slowness(feasible)

    def select(self, count: int, now: int, feasible: Collection[int] | None = None) -> list[int]:
        """`count` devices for round `now`, of those that are feasible (None: of all), or all if they are fewer. Once a round."""
        if count < 1 or now < 1:
            raise ValueError(f"a round takes 1 device or more, and rounds count from 1: not {count} in round {now}")
        here = np.arange(self.utilities.size) if feasible is None else np.array(sorted(feasible), np.int64)
        self._pace(now)
        self.explored = max(self.explored * self.settings.decay, self._least)
        picked = self._exploit(count, now, here)
        self._exploited = set(picked)
        picked += self._explore(count - len(picked), here)
        rest = np.setdiff1d(here, picked)
        return picked + self._drawn(rest, np.ones(rest.size), min(count - len(picked), rest.size))

    def report(self, now: int, reports: Mapping[int, Report], cut: Collection[int] = ()) -> None:
        """What came of round `now`. Who was selected and then `cut`, too slow or gone, is credited the mean utility of those that
        reported, and was tried; without a report at all nothing is learned."""
        for device, r in reports.items():
            if not 0 <= r.utility < math.inf or not 0 < r.seconds < math.inf:
                raise ValueError(f"device {device} reports a utility of {r.utility} in {r.seconds} s")
            self.utilities[device], self.seconds[device], self.last[device] = r.utility, r.seconds, now
        exploited = [r.utility for device, r in reports.items() if device in self._exploited]
        self._history.append(math.fsum(exploited) / len(exploited) if exploited else 0.0)
        if reports:
            mean = math.fsum(r.utility for r in reports.values()) / len(reports)
            for device in cut:
                self.utilities[device], self.last[device] = mean, now

    # ------------------------------------------------------------------ how

    def _slowness(self, devices: Int64) -> Float64:
        """1, or less for those slower than preferred."""
        return np.minimum(1.0, self.preferred / self.seconds[devices]) ** self.settings.penalty

    def _pace(self, now: int) -> None:
        """Prefer more time if what is exploited teaches as much as it did, so nothing better is left at this pace; less if all changed."""
        step, delta = self.settings.pacer_step, self.settings.pacer_delta
        if now < 2 * step or now % step:
            return
        before, lately = math.fsum(self._history[-2 * step : -step]), math.fsum(self._history[-step:])
        if abs(lately - before) <= 0.1 * before:
            self.threshold = min(100.0, self.threshold + delta)
        elif abs(lately - before) >= 5 * before:
            self.threshold = max(delta, self.threshold - delta)

    def _exploit(self, count: int, now: int, here: Int64) -> list[int]:
        tried = here[self.last[here] > 0]
        scores = self.scores(now, here)[self.last[here] > 0]
        many = min(int(count * (1 - self.explored)), tried.size)
        if not many:
            return []
        order = np.argsort(-scores, kind="stable")
        cut = self.settings.cut_off * scores[order[min(many, tried.size - 1)]]
        good = max(many, int(np.count_nonzero(scores >= cut)))
        return self._drawn(tried[order[:good]], scores[order[:good]], many)

    def _explore(self, places: int, here: Int64) -> list[int]:
        if not (self.last == 0).any():
            self.explored = self._least = 0.0
        untried = here[self.last[here] == 0]
        many = min(places, untried.size)
        worth = self.utilities[untried] * self._slowness(untried)
        most = np.argsort(-worth, kind="stable")[: int(self.settings.window * many)]
        return self._drawn(untried[most], worth[most], many)

    def _drawn(self, devices: Int64, weights: Float64, many: int) -> list[int]:
        """So many of these, none twice, by chances as their weights; who has none comes only after all others."""
        weights = np.maximum(weights, 0)
        able = np.flatnonzero(weights)
        if many > able.size:
            rest = np.flatnonzero(weights == 0)
            at = np.concatenate([able, self._dice.choice(rest, many - able.size, replace=False)])
        elif many:
            at = self._dice.choice(able, many, replace=False, p=weights[able] / weights.sum())
        else:
            return []
        return [int(d) for d in devices[at]]


def _at(n: int, share: float) -> int:
    """The place of a quantile among n numbers in order."""
    return min(int(n * share), n - 1)
