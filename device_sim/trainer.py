"""What a device does with its data: SGD or AdamW from a base model, giving a delta.

The same arguments give the same bits, in any process on one kind of machine: batches are drawn from a generator of their
own, and torch runs on one thread (more would cut sums differently). `train` and `central` see to the latter themselves
with `one_thread`; an edge calls it too as it starts, so that a fleet does not take all cores for its first model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from device_sim.data import Dataset
from device_sim.optimiser import Optimiser
from device_sim.pseudonym import seed_of as seed_of
from learning.models import build, load_vector, score, to_vector
from schemas.task import Training
from schemas.wire import Scalar

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Run:
    """What a run gave: new - base as float32 (n,), how many samples it saw, the sum of their losses, its steps, and the losses.

    A sample's loss is its cross-entropy in nats when it was drawn last, just before the step it takes part in; so
    `loss_sum / samples` is the training loss at the end of the run, and costs no pass of its own. `losses` are the same by
    sample, float32 (samples,), in the order in which they were drawn: what eq. 3's quality is made of, on the device alone.
    """

    delta: Float32
    samples: int
    loss_sum: float
    steps: int
    losses: Float32


class Job(NamedTuple):
    """One device's training: the arguments of `train`, in their order."""

    model: str
    args: Mapping[str, Scalar]
    base: Float32
    x: Float32
    y: Int64
    training: Training
    seed: int


def one_thread() -> None:
    """Have torch compute on one thread in this process. Cheap when it does already."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def train(
    model: str, args: Mapping[str, Scalar], base: Float32, x: Float32, y: Int64, training: Training, seed: int
) -> Run:
    """Train the model from `base` (n,) on samples x (m, …) of classes y (m,). `seed` draws the batches: see `seed_of`.

    Raises `UnknownModel` or `ValueError` for a model, base or data that cannot be. A run that diverges returns what it
    came to; NaN is refused where the delta is rounded.
    """
    one_thread()
    idle = _idle(model, tuple(sorted(args.items())))
    try:
        module = idle.pop()
    except IndexError:
        module = build(model, args, seed=0)  # the base overwrites what is drawn here
    load_vector(module, base)
    loss_sum, steps, losses = fit(module, x, y, training, seed)
    run = Run(delta=to_vector(module) - base, samples=len(losses), loss_sum=loss_sum, steps=steps, losses=losses)
    if all(t.is_floating_point() for t in module.state_dict().values()):  # else something of this run stays in it
        idle.append(module)
    return run


@lru_cache(maxsize=16)
def _idle(model: str, args: tuple[tuple[str, Scalar], ...]) -> list[nn.Module]:
    """Modules built before and not in use; taking one out of the list keeps it from a second thread."""
    return []


def fit(module: nn.Module, x: Float32, y: Int64, training: Training, seed: int) -> tuple[float, int, Float32]:
    """Train any module, in place, on the `batches` of `training`.

    With `training.prox`, mu, each step follows the gradient of loss + mu/2 · ||w - w0||², that is g + mu · (w - w0), where w0
    is what the module came with (FedProx: Li et al., MLSys 2020, equation 2). Losses are said without that term.
    Returns (the sum of the losses, steps, the losses) as `Run` has them. Raises `ValueError` without samples, or if x and y
    differ in number.
    """
    if len(x) != len(y) or not len(y):
        raise ValueError(f"training needs samples, as many as labels: {len(x)} and {len(y)} given")
    xs, ys = torch.tensor(x), torch.tensor(y)
    parameters = [p for p in module.parameters() if p.requires_grad]
    began = [p.detach().clone() for p in parameters]
    optimiser = Optimiser(parameters, training)
    latest, drawn, steps = torch.zeros(len(ys)), torch.full((len(ys),), -1), 0
    module.train()
    # What a module itself draws (dropout) comes from the process's generator: seeded here, and given back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for batch in batches(len(ys), training, seed):
            guesses, labels = nn.functional.log_softmax(module(xs[batch]), dim=1), ys[batch]
            loss = nn.functional.nll_loss(guesses, labels)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            with torch.no_grad():
                latest[batch] = nn.functional.nll_loss(guesses, labels, reduction="none")
                moves = [(i, p, g) for i, (p, g) in enumerate(zip(parameters, gradients, strict=True)) if g is not None]
                if training.prox:
                    moves = [(i, p, g + training.prox * (p - began[i])) for i, p, g in moves]
                optimiser.step(moves)
            drawn[batch] = steps * training.batch + torch.arange(len(batch))
            steps += 1
    losses = latest[drawn.argsort()[int((drawn < 0).sum()) :]].numpy()
    return float(losses.sum(dtype=np.float64)), steps, losses


def batches(samples: int, training: Training, seed: int) -> Iterator[torch.Tensor]:
    """The samples of each step: passes, shuffled anew each, the last batch of a pass may be short, as many as `training` takes."""
    dice, left = torch.Generator().manual_seed(seed), training.taken(samples)
    while left:
        for batch in torch.randperm(samples, generator=dice).split(training.batch)[:left]:
            yield batch
            left -= 1


def central(
    model: str, args: Mapping[str, Scalar], dataset: Dataset, epochs: int, training: Training, seed: int
) -> float:
    """Held-out accuracy after training on all data in one place: what federated training is compared with.

    `epochs` passes, instead of `training.epochs`, and no pull towards the first model; batch and learning rate are `training`'s.
    """
    one_thread()
    module = build(model, args, seed)
    fit(module, dataset.x, dataset.y, msgspec.structs.replace(training, epochs=epochs, steps=0, prox=0.0), seed)
    return score(module, dataset.test_x, dataset.test_y)[0]
