"""Data sets by name, and each device's share of one.

A task names its data and the arguments; the fleet loads it here and gives device i the i-th share. To add one:

    @data("noise")
    def noise(samples: int = 100) -> Dataset:
        return held_out("noise", x, y)

Its parameters are the task's `data_args`, beside `devices`, `alpha` and `seed`, which are those of every split.
What is loaded is cached and shared, so its arrays are read-only.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from schemas.task import Scalar

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

SPLIT: dict[str, Scalar] = {"devices": 40, "alpha": 0.5, "seed": 0}
"""The arguments of `share`, and what they are if not given."""
LEAST = 8
"""Samples every device has at least, if there are enough for all."""


class UnknownData(ValueError):
    """No data set of that name is known here; the text lists those that are."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples to train on and samples held out: x float32 (n, …), y int64 (n,), classes from 0. Arrays become read-only."""

    name: str
    x: Float32
    y: Int64
    test_x: Float32
    test_y: Int64

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or len(self.test_x) != len(self.test_y):
            raise ValueError(f"data {self.name!r} has not as many labels as samples")
        for array in (self.x, self.y, self.test_x, self.test_y):
            array.setflags(write=False)


Loader = Callable[..., Dataset]
_data: dict[str, Loader] = {}


def data(name: str) -> Callable[[Loader], Loader]:
    """Make a function that returns a `Dataset` known by `name`. Raises `ValueError` if the name is taken."""

    def register(loader: Loader) -> Loader:
        if name in _data:
            raise ValueError(f"there is data {name!r} already")
        if taken := SPLIT.keys() & inspect.signature(loader).parameters:
            raise ValueError(f"data {name!r} cannot take {', '.join(sorted(taken))}: these are the split's")
        _data[name] = loader
        return loader

    return register


def load(name: str, args: Mapping[str, Scalar]) -> Dataset:
    """The data set; the same object for the same name and arguments (the split's are not looked at).

    Raises `UnknownData`, or `ValueError` for arguments it does not take.
    """
    if name not in _data:
        raise UnknownData(f"no data {name!r} is known here; known: {', '.join(sorted(_data))}")
    takes = inspect.signature(_data[name]).parameters
    if strangers := [a for a in args if a not in takes and a not in SPLIT]:
        raise ValueError(f"data {name!r} takes {', '.join([*takes, *SPLIT])}; not {', '.join(strangers)}")
    return _load(name, tuple(sorted((a, v) for a, v in args.items() if a in takes)))


@lru_cache(maxsize=8)
def _load(name: str, args: tuple[tuple[str, Scalar], ...]) -> Dataset:
    return _data[name](**dict(args))


def held_out(name: str, x: npt.NDArray[np.floating], y: npt.NDArray[np.integer], fraction: float = 0.2) -> Dataset:
    """Hold out a fraction of every class (rounded), always the same samples."""
    dice = np.random.default_rng(0)
    test = np.zeros(len(y), dtype=bool)
    for c in np.unique(y):
        mine = dice.permutation(np.flatnonzero(y == c))
        test[mine[: round(fraction * len(mine))]] = True
    xs, ys = x.astype(np.float32), y.astype(np.int64)
    return Dataset(name=name, x=xs[~test], y=ys[~test], test_x=xs[test], test_y=ys[test])


@data("digits")
def digits() -> Dataset:
    """1,797 handwritten digits of 8 × 8 pixels in [0, 1], from scikit-learn's package (UCI ML hand-written digits)."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return held_out("digits", x / 16, y)


# ------------------------------------------------------------------ shares


def share(dataset: Dataset, device: int, args: Mapping[str, Scalar]) -> tuple[Float32, Int64]:
    """Device `device`'s samples (x, y): disjoint from all others', covering the training samples together.

    `args` may hold `devices`, `alpha` and `seed`; others (the data's own) are not looked at. Labels are spread by
    Dirichlet(alpha), class by class over devices (Yurochkin et al., ICML 2019): small alpha means few classes a device and
    uneven sizes. Raises `ValueError` for arguments that cannot be, or a device that is not in 0 … devices - 1.
    """
    devices, alpha, seed = (args.get(name, default) for name, default in SPLIT.items())
    if isinstance(devices, bool) or not isinstance(devices, int) or not 1 <= devices <= len(dataset.y):
        raise ValueError(f"devices must be a whole number from 1 to the {len(dataset.y)} samples, not {devices!r}")
    if isinstance(alpha, bool | str) or not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha must be a positive number, not {alpha!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0, not {seed!r}")
    if not 0 <= device < devices:
        raise ValueError(f"device {device} is not one of the {devices} (0 to {devices - 1})")
    return _shares(dataset, devices, float(alpha), seed)[device]


@lru_cache(maxsize=8)
def _shares(dataset: Dataset, devices: int, alpha: float, seed: int) -> list[tuple[Float32, Int64]]:
    dice = np.random.default_rng(seed)
    owned: list[list[int]] = [[] for _ in range(devices)]
    for c in np.unique(dataset.y):
        mine = dice.permutation(np.flatnonzero(dataset.y == c))
        cuts = (np.cumsum(dice.dirichlet(np.full(devices, alpha)))[:-1] * len(mine)).astype(int)
        for some, part in zip(owned, np.split(mine, cuts), strict=True):
            some += part.tolist()
    # The poorest takes from the richest until all have enough. Drawing again until it fits may never end for small alpha.
    least = min(LEAST, len(dataset.y) // devices)
    while len(poorest := min(owned, key=len)) < least:
        richest = max(owned, key=len)
        poorest.append(richest.pop(int(dice.integers(len(richest)))))
    out = []
    for some in owned:
        x, y = dataset.x[sorted(some)], dataset.y[sorted(some)]
        x.setflags(write=False)
        y.setflags(write=False)
        out.append((x, y))
    return out
