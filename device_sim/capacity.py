"""How fast devices are: of each its training speed and bandwidth, and how bandwidth goes up and down. Seeded, no clock.

The numbers come from files that a person names, or from a default; a device draws its entry by its name, so it has the same in
every process and however many devices there are.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple
from zipfile import BadZipFile, is_zipfile

import numpy as np
import numpy.typing as npt

from device_sim.pseudonym import seed_of, throw

Float64 = npt.NDArray[np.float64]

TRAINING = 3.0
"""To train on a sample takes so many times the time of inference: the backward pass takes twice the forward one. As FedScale counts
(Lai et al., ICML 2022), whose capacity file has the times of inference."""

# ------------------------------------------------------------------ speed


class Capacity(NamedTuple):
    """One device: ms a sample for inference, and kbit/s, down as up."""

    inference_ms: float
    kbit_s: float

    @property
    def training_ms(self) -> float:
        """ms per sample and epoch, as `device_sim.estimate.Estimate` takes them."""
        return TRAINING * self.inference_ms

    @property
    def bytes_s(self) -> float:
        return self.kbit_s * 125


@dataclass(frozen=True)
class Usual:
    """Devices when there is no file: log-normal speed and bandwidth, independent of each other.

    The defaults are fitted to the 51,496 clients of FedScale's capacity file: a straight line through the logarithms of their quantiles
    (5 %, 10 %, … 95 %) over those of the normal distribution. Bandwidth it follows to 15 % from the 10 % to the 90 % quantile.
    Speed has two humps there, near 24 and 150 ms, and nothing with one can follow that: the quartiles are 24, 41 and 148 ms, and
    here 29, 54 and 100. Where that matters, name the file.
    """

    inference_ms: float = 53.8
    """The median, as that of `kbit_s`; a sigma is the standard deviation of the logarithm."""
    inference_sigma: float = 0.921
    kbit_s: float = 6_780.0
    kbit_sigma: float = 1.153

    def __post_init__(self) -> None:
        for what in ("inference_ms", "kbit_s"):
            if not 0 < getattr(self, what) < math.inf:  # nor is NaN
                raise ValueError(f"{what} is a number above 0, not {getattr(self, what)}")
        for what in ("inference_sigma", "kbit_sigma"):
            if not 0 <= getattr(self, what) <= 10:
                raise ValueError(f"{what} is a number from 0 to 10, not {getattr(self, what)}")

    def of(self, seed: int, device: str | int) -> Capacity:
        """This device's capacity; the same each time."""

        def normal(what: str) -> float:
            return NormalDist().inv_cdf(throw(seed, "capacity", what, device))

        return Capacity(
            self.inference_ms * math.exp(self.inference_sigma * normal("speed")),
            self.kbit_s * math.exp(self.kbit_sigma * normal("bandwidth")),
        )


@dataclass(frozen=True, eq=False)
class Capacities:
    """Devices of a file: entry i of both arrays, float64 (n,), is one device."""

    inference_ms: Float64
    kbit_s: Float64

    def of(self, seed: int, device: str | int) -> Capacity:
        """The entry that this device draws; the same each time. Two devices may draw the same."""
        i = seed_of(seed, "capacity", device) % len(self.inference_ms)
        return Capacity(float(self.inference_ms[i]), float(self.kbit_s[i]))


def capacities(
    path: Path, speed: str = "computation_ms_per_sample", bandwidth: str = "communication_kbps"
) -> Capacities:
    """Read an `.npz` with one array of ms per sample (inference) and one of kbit/s, named as given (default: as in FedScale's).

    Raises `ValueError`, with the file and what is wrong, if it is no such file.
    """
    found = read_arrays(path, lambda keys: (speed, bandwidth))
    for key, values in zip((speed, bandwidth), found, strict=True):
        if not len(values):
            raise ValueError(f"{path}: {key} is empty: there must be at least one device")
        if len(bad := np.flatnonzero(values <= 0)):
            raise ValueError(f"{path}: entry {bad[0]} of {key} is {values[bad[0]]:g}, and must be above 0")
    if len(found[0]) != len(found[1]):
        raise ValueError(
            f"{path}: {speed} has {len(found[0])} entries and {bandwidth} {len(found[1])}: one each a device"
        )
    return Capacities(*found)


# ------------------------------------------------------------------ bandwidth that changes


@dataclass(frozen=True, eq=False)
class Bandwidth:
    """A series of bandwidths: `mbps[k]` Mbit/s from `time_s[k]` on, until the next; both float64 (n,), times rising.

    The last lasts as long as the step before it (of one alone: a second); then it begins anew. Raises `ValueError` for other
    shapes, times that do not rise, bandwidths that are no numbers or below 0, and all 0: then nothing would ever arrive.
    """

    time_s: Float64
    mbps: Float64

    def __post_init__(self) -> None:
        if self.time_s.ndim != 1 or self.time_s.shape != self.mbps.shape or not self.time_s.size:
            raise ValueError(f"a time for each bandwidth, at least one: not {self.time_s.shape} and {self.mbps.shape}")
        if not (np.isfinite(self.time_s).all() and (np.diff(self.time_s) > 0).all()):
            raise ValueError("the times of a series of bandwidths are numbers, each above the one before")
        if not (np.isfinite(self.mbps).all() and (self.mbps >= 0).all()):
            raise ValueError("bandwidths are numbers, 0 or more")
        if not self.mbps.any():
            raise ValueError("a bandwidth is above 0 at some time, or nothing would ever arrive")

    @cached_property
    def _edges(self) -> tuple[Float64, Float64]:
        """When each step begins, in ms from the first on, with the end; and how many bits have passed by then."""
        steps = np.diff(self.time_s)
        steps = np.append(steps, steps[-1] if steps.size else 1.0) * 1000
        at, bits = (np.concatenate([[0.0], np.cumsum(a)]) for a in (steps, steps * self.mbps * 1000))
        return at, bits

    @property
    def mean_mbps(self) -> float:
        """Over its whole length."""
        at, bits = self._edges
        return float(bits[-1] / at[-1]) / 1000

    def transfer_ms(self, bytes: int, at_ms: int) -> int:
        """How long it takes to move so many bytes from `at_ms` on, in ms, rounded up; the series begins at 0 ms, and loops."""
        if bytes < 0:
            raise ValueError(f"bytes to move are 0 or more, not {bytes}")
        if not bytes:
            return 0
        at, passed = self._edges
        start = at_ms % float(at[-1])
        k = min(int(np.searchsorted(at, start, side="right")) - 1, len(self.mbps) - 1)
        before = float(passed[k]) + (start - float(at[k])) * float(self.mbps[k]) * 1000
        loops, rest = divmod(before + bytes * 8, float(passed[-1]))
        if not rest:  # all have passed when the loop before ends, or earlier
            loops, rest = loops - 1, float(passed[-1])
        k = int(np.searchsorted(passed, rest)) - 1  # bits flow in this step: fewer had passed before it
        end = loops * float(at[-1]) + float(at[k]) + (rest - float(passed[k])) / (float(self.mbps[k]) * 1000)
        return max(1, math.ceil(end - start - 1e-6))  # sums are rounded: not a ms more for that


def constant(kbit_s: float) -> Bandwidth:
    """A bandwidth that stays as it is."""
    return Bandwidth(np.zeros(1), np.array([kbit_s / 1000]))


def bandwidths(path: Path, source: str | None = None) -> tuple[Bandwidth, ...]:
    """Read an `.npz` of series: `offset` (m+1,), `time_s` and `mbps`; series i is [offset[i]:offset[i+1]] of both.

    There may be several sets of the three in a file, with names before them, as `oboe_offset`: all are read, in order of their
    names, or only those of `source` (`oboe`). Times count from the first of a series. Raises `ValueError`, with the file, the
    index of the series, and what is wrong.
    """
    kinds = ("offset", "time_s", "mbps")

    def wanted(keys: list[str]) -> list[str]:
        sources = sorted(key.removesuffix("offset") for key in keys if key == "offset" or key.endswith("_offset"))
        if not sources:
            raise ValueError(f"no bandwidth series: it has {', '.join(keys)}, and none of them is an offset")
        if source is not None and f"{source}_" not in sources:
            known = ", ".join(s.removesuffix("_") for s in sources)
            raise ValueError(f"no series of {source!r}: it has those of {known}")
        return [f"{s}{kind}" for s in sources if source is None or s == f"{source}_" for kind in kinds]

    arrays = read_arrays(path, wanted)
    series = []
    for offset, time_s, mbps in zip(*(arrays[i::3] for i in range(3)), strict=True):
        bounds = offset.astype(np.int64)
        ends = bounds[[0, -1]].tolist() if bounds.size else None
        if len(time_s) != len(mbps) or ends != [0, len(mbps)] or (bounds != offset).any():
            raise ValueError(
                f"{path}: offsets are whole numbers from 0 to the end of time_s and mbps, which are of one length"
            )
        for start, end in pairwise(bounds.tolist()):
            try:
                series.append(Bandwidth(time_s[start:end], mbps[start:end]))
            except ValueError as e:
                raise ValueError(f"{path}: series {len(series)}: {e}") from None
    return tuple(series)


# ------------------------------------------------------------------ files


def read_arrays(path: Path, wanted: Callable[[list[str]], Sequence[str]]) -> list[Float64]:
    """The arrays wanted of a file, of one dimension and of finite numbers; `wanted` sees the names of those there are."""
    try:
        if not path.is_file():
            raise ValueError("no such file")
        if not is_zipfile(path):
            raise ValueError("no .npz file, or a broken one")
        with np.load(path, allow_pickle=False) as file:
            keys = wanted(sorted(file.files))
            if missing := [key for key in keys if key not in file.files]:
                raise ValueError(f"no array {missing[0]}: it has {', '.join(sorted(file.files))}")
            arrays = [file[key] for key in keys]
    except (OSError, ValueError, BadZipFile, zlib.error) as e:
        raise ValueError(f"{path}: {e}") from None
    for key, array in zip(keys, arrays, strict=True):
        if array.ndim != 1 or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            raise ValueError(f"{path}: {key} is not a row of numbers, but {array.dtype} {array.shape}")
    return [array.astype(np.float64) for array in arrays]
