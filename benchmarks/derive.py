"""How long the cloud takes to derive a device's sub-model (ECLM §5.1), for the paper's forms, beside the limits that were set.

    olearning bench derive --json

Devices' importance and limits are drawn: importance log-normal, limits 30 to 60 % of what all modules take. Costs of layers differ as a
ResNet's do. Each line is the median of the calls of one way: `solved`, the solver from greedy's choice on; `greedy`, without it; `kept`, asked
again, which the processor answers from what it keeps. Limits are 50 ms for 4 layers of 16 modules, and 200 ms for 3 of 32. The solver's
import and first call (`learning.modular.derivation.warm`) are apart: the role has them behind it when it begins.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from statistics import median

from benchmarks.line import Line, Report
from learning.modular.derivation import Derivation, Importance, Limits, derive, needs, warm, worth
from schemas.modules import Choice, Cost, Structure

FORMS = ((4, 16, 0.05), (3, 32, 0.2))
"""Layers, modules of each, and the limit [s]."""
PROFILES = 60
BATCH = 16


def drawn(layers: int, many: int, seed: int, batch: int = BATCH) -> tuple[Structure, Importance, Limits]:
    """A model of that form, and a device: its importance and limits."""
    dice = Random(seed)
    costs = [Cost(1000 * 4**i, 1000 * 4**i, 4096 // 2**i, 500_000 + 90_000 * i) for i in range(layers)]
    structure = Structure(Cost(800, 800, 9000, 10**6), tuple((*(c,) * (many - 1), Cost()) for c in costs))
    values = [[math.exp(dice.gauss(0, 1.5)) for _ in range(many)] for _ in range(layers)]
    importance = [[v / sum(row) for v in row] for row in values]
    whole, shared = needs(structure.cost(structure.whole), batch), needs(structure.shared, batch)
    limits = Limits(*(s + int((w - s) * dice.uniform(0.3, 0.6)) for w, s in zip(whole, shared, strict=True)))
    return structure, importance, limits


def run(report: Report, forms: Sequence[tuple[int, int, float]] = FORMS, profiles: int = PROFILES) -> None:
    """A line `derive 4x16 …` for each form and way; its peer is greedy, and `gain` how much more importance the solver's choices have."""
    began = time.perf_counter()
    warm()
    first = time.perf_counter() - began
    for layers, many, limit in forms:
        problems = [drawn(layers, many, seed) for seed in range(profiles)]
        keeps = Derivation(problems[0][0], BATCH)
        again = [(p[1], p[2]) for p in problems]
        ways: dict[str, tuple[Callable[..., Choice], Sequence[tuple]]] = {
            "solved": (partial(derive, batch=BATCH), problems),
            "greedy": (partial(derive, batch=BATCH, solver=False), problems),
            "first": (keeps, again),
            "kept": (keeps, again),
        }
        took: dict[str, list[float]] = {}
        found: dict[str, list[Choice]] = {}
        cpu = time.process_time()
        start = time.perf_counter()
        for name, (way, asked) in ways.items():
            took[name], found[name] = [], []
            for question in asked:
                at = time.perf_counter()
                found[name].append(way(*question))
                took[name].append(time.perf_counter() - at)
        gains = [
            worth(p[1], a) / worth(p[1], b) - 1
            for p, a, b in zip(problems, found["solved"], found["greedy"], strict=True)
        ]
        about = {
            "profiles": profiles,
            "warm_s": round(first, 2),
            "gain": round(sum(gains) / len(gains), 4),
            "hits": keeps.hits,
            "cpu": round((time.process_time() - cpu) / (time.perf_counter() - start), 2),
            "load": round(os.getloadavg()[0], 1),
        }
        for name in ("solved", "kept"):
            of = sorted(took[name])
            settings = about | {"most_s": round(of[-1], 5)}
            line = Line(
                "derive", f"{layers}x{many} {name}", median(of), "s", limit, settings, "greedy", median(took["greedy"])
            )
            report(line)
