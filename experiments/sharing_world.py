"""Propius' evaluation set-up (`platforms.md` §3.6, `baselines.md` §3): its phones and its jobs, in virtual seconds.

Phones are drawn from its 952 (speed, CPU score, RAM, memory, system), with the network of a client of FedScale's capacity file. Its
files of availability and of data sizes could not be had. So phones are free as `device_sim/habits.py` makes their people's days, in time zones
as in `uploads.ZONES`: 48 % of the time, at night most. Sizes are log-normal, median 180, cut to its 87 to 584.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from device_sim.habits import Habits
from experiments.uploads import ZONES
from schemas.sharing import ABILITIES, Bounds

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

DAY = 86_400
BATCH, STEPS = 20, 20
"""Of `mobilenet`'s jobs."""
MODEL_KBIT = 74_016
"""One way; its `dummy` jobs' model_size."""
OVER_SELECTION = 1.3
ROUNDS = 150
"""Of a job, there."""
MEAN_GAP = 1_800
"""Seconds between two jobs' arrivals, exponential."""

CLASSES: dict[str, tuple[Bounds, int]] = {
    "H": ({"cpu": 7.0, "ram": 6.0, "memory": 900.0, "os": 7.0}, 120),
    "M": ({"cpu": 6.0, "ram": 4.0, "memory": 800.0, "os": 6.0}, 100),
    "L": ({"cpu": 3.0, "ram": 2.0, "memory": 400.0, "os": 4.0}, 100),
}
"""What jobs need of a device, in public and as samples of data, which it keeps to itself. The strictest first."""


@dataclass(frozen=True)
class Profile:
    """Jobs as in one of its profiles. `jobs`: (class, demand). `gaps`: seconds after the one before, and which job, as it has them. Time-outs
    in s: to get the devices, by demand and in all; and from then to the results. `faster`: computing takes so many times less."""

    jobs: tuple[tuple[str, int], ...]
    gaps: tuple[tuple[int, int], ...]
    fill: tuple[float, float]
    serve_s: float
    faster: float


_TEN = tuple(zip("HHHMMMLLLL", (50, 100, 200) * 3 + (400,), strict=True))
_MORE = (*[(c, d) for c in "HML" for d in (25, 75, 150)], ("L", 300))
TEN = Profile(
    _TEN,
    ((0, 0), (906, 5), (3489, 6), (93, 4), (2849, 2), (1713, 8), (76, 7), (694, 3), (1359, 9), (126, 1)),
    fill=(2.0, 0.0),
    serve_s=400.0,
    faster=1.0,
)
TWENTY = Profile(
    _TEN + _MORE,
    (
        *((0, 19), (1550, 5), (1590, 14), (1453, 4), (1242, 9), (1130, 13), (6515, 15), (5671, 18), (1463, 6), (1466, 12)),
        *((1353, 17), (3827, 10), (1745, 1), (453, 11), (7129, 2), (2485, 16), (2443, 7), (412, 8), (1608, 0), (161, 3)),
    ),
    fill=(0.0, 120.0),
    serve_s=180.0,
    faster=3.0,
)  # fmt: skip
PROFILES = {"10 jobs": TEN, "20 jobs": TWENTY}
"""`mobilenet` and `mobilenet_large`, 150 rounds each."""


@dataclass(frozen=True)
class Want:
    """A job: what it asks for in each of its `rounds`, and when it arrives [s]. `places`: the demand and what is selected over it."""

    number: int
    kind: str
    demand: int
    rounds: int
    arrives: int
    fill_within_s: float
    serve_within_s: float

    @property
    def places(self) -> int:
        return ceil(round(OVER_SELECTION * self.demand, 6))


def wants(profile: Profile, seed: int, rounds: int) -> list[Want]:
    """The jobs by number. Seed 0 has the arrivals that were published; others are drawn anew. With fewer than `ROUNDS` the gaps are
    as much shorter, so that as many jobs overlap."""
    gaps = profile.gaps
    if seed:
        rng = np.random.default_rng((seed, 11))
        order = rng.permutation(len(profile.jobs)).tolist()
        gaps = tuple(
            zip((0, *np.rint(rng.exponential(MEAN_GAP, len(order) - 1)).astype(int).tolist()), order, strict=True)
        )
    at, arrives = 0, {}
    for gap, number in gaps:
        at += round(gap * rounds / ROUNDS)
        arrives[number] = at
    by_demand, fixed = profile.fill
    return [
        Want(n, kind, demand, rounds, arrives[n], by_demand * demand + fixed, profile.serve_s)
        for n, (kind, demand) in enumerate(profile.jobs)
    ]


@dataclass(frozen=True, eq=False)
class Phones:
    """n of them. `abilities` (n, 5) in the order of `ABILITIES`; `kind` (n,): of which classes it meets all needs, the private too, a bit
    each; `compute_s`, `network_s` (n,) for a round, there and back. Windows in which they are free: (w,) each, by `starts`."""

    abilities: Float64
    kind: Int64
    compute_s: Float64
    network_s: Float64
    starts: Int64
    ends: Int64
    who: Int64

    @property
    def count(self) -> int:
        return len(self.abilities)


@lru_cache(maxsize=1)
def phones(devices: Path, capacity: Path, seed: int, count: int, days: int) -> Phones:
    """The phones of a seed, which also says the hour at which time begins: 5 h later with each, seed 0 at midnight UTC."""
    rng = np.random.default_rng((seed, 7))
    with np.load(devices, allow_pickle=False) as file:
        which = rng.integers(len(file["cpu_f"]), size=count)
        cpu, ram, memory, system, speed = (
            file[key][which].astype(np.float64) for key in ("cpu_f", "ram", "fp16_mem", "android_os", "speed")
        )
    with np.load(capacity, allow_pickle=False) as file:
        kbit_s = rng.choice(file["communication_kbps"], count).astype(np.float64)
    samples = np.clip(180 * np.exp(0.35 * rng.standard_normal(count)), 87, 584)
    offsets = rng.choice(list(ZONES), count, p=list(ZONES.values()))
    begin = DAY + seed * 5 % 24 * 3600
    spans = [
        (max(0, start // 1000 - begin), end // 1000 - begin, i)
        for i, offset in enumerate(offsets)
        for start, end in Habits(f"device-{i}", float(offset), DAY * 1000, seed).windows(
            begin * 1000, (begin + days * DAY) * 1000
        )
    ]
    windows = np.array(sorted(spans), np.int64).reshape(-1, 3)
    abilities = np.stack([cpu, ram, memory, system, kbit_s / 1000], axis=1)
    kind = np.zeros(count, np.int64)
    for bit, (needs, least) in enumerate(CLASSES.values()):
        meets = samples >= least
        for name, amount in needs.items():
            meets &= abilities[:, ABILITIES.index(name)] >= amount
        kind |= meets.astype(np.int64) << bit
    compute = STEPS * 3 * BATCH * speed / 1000
    return Phones(abilities, kind, compute, 2 * MODEL_KBIT / kbit_s, windows[:, 0], windows[:, 1], windows[:, 2])


def quotas(jobs: Sequence[Want], kind: Int64, rng: np.random.Generator) -> Int64:
    """The static partition: by device the job that it is bound to for good, or -1. By demand, of all phones that can serve any; who can serve the strictest first, there
    the largest first, whoever is over to any that it can serve (`baselines.md` §3, where no quotas are published)."""
    bit = {name: n for n, name in enumerate(CLASSES)}
    total = sum(j.demand for j in jobs)
    bound = np.full(len(kind), -1)
    order = rng.permutation(len(kind))
    for job in sorted(jobs, key=lambda j: (bit[j.kind], -j.demand)):
        free = order[(bound[order] < 0) & (kind[order] >> bit[job.kind] & 1 > 0)]
        bound[free[: round(int((kind > 0).sum()) * job.demand / total)]] = job.number
    for i in order[(bound[order] < 0) & (kind[order] > 0)].tolist():
        bound[i] = rng.choice([j.number for j in jobs if kind[i] >> bit[j.kind] & 1])
    return bound
