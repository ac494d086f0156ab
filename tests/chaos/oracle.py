"""What the model must be, in plain numpy, from what `tests.plane.Arithmetic` says a device's training is."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from device_sim.pseudonym import seed_of
from tests.plane import CUTS, START, weights

UNIT = 2.0**-24

Who = Callable[[str, int, int], Iterable[str]]
"""Whose block counts: zone, round, block -> device IDs."""


def step(base: np.ndarray, sums: Sequence[np.ndarray], weights: Sequence[int], fraction: int = 0) -> np.ndarray:
    """FedAvg: base + Σ w·δ / Σ w, each block for itself; a block that nobody sent keeps its values. Where deltas may be stale,
    the sums are in units of 2^-fraction more."""
    new = base.copy()
    for cut, total, weight in zip(CUTS, sums, weights, strict=True):
        if weight:
            new[cut] = base[cut].astype(np.float64) + total * (UNIT / 2**fraction) / weight
    return new


def merged(last: np.ndarray, models: Sequence[np.ndarray], weights: Sequence[Sequence[int]]) -> np.ndarray:
    """The zones' models, in the order of their names, each block weighted by what was counted of it; what nobody trained stays."""
    new = last.copy()
    for b, cut in enumerate(CUTS):
        if sum(w[b] for w in weights):
            total = sum(m[cut].astype(np.float64) * w[b] for m, w in zip(models, weights, strict=True) if w[b])
            new[cut] = (total / sum(w[b] for w in weights)).astype(np.float32)
    return new


def delta(
    seed: int, device: str, task: str, n: int, base: np.ndarray, partial: bool = False
) -> tuple[list[np.ndarray], list[int]]:
    """A device's weighted delta, block by block, in units, rounded once; and what each block weighs."""
    dice = seed_of(seed, device, task, n)
    noise = np.random.default_rng(dice).standard_normal(len(START)).astype(np.float32)
    blocks, heavy = [], [weights(dice)[b] if partial else 1 + dice % 50 for b in range(len(CUTS))]
    for b, cut in enumerate(CUTS):
        units = (0.1 * noise - 0.1 * base)[cut].astype(np.float64) * heavy[b] / UNIT
        e = 0  # to the finest multiple of a power of two that fits int32
        while np.abs(np.rint(units / 2**e)).max() >= 2**31:
            e += 1
        blocks.append(np.rint(units / 2**e).astype(np.int64) * 2**e)
    return blocks, heavy


def trained(
    task: str, seed: int, zones: Iterable[str], epochs: int, rounds: int, who: Who, partial: bool = False
) -> np.ndarray:
    """Epochs of rounds in all zones, by the book."""
    model = START
    for epoch in range(epochs):
        results, counted = [], []
        for zone in sorted(zones):
            local, weight = model, [0] * len(CUTS)
            for n in range(epoch * rounds + 1, (epoch + 1) * rounds + 1):
                sums, heavy = [np.zeros(len(cut), np.int64) for cut in CUTS], [0] * len(CUTS)
                for i in range(len(CUTS)):
                    for device in who(zone, n, i):
                        blocks, w = delta(seed, device, task, n, local, partial)
                        sums[i] += blocks[i]
                        heavy[i] += w[i]
                local, weight = step(local, sums, heavy), [x + y for x, y in zip(weight, heavy, strict=True)]
            results.append(local)
            counted.append(weight)
        model = merged(model, results, counted)
    return model
