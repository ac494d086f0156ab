"""PyramidFL: what each device of a round sends, and how long it trains. A peer to compare with. Pure.

Li et al., MobiCom 2022; followed is the code, github.com/liecn/PyramidFL `training/param_server.py` and `training/learner.py`. It
selects by Oort (`learning/oort.py`). Among those that run, a device of high gradient utility sends more of its delta; then each trains
on for as long as the slowest still needs.

The code takes the gradient utility of the delta minus the model, though a delta is a difference already; so the norm of the model
and the number of samples decide. The paper means the delta. Both are here: `INTENT` and `CODE`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from learning.aggregation import norm

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

INTENT, CODE = "intent", "code"
LONGEST, PASSES = 10, 5
"""A device takes at most so many times the round's steps on top, and at most so many passes over its data."""
SAMPLES = 100
"""Gradient utilities are said by so many samples."""


@dataclass(frozen=True)
class Settings:
    """`low` to `high`: with what chance a tensor of the delta is dropped. `beta`: the share of the time left that is trained in."""

    low: float = 0.1
    high: float = 0.6
    beta: float = 1.0


HAR = Settings(beta=0.7)
SPEECH = Settings(beta=1.0)
"""As its runs on HARBox and on Google Speech had them, by their logs."""


def gradient_utility(delta: Float32, base: Float32, samples: int, trained: int, variant: str = INTENT) -> float:
    """The norm of the delta that arrived, flat (n,), × the samples it speaks for: `INTENT`; of delta - base: `CODE`.

    The square root of the sum of the layers' squared norms is the norm of all of it. Raises `ValueError` for another variant.
    """
    if variant not in (INTENT, CODE):
        raise ValueError(f"the variants of the gradient utility are {INTENT} and {CODE}, not {variant!r}")
    seen = delta if variant == INTENT else delta - base
    return norm(seen) * min(samples, trained) / SAMPLES


def dropout(utilities: Sequence[float] | Float64, demand: int, settings: Settings = Settings()) -> Float64:
    """With what chance a tensor of each device's delta is dropped (k,): `low` for the highest gradient utility, then by rank.

    `demand` is the K of the round, which k is at most; equals share the better rank.
    """
    values = np.array(utilities, np.float64)
    if not 1 <= values.size <= demand:
        raise ValueError(f"a round of {demand} has at least 1 device and no more than that, not {values.size}")
    ranks = (values[None, :] > values[:, None]).sum(axis=1)
    return settings.low + ranks * (settings.high - settings.low) / demand


class Plan(NamedTuple):
    """A round of k devices: the chance that a tensor is dropped (k,), what the round takes in seconds, each device's steps (k,)."""

    ratios: Float64
    seconds: float
    steps: list[int]


def plan(
    utilities: Sequence[float] | Float64,
    training_s: Sequence[float] | Float64,
    transfer_s: Sequence[float] | Float64,
    steps: Sequence[int],
    batches: Sequence[int],
    demand: int,
    settings: Settings = Settings(),
) -> Plan:
    """What the k devices of a round do, by their gradient utilities so far.

    `training_s` is what `steps` take each, `transfer_s` a whole model's way: a device's time is the one plus that share of the other
    that it does not drop, the round's that of the slowest. `batches`: of a pass over its data.
    """
    ratios = dropout(utilities, demand, settings)
    training = np.array(training_s, np.float64)
    times = training + (1 - ratios) * np.array(transfer_s, np.float64)
    longest = float(times.max())
    more = [
        longer(longest - t, s, e, n, settings.beta) for t, s, e, n in zip(times, training, steps, batches, strict=True)
    ]
    return Plan(ratios, longest, more)


def longer(left_s: float, training_s: float, steps: int, batches: int, beta: float) -> int:
    """How many steps a device takes that has `left_s` seconds more than its `steps` need, which take it `training_s`."""
    fit = left_s // (training_s / steps)
    factor = min(LONGEST, beta * fit / steps) + 1
    return min(int(steps * factor + 1e-6), max(PASSES * batches, steps))  # 3 × (4/3 + 1) is less than 7, in floats


def kept(sizes: Sequence[int], ratio: float, dice: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which values of a delta are sent, flat (n,): of tensors of these sizes each is dropped whole, with the chance `ratio`."""
    return np.repeat(dice.random(len(sizes)) >= ratio, sizes)
