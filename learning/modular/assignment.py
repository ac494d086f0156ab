"""Which sub-tasks are whose: the matrix H, its constrained mask M and the targets that follow (ECLM §4.3). Without torch.

The paper's formula for M is lost in print; its words give this, a problem of its own for each module layer:

    max Σ_t Σ_n h_tn · m_tn    s.t.  Σ_t h_tn · m_tn ≤ κ1 for each n;   1 ≤ Σ_n m_tn ≤ κ2 for each t;   m_tn ∈ {0, 1}

The 1 is ours: no sub-task stays without a module. Arrays are (T, N): T sub-tasks, N modules.
"""

import numpy as np
import numpy.typing as npt

from learning.solver import solver

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

LOAD = 1.5
"""κ1 is so many times a module's mean load, unless said; but at least 1/k, what one sub-task alone can bring."""
MODULES = 4
"""κ2, unless said."""
EASIER = 1.25
"""Where no M can be, κ1 grows by this factor until one can."""
SMOOTHING = 0.01
"""The share of a target that goes to the modules which are not recommended, so that the divergence is finite both ways."""
STEPS = 1_000_000
WORK = 1.0
"""CP-SAT takes h and κ1 as multiples of 1/STEPS, and as much work as this, in its own measure."""


def matrix(routes: Bools, subtasks: Int64, number: int) -> Float64:
    """H of a layer: h_tn = how much of sub-task t's load goes to module n; rows add up to 1.

    `routes` (samples, N): which modules each sample is sent to, equally many (k) for each; `subtasks` (samples,): whose it is, 0 to
    `number` - 1. Raises `ValueError` if a sub-task has no sample, or shapes do not fit.
    """
    if routes.ndim != 2 or subtasks.shape != routes.shape[:1]:
        raise ValueError(f"routes of shape {routes.shape} and sub-tasks of {subtasks.shape}")
    if len(subtasks) and not 0 <= subtasks.min() <= subtasks.max() < number:
        raise ValueError(f"sub-tasks are 0 to {number - 1}, not {subtasks.min()} to {subtasks.max()}")
    counts = np.bincount(subtasks, minlength=number)
    if not counts.all():
        raise ValueError(f"sub-tasks {np.flatnonzero(counts == 0).tolist()} have no sample")
    load = np.zeros((number, routes.shape[1]))
    np.add.at(load, subtasks, routes / routes.sum(axis=1, keepdims=True))
    return load / counts[:, None]


def assign(h: Float64, most_load: float | None = None, most_modules: int = MODULES, k: int = 4) -> tuple[Bools, float]:
    """M of a layer (T, N), and the κ1 it keeps to. `most_load` is κ1 to begin with, else `LOAD` × the mean; `most_modules` is κ2.

    A module is only given to a sub-task that uses it (h > 0). Needs OR-Tools. Raises `ValueError` if H has a row of zeros, or κ1 or
    κ2 cannot be.
    """
    if h.ndim != 2 or not h.size or not np.all(np.isfinite(h)) or h.min() < 0 or not h.sum(axis=1).all():
        raise ValueError("H has a row for each sub-task, of loads from 0 on, not all 0")
    if most_modules < 1 or (most_load is not None and not most_load > 0):
        raise ValueError(f"κ1 and κ2 are above 0, not {most_load} and {most_modules}")
    load = max(LOAD * float(h.sum()) / h.shape[1], 1 / k) if most_load is None else most_load
    # At the latest when κ1 holds whole columns there is one: each sub-task's best module.
    while (found := _solved(h, load, most_modules)) is None:
        load *= EASIER
    return found, load


def _solved(h: Float64, most_load: float, most_modules: int) -> Bools | None:
    from ortools.sat.python import cp_model  # late: `learning/solver.py` says why

    whole = np.rint(h * STEPS).astype(np.int64)
    model = cp_model.CpModel()
    x = {(t, n): model.new_bool_var("") for t, n in np.argwhere(h > 0).tolist()}
    for n in range(h.shape[1]):
        here = [(t, m) for t, m in x if m == n]
        if here:
            loads = [int(whole[at]) for at in here]
            model.add(cp_model.LinearExpr.weighted_sum([x[at] for at in here], loads) <= round(most_load * STEPS))
    for t in range(h.shape[0]):
        here = [at for at in x if at[0] == t]
        model.add_linear_constraint(sum(x[at] for at in here), 1, most_modules)
    model.maximize(cp_model.LinearExpr.weighted_sum(list(x.values()), [int(whole[at]) for at in x]))
    asked = solver(WORK)
    if asked.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    mask = np.zeros(h.shape, np.bool_)
    for at, chosen in x.items():
        mask[at] = asked.boolean_value(chosen)
    return mask


def targets(h: Float64, mask: Bools, smoothing: float = SMOOTHING) -> Float64:
    """g_label of a layer (T, N): the rows of P = H ⊙ M, each made to add up to 1; `smoothing` of it goes to the modules that are not in
    M, in equal parts. Raises `ValueError` if a row of P is 0."""
    p = h * mask
    if not (rows := p.sum(axis=1, keepdims=True)).all():
        raise ValueError("each sub-task needs a module that it uses")
    others = ~mask
    count = others.sum(axis=1, keepdims=True)
    share = np.where(count, smoothing, 0.0)
    return p / rows * (1 - share) + others * share / np.maximum(count, 1)
