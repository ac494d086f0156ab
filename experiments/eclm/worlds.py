"""Data, devices and budgets of ECLM's evaluation (§7.1): who has which samples, what is held out for whom, and what each phone can do.

A subject's samples lie in *cells*: a person (feature skew) or a class (label skew). 30 % of what there is to train on is the cloud's
proxy data; the rest is the pool that devices' samples come from, and a device draws only from its own cells. What it is tested on
are samples of the same cells that nobody trains on, in the same shares.

Ours where the paper is silent: a phone has room for that share of the modules' cost that it has of the best phone's RAM (memory and
transfer) and CPU score (multiplications), a third in the middle; samples come again only where a device's cells have too few.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from device_sim.data import digits
from device_sim.data_npz import TEST, TRAIN, read
from device_sim.phones import Phones, UsualPhones, phones
from device_sim.pseudonym import seed_of
from experiments.asked import Asked, Cannot
from experiments.data import FEATURES, IMAGES, PHONES, SPEECH, archive, converted
from learning.modular.derivation import Limits, needs
from learning.modular.forms import Form
from schemas.modules import Structure

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Cells = tuple[int, ...]

BY_CELL, BY_CLASS = "cell", "class"
"""What is one sub-task (§4.3): what sets devices apart, a person or a class; or what a sample shows, whosever it is."""
ALL = -1
"""The partition in which each device has all cells: IID."""
PROXY = 0.3
"""The share of the training data that is the cloud's."""
LEAST_SAMPLES, MOST_SAMPLES = 50, 150
"""A device's samples."""
TESTED = 100
"""Samples a device is tested on at most."""
BEST = {"ram": 16.0, "cpu": 24.8}
"""The best of the AI Benchmark's 952 phones, which has room for all modules."""


@dataclass(frozen=True)
class Subject:
    """A data set, its model and how long all takes. `partitions`: how many classes a device has, or (0,) if its cell is one person.

    `passes` over the proxy data: the original network, the modular one end to end, and its fine-tuning. `tested` devices, every
    `every` rounds of `rounds`."""

    name: str
    archive: str
    model: str
    args: dict[str, int | str]
    shape: tuple[int, ...]
    form: Form
    partitions: tuple[int, ...]
    classes: int
    passes: tuple[int, int, int]
    rounds: int
    every: int
    tested: int
    devices: int = 100
    participants: int = 25


HAR = Subject(
    "har", FEATURES, "mlp", {"inputs": 369, "hidden": "256,256", "classes": 6}, (369,), Form(), (0,), 6,
    (30, 20, 20), 20, 2, 60,
)  # fmt: skip
HAR_RUN = replace(HAR, name="har-run", form=Form(ratio=16, hidden="run"))
"""With both hidden layers one module layer, which has about the original's size with all modules."""
CIFAR = Subject(
    "cifar10", IMAGES, "resnet18", {"shape": "3,32,32", "classes": 10, "width": 16}, (3, 32, 32),
    Form(ratio=4, norm="group"), (2, 5), 10, (20, 10, 10), 10, 2, 20,
)  # fmt: skip
WORDS = Subject(
    "speech", SPEECH, "resnet18", {"shape": "1,32,32", "classes": 40, "width": 16}, (1, 32, 32),
    Form(ratio=4, norm="group"), (5, 10), 40, (20, 10, 10), 20, 5, 20,
)  # fmt: skip
DIGITS = Subject(
    "digits", "", "mlp", {"inputs": 64, "hidden": "32,32", "classes": 10}, (64,), Form(modules=6, ratio=4, k=2), (3,), 10,
    (2, 1, 1), 2, 1, 3, devices=6, participants=3,
)  # fmt: skip
"""For `--quick` without data."""


def subject(asked: Asked, whole: Subject) -> Subject:
    """What is asked for: the whole, or with `--quick` something small; the digits where there is no data."""
    if not asked.quick:
        return whole
    if asked.data is None:
        return DIGITS
    return replace(whole, passes=(1, 1, 1), rounds=2, every=1, tested=2, devices=6, participants=3)


def each(run: Callable[[Asked, Subject], None], *subjects: Subject) -> list[Callable[[Asked], None]]:
    """What the catalogue names: `run` for each of these."""

    def of(whole: Subject) -> Callable[[Asked], None]:
        def one(asked: Asked) -> None:
            run(asked, whole)

        one.__doc__ = f"{run.__doc__} Of {whole.name}."
        return one

    return [of(whole) for whole in subjects]


@dataclass(frozen=True)
class Samples:
    """x (n, …), y (n,) of whoever."""

    x: Float32
    y: Int64

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Device:
    """One phone: its cells, how many samples it has, its room for modules (shares of all: memory and transfer, multiplications)."""

    number: int
    cells: Cells
    samples: int
    room: tuple[float, float]

    def limits(self, structure: Structure, batch: int) -> Limits:
        """What it has for a sub-model: the shared part and its shares of all modules; but room for one of each layer at least, or
        else it could take no part."""
        whole, shared = needs(structure.cost(structure.whole), batch), needs(structure.shared, batch)
        least = needs(structure.cost(tuple((0, len(layer) - 1) for layer in structure.layers)), batch)
        memory, cpu = self.room
        shares = (memory, memory, cpu)
        return Limits(
            *(max(n, s + int(share * (w - s))) for w, s, n, share in zip(whole, shared, least, shares, strict=True))
        )


@dataclass(frozen=True, eq=False)
class World:
    """Who has what, from a seed. `proxy` with the sub-task of each sample numbered from 0, `BY_CELL` and `BY_CLASS`; `pool` and `held`
    rows by cell."""

    subject: Subject
    seed: int
    x: Float32
    y: Int64
    test: Samples
    proxy: Samples
    subtasks: Mapping[str, Int64]
    pool: dict[int, Int64]
    held: dict[int, Int64]
    devices: tuple[Device, ...]

    def draw(self, cells: Sequence[int], many: int, *what: str | int) -> Int64:
        """Rows of the pool for a device with these cells; twice the same only if there are too few."""
        rows = np.concatenate([self.pool[c] for c in cells])
        dice = np.random.default_rng(seed_of(self.seed, "draw", *what))
        return dice.choice(rows, many, replace=len(rows) < many)

    def samples(self, rows: Int64) -> Samples:
        return Samples(self.x[rows], self.y[rows])

    def tested(self, shares: dict[int, float], most: int = TESTED) -> Samples:
        """Held-out samples of these cells, in these shares."""
        total = sum(shares.values())
        rows = np.concatenate(
            [self.held[c][: max(1, round(most * share / total))] for c, share in sorted(shares.items())]
        )
        return Samples(self.test.x[rows], self.test.y[rows])

    def of(self, device: Device) -> tuple[Samples, Samples]:
        """What a device has and what it is tested on."""
        mine = self.draw(device.cells, device.samples, "device", device.number)
        return self.samples(mine), self.tested(dict.fromkeys(device.cells, 1.0))


@dataclass(frozen=True, eq=False)
class Data:
    """All of a subject: rows to train on with their cells, rows to test on with theirs. `people`: cells are persons."""

    train: Samples
    cell: Int64
    test: Samples
    test_cell: Int64
    people: bool
    table: Phones | UsualPhones


def load(asked: Asked, s: Subject) -> Data:
    """A subject's data. Raises `Cannot`, saying what is missing."""
    if not s.archive:
        d = digits()
        return Data(Samples(d.x, d.y), d.y, Samples(d.test_x, d.test_y), d.test_y, False, UsualPhones())
    table = phones(archive(asked, PHONES))
    with converted(asked, s.archive) as files:
        a = read(str(files[s.archive]))
    if (lacks := {"user"} - a.keys()) and s.archive == FEATURES:
        raise Cannot(f"{s.archive} lacks {', '.join(lacks)}")
    shaped = lambda x: (x.astype(np.float32) * a.get("scale", 1) + a.get("offset", 0)).reshape(-1, *s.shape)  # noqa: E731
    x, y = shaped(a["X"]), a["y"].astype(np.int64)
    if s.archive == FEATURES:  # each person did all twice: the second time is held out
        user = a["user"].astype(np.int64)
        second = np.zeros(len(y), bool)
        for person in np.unique(user):
            mine = np.flatnonzero(user == person)
            second[mine[len(mine) // 2 :]] = True
        first = ~second
        return Data(Samples(x[first], y[first]), user[first], Samples(x[second], y[second]), user[second], True, table)
    if "split" in a:
        train, test = (Samples(x[a["split"] == part], y[a["split"] == part]) for part in (TRAIN, TEST))
    else:
        train, test = Samples(x, y), Samples(shaped(a["test_X"]), a["test_y"].astype(np.int64))
    mean, std = float(train.x.mean()), float(train.x.std())
    train, test = (Samples(((part.x - mean) / std).astype(np.float32), part.y) for part in (train, test))
    return Data(train, train.y, test, test.y, False, table)


def world(data: Data, s: Subject, partition: int, seed: int) -> World:
    """Draw a world: whose the proxy data is, and devices with their cells, samples and phones."""
    dice = np.random.default_rng(seed_of(seed, "world"))
    cells = np.unique(data.cell)
    proxy = np.zeros(len(data.cell), bool)
    if data.people:
        chosen = dice.choice(cells, round(PROXY * len(cells)), replace=False)
        proxy = np.isin(data.cell, chosen)
        cells = np.setdiff1d(cells, chosen)
    else:
        for c in cells:
            mine = dice.permutation(np.flatnonzero(data.cell == c))
            proxy[mine[: round(PROXY * len(mine))]] = True
    pool = {int(c): np.flatnonzero((data.cell == c) & ~proxy) for c in cells}
    held = {int(c): dice.permutation(np.flatnonzero(data.test_cell == c)) for c in cells}
    devices = []
    for number in range(s.devices):
        if partition == ALL:
            mine = cells
        elif data.people:
            mine = cells[[number % len(cells)]]
        else:
            mine = dice.choice(cells, partition, replace=False)
        phone = data.table.of(seed, number)
        memory, cpu = (min(1.0, phone[what] / BEST[what]) for what in ("ram", "cpu"))
        many = int(dice.integers(LEAST_SAMPLES, MOST_SAMPLES + 1))
        devices.append(Device(number, tuple(sorted(int(c) for c in mine)), many, (memory, cpu)))
    subtasks = {
        by: np.unique(of[proxy], return_inverse=True)[1].astype(np.int64)
        for by, of in ((BY_CELL, data.cell), (BY_CLASS, data.train.y))
    }
    return World(
        s, seed, data.train.x, data.train.y, data.test, Samples(data.train.x[proxy], data.train.y[proxy]), subtasks,
        pool, held, tuple(devices),
    )  # fmt: skip


def models_folder(asked: Asked) -> Path:
    """Where offline models are kept."""
    return asked.out / "models"
