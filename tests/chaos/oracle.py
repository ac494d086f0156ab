"""What the model must be, in plain numpy, from what `tests.plane.Arithmetic` says a device's training is."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from device_sim.pseudonym import seed_of
from tests.plane import LAYOUT, START

UNIT = 2.0**-24
CUTS = np.split(np.arange(len(START)), np.cumsum(LAYOUT.sizes)[:-1])

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


def merged(models: Sequence[np.ndarray], samples: Sequence[int]) -> np.ndarray:
    """The zones' models weighted by samples, in the order of the zones' names."""
    total = sum(m.astype(np.float64) * n for m, n in zip(models, samples, strict=True))
    return (total / sum(samples)).astype(np.float32)


def delta(seed: int, device: str, task: str, n: int, base: np.ndarray) -> tuple[list[np.ndarray], int]:
    """A device's weighted delta, block by block, in units, rounded once; and its samples."""
    dice = seed_of(seed, device, task, n)
    noise = np.random.default_rng(dice).standard_normal(len(START)).astype(np.float32)
    blocks = []
    for cut in CUTS:
        units = (0.1 * noise - 0.1 * base)[cut].astype(np.float64) * (1 + dice % 50) / UNIT
        e = 0  # to the finest multiple of a power of two that fits int32
        while np.abs(np.rint(units / 2**e)).max() >= 2**31:
            e += 1
        blocks.append(np.rint(units / 2**e).astype(np.int64) * 2**e)
    return blocks, 1 + dice % 50


def trained(task: str, seed: int, zones: Iterable[str], epochs: int, rounds: int, who: Who) -> np.ndarray:
    """Epochs of rounds in all zones, by the book."""
    model = START
    for epoch in range(epochs):
        results, weights = [], []
        for zone in sorted(zones):
            local, weight = model, 0
            for n in range(epoch * rounds + 1, (epoch + 1) * rounds + 1):
                sums, samples = [np.zeros(len(cut), np.int64) for cut in CUTS], [0] * len(CUTS)
                for i in range(len(CUTS)):
                    for device in who(zone, n, i):
                        blocks, w = delta(seed, device, task, n, local)
                        sums[i] += blocks[i]
                        samples[i] += w
                local, weight = step(local, sums, samples), weight + samples[-1]
            results.append(local)
            weights.append(weight)
        model = merged(results, weights)
    return model
