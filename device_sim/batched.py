"""Many devices' MLPs trained at once: their weights stacked, each layer one batched matrix product, the gradient by hand.

A loop over devices spends its time between the products: at 64-64-10 a step is 0.3 MFLOP, microseconds of work, and torch
takes a quarter of a millisecond to get it done. Here a step of all devices costs as many calls as a step of one.

What is trained is what `trainer.train` trains: the same batches from the same seed, the same steps, up to the rounding of float32
(sums are cut in other places). Devices may differ in samples, base and seed. One with fewer batches drops out: they are ordered by
their steps, so those still at work lie in front. A short batch is filled up with samples of weight 0.

Widths are filled up with zeros to whole vectors, so each device's numbers begin at a multiple of 64 bytes. That keeps the bits of a
run from depending on who else is in the stack: the library's products differ in the last bit with where their operands lie.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from device_sim.optimiser import Optimiser
from device_sim.trainer import Float32, Job, Run
from learning.models import build
from learning.words import Plain
from schemas.task import Training
from schemas.wire import Scalar

STACK = 2**20
"""Values of weights, and of what goes with them in a step, that are stacked at once, 4 MB: more would leave the cache, fewer make
more calls."""
VECTOR = 16
"""Values in 64 bytes: the widest registers there are, and a cache line."""


def widths(job: Job) -> tuple[int, ...]:
    """The layers' widths, inputs first, of a model that can be stacked: Flatten, Linear, and then ReLU, Linear any number of times.

    () for any other. Raises what `build` raises.
    """
    return _widths(job.model, tuple(sorted(job.args.items())))


@lru_cache(maxsize=64)
def _widths(model: str, args: tuple[tuple[str, Scalar], ...]) -> tuple[int, ...]:
    module = build(model, dict(args), seed=0)
    layers = list(module) if type(module) is nn.Sequential else []
    kinds = [nn.Flatten, nn.Linear, *[nn.ReLU, nn.Linear] * (len(layers) // 2 - 1)]
    if [type(m) for m in layers] != kinds or any(not p.requires_grad for p in module.parameters()):
        return ()
    linear = [m for m in layers if isinstance(m, nn.Linear)]
    if any(m.bias is None for m in linear):
        return ()
    return (linear[0].in_features, *(m.out_features for m in linear))


def train_stacked(jobs: Sequence[Job]) -> list[Run]:
    """What `train` gives for each of them, up to rounding. All of one model that has `widths`, and of one `training`.

    Raises `ValueError` for a job that `check` refuses.
    """
    wide, training = widths(jobs[0]), jobs[0].training
    for job in jobs:
        check(wide, job)
    runs: dict[int, Run] = {}
    for rows, some in stacks(wide, jobs):
        runs.update(zip(some, train_stack(wide, [jobs[i] for i in some], training, rows), strict=True))
    return [runs[i] for i in range(len(jobs))]


def check(wide: tuple[int, ...], job: Job) -> None:
    """Raises `ValueError` for a base or data that cannot be."""
    m, classes = len(job.y), wide[-1]
    if job.base.shape != (_size(wide),):
        raise Plain(f"this model has {_size(wide)} values, the vector has shape {job.base.shape}")
    if len(job.x) != m or not m:
        raise Plain(f"training needs samples, as many as labels: {len(job.x)} and {m} given")
    if job.x.size != m * wide[0]:
        raise Plain(f"this model takes {wide[0]} values a sample, not {job.x.size // m}")
    if job.y.dtype != np.int64:
        raise Plain(f"labels are int64, not {job.y.dtype}")
    if job.y.view(np.uint64).max() >= classes:  # one look: what is below 0 is very large
        raise Plain(f"this model has {classes} classes, and the data has labels of others")


@lru_cache(maxsize=64)
def _size(wide: tuple[int, ...]) -> int:
    """Values of the model."""
    return sum(n * k + k for n, k in pairwise(wide))


def stacks(wide: tuple[int, ...], jobs: Sequence[Job], most: int = 0) -> Iterator[tuple[int, list[int]]]:
    """(rows of a batch, which jobs): alike in rows, those with the most steps first, no more values than `STACK`, and
    no more than `most` devices if that is given.

    Rows are the batch, or for a device that has less the next power of two: so they are the device's own matter.
    """
    training = jobs[0].training
    batch, size = training.batch, _size(wide) * _tensors(training)
    rows = [min(batch, 1 << (len(job.y) - 1).bit_length()) for job in jobs]
    steps = [training.taken(len(job.y)) for job in jobs]
    order = sorted(range(len(jobs)), key=lambda i: (rows[i], -steps[i]))
    at_once = max(1, min(STACK // size, most or len(jobs)))
    for r, alike in groupby(order, key=lambda i: rows[i]):
        some = list(alike)
        for at in range(0, len(some), at_once):
            yield r, some[at : at + at_once]


def _tensors(training: Training) -> int:
    """How many values a step touches for each weight: itself, and if it is no plain one its gradient and what is remembered."""
    if training.optimiser == "adamw":
        return 4
    return 3 if training.momentum or training.weight_decay else 1


class _Batches:
    """Which samples each step takes: `index` (steps, devices, rows) into all samples of the stack, and what each weighs in its
    batch's mean, `weight` of the same shape, 0 where a short batch is filled up. `active`: how many devices still have a step.
    `wanted`: where a device draws a sample for the last time, `last`: whether a step has any of these."""

    def __init__(self, jobs: Sequence[Job], training: Training, rows: int):
        sizes = np.array([len(job.y) for job in jobs])
        batches = -(-sizes // training.batch)
        self.steps = [training.taken(len(job.y)) for job in jobs]
        taken, steps = np.array(self.steps), np.arange(self.steps[0])
        self.active = (steps[:, None] < taken).sum(axis=1).tolist()
        index = np.zeros((len(jobs), len(steps), rows), np.int64)
        dice = torch.Generator()
        for mine, job, n, all_of_it in zip(index, jobs, batches.tolist(), self.steps, strict=True):
            dice.manual_seed(job.seed)
            m = len(job.y)
            for at in range(0, all_of_it, n):
                some = mine[at : min(at + n, all_of_it)].reshape(-1)
                some[:m] = torch.randperm(m, generator=dice).numpy()[: len(some)]
        counts = np.minimum(sizes - steps[:, None] % batches * training.batch, rows)
        valid = np.arange(rows) < counts[:, :, None]
        self.wanted = valid & (steps[:, None] < taken)[:, :, None]
        for i, n in enumerate(batches.tolist()):
            _latest(index[i], self.wanted[:, i], n, self.steps[i])
        self.last: list[bool] = self.wanted.any(axis=(1, 2)).tolist()
        index += (np.cumsum(sizes) - sizes)[:, None, None]
        self.index = torch.from_numpy(np.ascontiguousarray(index.transpose(1, 0, 2)))
        self.weight = torch.from_numpy(
            np.where(valid, np.float32(1) / counts[:, :, None].astype(np.float32), np.float32(0))
        )


def _latest(index: npt.NDArray[np.int64], wanted: npt.NDArray[np.bool_], batches: int, taken: int) -> None:
    """Leave in `wanted` (steps, rows) of one device that takes so many steps where it draws each of its samples, `index`, for the
    last time."""
    last = (taken - 1) // batches * batches
    wanted[: max(0, last - batches)] = False
    if last:
        before = slice(last - batches, last)
        if taken - last == batches:
            wanted[before] = False
        else:
            wanted[before] &= ~np.isin(index[before], index[last:][wanted[last:]])


def train_stack(wide: tuple[int, ...], jobs: Sequence[Job], training: Training, rows: int) -> list[Run]:
    """A stack: jobs alike in rows, those with the most steps first."""
    count, classes, batches = len(jobs), wide[-1], _Batches(jobs, training, rows)
    labels = torch.from_numpy(np.concatenate([job.y for job in jobs]))
    pool = torch.zeros(len(labels), _whole(wide[0]))
    np.concatenate([job.x.reshape(len(job.y), -1) for job in jobs], out=pool.numpy()[:, : wide[0]])
    bases = _bases(wide, jobs)
    stacked = [
        b.expand(count, -1, -1).clone() for b in bases
    ]  # weight (devices, out, in), bias (devices, 1, out), weight …
    descent = _Descent(stacked, bases, training)
    losses = np.zeros(batches.index.shape, np.float32)
    room, last, one = (
        torch.empty(count * rows, pool.shape[1]),
        torch.zeros(count, rows, _whole(classes)),
        torch.tensor(-1.0),
    )
    for t, k in enumerate(batches.active):
        index = batches.index[t, :k].view(-1)
        y = labels[index].view(k, rows, 1)
        layers = [torch.index_select(pool, 0, index, out=room[: k * rows]).view(k, rows, -1)]
        for at in range(0, len(stacked), 2):
            z = torch.baddbmm(stacked[at + 1][:k], layers[-1], stacked[at][:k].transpose(1, 2))
            layers.append(z.relu_() if at + 2 < len(stacked) else z)
        guesses = torch.log_softmax(layers.pop()[:, :, :classes], dim=2)
        if batches.last[t]:
            losses[t, :k] = -guesses.gather(2, y).numpy()[:, :, 0]
        off = last[:k]  # the loss' gradient by logit: softmax, less 1 at the label
        guesses.exp_().scatter_add_(2, y, one.expand(k, rows, 1))
        torch.mul(guesses, batches.weight[t, :k, :, None], out=off[:, :, :classes])
        for at in range(len(stacked) - 2, -1, -2):
            x = layers.pop()
            below = torch.bmm(off, stacked[at][:k]) if at else None
            descent.step(at, off, x)
            if below is not None:
                off = torch.ops.aten.threshold_backward(below, x, 0)  # no more where ReLU gave 0
    return _runs(wide, jobs, batches, stacked, bases, losses)


def _whole(width: int) -> int:
    return -(-width // VECTOR) * VECTOR


def _places(wide: tuple[int, ...]) -> Iterator[tuple[slice, int, int]]:
    """By tensor, where it lies in a flat model, and its shape; a bias is (1, out)."""
    at = 0
    for n, k in pairwise(wide):
        for rows, columns in ((k, n), (1, k)):
            yield slice(at, at + rows * columns), rows, columns
            at += rows * columns


def _bases(wide: tuple[int, ...], jobs: Sequence[Job]) -> list[torch.Tensor]:
    """The bases by tensor, filled up, each of shape (devices, …), or (1, …) where all devices begin with the same one."""
    some, out = jobs[:1] if all(job.base is jobs[0].base for job in jobs) else jobs, []
    for i, (place, rows, columns) in enumerate(_places(wide)):
        tensor = torch.zeros(len(some), rows if i % 2 else _whole(rows), _whole(columns))
        for whole, job in zip(tensor.numpy(), some, strict=True):
            whole[:rows, :columns] = job.base[place].reshape(rows, columns)
        out.append(tensor)
    return out


class _Descent:
    """How the stacked weights follow their losses."""

    def __init__(self, stacked: list[torch.Tensor], bases: list[torch.Tensor], training: Training):
        self.stacked, self.bases = stacked, bases
        self.rate, self.prox = training.learning_rate, training.prox
        self.optimiser = Optimiser(stacked, training)

    def step(self, at: int, off: torch.Tensor, x: torch.Tensor) -> None:
        """A layer's weight and bias, tensors `at` and after it, for the first k devices: `off` (k, rows, out) is the gradient of
        what the layer gave, x (k, rows, in) what it was given."""
        k = x.shape[0]
        w, b = self.stacked[at][:k], self.stacked[at + 1][:k]
        off_b = off.sum(dim=1, keepdim=True)
        if self.optimiser.plain:  # no gradient of its own: the product is added to the weights where they lie
            if self.prox:
                w.lerp_(self.bases[at][:k], self.rate * self.prox)
                b.lerp_(self.bases[at + 1][:k], self.rate * self.prox)
            w.baddbmm_(off.transpose(1, 2), x, alpha=-self.rate)
            b.sub_(off_b, alpha=self.rate)
            return
        moves = [(at, w, torch.bmm(off.transpose(1, 2), x)), (at + 1, b, off_b)]
        if self.prox:
            for i, p, g in moves:
                g.add_(p - self.bases[i][:k], alpha=self.prox)
        self.optimiser.step(moves, first=k)


def _runs(
    wide: tuple[int, ...],
    jobs: Sequence[Job],
    batches: _Batches,
    stacked: list[torch.Tensor],
    bases: list[torch.Tensor],
    losses: Float32,
) -> list[Run]:
    deltas = np.empty((len(jobs), len(jobs[0].base)), np.float32)
    for (place, rows, columns), w, b in zip(_places(wide), stacked, bases, strict=True):
        cut = (slice(None), slice(rows), slice(columns))
        np.subtract(w.numpy()[cut], b.numpy()[cut], out=deltas[:, place].reshape(len(jobs), rows, columns))
    out = []
    for i in range(len(jobs)):
        mine = losses[:, i][batches.wanted[:, i]]
        total = float(mine.sum(dtype=np.float64))
        out.append(Run(delta=deltas[i], samples=len(mine), loss_sum=total, steps=batches.steps[i], losses=mine))
    return out
