"""A modular task as devices, `submit` and an evaluator know it: its model by name made modular, and what a device does with its part (ECLM).

A device never holds the whole model. What it profiles by is the selector alone; what it trains is made of the blocks that it fetched.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from device_sim.data import Dataset, load, share
from device_sim.portion import Portion
from device_sim.pseudonym import seed_of
from device_sim.trainer import fit, one_thread
from learning.models import build, score
from learning.modular.aggregation import weights_of
from learning.modular.costs import structure_of
from learning.modular.forms import form_of
from learning.modular.gating import Selector
from learning.modular.model import (
    Blueprint,
    Modular,
    importances,
    layout_of,
    modularise,
    received,
    to_vector,
)
from learning.modular.structure import SELECTOR, choice_of, owners
from schemas.blocks import Layout
from schemas.messages import Announcement
from schemas.modules import FRACTION, Modules, Shares, Structure
from schemas.task import TaskSpec
from schemas.wire import Scalar

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Items = tuple[tuple[str, Scalar], ...]

HELD_BACK = 0.2
"""The share of a device's samples that it does not train on: by their loss it sees that its data have changed."""
LEAST = 5
"""Of fewer samples none is held back."""


class Model(NamedTuple):
    """What is known of a modular model without a value of it."""

    blueprint: Blueprint
    layout: Layout
    structure: Structure

    @property
    def selector(self) -> tuple[int, ...]:
        """The selector's blocks."""
        return tuple(b for b, owner in enumerate(owners(self.layout)) if owner == SELECTOR)


def made(spec: Announcement | TaskSpec, dataset: Dataset, seed: int) -> Modular:
    """The whole model, its weights drawn from `seed`. Raises `ValueError` for a network that cannot be made modular."""
    assert spec.modules
    return _whole(spec.model, spec.model_args, spec.modules, dataset.x.shape[1:], seed)


def _whole(model: str, args: Mapping[str, Scalar], how: Modules, shape: tuple[int, ...], seed: int) -> Modular:
    return modularise(build(model, args, seed), shape, form_of(model, how), seed=seed)


def known(a: Announcement | TaskSpec) -> Model:
    """What is known of a modular task's model here. Raises as `made`."""
    assert a.modules
    shape = load(a.data, a.data_args).x.shape[1:]
    return _known(a.model, tuple(sorted(a.model_args.items())), a.modules, shape)


@lru_cache(maxsize=16)
def _known(model: str, args: Items, how: Modules, shape: tuple[int, ...]) -> Model:
    blueprint = Blueprint(lambda: build(model, dict(args), 0), shape, form_of(model, how))
    whole = modularise(
        blueprint.network(), shape, blueprint.form
    )  # once for all devices of a process; measured, and let go
    return Model(blueprint, layout_of(whole), structure_of(whole))


# ------------------------------------------------------------------ on a device


def divide(x: Float32, y: Int64, seed: int) -> tuple[Float32, Int64, Float32, Int64]:
    """A device's samples (n, …): those to train on, and those held back, always the same ones."""
    n = round(HELD_BACK * len(y)) if len(y) >= LEAST else 0
    order = np.random.default_rng(seed).permutation(len(y))
    back, train = np.sort(order[:n]), np.sort(order[n:])
    return x[train], y[train], x[back], y[back]


def _samples(a: Announcement, id: str, number: int) -> tuple[Float32, Int64, Float32, Int64]:
    x, y = share(load(a.data, a.data_args), number, a.data_args)
    return divide(x, y, seed_of(a.seed, id, a.task, "held back"))


def profile(a: Announcement, id: str, number: int, selector: Float32) -> Shares:
    """How important each module is for a device's data (§5.1), from its samples and the values of the selector's blocks, end to end: the
    selector is all of the model that it needs. Raises `ValueError` for a selector of another length."""
    one_thread()
    model = known(a)
    form, layers = model.blueprint.form, len(model.structure.layers)
    made = Selector(model.blueprint.shape, [form.modules] * layers, form.k, noise=False)
    _load(made, selector)
    x, _, _, _ = _samples(a, id, number)
    return tuple(tuple(_whole_share(v) for v in layer) for layer in importances(made.eval(), x).tolist())


def _whole_share(importance: float) -> int:
    return max(1, round(importance * 2**FRACTION)) if importance else 0


def _load(selector: Selector, vector: Float32) -> None:
    tensors = list(selector.state_dict().values())
    if vector.shape != (size := sum(t.numel() for t in tensors),):
        raise ValueError(f"the selector has {size} values here, its blocks {vector.size}")
    at = 0
    with torch.no_grad():
        for t in tensors:
            t.copy_(torch.tensor(vector[at : at + t.numel()]).view(t.shape))
            at += t.numel()


class Run(NamedTuple):
    """What a device's training of its sub-model gave. `delta` (n,): new minus base of the blocks that it fetched, end to end; `weights`: what
    each weighs that it sends; the rest as `device_sim.trainer.Run`. `before`, `after`: the mean loss on held-back samples, of the model as it
    came and as it is now; NaN without any."""

    delta: Float32
    samples: int
    loss_sum: float
    steps: int
    losses: Float32
    weights: dict[int, int]
    before: float
    after: float


def train(a: Portion, id: str, number: int, base: Float32, shares: Shares) -> Run:
    """One device's run for one round, of the sub-model that is made of the round's blocks; `base`: their values, end to end. The selector
    is as it was. Raises `ValueError` for blocks that are no sub-model's."""
    one_thread()
    model = known(a)
    choice = choice_of(model.layout, a.blocks)
    x, y, held_x, held_y = _samples(a, id, number)
    mine = received(model.blueprint, choice, base)
    before = score(mine, held_x, held_y)[1] if len(held_y) else float("nan")
    loss_sum, steps, losses = fit(mine, x, y, a.training, seed_of(a.seed, id, a.task, a.round))
    after = score(mine, held_x, held_y)[1] if len(held_y) else float("nan")
    importance = [[share / 2**FRACTION for share in layer] for layer in shares]
    weights = weights_of(model.layout, choice, importance, max(1, len(losses)))
    return Run(
        delta=to_vector(mine) - base,
        samples=len(losses),
        loss_sum=loss_sum,
        steps=steps,
        losses=losses,
        weights={b: weights.get(b, 1) for b in a.sent},
        before=before,
        after=after,
    )
