"""Sums that are exact: weighted deltas as integers, added into 64 bits, turned into a mean once.

A device rounds each w·δ once to a multiple of 2^(unit + exponent), of 32, 16 or 8 bits; from there on to the round's total everything is
integer addition. So order, grouping and crashes change no bit of the total, and whoever adds the same deltas again gets
the same bytes. Floats come back only at the leader: the mean, the step, the merge of zones.

"Units" below are multiples of 2^unit, `unit` as the round's `Opened` says. A value in units is an exact integer.
Everything here is a pure function of its arguments; no call depends on threads, and randomness comes from a generator given.

FedAvg is McMahan et al., AISTATS 2017 (the sample-weighted mean of deltas, algorithm 1).
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32] | npt.NDArray[np.int16] | npt.NDArray[np.int8]
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


def quantise(
    values: npt.NDArray[np.floating], unit: int, largest: float, bits: int = 32, dice: np.random.Generator | None = None
) -> tuple[Ints, int]:
    """One block of a delta as integers of 32, 16 or 8 bits: `(q, exponent)`, where q[i] · 2^(unit + exponent) stands for values[i].

    `values` (any shape) are already weighted, w·δ in model units; multiply in float64, where a float32 times a weight
    below 2^29 is exact. Each is rounded once: to the nearest, halves to even; or with `dice` up or down by chance, so that its
    expectation is the value. The exponent is the smallest >= 0 for which all fit, however the dice fall.
    A value that rounding would lift above `largest` goes to the multiple below, so `within` never refuses what this made.

    Raises `ValueError` if a value is NaN or infinite, or larger than `largest` in magnitude.
    """
    most, edge = largest_in_units(largest, unit), 2 ** (bits - 1)
    wide = np.asarray(values, dtype=np.float64)
    if not wide.size:
        return np.zeros(wide.shape, dtype=f"i{bits // 8}"), 0
    low, high = float(wide.min()), float(wide.max())  # a NaN anywhere shows in both
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = int(np.count_nonzero(~np.isfinite(wide)))
        raise ValueError(f"{bad} of {wide.size} values are NaN or infinite: the training diverged")
    if max(-low, high) > largest:
        raise ValueError(f"a value of magnitude {max(-low, high):g} is more than the largest allowed, {largest:g}")
    up, down = (math.ceil, math.floor) if dice else (round, round)
    exponent = 0
    while up(math.ldexp(high, -unit - exponent)) >= edge or down(math.ldexp(low, -unit - exponent)) < -edge:
        exponent += 1
    scaled = wide * math.ldexp(1, -unit - exponent)  # a power of two: exact
    if dice:
        np.floor(np.add(scaled, dice.random(scaled.shape), out=scaled), out=scaled)
    else:
        np.rint(scaled, out=scaled)
    bound = most >> exponent
    if not dice and round(math.ldexp(max(-low, high), -unit - exponent)) <= min(bound, edge - 1):
        return scaled.astype(f"i{bits // 8}"), exponent  # none needs to be clipped
    return np.clip(scaled, -min(bound, edge), min(bound, edge - 1), out=scaled).astype(f"i{bits // 8}"), exponent


# ------------------------------------------------------------------ the aggregator's side


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


def within(q: Ints, exponent: int, largest: int) -> bool:
    """Whether every |q| · 2^exponent is at most `largest` (all in units). |q| is never formed: the lowest integer has none."""
    if not 0 <= exponent <= 62:
        return False
    if (
        _reach(q) << exponent <= largest or not q.size
    ):  # then all that these bits can say is: there is nothing to look for
        return True
    bound = largest >> exponent
    return int(q.max()) <= bound and int(q.min()) >= -bound


def add(acc: Int64, q: Ints, exponent: int, factor: int = 1, at: npt.NDArray[np.intp] | None = None) -> None:
    """acc += factor · q · 2^exponent, in place and exact; with `at` at these positions, of which none comes twice.

    That the sum fits 64 bits is the caller's part: all are `within` the round's largest, and at most
    `capacity(largest · factor)` are added. Raises `ValueError`, and leaves `acc` as it was, if shapes, types, exponent or
    factor are wrong.
    """
    if q.shape != (acc if at is None else at).shape:
        raise ValueError(f"a block of shape {q.shape} cannot be added to one of {acc.shape}")
    if acc.dtype != np.int64 or q.dtype not in (np.int8, np.int16, np.int32):
        raise ValueError(f"int32, int16 or int8 is added to int64 here, not {q.dtype} to {acc.dtype}")
    if not 0 <= exponent <= 62:
        raise ValueError(f"an exponent of {exponent} is not in 0 to 62")
    if factor < 1:
        raise ValueError(f"a factor is 1 or more, not {factor}")
    wide: npt.NDArray[np.signedinteger] = q
    if exponent or factor != 1:
        fits = (_reach(q) << exponent) * factor <= _INT32  # in half the bytes
        wide = np.left_shift(q, exponent, dtype=np.int32 if fits else np.int64)
        if factor != 1:
            np.multiply(wide, factor, out=wide)
    if at is None:
        np.add(acc, wide, out=acc, casting="same_kind")  # widens in small pieces, no array is made
    else:
        np.add.at(acc, at, wide.astype(np.int64, copy=False))  # of one type: 25 times as fast as of two


def _reach(q: Ints) -> int:
    """The largest magnitude that integers of this type have."""
    return 1 << (8 * q.itemsize - 1)


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


def merge_blocks(
    last: Float32, models: Sequence[Float32], weights: Sequence[Sequence[int]], sizes: Sequence[int]
) -> Float32:
    """The weighted mean of flat models (zones), block by block: `weights[k][b]` is what block b of model k weighs.

    What nobody trained weighs nothing, so a zone in which no device trained a block leaves it to the others, however many samples the
    zone has; a block that weighs nothing anywhere is that of `last`, bit for bit. Blocks that weigh alike come out as `merge` has
    them. Raises `ValueError` if lengths do not fit together.
    """
    if len(models) != len(weights) or any(len(w) != len(sizes) for w in weights):
        raise ValueError(f"{[len(w) for w in weights]} weights for {len(models)} models of {len(sizes)} blocks")
    if any(m.shape != last.shape for m in models) or last.shape != (sum(sizes),):
        raise ValueError(f"blocks of {sum(sizes)} values, and models of {[m.shape for m in (last, *models)]}")
    new, at = last.copy(), 0
    for b, size in enumerate(sizes):
        here = slice(at, at + size)
        at += size
        if any(mine := [w[b] for w in weights]):
            new[here] = merge([m[here] for m in models], mine)
    return new


def norm(values: npt.NDArray[np.floating] | Int64) -> float:
    """The Euclidean norm, in float64 (not by BLAS, whose result may depend on its threads)."""
    return math.sqrt(float(np.sum(np.square(values, dtype=np.float64))))


def mean_norm(sums: Int64, weights: Sequence[int], sizes: Sequence[int], unit: int) -> float:
    """The Euclidean norm of the mean that `sums` (n,) and `weights` stand for, as in `apply_mean`; a block of weight 0 has none.

    In float64, block by block: the same sums give the same bits.
    """
    parts, at = [], 0
    for weight, size in zip(weights, sizes, strict=True):
        if weight:
            parts.append((norm(sums[at : at + size]) / weight) ** 2)
        at += size
    return math.ldexp(math.sqrt(math.fsum(parts)), unit)
