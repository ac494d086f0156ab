"""Data sets by name, and each device's share of one.

A task names its data and the arguments; the fleet loads it here and gives device i the i-th share. To add one:

    @data("noise")
    def noise(samples: int = 100) -> Dataset:
        return held_out("noise", x, y)

Its parameters are the task's `data_args`, beside those of every split (`SPLIT`). A package of one's own offers such a function as
an entry point of the group `olearning.data`. What is loaded is cached and shared, so its arrays are read-only.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache

from device_sim.data_npz import npz
from device_sim.data_shares import LEAST as LEAST
from device_sim.data_shares import SPLIT as SPLIT
from device_sim.data_shares import share as share
from device_sim.data_torch import torchaudio, torchvision
from device_sim.dataset import Dataset as Dataset
from device_sim.dataset import held_out as held_out
from learning.plugins import names, plugin
from learning.words import Plain
from schemas.wire import Scalar

GROUP = "olearning.data"
"""The entry points that are looked up when no data of a name is known."""


class UnknownData(Plain):
    """No data set of that name is known here; the text lists those that are."""


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

    Raises `UnknownData`, or `ValueError` for arguments it does not take and for data that cannot be had.
    """
    if name not in _data and (found := plugin(GROUP, name)) and name not in _data:  # its import may register it
        data(name)(found)
    if name not in _data:
        raise UnknownData(
            f"no data {name!r} is known here; known: {', '.join(sorted({*_data, *names(GROUP)}))}. Your own: --load its file"
        )
    takes = _takes(_data[name])
    if strangers := [a for a in args if a not in takes and a not in SPLIT]:
        raise ValueError(f"data {name!r} takes {', '.join([*takes, *SPLIT])}; not {', '.join(strangers)}")
    if missing := [a for a, p in takes.items() if p.default is p.empty and a not in args]:
        raise ValueError(f"data {name!r} needs {', '.join(missing)}")
    return _load(name, tuple(sorted((a, v) for a, v in args.items() if a in takes)))


@lru_cache(maxsize=64)
def _takes(loader: Loader) -> Mapping[str, inspect.Parameter]:
    """Its parameters: each run of each device asks for them."""
    return inspect.signature(loader).parameters


@lru_cache(maxsize=8)
def _load(name: str, args: tuple[tuple[str, Scalar], ...]) -> Dataset:
    found = _data[name](**dict(args))
    if not isinstance(found, Dataset):
        raise ValueError(f"data {name!r} gives {type(found).__name__}, not a Dataset")
    return found


@data("digits")
def digits() -> Dataset:
    """1,797 handwritten digits of 8 × 8 pixels in [0, 1], from scikit-learn's package (UCI ML hand-written digits)."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return held_out("digits", x / 16, y)


data("npz")(npz)
data("torchvision")(torchvision)
data("torchaudio")(torchaudio)
