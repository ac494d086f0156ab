"""The unified module selector (ECLM §4.2), noisy top-k and the load-balancing loss (Shazeer et al., ICLR 2017, §2.1, 4 and app. A).

With x a sample's embedding, for each layer of N modules:

    clean = x·W_g      σ = softplus(x·W_noise) + 0.01      H = clean + ε·σ, ε ~ N(0, 1)      (without noise H = clean)
    gate  = softmax over the k largest of H, 0 elsewhere

ECLM takes the softmax over all N and then the k largest, and does not say whether these are scaled to 1 again; here they are,
or else a layer's output would begin at about k/N of the original's. Equals go by number. On a sub-model the modules that are not
there have no H at all, and k is at most the number of those that are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

EMBEDDING = 32
"""Values of a sample that the selector decides by."""
LEAST_NOISE = 0.01


class Gate(NamedTuple):
    """Of one layer, for n samples. `gate` (n, N): weights that add up to 1, of k modules at most. `clean` (n, N): W_g's own.
    `load` (N,): how many samples each module gets, in expectation over the noise; as counted where there is none."""

    gate: torch.Tensor
    clean: torch.Tensor
    load: torch.Tensor


def top_k(
    clean: torch.Tensor,
    k: int,
    sigma: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
    present: Sequence[int] | None = None,
) -> Gate:
    """The gate of a layer from `clean` (n, N); noisy with `sigma` and `noise` (ε), both (n, N). `present`: the modules that are there."""
    many = clean.shape[1]
    absent = torch.zeros(many, dtype=torch.bool, device=clean.device)
    if present is not None:
        absent[:] = True
        absent[list(present)] = False
        k = min(k, len(present))
    k = min(k, many)
    noisy = clean if sigma is None or noise is None else clean + noise * sigma
    noisy = noisy.masked_fill(absent, -torch.inf)
    order = noisy.argsort(dim=1, descending=True, stable=True)  # topk does not say who is first among equals
    kept = torch.zeros_like(noisy, dtype=torch.bool).scatter(1, order[:, :k], True)
    gate = torch.softmax(noisy.masked_fill(~kept, -torch.inf), dim=1)
    if sigma is None or noise is None or k == many - int(absent.sum()):
        return Gate(gate, clean, kept.sum(dim=0).to(clean.dtype))
    best = noisy.gather(1, order)
    # With a module left out, the k-th of the others: what it has to reach to be chosen.
    threshold = torch.where(kept, best[:, k : k + 1], best[:, k - 1 : k])
    load = torch.special.ndtr((clean - threshold) / sigma).masked_fill(absent, 0)
    return Gate(gate, clean, load.sum(dim=0))


def variation(v: torch.Tensor) -> torch.Tensor:
    """CV²: the variance of the values, as of all there are, by the square of their mean."""
    return v.var(unbiased=False) / (v.mean() ** 2 + 1e-10)


def load_balance(gates: Sequence[Gate]) -> torch.Tensor:
    """LoadBalance of a batch: CV² of importance (Σ gate) and of load, added; the mean over the layers."""
    return torch.stack([variation(g.gate.sum(dim=0)) + variation(g.load) for g in gates]).mean()


def divergence(gates: Sequence[Gate], labels: Sequence[torch.Tensor]) -> torch.Tensor:
    """KL(g_label ‖ g) of a batch, the mean over samples, added over layers. `labels`: of each layer (n, N). g is the softmax over all
    modules, noise off, since that of the k best is 0 elsewhere.

    The paper writes KL(ĝ, g_label) and does not say which way it means.
    """
    parts = [
        nn.functional.kl_div(torch.log_softmax(g.clean, dim=1), label, reduction="batchmean")
        for g, label in zip(gates, labels, strict=True)
    ]
    return torch.stack(parts).sum()


class Selector(nn.Module):
    """Decides for all layers at once, by an embedding of the sample: all of the decision is made before the first layer runs.

    `shape` of a sample: for images (channels, height, width) two 3×3 convolutions of stride 2 and the mean over the image, otherwise one
    linear layer. Normalised by groups and not by batches, so that a sample's gate is the same whatever stands beside it, on the
    cloud and on any device. Without `noise` it has no W_noise: what devices get.
    """

    def __init__(self, shape: tuple[int, ...], layers: Sequence[int], k: int, noise: bool = True):
        super().__init__()
        self.shape, self.layers, self.k = shape, tuple(layers), k
        if len(shape) == 3:
            self.embed = nn.Sequential(
                nn.Conv2d(shape[0], 16, 3, 2, 1),
                nn.ReLU(),
                nn.Conv2d(16, EMBEDDING, 3, 2, 1, bias=False),
                nn.GroupNorm(8, EMBEDDING),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            )
        else:
            self.embed = nn.Sequential(nn.Flatten(), nn.Linear(_size(shape), EMBEDDING), nn.ReLU())
        self.gates = nn.ModuleList(nn.Linear(EMBEDDING, n, bias=False) for n in layers)
        self.noises = nn.ModuleList(nn.Linear(EMBEDDING, n, bias=False) for n in layers) if noise else None
        for linear in [*self.gates, *(self.noises or ())]:
            nn.init.zeros_(linear.weight)

    def forward(
        self, x: torch.Tensor, present: Sequence[Sequence[int]] | None = None, noisy: bool = False
    ) -> list[Gate]:
        """The gates of each layer for samples (n, …). `noisy` draws ε from torch's own generator, where there is a W_noise."""
        h = self.embed(x.reshape(len(x), *self.shape))
        out = []
        for i, linear in enumerate(self.gates):
            clean, there = linear(h), None if present is None else present[i]
            if noisy and self.noises is not None:
                sigma = nn.functional.softplus(self.noises[i](h)) + LEAST_NOISE
                out.append(top_k(clean, self.k, sigma, torch.randn_like(clean), there))
            else:
                out.append(top_k(clean, self.k, present=there))
        return out

    def probabilities(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The softmax over all modules of each layer, (n, N), noise off: "the importance weight of each module with respect to" a
        sample (§4.2). No module has 0, so those outside the k best have an order, too."""
        return [torch.softmax(g.clean, dim=1) for g in self(x)]


def _size(shape: tuple[int, ...]) -> int:
    n = 1
    for d in shape:
        n *= d
    return n
