"""Data that shifts: at each step some of each device's samples are replaced by samples of a context that is new to it (§7.3, §2.1).

A context is a person (feature skew) or so many classes (label skew), drawn anew for each device and step. What a device is tested on has
the shares of its present samples, and nobody trains on it.
"""

from dataclasses import dataclass

import numpy as np

from device_sim.pseudonym import seed_of
from experiments.eclm.worlds import Device, Int64, Samples, World


@dataclass
class Present:
    """What a device has at a step: rows of the pool, and the cell of each."""

    rows: Int64
    cells: Int64


class Shifting:
    """All devices of a world from step to step. `share` of a device's samples is replaced at each; the same for all ways, by the
    world's seed."""

    def __init__(self, world: World, share: float):
        self.world, self.share = world, share
        self.number = 0
        self.present = {d.number: self._drawn(d, d.cells, d.samples) for d in world.devices}

    def step(self) -> None:
        """On to the next."""
        self.number += 1
        for d in self.world.devices:
            dice = np.random.default_rng(seed_of(self.world.seed, "context", self.number, d.number))
            known = np.array(sorted(self.world.pool))
            context = tuple(int(c) for c in dice.choice(known, min(len(d.cells), len(known)), replace=False))
            old = self.present[d.number]
            many = round(self.share * len(old.rows))
            stay = dice.permutation(len(old.rows))[many:]
            new = self._drawn(d, context, many)
            self.present[d.number] = Present(
                np.concatenate([old.rows[stay], new.rows]), np.concatenate([old.cells[stay], new.cells])
            )

    def _drawn(self, d: Device, context: tuple[int, ...], many: int) -> Present:
        dice = np.random.default_rng(seed_of(self.world.seed, "rows", self.number, d.number))
        cells = dice.choice(np.array(context), many)
        rows = np.array([dice.choice(self.world.pool[int(c)]) for c in cells], np.int64)
        return Present(rows, cells)

    def of(self, d: Device) -> tuple[Samples, Samples]:
        """What it has now, and what it is tested on."""
        now = self.present[d.number]
        cells, counts = np.unique(now.cells, return_counts=True)
        shares = {int(c): float(n) for c, n in zip(cells, counts, strict=True)}
        return self.world.samples(now.rows), self.world.tested(shares)
