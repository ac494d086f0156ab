"""HeteroFL (Diao, Ding, Tarokh, ICLR 2021): nested models by width. Written from the authors' code, for networks that have a width.

A model of rate r has the first ⌈r·C⌉ channels of every hidden layer; so each of its tensors is the corner of the whole one's. While
training each hidden layer's output is divided by r (their Scaler). BatchNorm takes batch statistics only, and what it is tested with
comes from a pass over the device's own data. Logits of classes a device lacks are 0 in its loss (masked loss). The sum over devices is
element by element, by their count; what no device has stays; of the class layer a device counts only in rows of its classes.

Here: the level of a device is the largest whose bytes, memory and multiplications are within its budget, else the least.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

RATES = (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16)
Float32 = npt.NDArray[np.float32]
State = dict[str, Float32]
"""By name the float parameters of a network."""


def narrowed(args: Mapping[str, int | str], rate: float) -> dict[str, int | str]:
    """The arguments of a network whose hidden widths are ⌈rate · C⌉. Raises `ValueError` for one without widths."""
    out = dict(args)
    if "width" in args:
        out["width"] = ceil(rate * int(args["width"]))
    elif "hidden" in args:
        out["hidden"] = ",".join(str(ceil(rate * int(h))) for h in str(args["hidden"]).split(","))
    else:
        raise ValueError(f"HeteroFL needs a network with `width` or `hidden`; this one has {', '.join(args)}")
    return out


def has_width(args: Mapping[str, object]) -> bool:
    """Whether a network with these arguments can be narrowed."""
    return "width" in args or "hidden" in args


def state_of(module: nn.Module) -> State:
    """Copies of all parameters."""
    return {name: p.detach().numpy().copy() for name, p in module.named_parameters()}


def load(module: nn.Module, state: Mapping[str, Float32]) -> None:
    """Set a network's parameters from the corner of larger ones."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(torch.tensor(state[name][corner(p.shape)]))


def corner(shape: Sequence[int]) -> tuple[slice, ...]:
    """The first so many along each axis."""
    return tuple(slice(n) for n in shape)


def combined(
    whole: Mapping[str, Float32],
    returned: Sequence[Mapping[str, Float32]],
    rows: Sequence[Sequence[int] | None],
    head: Sequence[str],
) -> State:
    """The next global state: the plain mean, element by element, over those who have it. `rows`: of each device its classes (None: all);
    `head`: names of the class layer's tensors, of which only these rows count."""
    new: State = {}
    for name, old in whole.items():
        total, count = np.zeros(old.shape, np.float64), np.zeros(old.shape, np.int64)
        for state, mine in zip(returned, rows, strict=True):
            part = state[name]
            here = corner(part.shape)
            if name in head and mine is not None:
                for row in mine:
                    at = (slice(row, row + 1), *here[1:])
                    total[at] += part[row : row + 1]
                    count[at] += 1
            else:
                total[here] += part
                count[here] += 1
        new[name] = np.where(count > 0, total / np.maximum(count, 1), old).astype(np.float32)
    return new


@contextmanager
def training(module: nn.Module, rate: float, classes: Sequence[int] | None) -> Iterator[None]:
    """For as long as this lasts: hidden outputs are divided by `rate`, and logits of other classes than these are 0 (None: no mask)."""
    layers = [m for m in module.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Linear)]
    hooks = [m.register_forward_hook(lambda _, __, out: out / rate) for m in layers[:-1]] if rate != 1 else []
    if classes is not None:
        mask = torch.zeros(layers[-1].weight.shape[0])
        mask[list(classes)] = 1
        hooks.append(layers[-1].register_forward_hook(lambda _, __, out: out * mask))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def static(module: nn.Module) -> nn.Module:
    """Its BatchNorms keep no running statistics while they train: those of the test are taken by `seen`."""
    for m in module.modules():
        if isinstance(m, _BatchNorm):
            m.momentum = None  # torch: the plain mean of all batches since the reset
    return module


def seen(module: nn.Module, x: Float32, batch: int = 64) -> None:
    """Fill BatchNorm's statistics from samples, as the mean of their batches'."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    module.train()
    for m in norms:
        m.reset_running_stats()
    with torch.no_grad():
        for part in np.array_split(x, max(1, len(x) // batch)):
            module(torch.tensor(part))
    module.eval()
