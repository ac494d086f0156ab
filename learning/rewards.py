"""What a task is worth to a device (OLearning §5.1, eqs. 1 to 5). Pure functions, all in float64.

Three look at a task, each with what it alone knows:

1. the globe: how far a zone's model was from the merged one, as a share of all zones' (eq. 1, `contributions`);
2. the zone: what the last two rounds brought (eq. 2, `progress`). It announces contribution × progress (`zone_reward`), more for a
   task that starved (`boosted`);
3. the device: how much data it has and how wrong the model is on it (eq. 3, `quality`), which never leaves it. The product of all
   is the profit (eq. 4, `profit`), and what the device's plan adds up is the reward (eq. 5, `reward`), in [0, 1).

Sums are of `math.fsum` or of numpy's own addition, not of BLAS: the result depends on no thread. All raise `ValueError`, in
words, for what is no number, below 0, empty or of the wrong shape.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from learning.aggregation import Float32, norm

EPSILON = 1e-8
"""ε of eq. 2: the paper gives no value. Added to a norm and to a loss, so it only matters where these are all but 0."""
FLOOR = 1e-4
"""Progress is never less, nor a contribution as it is announced: a task that stands still, or a zone whose model is the merged one,
is worth little, not nothing, and devices still differ by their quality."""
BOOST = 2.0
"""A task's reward is multiplied by this for each round in a row in which it starved."""
TOP = 1.0
"""No boost goes beyond this: what a new task is worth in the only zone there is."""
ABSURD = 1e50
"""A loss or norm above this is of a training that diverged. From smaller ones all that is made here fits a float."""

# ------------------------------------------------------------------ the globe


def contributions(zones: Mapping[str, Float32], merged: Float32) -> dict[str, float]:
    """Eq. 1: by zone the share of its deviation |W_zone − W_global|₂ in that of all zones; they add up to 1.

    `zones` are the zones' last models before the merge, `merged` what the merge made of them, all flat (n,). Where no zone
    deviates, as before the first merge, each of the n zones has 1/n.
    """
    if not zones:
        raise ValueError("contributions of no zones: there must be at least one")
    deviations = {}
    for zone, model in zones.items():
        if model.shape != merged.shape:
            raise ValueError(f"the model of zone {zone} has the shape {model.shape}, the merged one {merged.shape}")
        with np.errstate(invalid="ignore", over="ignore"):  # said below, with the zone's name
            deviations[zone] = norm(model.astype(np.float64) - merged)
        if not deviations[zone] <= ABSURD:  # nor is NaN
            raise ValueError(f"the model of zone {zone} or the merged one is not finite: the training diverged")
    whole = math.fsum(deviations.values())
    return {zone: d / whole if whole else 1 / len(zones) for zone, d in deviations.items()}


# ------------------------------------------------------------------ the zone


class Measured(NamedTuple):
    """Of a finished round: the L2 norm of its aggregated delta (∇W of eq. 2), and the sample-weighted training loss."""

    gradient: float
    loss: float


def progress(rounds: Sequence[Measured]) -> float:
    """Eq. 2 of the last two rounds, for the round that comes next; at least `FLOOR`.

    `rounds` are the finished rounds of a task in a zone, oldest first; only the last two are looked at. A task's first two rounds
    have less than two behind them: they get 1.

    The first term is squared, as printed: a gradient that grew by x counts as one that fell by x. So where it grew to more than
    double, progress may be more than 1. The second is 0 where the loss did not fall.
    """
    for r in rounds[-2:]:
        _number(r.gradient, "the norm of a round's delta", ABSURD)
        _number(r.loss, "the loss of a round", ABSURD)
    if len(rounds) < 2:
        return 1.0
    before, last = rounds[-2:]
    steadier = (before.gradient - last.gradient) / (before.gradient + EPSILON)
    better = (before.loss - last.loss) / (before.loss + EPSILON)
    return max(FLOOR, steadier**2 * max(0.0, better))


def zone_reward(contribution: float, progress: float) -> float:
    """What a zone announces of a task: the two factors of eq. 4 that are the same for all its devices."""
    return _number(contribution, "a contribution") * _number(progress, "progress")


def boosted(zone_reward: float, starved: int) -> float:
    """The zone reward of a task that got too few devices in its last `starved` rounds in a row (§4.2; the paper gives no formula).

    Doubled for each of them, from at least `FLOOR` on and up to `TOP`. So it finds by itself at what price devices come, whatever
    it starts from it is at the top after 14 rounds, and no task goes beyond what it was worth and `TOP`. The first round
    that gets its devices sets `starved` to 0, and the boost is gone.
    """
    _number(zone_reward, "a zone reward")
    if starved < 0:
        raise ValueError(f"rounds in which a task starved are 0 or more, not {starved}")
    if not starved:
        return zone_reward
    return max(zone_reward, min(TOP, max(zone_reward, FLOOR) * BOOST ** min(starved, 64)))


# ------------------------------------------------------------------ the device


def quality(losses: npt.NDArray[np.floating]) -> float:
    """Eq. 3, after Oort (Lai et al., OSDI 2021): |Data| · √(Σ Loss(d)² / |Data|), from the loss of each sample (n,) in the
    device's last run of the task. The order of the samples changes no bit."""
    if losses.ndim != 1 or not losses.size:
        raise ValueError(f"quality needs one loss for each of at least one sample, not an array of {losses.shape}")
    wide = losses.astype(np.float64)
    low, high = float(wide.min()), float(wide.max())  # a NaN anywhere shows in both
    if not (low >= 0 and high <= ABSURD):
        raise ValueError(f"losses are finite and 0 or more, not from {low:g} to {high:g}")
    power = math.frexp(high)[1]  # scaled by a power of two, which costs no bit: squares of small losses would be 0
    scaled = np.ldexp(wide, -power)
    return math.ldexp(losses.size * math.sqrt(math.fsum((scaled * scaled).tolist()) / losses.size), power)


def first_quality(samples: int, classes: int) -> float:
    """Eq. 3 before the device's first run of a task: each sample's loss is log(classes), that of a model which knows nothing.
    So nobody downloads a model just to bid."""
    if samples < 1 or classes < 2:
        raise ValueError(f"at least one sample and two classes, not {samples} and {classes}")
    return samples * math.log(classes)


def profit(zone_reward: float, quality: float) -> float:
    """Eq. 4: Contrib · Progress · Quality, of which the zone announced the product of the first two."""
    return _number(zone_reward, "a zone reward") * _number(quality, "quality")


def reward(profit: float) -> float:
    """Eq. 5: log(1 + profit) / (1 + log(1 + profit)), which keeps the order of profits and lies in [0, 1)."""
    log = math.log1p(_number(profit, "a profit"))
    return log / (1 + log)


def _number(value: float, what: str, largest: float = sys.float_info.max) -> float:
    if not 0 <= value <= largest:  # nor is NaN
        raise ValueError(f"{what} is a number from 0 to {largest:g}, not {value}")
    return value
