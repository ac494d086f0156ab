"""Which modules make a device's sub-model (ECLM §5.1). Pure functions, without torch; OR-Tools is imported when it is asked.

    max Σ_i Importance(ω_i | D_k) · d_i    s.t.  Σ_i Resource_j(ω_i) · d_i ≤ L_j,   j ∈ {Comm., Comp., Mem.},   d_i ∈ {0, 1}

The shared part is always there, and so is each layer's residual module, which costs nothing. The most important shrunk module of
each layer is first; what is left of the limits is a multi-dimensional knapsack, by CP-SAT from `greedy`'s choice on, so never worse.

`derive` is a pure function. `Derivation` keeps its answers for a device that asks again.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from numbers import Integral
from typing import NamedTuple

from learning.solver import solver
from learning.words import Plain
from schemas.modules import UNLIMITED, Choice, Cost, Structure

Importance = Sequence[Sequence[float]]
"""Of each layer its modules' importance for a device: numbers from 0 to 1."""

STEPS = 1_000_000
"""CP-SAT takes importance as whole numbers: multiples of the largest one divided by this."""
WORK = 0.02
"""CP-SAT's limit in its own measure, so that the answer is the same on every machine."""


class Limits(NamedTuple):
    """What a device has for a sub-model: bytes of one transfer, bytes of memory to train in, multiplications of a training step
    for each sample. `UNLIMITED` where it does not matter."""

    bytes: int
    memory: int
    macs: int


class DoesNotFit(Plain):
    """Not even one shrunk module of each layer is within the limits; the text says of what there is too little."""


def needs(cost: Cost, batch: int) -> Limits:
    """What a part or a sub-model takes of each limit, trained in batches of `batch`."""
    return Limits(cost.bytes, cost.memory(batch), cost.training_macs)


def worth(importance: Importance, choice: Choice) -> float:
    """The objective: the importance of a choice's modules, the sum rounded once."""
    return math.fsum(importance[i][n] for i, chosen in enumerate(choice) for n in chosen)


def first(structure: Structure, importance: Importance, limits: Limits, batch: int) -> Choice:
    """The residual module and the most important shrunk one of each layer, ties by number. Raises `DoesNotFit`; `ValueError` for
    an importance or limits that cannot be."""
    _check(structure, importance, limits, batch)
    choice = tuple(
        (max(range(len(layer) - 1), key=lambda n: (values[n], -n)), len(layer) - 1)
        for layer, values in zip(structure.layers, importance, strict=True)
    )
    taken = needs(structure.cost(choice), batch)
    if short := [
        f"{t:,} {name}, limit {there:,}" for name, t, there in zip(_NAMES, taken, limits, strict=True) if t > there
    ]:
        raise DoesNotFit(f"one module of each layer and the shared part need {'; '.join(short)}")
    return choice


_NAMES = ("bytes to transfer", "bytes of memory", "multiplications a sample")


def greedy(structure: Structure, importance: Importance, limits: Limits, batch: int) -> Choice:
    """After `first`, one module after another that still fits, by importance / Σ of its shares in the limits' rest."""
    found = first(structure, importance, limits, batch)
    return _filled(_Rest(structure, importance, limits, batch, found), found)


def derive(
    structure: Structure, importance: Importance, limits: Limits, batch: int, solver: bool = True, work: float = WORK
) -> Choice:
    """A device's sub-model: the best that CP-SAT finds within `work`, or without the `solver` `greedy`'s. Modules of no importance
    are left out, but for the first of a layer.

    The same arguments give the same choice. Raises as `first` does.
    """
    found = first(structure, importance, limits, batch)
    rest = _Rest(structure, importance, limits, batch, found)
    best = _filled(rest, found)
    if not solver or len(rest.items) == sum(map(len, best)) - sum(map(len, found)):  # all is in: nothing to solve
        return best
    solved = _solved(rest, found, best, work)
    return solved if worth(importance, solved) > worth(importance, best) else best


def warm() -> None:
    """Have the solver here: its import and its first call take 1 to 2 s, which no device is to wait for. Raises `ModuleNotFoundError`."""
    some = Cost(1, 1, 1, 1)
    structure = Structure(some, ((some, some, some, Cost()),))
    derive(structure, [[0.4, 0.3, 0.2, 0.1]], Limits(8, UNLIMITED, UNLIMITED), 1)
    _solved(_Rest(structure, [[0.4, 0.3, 0.2, 0.1]], Limits(12, 64, 64), 1, ((0, 3),)), ((0, 3),), ((0, 3),), WORK)


class _Rest:
    """The knapsack after the first choice: modules that may still come in, what each is worth and needs, and what there is."""

    def __init__(self, structure: Structure, importance: Importance, limits: Limits, batch: int, found: Choice):
        taken = needs(structure.cost(found), batch)
        self.room = [there - t for there, t in zip(limits, taken, strict=True)]
        items = [
            ((i, n), importance[i][n], needs(layer[n], batch))
            for i, layer in enumerate(structure.layers)
            for n in range(len(layer) - 1)
            if n not in found[i] and importance[i][n] > 0
        ]
        items = [item for item in items if all(a <= b for a, b in zip(item[2], self.room, strict=True))]
        self.items = [at for at, _, _ in items]
        self.worth = [w for _, w, _ in items]
        self.needs = [n for _, _, n in items]

    def with_(self, found: Choice, picked: Sequence[int]) -> Choice:
        more = [self.items[p] for p in picked]
        return tuple(tuple(sorted([*chosen, *(n for i, n in more if i == at)])) for at, chosen in enumerate(found))


def _filled(rest: _Rest, found: Choice) -> Choice:
    room, picked = list(rest.room), []
    shares = [sum(a / b for a, b in zip(n, rest.room, strict=True) if b) for n in rest.needs]
    for p in sorted(
        range(len(shares)), key=lambda p: (-rest.worth[p] / shares[p] if shares[p] else -math.inf, rest.items[p])
    ):
        if all(a <= b for a, b in zip(rest.needs[p], room, strict=True)):
            room = [b - a for a, b in zip(rest.needs[p], room, strict=True)]
            picked.append(p)
    return rest.with_(found, picked)


def _solved(rest: _Rest, found: Choice, hint: Choice, work: float) -> Choice:
    from ortools.sat.python import cp_model  # late: `learning/solver.py` says why

    model = cp_model.CpModel()
    x = [model.new_bool_var("") for _ in rest.items]
    for j, room in enumerate(rest.room):
        of_each = [n[j] for n in rest.needs]
        if sum(of_each) > room:
            model.add(cp_model.LinearExpr.weighted_sum(x, of_each) <= room)
    largest = max(rest.worth)
    model.maximize(cp_model.LinearExpr.weighted_sum(x, [round(w / largest * STEPS) for w in rest.worth]))
    for (i, n), chosen in zip(rest.items, x, strict=True):
        model.add_hint(chosen, n in hint[i])
    asked = solver(work)
    if asked.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return hint
    return rest.with_(found, [p for p, chosen in enumerate(x) if asked.boolean_value(chosen)])


def _check(structure: Structure, importance: Importance, limits: Limits, batch: int) -> None:
    if [len(values) for values in importance] != [len(layer) for layer in structure.layers]:
        raise ValueError(
            f"importance is of {[len(v) for v in importance]} modules a layer, the model has {[len(x) for x in structure.layers]}"
        )
    if not all(0 <= value <= 1 for values in importance for value in values):  # nor is NaN
        raise ValueError("importance is a number from 0 to 1 for each module")
    if not all(isinstance(there, Integral) and 0 <= there <= UNLIMITED for there in limits):
        raise ValueError(f"limits are whole numbers from 0 to 2^60, not {tuple(limits)}")
    if batch < 1:
        raise ValueError(f"a batch has at least one sample, not {batch}")


# ------------------------------------------------------------------ like profiles

EIGHTHS = 8
"""Importance is alike within 1/16 of an octave either way (4.4 %), and so are limits up to the next of 16 an octave."""
LEAST = 2.0**-12
"""Importance below this is alike."""


class Derivation:
    """Answers for one model and batch size, kept for profiles that round to the same: importance is rounded, limits are rounded
    down. With many modules that is a device that asks again, and hardly two that are alike (4 x 16: a hundredth more or less in each
    importance is another profile).

    An answer depends on the rounded profile alone, not on what was asked before. It is within the limits; and where a layer's shrunk
    modules cost the same, its importance is at least 2^(-1/8) (91.7 %) of the best within the rounded limits, but for what is
    below `LEAST`. Where the rounded limits hold nothing, it is derived from the profile as it is.
    """

    def __init__(self, structure: Structure, batch: int, solver: bool = True, kept: int = 4096):
        self.structure, self.batch, self.solver = structure, batch, solver
        self._kept = lru_cache(kept)(self._derive)

    def __call__(self, importance: Importance, limits: Limits) -> Choice:
        """The sub-model for a profile. Raises as `first` does."""
        _check(self.structure, importance, limits, self.batch)
        try:
            return self._kept(tuple(tuple(map(_alike, values)) for values in importance), Limits(*map(_below, limits)))
        except DoesNotFit:
            return derive(self.structure, importance, limits, self.batch, self.solver)

    def _derive(self, importance: Importance, limits: Limits) -> Choice:
        return derive(self.structure, importance, limits, self.batch, self.solver)

    @property
    def hits(self) -> int:
        """How many profiles were like one before."""
        return self._kept.cache_info().hits


def _alike(importance: float) -> float:
    if importance <= 0:
        return 0.0
    return min(1.0, 2.0 ** (round(EIGHTHS * math.log2(max(importance, LEAST))) / EIGHTHS))


def _below(limit: int) -> int:
    if limit < 1:
        return 0
    step = math.floor(2 * EIGHTHS * math.log2(limit))
    return min(limit, math.floor(2.0 ** (step / (2 * EIGHTHS))))
