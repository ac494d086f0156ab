"""Sums that are exact: weighted deltas as integers, added into 64 bits, turned into a mean once.

A device rounds each w·δ once to a multiple of 2^(unit + exponent); from there on to the round's total everything is
integer addition. So order, grouping and crashes change no bit of the total, and whoever adds the same deltas again gets
the same bytes. Floats come back only at the leader: the mean, the step, the merge of zones.

"Units" below are multiples of 2^unit, `unit` as the round's `Opened` says. A value in units is an exact integer.
Everything here is a pure function of its arguments; no call draws randomness or depends on threads.

FedAvg is McMahan et al., AISTATS 2017 (the sample-weighted mean of deltas, algorithm 1).
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_INT32 = 2**31
_INT64 = 2**63

# ------------------------------------------------------------------ the device's side


def largest_in_units(largest: float, unit: int) -> int:
    """The bound on |w·δ|, given in model units, as a whole number of 2^unit (rounded down).

    Raises `ValueError` if the bound holds not one unit, or if a single value of it would not fit a 64-bit sum.
    """
    if not math.isfinite(largest) or largest <= 0:
        raise ValueError(f"the largest value must be a positive number, not {largest}")
    try:
        units = int(math.ldexp(largest, -unit))
    except OverflowError:
        units = _INT64
    if units < 1:
        raise ValueError(f"the largest value {largest:g} is less than one unit of 2^{unit}: make the unit smaller")
    if units >= _INT64:
        raise ValueError(
            f"the largest value {largest:g} in units of 2^{unit} does not fit 64 bits: make the unit larger"
        )
    return units


def quantise(values: npt.NDArray[np.floating], unit: int, largest: float) -> tuple[Int32, int]:
    """One block of a delta as integers: `(q, exponent)`, where q[i] · 2^(unit + exponent) stands for values[i].

    `values` (any shape) are already weighted, w·δ in model units; multiply in float64, where a float32 times a weight
    below 2^29 is exact. Each is rounded once, halves to even. The exponent is the smallest >= 0 for which all fit int32.
    A value that rounding would lift above `largest` goes to the multiple below, so `add` never refuses what this made.

    Raises `ValueError` if a value is NaN or infinite, or larger than `largest` in magnitude.
    """
    most = largest_in_units(largest, unit)
    wide = np.asarray(values, dtype=np.float64)
    if not wide.size:
        return np.zeros(wide.shape, dtype=np.int32), 0
    low, high = float(wide.min()), float(wide.max())  # a NaN anywhere shows in both
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = int(np.count_nonzero(~np.isfinite(wide)))
        raise ValueError(f"{bad} of {wide.size} values are NaN or infinite: the training diverged")
    if max(-low, high) > largest:
        raise ValueError(f"a value of magnitude {max(-low, high):g} is more than the largest allowed, {largest:g}")
    exponent = 0
    while round(math.ldexp(high, -unit - exponent)) >= _INT32 or round(math.ldexp(low, -unit - exponent)) < -_INT32:
        exponent += 1
    scaled = wide * math.ldexp(1, -unit - exponent)  # a power of two: exact
    np.rint(scaled, out=scaled)
    bound = float(most >> exponent)
    return np.clip(scaled, -bound, bound, out=scaled).astype(np.int32), exponent


# ------------------------------------------------------------------ the aggregator's side


def read_int32(data: memoryview | bytes, size: int) -> Int32:
    """The `size` little-endian int32 values in `data`, as a view that copies nothing (read-only if `data` is).

    Raises `ValueError` if `data` is not exactly that long.
    """
    have = memoryview(data).nbytes
    if have != 4 * size:
        raise ValueError(f"a block of {size} int32 values is {4 * size} bytes long, not {have}")
    return np.frombuffer(data, dtype="<i4")


def capacity(largest_units: int) -> int:
    """How many contributions, each at most `largest_units` in magnitude, a 64-bit sum surely holds."""
    if largest_units < 1:
        raise ValueError(f"the largest value must be at least one unit, not {largest_units}")
    return (_INT64 - 1) // largest_units


def staleness_factor(staleness: int, fraction: int) -> int:
    """1/sqrt(1 + staleness), FedBuff's weight (Nguyen et al., AISTATS 2022), as a whole number of 2^-fraction; at least 1.

    Integer arithmetic throughout, so that every machine finds the same: the largest n with n² · (1 + staleness) <= 4^fraction.
    """
    if staleness < 0 or fraction < 0:
        raise ValueError(f"staleness and fraction are 0 or more, not {staleness} and {fraction}")
    return max(1, math.isqrt(4**fraction // (1 + staleness)))


def within(q: Int32, exponent: int, largest: int) -> bool:
    """Whether every |q| · 2^exponent is at most `largest` (all in units). |q| is never formed: -2^31 has none."""
    if not 0 <= exponent <= 62:
        return False
    if _INT32 << exponent <= largest or not q.size:  # then every int32 is: there is nothing to look for
        return True
    bound = largest >> exponent
    return int(q.max()) <= bound and int(q.min()) >= -bound


def add(acc: Int64, q: Int32, exponent: int, largest: int, factor: int = 1) -> None:
    """acc += factor · q · 2^exponent, in place and exact. `acc` and `q` have one shape; `largest` is in units, for a factor of 1.

    Raises `ValueError`, and leaves `acc` as it was, if a value is larger than `largest` in magnitude, or if shapes, types
    or exponent are wrong. That the sum itself fits is the caller's part: at most `capacity(largest · factor)` contributions.
    """
    if acc.shape != q.shape:
        raise ValueError(f"a block of shape {q.shape} cannot be added to one of {acc.shape}")
    if acc.dtype != np.int64 or q.dtype != np.int32:
        raise ValueError(f"int32 is added to int64 here, not {q.dtype} to {acc.dtype}")
    if not 0 <= exponent <= 62:
        raise ValueError(f"an exponent of {exponent} is not in 0 to 62")
    if largest <= 0 or factor <= 0 or largest * factor >= _INT64:
        raise ValueError(f"the largest value must be in 1 to 2^63 - 1 units, not {largest} (times {factor})")
    if not within(q, exponent, largest):
        worst = max(-int(q.min()), int(q.max())) << exponent
        raise ValueError(f"a value of {worst} units is more than the largest allowed, {largest}")
    if exponent or factor != 1:
        wide = np.left_shift(q, exponent, dtype=np.int64)
        np.add(acc, wide if factor == 1 else np.multiply(wide, factor, out=wide), out=acc)
    else:
        np.add(acc, q, out=acc, casting="same_kind")  # widens in small pieces, no array is made


# ------------------------------------------------------------------ the leader's side


def mean(total: Int64, weight: int, unit: int) -> Float64:
    """The weighted mean total · 2^unit / weight, in model units. Raises `ValueError` for a weight below 1."""
    if weight < 1:
        raise ValueError(f"a mean needs a weight of at least 1, not {weight}")
    return total * math.ldexp(1, unit) / weight


def apply_mean(model: Float32, sums: Int64, weights: Sequence[int], sizes: Sequence[int], unit: int) -> Float32:
    """The next model: old + mean, added in float64 and rounded to float32 once.

    `model` and `sums` are flat; `sizes` cut both into blocks, `weights[b]` is the sum of the weights counted for block b.
    A block of weight 0 keeps its old values bit for bit, whatever its sum. Raises `ValueError` if the lengths do not fit
    together.
    """
    if len(weights) != len(sizes):
        raise ValueError(f"{len(weights)} weights for {len(sizes)} blocks")
    if model.shape != (sum(sizes),) or sums.shape != model.shape:
        raise ValueError(f"blocks of {sum(sizes)} values, a model of {model.shape} and sums of {sums.shape}")
    new, at = model.copy(), 0
    for weight, size in zip(weights, sizes, strict=True):
        here = slice(at, at + size)
        at += size
        if weight:
            new[here] = model[here].astype(np.float64) + mean(sums[here], weight, unit)
    return new


def merge(models: Sequence[Float32], weights: Sequence[int]) -> Float32:
    """The weighted mean of flat models (zones, by samples), accumulated in float64 in the order given.

    Floats, so the order counts: callers give one that all agree on. Models of weight 0 are left out. Raises `ValueError`
    if shapes or counts differ, a weight is negative, or all are 0.
    """
    if len(models) != len(weights):
        raise ValueError(f"{len(weights)} weights for {len(models)} models")
    if any(w < 0 for w in weights) or not any(weights):
        raise ValueError(f"a merge needs weights >= 0 that are not all 0, not {list(weights)}")
    if len({m.shape for m in models}) != 1:
        raise ValueError(f"models of different shapes cannot be merged: {[m.shape for m in models]}")
    acc = np.zeros(models[0].shape, dtype=np.float64)
    for m, w in zip(models, weights, strict=True):
        if w:
            acc += m.astype(np.float64) * w
    return (acc / sum(weights)).astype(np.float32)


def norm(values: npt.NDArray[np.floating]) -> float:
    """The Euclidean norm, in float64 (not by BLAS, whose result may depend on its threads)."""
    return math.sqrt(float(np.sum(np.square(values, dtype=np.float64))))
