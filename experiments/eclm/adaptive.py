"""An AdaptiveNet-like baseline (Wen et al., MobiCom 2023; from the authors' code): a supernet that a device picks its path from.

A trained network is a stem, blocks and a head. Beside block i stand: one new block for i and i + 1, one for i to i + 2 (they begin as
copies of block i where shapes agree; there is none where two of the blocks stride), and copies of it that keep three quarters and a half
of its inner channels, by L2 norm. Stage 0: random paths, each new branch is to put out what the original puts out at its depth. Stage 1:
random paths, the task's loss. Stem, head and the original's blocks are frozen throughout. A device gets the whole supernet once and
looks for its path by evolution, on its own samples (70 % to score, the rest held back), within its multiplications. As the paper's
evaluation has on-device methods fine-tune for 10 epochs, it then fine-tunes the path.

Ours: multiplications stand for latency; population 50, 10 generations; scores of a path are kept, and a space with fewer paths than the
search would look at is looked through whole.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import nn

from device_sim.optimiser import Optimiser
from experiments.eclm.worlds import Int64, Samples
from learning.models_conv import Residual, ResNet
from learning.modular.costs import measure
from schemas.task import Training

Path = tuple[int, ...]
"""Of each block which option stands there: 0 the original, 1 and 2 a block for it and so many more, -1 and -2 pruned copies,
`SKIPPED` what an option before it covers."""
SKIPPED = 9
KEPT = {-1: 0.75, -2: 0.5}
POPULATION, GENERATIONS, PARENTS, MUTATED = 50, 10, 0.4, 0.1
SCORED = 0.7


class Supernet(nn.Module):
    """The options of each block; `path` says which are run."""

    def __init__(self, stem: nn.Module, options: list[nn.ModuleDict], head: nn.Module):
        super().__init__()
        self.stem, self.options, self.head = stem, nn.ModuleList(options), head
        self.path: Path = (0,) * len(options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.depths(x)[-1])

    def depths(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What comes out after each block; of those that are covered what the one before put out."""
        x, out = self.stem(x), []
        for option, there in zip(self.path, self.options, strict=True):
            if option != SKIPPED:
                x = there[str(option)](x)
            out.append(x)
        return out

    def paths(self) -> int:
        """How many there are, about: for deciding whether to try all."""
        return int(np.prod([len(o) for o in self.options]))


class PrunedLinear(nn.Module):
    """A linear layer and ReLU with some of its outputs; the others are 0."""

    def __init__(self, linear: nn.Linear, kept: Int64):
        super().__init__()
        self.inner = nn.Linear(linear.in_features, len(kept))
        self.outputs, self.kept = linear.out_features, torch.tensor(kept)
        with torch.no_grad():
            self.inner.weight.copy_(linear.weight[self.kept])
            self.inner.bias.copy_(linear.bias[self.kept])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.inner(x))
        return y.new_zeros(len(y), self.outputs).index_copy(1, self.kept, y)


class Squeezed(nn.Module):
    """A residual block that keeps some of its inner channels."""

    def __init__(self, block: Residual, kept: Int64):
        super().__init__()
        rows = torch.tensor(kept)
        conv = block.conv1
        self.conv1 = nn.Conv2d(conv.in_channels, len(kept), 3, conv.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(len(kept))
        self.conv2 = nn.Conv2d(len(kept), block.conv2.out_channels, 3, 1, 1, bias=False)
        self.bn2, self.downsample = copy.deepcopy(block.bn2), copy.deepcopy(block.downsample)
        with torch.no_grad():
            self.conv1.weight.copy_(conv.weight[rows])
            self.conv2.weight.copy_(block.conv2.weight[:, rows])
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(self.bn1, name).copy_(getattr(block.bn1, name)[rows])

    forward = Residual.forward


def strongest(weight: torch.Tensor, share: float) -> Int64:
    """The rows of a layer that are kept, by L2 norm, ascending; ties by number."""
    norms = weight.detach().reshape(len(weight), -1).norm(dim=1).numpy()
    return np.sort(np.argsort(-norms, kind="stable")[: max(1, round(share * len(norms)))])


def supernet(network: nn.Module) -> Supernet:
    """Of an MLP (blocks are hidden layers after the first) or a ResNet, trained. Raises `ValueError` for another."""
    if isinstance(network, ResNet):
        stem = _Stem(network)
        blocks: list[nn.Module] = [b for stage in network.stages for b in network.get_submodule(stage)]
        head: nn.Module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), network.fc)
    elif isinstance(network, nn.Sequential) and len(network) >= 6 and isinstance(network[1], nn.Linear):
        stem, head = network[:3], network[-1]
        blocks = [network[i : i + 2] for i in range(3, len(network) - 1, 2)]
    else:
        raise ValueError(
            "an AdaptiveNet-like supernet is made of an MLP with two hidden layers or more, or of a ResNet"
        )
    options = []
    for i, block in enumerate(blocks):
        there = {"0": block} | {str(o): _pruned(block, share) for o, share in KEPT.items()}
        for more in (1, 2):
            some = blocks[i : i + more + 1]
            if len(some) > more and sum(_stride(b) > 1 for b in some) <= 1:
                there[str(more)] = _merged(some)
        options.append(nn.ModuleDict(there))
    net = Supernet(stem, options, head)
    for part in (stem, head, *blocks):
        part.requires_grad_(False)
    return net


class _Stem(nn.Module):
    def __init__(self, network: ResNet):
        super().__init__()
        self.shape = network.shape
        self.conv1, self.bn1, self.maxpool = network.conv1, network.bn1, network.maxpool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.maxpool(torch.relu(self.bn1(self.conv1(x.reshape(len(x), *self.shape)))))


def _pruned(block: nn.Module, share: float) -> nn.Module:
    if isinstance(block, Residual):
        return Squeezed(block, strongest(block.conv1.weight, share))
    return PrunedLinear(block[0], strongest(block[0].weight, share))


def _stride(block: nn.Module) -> int:
    return int(block.conv1.stride[0]) if isinstance(block, Residual) else 1


def _merged(blocks: Sequence[nn.Module]) -> nn.Module:
    """One block for several: input of the first, output of the last, the largest stride; a copy of the first where shapes agree."""
    first, last = blocks[0], blocks[-1]
    new: nn.Module
    if isinstance(first, Residual):
        new = Residual(first.conv1.in_channels, last.conv2.out_channels, max(map(_stride, blocks)))
    else:
        new = nn.Sequential(nn.Linear(first[0].in_features, last[0].out_features), nn.ReLU())
    mine = new.state_dict()
    new.load_state_dict(mine | {k: v for k, v in first.state_dict().items() if k in mine and v.shape == mine[k].shape})
    return new


# ------------------------------------------------------------------ on the cloud


def drawn(net: Supernet, dice: np.random.Generator) -> Path:
    """A random path."""
    path: list[int] = []
    covered = 0
    for there in net.options:
        if covered:
            covered -= 1
            path.append(SKIPPED)
            continue
        option = int(dice.choice([int(o) for o in there]))
        covered = max(0, option)
        path.append(option)
    return tuple(path)


def train(net: Supernet, data: Samples, passes: int, batch: int, rate: float, seed: int) -> None:
    """The two stages, half of the passes each, in place."""
    dice, x, y = np.random.default_rng(seed), torch.tensor(data.x), torch.tensor(data.y)
    weights = [p for p in net.parameters() if p.requires_grad]
    optimiser = Optimiser(weights, Training(learning_rate=rate, optimiser="adamw"))
    net.train()
    for frozen in (net.stem, net.head, *(there["0"] for there in net.options)):
        frozen.eval()
    for number in range(passes):
        for rows in np.array_split(dice.permutation(len(y)), max(1, len(y) // batch)):
            net.path = drawn(net, dice)
            while all(o in (0, SKIPPED) for o in net.path):  # nothing to train
                net.path = drawn(net, dice)
            if number < passes // 2:
                loss = _alike(net, x[rows])
            else:
                loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            with torch.no_grad():
                optimiser.step(
                    [(i, p, g) for i, (p, g) in enumerate(zip(weights, gradients, strict=True)) if g is not None]
                )
    net.eval()


def _alike(net: Supernet, x: torch.Tensor) -> torch.Tensor:
    path, out = net.path, net.depths(x)
    net.path = (0,) * len(path)
    with torch.no_grad():
        goal = net.depths(x)
    net.path = path
    new = [i for i, o in enumerate(path) if o not in (0, SKIPPED)]
    ends = [i + max(0, path[i]) for i in new]
    return torch.stack([nn.functional.mse_loss(out[i], goal[end]) for i, end in zip(new, ends, strict=True)]).mean()


# ------------------------------------------------------------------ on a device


@dataclass(frozen=True)
class Found:
    """A path, its accuracy on what was scored, and its multiplications a sample."""

    path: Path
    accuracy: float
    macs: int


class Costs:
    """Multiplications of each option, measured once."""

    def __init__(self, net: Supernet, shape: tuple[int, ...]):
        with torch.no_grad():
            x = net.stem(torch.zeros(1, *shape))
            self.fixed = measure(net.stem, shape)[1]
            self.options: list[dict[int, int]] = []
            for there in net.options:
                self.options.append({int(o): measure(m, tuple(x.shape[1:]))[1] for o, m in there.items()})
                x = there["0"](x)
            self.fixed += measure(net.head, tuple(x.shape[1:]))[1]

    def of(self, path: Path) -> int:
        return self.fixed + sum(c[o] for o, c in zip(path, self.options, strict=True) if o != SKIPPED)


def search(net: Supernet, costs: Costs, data: Samples, budget: int, seed: int) -> Found:
    """The best path for a device's samples within `budget` multiplications; where none is within it, the one least above."""
    dice = np.random.default_rng(seed)
    rows = dice.permutation(len(data))[: max(1, round(SCORED * len(data)))]
    x, y = torch.tensor(data.x[rows]), torch.tensor(data.y[rows])
    known: dict[Path, tuple[float, Found]] = {}

    def scored(path: Path) -> tuple[float, Found]:
        if path not in known:
            net.path = path
            with torch.inference_mode():
                accuracy = float((net(x).argmax(dim=1) == y).float().mean())
            macs = costs.of(path)
            known[path] = (accuracy if macs <= budget else accuracy / 100 - macs / budget), Found(path, accuracy, macs)
        return known[path]

    net.eval()
    if net.paths() <= POPULATION * GENERATIONS:
        for path in product(*([int(o) for o in there] for there in net.options)):
            scored(_valid(net, path))
    else:
        people = [drawn(net, dice) for _ in range(POPULATION)]
        for _ in range(GENERATIONS):
            parents = sorted(people, key=lambda p: scored(p)[0], reverse=True)[: round(PARENTS * POPULATION)]
            people = [*parents, *_children(net, parents, dice)]
        for path in people:
            scored(path)
    return max(known.values(), key=lambda s: (s[0], -s[1].macs))[1]


def _children(net: Supernet, parents: Sequence[Path], dice: np.random.Generator) -> Iterator[Path]:
    """Half of the population mutations, the rest crossovers."""
    many = POPULATION - len(parents)
    for n in range(many):
        a = parents[int(dice.integers(len(parents)))]
        if n < many // 2:
            other: Path = drawn(net, dice)
            take = dice.random(len(a)) < MUTATED
        else:
            other = parents[int(dice.integers(len(parents)))]
            take = dice.random(len(a)) < 0.5
        yield _valid(net, tuple(o if t else mine for o, mine, t in zip(other, a, take, strict=True)))


def _valid(net: Supernet, path: Sequence[int]) -> Path:
    """A path that can be: what an option covers is skipped, and what is covered by none is the original."""
    out: list[int] = []
    covered = 0
    for option, there in zip(path, net.options, strict=True):
        if covered:
            covered -= 1
            out.append(SKIPPED)
            continue
        here = option if str(option) in there else 0
        covered = max(0, here)
        out.append(here)
    return tuple(out)


class Chosen(nn.Module):
    """A copy of a path, all of it to be trained."""

    def __init__(self, net: Supernet, path: Path):
        super().__init__()
        parts = [there[str(o)] for o, there in zip(path, net.options, strict=True) if o != SKIPPED]
        self.run = copy.deepcopy(nn.Sequential(net.stem, *parts, net.head)).requires_grad_(True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x)
