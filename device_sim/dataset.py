"""A data set: samples to train on, samples held out, and which are which."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples to train on and samples held out: x float32 (n, …), y int64 (n,), classes from 0. Arrays become read-only.

    `user` int64 (n,): whose sample each of `x` is, where that is known.
    """

    name: str
    x: Float32
    y: Int64
    test_x: Float32
    test_y: Int64
    user: Int64 | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or len(self.test_x) != len(self.test_y):
            raise ValueError(f"data {self.name!r} has not as many labels as samples")
        if self.x.shape[1:] != self.test_x.shape[1:]:
            raise ValueError(f"data {self.name!r} trains on {self.x.shape[1:]} and tests on {self.test_x.shape[1:]}")
        if self.user is not None and len(self.user) != len(self.y):
            raise ValueError(f"data {self.name!r} has not as many users as samples")
        for array in (self.x, self.y, self.test_x, self.test_y, self.user):
            if array is not None:
                array.setflags(write=False)


def held_out(
    name: str,
    x: npt.NDArray[np.floating],
    y: npt.NDArray[np.integer],
    fraction: float = 0.2,
    user: npt.NDArray[np.integer] | None = None,
) -> Dataset:
    """Hold out a fraction (rounded), always the same: of the users, with all that is theirs, or without `user` of every class.

    Raises `ValueError` for a fraction that is not between 0 and 1, or if there is but one user.
    """
    if isinstance(fraction, bool | str) or not 0 < fraction < 1:
        raise ValueError(f"the share held out must be between 0 and 1, not {fraction!r}")
    test = _of_classes(y, fraction) if user is None else _of_users(user, fraction)
    return divided(name, x, y, ~test, test, user)


def _of_classes(y: npt.NDArray[np.integer], fraction: float) -> Mask:
    dice = np.random.default_rng(0)
    test = np.zeros(len(y), dtype=bool)
    for c in np.unique(y):
        mine = dice.permutation(np.flatnonzero(y == c))
        test[mine[: round(fraction * len(mine))]] = True
    return test


def _of_users(user: npt.NDArray[np.integer], fraction: float) -> Mask:
    users = np.unique(user)
    if len(users) < 2:
        raise ValueError("whole users are held out, and all samples are of one: leave `user` out")
    many = min(max(round(fraction * len(users)), 1), len(users) - 1)
    return np.isin(user, np.random.default_rng(0).permutation(users)[:many])


def divided(
    name: str,
    x: npt.NDArray[np.floating],
    y: npt.NDArray[np.integer],
    train: Mask,
    test: Mask,
    user: npt.NDArray[np.integer] | None = None,
) -> Dataset:
    """The data set of these samples to train on and those to test on; what is in neither is left out.

    Raises `ValueError` if these are not as many as each other.
    """
    if not len(x) == len(y) == len(train) == len(test) or (user is not None and len(user) != len(y)):
        raise ValueError(f"{len(x)} samples have not as many labels, or users: {len(y)}, {len(train)}")
    mine, theirs = np.flatnonzero(train), np.flatnonzero(test)
    return Dataset(
        name=name,
        x=rows(x, mine).astype(np.float32, copy=False),
        y=rows(y, mine).astype(np.int64, copy=False),
        test_x=rows(x, theirs).astype(np.float32, copy=False),
        test_y=rows(y, theirs).astype(np.int64, copy=False),
        user=None if user is None else rows(user, mine).astype(np.int64, copy=False),
    )


def rows(array: np.ndarray, at: Int64) -> np.ndarray:
    """array[at], and no copy where these rows lie one after the other."""
    if len(at) and np.array_equal(at, np.arange(at[0], at[0] + len(at))):
        return array[at[0] : at[0] + len(at)]
    return array[at]
