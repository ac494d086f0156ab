"""The optimiser on a device: SGD, with momentum and weight decay if asked for, or AdamW. What it remembers is of one run.

It does what torch's classes do with their defaults for what `Training` does not say, by torch's functions: to make an object of
torch.optim imports a compiler first, which takes 4 s in each process.
"""

from collections.abc import Iterable, Sequence

import torch
from torch.optim.adamw import adamw

from schemas.task import Training


class Optimiser:
    """For these weights, or stacks of many devices' weights (devices, …)."""

    def __init__(self, weights: Sequence[torch.Tensor], training: Training):
        self.training = training
        adam = training.optimiser == "adamw"
        self.plain = not (adam or training.momentum or training.weight_decay)
        """A step is w - rate · g and no more."""
        self._memory = [[torch.zeros_like(w) for _ in range(2 if adam else bool(training.momentum))] for w in weights]
        self._steps = [torch.zeros(()) for _ in weights]

    def step(self, moves: Iterable[tuple[int, torch.Tensor, torch.Tensor]], first: int | None = None) -> None:
        """Move weights along their gradients: (which ones, the weights, the gradient); of stacks the `first`."""
        t = self.training
        if t.optimiser == "adamw":
            which, weights, gradients = zip(*moves, strict=True)
            mean, square = (
                [self._memory[i][n][:first] if first else self._memory[i][n] for i in which] for n in (0, 1)
            )
            alike = all(
                w.stride() == g.stride() == m.stride() for w, g, m in zip(weights, gradients, mean, strict=True)
            )
            adamw(  # fused it goes through memory, and takes what does not lie as the weights do for what it is not
                list(weights), list(gradients), mean, square, [], [self._steps[i] for i in which], fused=alike, amsgrad=False,
                beta1=0.9, beta2=0.999, lr=t.learning_rate, weight_decay=t.weight_decay, eps=1e-8, maximize=False,
            )  # fmt: skip
            return
        for i, w, g in moves:
            if t.weight_decay:
                g = g.add(w, alpha=t.weight_decay)
            if t.momentum:
                memory = self._memory[i][0][:first] if first else self._memory[i][0]
                g = memory.mul_(t.momentum).add_(g)
            w.add_(g, alpha=-t.learning_rate)
