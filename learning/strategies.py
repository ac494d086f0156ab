"""Server strategies of one's own, beside the optimisers in `optimisers.py`: what the mean of the deltas does to the model.

    @strategy("bounded", settings={"learning_rate": 1.0, "most": 0.1, "momentum": 0.5}, arrays=1)
    def bounded(settings, model, delta, state):
        (b,) = state
        b = settings["momentum"] * b + np.clip(delta, -settings["most"], settings["most"])
        return model + settings["learning_rate"] * b, [b]

A task names it as `server.optimiser`, with other settings than these in `server.args`. It is called for each block of the
model that somebody sent a delta for, but for those of statistics, which take the plain mean. `model` and `delta` (the mean delta;
in the globe, the zones' merged model minus the last global one) and the arrays of `state` are float64 of shape (k,), k at most
`BLOCK`. It returns the new model and the new state arrays, of that shape. The state begins as zeros. Both are stored as float32,
as blocks that the ledger names; the next step starts from what was stored, whoever leads by then. So the function must be pure:
what it keeps elsewhere dies with its process, and `olearning verify` calls it again and compares every bit. How a model is cut
into blocks is `schemas/blocks.py`'s business: work by element, or know that.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.task import OPTIMISERS, STRATEGIES, Server
from schemas.wire import SLUG

Float64 = npt.NDArray[np.float64]
Function = Callable[[Mapping[str, float], Float64, Float64, list[Float64]], tuple[Float64, Sequence[Float64]]]


class StrategyFailed(ValueError):
    """A strategy of one's own that is not known here, raised something, or gave what cannot be; the text says which."""


@dataclass(frozen=True)
class _Own:
    function: Function
    arrays: int


_own: dict[str, _Own] = {}


def strategy(name: str, settings: Mapping[str, float] = {}, arrays: int = 0) -> Callable[[Function], Function]:
    """Make a function known as the server strategy `name`, with these settings by default and so many arrays of state.

    Raises `ValueError` for a name that is taken, a number of arrays below 0, or settings that are not numbers.
    """
    if not re.search(SLUG, name):
        raise ValueError(f"a strategy's name has a-z, 0-9 and '-', 63 characters at most, and {name!r} has not")
    if name in OPTIMISERS or name in STRATEGIES:
        raise ValueError(f"there is a server optimiser {name!r} already")
    if isinstance(arrays, bool) or not isinstance(arrays, int) or arrays < 0:
        raise ValueError(f"strategy {name!r}: arrays is how many arrays of state it has, not {arrays!r}")
    for key, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"strategy {name!r}: settings are numbers, and {key} is {value!r}")

    def register(function: Function) -> Function:
        STRATEGIES[name] = {key: float(value) for key, value in settings.items()}
        _own[name] = _Own(function, arrays)
        return function

    return register


def unknown(server: Server) -> str:
    """Why this process cannot do the server's step, or ""."""
    if server.optimiser in OPTIMISERS or server.optimiser in _own:
        return ""
    known = ", ".join([*OPTIMISERS, *_own])
    return (
        f"server.optimiser {server.optimiser!r} is not known here; known: {known}. If it is a strategy of your own, start "
        "this role with --load and the file that has it"
    )


def arrays_of(server: Server) -> int:
    """How many arrays of state its strategy has. Raises `StrategyFailed` if it is not known here."""
    if why := unknown(server):
        raise StrategyFailed(why)
    return _own[server.optimiser].arrays


def apply(server: Server, model: Float64, delta: Float64, state: list[Float64]) -> tuple[Float64, list[Float64]]:
    """One block's step: (model, state) after it, all (k,) float64. Raises `StrategyFailed` for what must not be stored."""
    arrays, name = arrays_of(server), server.optimiser
    try:
        new, after = _own[name].function(dict(server.settings), model.copy(), delta.copy(), [s.copy() for s in state])
        new, after = np.asarray(new, np.float64), [np.asarray(s, np.float64) for s in after]
    except Exception as e:  # it is a tenant's code: that task's fault, not this role's
        raise StrategyFailed(f"strategy {name!r} failed: {type(e).__name__}: {e}") from e
    if len(after) != arrays:
        raise StrategyFailed(f"strategy {name!r} gave {len(after)} arrays of state, and said it has {arrays}")
    for what, values in [("model", new), *((f"state array {i}", s) for i, s in enumerate(after))]:
        if values.shape != model.shape:
            raise StrategyFailed(f"strategy {name!r} gave a {what} of shape {values.shape}, not {model.shape}")
        with np.errstate(over="ignore"):
            stored = values.astype(np.float32)
        if not np.isfinite(stored).all():
            raise StrategyFailed(f"strategy {name!r} gave a {what} with values that are not finite in float32")
    return new, after
