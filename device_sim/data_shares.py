"""Each device's share of a data set: who has which training samples.

`partition` says how they are dealt out:

    dirichlet  labels by Dirichlet(alpha), class by class over devices (Yurochkin et al., ICML 2019)
    user       a user's samples are one device's, or in stretches, in the file's order, several devices'
    shards     sorted by label and cut into equal shards, of which each device has some (McMahan et al., AISTATS 2017)
    counts     as many as a file says, device by device, of any label or by Dirichlet labels (Hsu et al., 2019)

Shares are disjoint and cover all training samples together, but with `counts`: these are what the file says, whatever is left.
"""

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath
from typing import Any

import numpy as np

from device_sim.data_npz import read
from device_sim.dataset import Dataset, Float32, Int64, rows
from learning.words import Plain
from schemas.wire import Scalar

SPLIT: dict[str, Scalar] = {
    "partition": "dirichlet",
    "devices": 40,
    "alpha": 0.5,
    "seed": 0,
    "shards": 2,
    "counts": "",
    "counts_name": "",
    "labels": "any",
    "replace": False,
}
"""The arguments of `share`, and what they are if not given; `devices` is as many as users, or as counts, where these decide."""
LEAST = 8
"""Samples every device has at least, if there are enough for all: of Dirichlet's shares. Elsewhere it is one."""


@dataclass(frozen=True)
class Split:
    """The arguments of `share`, each of which can be."""

    partition: str
    devices: int | None
    """None: as many as users, or as counts."""
    alpha: float
    seed: int
    shards: int
    counts: str
    counts_name: str
    labels: str
    replace: bool


Deal = Callable[[Dataset, Split], list[Int64]]


def share(dataset: Dataset, device: int, args: Mapping[str, Scalar]) -> tuple[Float32, Int64]:
    """Device `device`'s samples (x, y), always the same; views of one copy that all devices have, or of the data set itself.

    `args` may hold those of `SPLIT` that the partition takes; others (the data's own) are not looked at:

    dirichlet  `devices`, `alpha` (small: few classes a device and uneven sizes)
    user       `devices`: at least as many as users, one each if not given; more go to the users with most samples a device
    shards     `devices`, `shards` of each device
    counts     `counts`: a file with a whole number a device, text, .npy or .npz (there `counts_name`, if it holds several arrays);
               `devices`: the first so many of it; `labels`: "any" or "dirichlet" (with `alpha`); `replace`: two devices may have
               the same sample, so that there are enough
    and `seed`.

    Raises `ValueError` for arguments that cannot be, or a device that is not in 0 … devices - 1.
    """
    shares = _shares(dataset, _split(args))
    if not 0 <= device < len(shares):
        raise ValueError(f"device {device} is not one of the {len(shares)} (0 to {len(shares) - 1})")
    return shares[device]


def _split(args: Mapping[str, Scalar]) -> Split:
    given = {name: args[name] for name in SPLIT if name in args}
    values: dict[str, Any] = SPLIT | given
    partition = values["partition"]
    if partition not in PARTITIONS:
        raise ValueError(f"partition {partition!r} is not known; known: {', '.join(PARTITIONS)}")
    _, takes = PARTITIONS[partition]
    if strangers := [name for name in given if name not in ("partition", "seed", *takes)]:
        raise ValueError(
            f"{', '.join(strangers)}: not for partition {partition!r}, which takes {', '.join(takes)}, seed"
        )
    if partition in ("user", "counts") and "devices" not in given:
        values["devices"] = None
    else:
        _whole("devices", values["devices"], 1)
    _whole("seed", values["seed"], 0)
    _whole("shards", values["shards"], 1)
    alpha = values["alpha"]
    if isinstance(alpha, bool | str) or not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha must be a positive number, not {alpha!r}")
    if values["labels"] not in ("any", "dirichlet"):
        raise ValueError(f"labels must be any or dirichlet, not {values['labels']!r}")
    if "alpha" in given and partition == "counts" and values["labels"] != "dirichlet":
        raise ValueError('alpha is for labels = "dirichlet"')
    if not isinstance(values["replace"], bool):
        raise ValueError(f"replace must be true or false, not {values['replace']!r}")
    if partition == "counts" and not (isinstance(values["counts"], str) and values["counts"]):
        raise ValueError(f"counts must be the path of a file with a count for each device, not {values['counts']!r}")
    if not isinstance(values["counts_name"], str):
        raise ValueError(f"counts_name must be the name of an array, not {values['counts_name']!r}")
    return Split(**(values | {"alpha": float(alpha)}))


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")


@lru_cache(maxsize=8)
def _shares(dataset: Dataset, split: Split) -> list[tuple[Float32, Int64]]:
    owned = PARTITIONS[split.partition][0](dataset, split)
    order = np.concatenate(owned)
    x, y = rows(dataset.x, order), rows(dataset.y, order)
    x.setflags(write=False)
    y.setflags(write=False)
    ends = np.cumsum([len(some) for some in owned])
    return [(x[end - len(some) : end], y[end - len(some) : end]) for some, end in zip(owned, ends, strict=True)]


def _devices(dataset: Dataset, split: Split) -> int:
    if split.devices is None or split.devices > len(dataset.y):
        raise ValueError(f"devices must be a whole number from 1 to the {len(dataset.y)} samples, not {split.devices}")
    return split.devices


# ------------------------------------------------------------------ the partitions


def by_dirichlet(dataset: Dataset, split: Split) -> list[Int64]:
    """Of each class, a device has a share drawn from Dirichlet(alpha, …, alpha); the poorest then take from the richest."""
    devices, dice = _devices(dataset, split), np.random.default_rng(split.seed)
    owned: list[list[int]] = [[] for _ in range(devices)]
    for c in np.unique(dataset.y):
        mine = dice.permutation(np.flatnonzero(dataset.y == c))
        cuts = (np.cumsum(dice.dirichlet(np.full(devices, split.alpha)))[:-1] * len(mine)).astype(int)
        for some, part in zip(owned, np.split(mine, cuts), strict=True):
            some += part.tolist()
    # The poorest takes from the richest until all have enough. Drawing again until it fits may never end for small alpha.
    least = min(LEAST, len(dataset.y) // devices)
    poor = [(len(some), i) for i, some in enumerate(owned) if len(some) < least]
    rich = [(-len(some), i) for i, some in enumerate(owned) if len(some) >= least]
    heapq.heapify(poor)
    heapq.heapify(rich)
    while poor:
        had, i = heapq.heappop(poor)
        _, j = heapq.heappop(rich)
        owned[i].append(owned[j].pop(int(dice.integers(len(owned[j])))))
        heapq.heappush(rich, (-len(owned[j]), j))
        heapq.heappush(*((poor, (had + 1, i)) if had + 1 < least else (rich, (-had - 1, i))))
    return [np.array(sorted(some), np.int64) for some in owned]


def by_user(dataset: Dataset, split: Split) -> list[Int64]:
    """Each user's samples, in the order they have in the file, cut into as many stretches as the user has devices."""
    if dataset.user is None:
        raise ValueError(f"data {dataset.name!r} does not say whose its samples are, so partition cannot be user")
    order = np.argsort(dataset.user, kind="stable")
    theirs = np.split(order, np.flatnonzero(np.diff(dataset.user[order])) + 1)
    devices = len(theirs) if split.devices is None else _devices(dataset, split)
    if devices < len(theirs):
        raise ValueError(
            f"each of the {len(theirs)} users is one device at least: devices must be as many, not {devices}"
        )
    many = [1] * len(theirs)
    most: list[tuple[float, int]] = [(-len(some), i) for i, some in enumerate(theirs)]  # samples a device
    heapq.heapify(most)
    for _ in range(devices - len(theirs)):
        _, i = most[0]
        many[i] += 1
        heapq.heapreplace(most, (-len(theirs[i]) / many[i], i))
    return [part for some, n in zip(theirs, many, strict=True) for part in np.array_split(some, n)]


def by_shards(dataset: Dataset, split: Split) -> list[Int64]:
    """devices × shards pieces, equal but for one sample, of the samples sorted by label; each device has some at random."""
    devices = _devices(dataset, split)
    n = devices * split.shards
    if n > len(dataset.y):
        raise ValueError(f"{devices} devices of {split.shards} shards are more than the {len(dataset.y)} samples")
    pieces = np.array_split(np.argsort(dataset.y, kind="stable"), n)
    hands = np.random.default_rng(split.seed).permutation(n).reshape(devices, split.shards)
    return [np.concatenate([pieces[p] for p in hand]) for hand in hands]


def by_counts(dataset: Dataset, split: Split) -> list[Int64]:
    """As many samples as the file says, device by device; without `replace` no sample twice."""
    counts = _counts(split.counts, split.counts_name)
    if split.devices is not None and split.devices > len(counts):
        raise ValueError(f"{split.counts} has {len(counts)} counts, devices are {split.devices}")
    counts = counts[: split.devices]
    n, total = len(dataset.y), int(counts.sum())
    if total > n and not split.replace:
        raise ValueError(
            f"{split.counts} gives {len(counts)} devices {total} samples and data {dataset.name!r} has {n}: "
            "set replace = true, or fewer devices"
        )
    dice = np.random.default_rng(split.seed)
    if split.labels == "dirichlet":
        return _labelled(dataset, counts, split, dice)
    if split.replace:
        return [_draw(dice, n, int(k)) for k in counts]
    return np.split(dice.permutation(n)[:total], np.cumsum(counts)[:-1])


def _labelled(dataset: Dataset, counts: Int64, split: Split, dice: np.random.Generator) -> list[Int64]:
    """A device's classes come from Dirichlet(alpha · the classes' shares of all samples); a class used up gives its part to
    the others. In an order drawn at random, since who comes late finds fewer classes left."""
    pools = [dice.permutation(np.flatnonzero(dataset.y == c)) for c in np.unique(dataset.y)]
    free = np.array([len(pool) for pool in pools])
    prior = free / free.sum()
    owned: list[Int64] = [np.empty(0, np.int64)] * len(counts)
    for device in dice.permutation(len(counts)):
        wish, missing = dice.dirichlet(split.alpha * prior), int(counts[device])
        if split.replace:
            parts = [
                p[_draw(dice, len(p), k)] for p, k in zip(pools, dice.multinomial(missing, wish), strict=True) if k
            ]
            owned[device] = np.concatenate(parts)
            continue
        taken = np.zeros_like(free)
        while missing:
            chances = wish * (free > taken)
            if not chances.sum():
                chances = free - taken
            taken += np.minimum(dice.multinomial(missing, chances / chances.sum()), free - taken)
            missing = int(counts[device] - taken.sum())
        owned[device] = np.concatenate(
            [pool[left - k : left] for pool, left, k in zip(pools, free, taken, strict=True)]
        )
        free -= taken
    return owned


def _draw(dice: np.random.Generator, n: int, k: int) -> Int64:
    """k of n; one comes twice only if there are not enough."""
    return dice.choice(n, k, replace=k > n)


def _counts(path: str, name: str) -> Int64:
    """The file's counts, at least one sample each. Raises `ValueError`."""
    if PurePath(path).suffix == ".npz":
        arrays = read(path)
        if not name and len(arrays) != 1:
            raise ValueError(f"{path} holds {', '.join(arrays)}: say which by counts_name")
        if name and name not in arrays:
            raise ValueError(f"{path} has no array {name}; it holds {', '.join(arrays)}")
        counts = arrays[name or next(iter(arrays))]
    elif name:
        raise ValueError(f"counts_name is for an .npz, and counts is {path}")
    else:
        try:
            counts = np.load(path, allow_pickle=False) if PurePath(path).suffix == ".npy" else _text(path)
        except OSError as e:
            raise Plain(f"cannot read {path}: {e.strerror or e}") from None
        except (ValueError, EOFError) as e:
            raise ValueError(f"{path} does not hold a whole number for each device: {e}") from None
    if counts.dtype.kind not in "iu" or counts.ndim != 1 or not counts.size:
        raise ValueError(f"{path} must hold a whole number for each device, not {counts.dtype} {counts.shape}")
    counts = counts.astype(np.int64)
    if counts.min() < 1:
        raise ValueError(f"{path} gives device {counts.argmin()} {counts.min()} samples; each needs at least one")
    return counts


def _text(path: str) -> Int64:
    with open(path, encoding="utf-8") as file:
        return np.array([int(word) for word in file.read().split()], np.int64)


PARTITIONS: dict[str, tuple[Deal, tuple[str, ...]]] = {
    "dirichlet": (by_dirichlet, ("devices", "alpha")),
    "user": (by_user, ("devices",)),
    "shards": (by_shards, ("devices", "shards")),
    "counts": (by_counts, ("devices", "counts", "counts_name", "labels", "replace", "alpha")),
}
"""By name: who deals, and the arguments it takes beside `seed`."""
