"""ECLM's offline stage (§4.3): end-to-end training with the load-balancing loss, then fine-tuning that enhances modules' abilities.

    pre-training   CrossEntropy(ŷ, y) + λ · LoadBalance(ĝ), gates noisy
    enhancing      CrossEntropy(ŷ, y) + λ · KL(g_label ‖ ĝ), noise off: routing is to become what M says, not to look for another

A pass is a function of the model, the optimiser's state, the data, the settings, the seed and its number: whoever has these after
pass i gets from pass i + 1 on the same bits as who did them all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from learning.modular.assignment import MODULES, assign, matrix, targets
from learning.modular.gating import divergence, load_balance
from learning.modular.model import Modular, routes

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Settings:
    """`balance`: λ of the load-balancing loss; `guide`: λ of the divergence. `lr` is Adam's."""

    batch: int = 64
    lr: float = 0.001
    balance: float = 0.01
    guide: float = 0.1


class Losses(NamedTuple):
    """Means over a pass, by sample: cross-entropy in nats, and what λ is multiplied with."""

    entropy: float
    routing: float


def optimiser_of(model: Modular, settings: Settings) -> torch.optim.Optimizer:
    """Adam on all parameters that are trained. Its `state_dict` belongs to a checkpoint."""
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=settings.lr)


def pretrain(
    model: Modular, optimiser: torch.optim.Optimizer, x: Float32, y: Int64, settings: Settings, seed: int, number: int
) -> Losses:
    """Pass `number` of end-to-end training on samples x (n, …) of classes y (n,), in place. Raises `ValueError` without samples, or if
    they differ in number."""
    return _pass(model, optimiser, x, y, settings, seed, number, None)


class Plan(NamedTuple):
    """The sub-tasks of the data as the modules are to have them, of each layer: H, M (T, N), the κ1 that M keeps to, and the targets
    g_label (T, N)."""

    h: list[Float64]
    mask: list[Bools]
    load: list[float]
    targets: list[Float64]


def plan(
    model: Modular,
    x: Float32,
    subtasks: Int64,
    most_load: float | None = None,
    most_modules: int = MODULES,
) -> Plan:
    """Steps 1 and 2 of enhancing, from the routing as it is learned: `subtasks` (n,) says whose each sample is, numbered from 0.
    Arguments as in `assignment.assign`."""
    number = int(subtasks.max()) + 1 if len(subtasks) else 0
    h = [matrix(chosen, subtasks, number) for chosen in _still(model, x)]
    found = [assign(m, most_load, most_modules, model.selector.k) for m in h]
    masks = [mask for mask, _ in found]
    return Plan(h, masks, [load for _, load in found], [targets(*pair) for pair in zip(h, masks, strict=True)])


def enhance(
    model: Modular,
    optimiser: torch.optim.Optimizer,
    x: Float32,
    y: Int64,
    subtasks: Int64,
    guide: Sequence[Float64],
    settings: Settings,
    seed: int,
    number: int,
) -> Losses:
    """Pass `number` of fine-tuning, in place: step 3, by the `targets` of a plan. Raises as `pretrain` does."""
    if len(subtasks) != len(y):
        raise ValueError(f"each sample is of a sub-task: {len(y)} samples, {len(subtasks)} sub-tasks")
    labels = [torch.tensor(layer[subtasks], dtype=torch.float32) for layer in guide]
    noisy = model.noisy
    model.noisy = False
    try:
        return _pass(model, optimiser, x, y, settings, seed, number, labels)
    finally:
        model.noisy = noisy


def by_classes(y: Int64, together: Sequence[Sequence[int]]) -> Int64:
    """Sub-tasks of classes that usually appear together on a device (§4.3, step 1): (n,), the number of each label's set. Each class is in
    one set; raises `ValueError` for one in none or two."""
    of = {c: t for t, classes in enumerate(together) for c in classes}
    missing = sorted(set(y.tolist()) - set(of))
    if missing or len(of) != sum(map(len, together)):
        raise ValueError(f"each class is in one sub-task: {f'{missing} are in none' if missing else 'some are in two'}")
    return np.array([of[c] for c in y.tolist()], np.int64)


def _still(model: Modular, x: Float32) -> list[Bools]:
    training = model.training
    model.eval()
    try:
        return routes(model, x)
    finally:
        model.train(training)


def _pass(
    model: Modular,
    optimiser: torch.optim.Optimizer,
    x: Float32,
    y: Int64,
    settings: Settings,
    seed: int,
    number: int,
    labels: list[torch.Tensor] | None,
) -> Losses:
    if len(x) != len(y) or not len(y):
        raise ValueError(f"training needs samples, as many as labels: {len(x)} and {len(y)} given")
    xs, ys = torch.tensor(x), torch.tensor(y)
    entropy = routing = 0.0
    model.train()
    draw = int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint32)[0])
    with torch.random.fork_rng(
        devices=[]
    ):  # the gates' noise comes from the process's generator: seeded here, and given back
        torch.default_generator.manual_seed(draw)
        for rows in _batches(len(ys), settings.batch, draw):
            logits, gates = model.routed(xs[rows])
            loss = nn.functional.cross_entropy(logits, ys[rows])
            if labels is None:
                more, weight = load_balance(gates), settings.balance
            else:
                more, weight = divergence(gates, [layer[rows] for layer in labels]), settings.guide
            optimiser.zero_grad()
            (loss + weight * more).backward()
            optimiser.step()
            entropy += float(loss.detach()) * len(rows)
            routing += float(more.detach()) * len(rows)
    return Losses(entropy / len(ys), routing / len(ys))


def _batches(samples: int, size: int, seed: int) -> Iterator[torch.Tensor]:
    """All samples once, shuffled; a last one alone, which could not be normalised, joins the batch before."""
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return iter(parts)
