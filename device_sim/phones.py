"""What phones can do: of each the abilities that it reports to the plane (`schemas.sharing.ABILITIES`). Seeded, no clock.

From a file that a person names, or from a default; a device draws its phone by its name, so it has the same in every process and
however many devices there are.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from device_sim.capacity import Float64, read_arrays
from device_sim.pseudonym import seed_of, throw
from schemas.sharing import Abilities

ARRAYS = {"cpu": "cpu_f", "ram": "ram", "memory": "fp16_mem", "os": "android_os"}
"""What a phones file calls them, as in the AI Benchmark's table of 952 phones that Propius used."""
STEPS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
"""What is reported of a CPU score, memory and bandwidth is one of these times a power of ten."""
WHOLE = ("ram", "os")
"""Of these, whole numbers."""


def reported(abilities: Abilities) -> Abilities:
    """What a device says of itself: rounded down, so it never promises what it has not, and coarsely, so that many are alike. Of the
    AI Benchmark's 952 phone models 466 descriptions are left, and seven models in ten share theirs with another; devices of one
    model are alike anyway, but for their bandwidth. Below 1 it says nothing."""
    return {
        name: float(math.floor(x)) if name in WHOLE else _down(x) for name, x in sorted(abilities.items()) if x >= 1
    }


def _down(x: float) -> float:
    power = math.floor(math.log10(x))
    if x >= 10.0 ** (power + 1):  # the logarithm was rounded
        power += 1
    return STEPS[bisect_right(STEPS, x / 10.0**power + 1e-9) - 1] * 10.0**power


@dataclass(frozen=True)
class UsualPhones:
    """Phones when there is no file: each has a grade, from the normal distribution, and its abilities lean on it.

    Fitted to the AI Benchmark's 952: straight lines through the logarithms of their quantiles (CPU score, RAM, memory; the version of
    the system without logarithm) over those of the normal distribution, and how much each leans on the grade by their rank
    correlations. Of the file's phones 39 % have CPU 7, RAM 6, memory 900 and system 7 or more, 25 % have 9, 6, 1200 and 8, half
    have 6, 4, 800 and 6; of these 36, 24 and 45.
    """

    def of(self, seed: int, device: str | int) -> Abilities:
        """This device's phone; the same each time."""

        def normal(what: str) -> float:
            return NormalDist().inv_cdf(throw(seed, "phone", what, device))

        grade = normal("grade")

        def leaning(what: str, on: float) -> float:
            return on * grade + math.sqrt(1 - on * on) * normal(what)

        return {
            "cpu": min(25.0, math.exp(1.737 + 0.774 * leaning("cpu", 0.95))),
            "ram": _class(2 ** (2.51 + 0.763 * leaning("ram", 0.9))),
            "memory": min(2_800.0, math.exp(7.0 + 0.597 * leaning("memory", 0.83))),
            "os": min(15.0, max(5.0, float(round(11.05 + 1.92 * leaning("os", 0.7))))),
        }


RAM = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""As phones are sold."""


def _class(gigabytes: float) -> float:
    return min(RAM, key=lambda ram: abs(math.log(gigabytes / ram)))


@dataclass(frozen=True, eq=False)
class Phones:
    """Phones of a file: by ability an array, float64 (n,), of which entry i is one phone."""

    abilities: dict[str, Float64]

    def of(self, seed: int, device: str | int) -> Abilities:
        """The phone that this device draws; the same each time. Two devices may draw the same."""
        n = len(next(iter(self.abilities.values())))
        i = seed_of(seed, "phone", device) % n
        return {name: float(values[i]) for name, values in self.abilities.items()}


def phones(path: Path) -> Phones:
    """Read an `.npz` with the arrays `cpu_f`, `ram`, `fp16_mem` and `android_os`, one entry each a phone.

    Raises `ValueError`, with the file and what is wrong, if it is no such file.
    """
    found = read_arrays(path, lambda keys: tuple(ARRAYS.values()))
    for key, values in zip(ARRAYS.values(), found, strict=True):
        if not len(values) or len(values) != len(found[0]):
            raise ValueError(f"{path}: {key} has {len(values)} entries and cpu_f {len(found[0])}: one each a phone")
        if (values < 0).any():
            raise ValueError(f"{path}: {key} has numbers below 0")
    return Phones(dict(zip(ARRAYS, found, strict=True)))
