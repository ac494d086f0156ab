"""Server optimisers: what the mean of the deltas does to the model. Pure functions on arrays.

The paper is Reddi et al., ICLR 2021 (arXiv 2003.00295, algorithm 2); FedAvg is McMahan et al., AISTATS 2017; FedAvgM is Hsu
et al. 2019 (arXiv 1909.06335); "pyramidfl-yogi" is what PyramidFL's code does (github.com/liecn/PyramidFL,
`training/utils/yogi.py`). With Δ the mean delta, x the model, all by element:

    fedavg          x += η·Δ
    fedavgm         b = β·b + Δ, b0 = 0                        x += η·b
    fedadagrad      v = v + Δ²                                 x += η·Δ / (√v + τ)
    fedadam         m = β1·m + (1-β1)·Δ, m0 = 0
                    v = β2·v + (1-β2)·Δ²                       x += η·m / (√v + τ)
    fedyogi         m as fedadam
                    v = v - (1-β2)·Δ²·sign(v - Δ²)             x += η·m / (√v + τ)
    pyramidfl-yogi  first v = Δ², x += Δ; then v as fedyogi    x += η·Δ / (√v + τ)

v0 = τ², no bias correction, sign(0) = 0. `schemas.task.OPTIMISERS` has the defaults.

The state is one flat float32 vector: the arrays named above (b; v; or m and then v), each as long as the model, laid end to
end. So it travels as model blocks do. A step computes in float64 from the stored state and rounds to float32 once, model
and state alike; the next step starts from what was stored, also in the leader that stored it. So whoever continues from
the stored state gets the same bits. float64 would double what travels, for digits below the model's own. Only +, -, ×, ÷
and √ on single elements are used, which IEEE 754 rounds correctly: the bits do not depend on the machine either.

A block without a delta keeps model and state bit for bit; what happens first happens to it when it first has one.

`plain` blocks (`Layout.plain`: BatchNorm's running statistics) take the mean as it is, and their state stays as it began: a
variance is no weight, and a step of Adam's may take it below 0.

`learning/strategies.py` adds steps of one's own, under the same rules.
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from learning import strategies
from learning.aggregation import Float32, Float64, Int64, mean
from schemas.blocks import BLOCK, slices
from schemas.task import Server

_ARRAYS = {"fedavg": 0, "fedavgm": 1, "fedadagrad": 1, "fedadam": 2, "fedyogi": 2, "pyramidfl-yogi": 1}
_NEVER = -1.0
"""PyramidFL's v where no delta came yet: no v is below 0."""


def _arrays(server: Server) -> int:
    return _ARRAYS[server.optimiser] if server.optimiser in _ARRAYS else strategies.arrays_of(server)


def state_sizes(server: Server, n: int) -> tuple[int, ...]:
    """The sizes of the blocks that the state for a model of `n` values travels in. Empty: it has no state.

    As few as can be, whatever the model's own blocks: the ledger names each of them in every round.
    """
    whole, rest = divmod(_arrays(server) * n, BLOCK)
    return (BLOCK,) * whole + (rest,) * bool(rest)


def first_state(server: Server, n: int) -> Float32:
    """The state before the first step, for a model of `n` values."""
    state = np.zeros((_arrays(server), n), np.float32)
    match server.optimiser:
        case "fedadagrad" | "fedadam" | "fedyogi":
            state[-1] = server.settings["tau"] ** 2
        case "pyramidfl-yogi":
            state[-1] = _NEVER
    return state.reshape(-1)


def apply_sums(
    server: Server,
    model: Float32,
    sums: Int64,
    weights: Sequence[int],
    sizes: Sequence[int],
    unit: int,
    state: Float32,
    plain: Collection[int] = (),
) -> tuple[Float32, Float32]:
    """A round's step: (model, state) after it. Arguments as in `aggregation.apply_mean`, which FedAvg at rate 1 equals.

    `model` and `sums` are flat (n,), cut into blocks by `sizes`; the sums are in units of 2^unit; `weights[b]` is the sum
    of the weights counted for block b, and of weight 0 a block stays as it is. Raises `ValueError` if lengths do not fit.
    """
    if len(weights) != len(sizes):
        raise ValueError(f"{len(weights)} weights for {len(sizes)} blocks")
    if sums.shape != model.shape:
        raise ValueError(f"a model of {model.shape} and sums of {sums.shape}")
    sent = [(b, p, w) for b, (p, w) in enumerate(zip(slices(tuple(sizes)), weights, strict=True))]
    deltas = (mean(sums[p], w, unit) if w and b not in plain else None for b, p, w in sent)
    new, kept = _apply(server, model, deltas, sizes, state)
    for b, p, w in sent:
        if w and b in plain:
            new[p] = model[p] + mean(sums[p], w, unit)
    return new, kept


def apply_merged(
    server: Server,
    model: Float32,
    merged: Float32,
    sizes: Sequence[int],
    state: Float32,
    plain: Collection[int] = (),
) -> tuple[Float32, Float32]:
    """An epoch's step in the globe: Δ is the zones' merged model minus the last global one, both flat (n,).

    A block in which these two are equal counts as one that no device sent. FedAvg at rate 1 gives `merged` itself, without
    the way through the difference, which could round; so do `plain` blocks with any optimiser. Raises `ValueError` if lengths do
    not fit.
    """
    if merged.shape != model.shape:
        raise ValueError(f"a model of {model.shape} and a merged one of {merged.shape}")
    if server.optimiser == "fedavg" and server.settings["learning_rate"] == 1:
        return merged, state
    pieces = slices(tuple(sizes))
    differences = (merged[p].astype(np.float64) - model[p] for p in pieces)
    deltas = (d if d.any() and b not in plain else None for b, d in enumerate(differences))
    new, kept = _apply(server, model, deltas, sizes, state)
    for b in plain:
        new[pieces[b]] = merged[pieces[b]]
    return new, kept


def _apply(
    server: Server, model: Float32, deltas: Iterable[Float64 | None], sizes: Sequence[int], state: Float32
) -> tuple[Float32, Float32]:
    """One step with these deltas by block. None: the block stays as it is, model and state."""
    arrays, own = _arrays(server), server.optimiser not in _ARRAYS
    if own and state.shape != (arrays * model.size,):  # other code than that which wrote it
        raise strategies.StrategyFailed(
            f"strategy {server.optimiser!r} has {arrays} arrays of state here, and what is stored has {state.size} values for "
            f"a model of {model.size}: load the code that the task began with"
        )
    if model.shape != (sum(sizes),) or state.shape != (arrays * model.size,):
        raise ValueError(f"blocks of {sum(sizes)} values, a model of {model.shape} and a state of {state.shape}")
    new, kept = model.copy(), state.copy()
    rows = kept.reshape(arrays, model.size)  # a view
    for here, delta in zip(slices(tuple(sizes)), deltas, strict=True):
        if delta is not None:
            before = [row[here].astype(np.float64) for row in rows]
            if own:
                new[here], after = strategies.apply(server, model[here].astype(np.float64), delta, before)
            else:
                change, after = step(server, delta, before)
                new[here] = model[here] + change  # float32 + float64: in float64, rounded once
            for row, values in zip(rows, after, strict=True):
                row[here] = values
    return new, kept


def step(server: Server, delta: Float64, state: Sequence[Float64]) -> tuple[Float64, list[Float64]]:
    """The formulas: from Δ and the state's arrays, all (k,) float64, what the model changes by and the state's next arrays."""
    p = server.settings
    rate, square = p["learning_rate"], delta * delta
    match server.optimiser:
        case "fedavg":
            return rate * delta, []
        case "fedavgm":
            (b,) = state
            b = p["momentum"] * b + delta
            return rate * b, [b]
        case "fedadagrad":
            (v,) = state
            v = v + square
            return _scaled(rate, delta, v, p["tau"]), [v]
        case "fedadam":
            m, v = state
            m = p["beta1"] * m + (1 - p["beta1"]) * delta
            v = p["beta2"] * v + (1 - p["beta2"]) * square
            return _scaled(rate, m, v, p["tau"]), [m, v]
        case "fedyogi":
            m, v = state
            m = p["beta1"] * m + (1 - p["beta1"]) * delta
            v = _yogi(v, square, p["beta2"])
            return _scaled(rate, m, v, p["tau"]), [m, v]
        case "pyramidfl-yogi":
            (v,) = state
            first = v < 0
            v = np.where(first, square, _yogi(v, square, p["beta2"]))
            return np.where(first, delta, _scaled(rate, delta, v, p["tau"])), [v]
    raise ValueError(f"there is no formula for {server.optimiser}")


def _yogi(v: Float64, square: Float64, beta2: float) -> Float64:
    """Additive where Adam decays: v moves towards Δ² by a step that depends on Δ² alone."""
    return v - (1 - beta2) * square * np.sign(v - square)


def _scaled(rate: float, direction: Float64, v: Float64, tau: float) -> Float64:
    return rate * direction / (np.sqrt(v) + tau)
