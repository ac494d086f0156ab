"""Data that differ from zone to zone: each place has other amounts, and other classes most of the time, than the next."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from device_sim.data import load
from device_sim.data_shares import SPLIT, Split, by_dirichlet
from device_sim.dataset import Dataset, Int64, rows

PLACES = {"west": -8.0, "mid": 0.0, "india": 5.5, "east": 8.0}
"""Time zones of experiments: by name the hours from UTC."""


def dealt(dataset: Dataset, zones: int, devices: int, seed: int, among: float, within: float) -> Int64:
    """Whose each training sample is, (n,): device d of zone z is number z · `devices` + d.

    Class by class by Dirichlet(`among`) to zones, and a zone's by Dirichlet(`within`) to its devices.
    """
    owner = np.empty(len(dataset.y), np.int64)
    split = Split(**(SPLIT | {"devices": zones, "alpha": among, "seed": seed}))  # type: ignore[arg-type]
    for z, theirs in enumerate(by_dirichlet(dataset, split)):
        part = replace(dataset, x=rows(dataset.x, theirs), y=rows(dataset.y, theirs), user=None)
        inner = replace(split, devices=devices, alpha=within, seed=seed * zones + z)
        for d, mine in enumerate(by_dirichlet(part, inner)):
            owner[theirs[mine]] = z * devices + d
    return owner


def digits(to: Path, zones: int, devices: int, seed: int, among: float, within: float) -> None:
    """The digits dealt so, as a file that data "npz" with partition "user" reads."""
    d = load("digits", {})
    owner = dealt(d, zones, devices, seed, among, within)
    np.savez(to, X=d.x, y=d.y, user=owner, test_X=d.test_x, test_y=d.test_y)
