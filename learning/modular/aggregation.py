"""Module-wise aggregation (ECLM §5.2): each module is the importance-weighted mean of those who trained it. Pure, exact, no torch.

    ω_i ← ω_i + Σ_k a_ik · δ_ik / Σ_k a_ik,    a_ik = Importance(ω_i | D_k),   over the devices k that trained module i

δ_ik is against the version of module i that device k was sent, so devices with different ones can be mixed; one older than `OLDEST`
versions is left out, and running statistics against any but the present version. The shared part is the sample-weighted mean over all (FedAvg). What nobody trained stays bit for bit, its
version too.

These are the sums of `learning/aggregation.py`, block by block: a device sends weight · delta as integers, and the weights of a
block add up beside it. Weights are whole numbers: for the shared part the samples, for a module its importance in `FRACTION` bits,
so that 1/16 is 64. A mean divides by its own block's weights, so the two need no common measure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from learning.aggregation import Float32, Int64, Ints, add, apply_mean
from learning.modular.structure import NOISE, SELECTOR, SHARED, blocks_of, group, owners
from schemas.blocks import Layout, slices
from schemas.modules import FRACTION, Choice

OLDEST = 10
"""A delta counts up to so many versions of its module behind."""

_INTS = (np.int8, np.int16, np.int32)

Versions = Mapping[str, int]
"""By owner (`structure.owners`) how often it was changed. One that is not named is at 0."""


def weight_of(importance: float) -> int:
    """A module's weight for a device: its importance, from 0 to 1, as a whole number of 2^-10; at least 1 unless it is 0.

    Raises `ValueError` for another importance.
    """
    if not 0 <= importance <= 1:  # nor is NaN
        raise ValueError(f"importance is a number from 0 to 1, not {importance}")
    return max(1, round(importance * 2**FRACTION)) if importance else 0


def weights_of(
    layout: Layout, choice: Choice, importance: Sequence[Sequence[float]], samples: int, selector: bool = False
) -> dict[int, int]:
    """The weight of each block that a device sends, by block, ascending. `layout` is the whole model's; modules of importance 0 are
    not sent. With `selector` it was trained, and goes as the shared part does."""
    if samples < 1:
        raise ValueError(f"a delta speaks for at least one sample, not {samples}")
    by_owner = {SHARED: samples, SELECTOR: samples}
    for i, chosen in enumerate(choice):
        by_owner |= {group(i, n): weight_of(importance[i][n]) for n in chosen}
    names = owners(layout)
    return {b: w for b in blocks_of(layout, choice, selector) if (w := by_owner[names[b]])}


@dataclass(frozen=True)
class Contribution:
    """What a device sends: by block its weight, and weight · delta as (q, exponent), as `quantise` makes it. `base`: by owner the
    version that it was sent."""

    base: Versions
    weights: Mapping[int, int]
    values: Mapping[int, tuple[Ints, int]]


@dataclass
class Sums:
    """The sums of a version, in units of 2^unit, (n,) int64; each block's weight; and how many blocks were left out as too old.

    `model` makes the next one of them. Sums of the same contributions are the same, in whatever order they were added.
    """

    layout: Layout
    total: Int64 = field(init=False)
    weights: list[int] = field(init=False)
    old: int = 0
    _plain: frozenset[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.total = np.zeros(sum(self.layout.sizes), np.int64)
        self.weights = [0] * len(self.layout.sizes)
        self._plain = self.layout.plain

    def add(self, c: Contribution, versions: Versions, oldest: int = OLDEST) -> None:
        """Add a contribution, `versions` being those of the model it is to come into.

        That values are within the round's largest, and sums within 64 bits, is the caller's part, as with
        `learning.aggregation.add`. Raises `ValueError`, and adds nothing, if it has part of a module only, weights of one owner that differ, a base that is not
        yet, `NOISE`, or values of another size.
        """
        names, pieces = owners(self.layout), slices(self.layout.sizes)
        if set(c.weights) != set(c.values):
            raise ValueError(f"weights of blocks {sorted(c.weights)} and values of {sorted(c.values)}")
        if strangers := sorted(b for b in c.weights if not 0 <= b < len(names)):
            raise ValueError(f"the model has blocks 0 to {len(names) - 1}, not {strangers}")
        mine = {names[b] for b in c.weights}
        if NOISE in mine:
            raise ValueError("the selector's noise serves the offline stage alone; no device has it")
        for owner in sorted(mine):
            whole = [b for b, name in enumerate(names) if name == owner]
            if missing := [b for b in whole if b not in c.weights]:
                raise ValueError(
                    f"{owner or 'the shared part'} comes whole or not at all; missing are blocks {missing}"
                )
            if len({c.weights[b] for b in whole}) > 1 or c.weights[whole[0]] < 1:
                raise ValueError(f"the blocks of {owner or 'the shared part'} have one weight, of at least 1")
            if not 0 <= c.base.get(owner, 0) <= versions.get(owner, 0):
                raise ValueError(
                    f"{owner or 'the shared part'} is at {versions.get(owner, 0)}, not yet at {c.base[owner]}"
                )
        for b, (q, exponent) in c.values.items():
            if q.shape != (self.layout.sizes[b],) or q.dtype not in _INTS or not 0 <= exponent <= 62:
                raise ValueError(
                    f"block {b} has {self.layout.sizes[b]} values of int32, int16 or int8 and an exponent from 0 to 62, not "
                    f"{q.shape} of {q.dtype} and {exponent}"
                )
        for b, (q, exponent) in c.values.items():
            # Changes of a running variance from different values of it may add up to one below 0.
            if versions.get(names[b], 0) - c.base.get(names[b], 0) > (0 if b in self._plain else oldest):
                self.old += 1
                continue
            add(self.total[pieces[b]], q, exponent)
            self.weights[b] += c.weights[b]

    def model(self, model: Float32, unit: int) -> Float32:
        """The next model, (n,): old + mean, block by block."""
        return apply_mean(model, self.total, self.weights, self.layout.sizes, unit)

    def versions(self, versions: Versions) -> dict[str, int]:
        """The next versions: one more for whom somebody trained."""
        trained = {name for name, weight in zip(owners(self.layout), self.weights, strict=True) if weight}
        return {name: versions.get(name, 0) + (name in trained) for name in dict.fromkeys(owners(self.layout))}
