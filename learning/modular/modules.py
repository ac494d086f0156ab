"""Module layers: shrunk modules, the residual one, and their weighted sum (ECLM §4.1).

A shrunk module has the layers of the stage it stands for, its input and its output; every width between is h. It ends without
ReLU; the layer gives ReLU(Σ gate · f). So where the stage normalises, a module ends in a norm.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn

from learning.models_conv import Pointwise

BATCH, GROUP = "batch", "group"


class Convolution(NamedTuple):
    """One convolution of a stage, as far as its shrunk form takes it over."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str


def norm(kind: str, channels: int, axes: int) -> nn.Module:
    """Over images (`axes` 2) or windows (1): by batches, or by the most groups of 8, 4, 2 or 1 that the channels can be cut into."""
    if kind == GROUP:
        return nn.GroupNorm(next(g for g in (8, 4, 2, 1) if channels % g == 0), channels)
    return nn.BatchNorm2d(channels) if axes == 2 else nn.BatchNorm1d(channels)


class ShrunkBlock(nn.Module):
    """A residual block n → inner → m; the last of a module comes without ReLU."""

    def __init__(self, n: int, inner: int, m: int, stride: int, last: bool, kind: str):
        super().__init__()
        self.last = last
        self.conv1 = nn.Conv2d(n, inner, 3, stride, 1, bias=False)
        self.bn1 = norm(kind, inner, 2)
        self.conv2 = nn.Conv2d(inner, m, 3, 1, 1, bias=False)
        self.bn2 = norm(kind, m, 2)
        same = stride == 1 and n == m
        self.downsample = None if same else nn.Sequential(Pointwise(n, m, stride), norm(kind, m, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around = x if self.downsample is None else self.downsample(x)
        x = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + around
        return x if self.last else torch.relu(x)


def shrunk_residual(n: int, h: int, m: int, blocks: int, stride: int, kind: str) -> nn.Module:
    """Of a ResNet's stage: as many blocks, n → h → … → h → m."""
    widths = [n] + [h] * (blocks - 1) + [m]
    return _drawn(
        nn.Sequential(
            *(
                ShrunkBlock(widths[i], h, widths[i + 1], 1 if i else stride, i == blocks - 1, kind)
                for i in range(blocks)
            )
        )
    )


def shrunk_plain(n: int, h: int, m: int, convolutions: Sequence[Convolution], kind: str | None) -> nn.Module:
    """Of a run of convolutions with ReLU between: as many, n → h → … → h → m; of one, that and one of 1×1, else there were no width
    between. Without `kind` none is normalised."""
    axes = len(convolutions[0].kernel)
    conv: type[nn.Module] = nn.Conv2d if axes == 2 else nn.Conv1d
    those = [*convolutions]
    if len(those) == 1:
        those.append(Convolution((1,) * axes, (1,) * axes, (0,) * axes))
    widths = [n] + [h] * (len(those) - 1) + [m]
    layers: list[nn.Module] = []
    for i, c in enumerate(those):
        layers.append(conv(widths[i], widths[i + 1], c.kernel, c.stride, c.padding, bias=kind is None))
        if kind is not None:
            layers.append(norm(kind, widths[i + 1], axes))
        if i < len(those) - 1:
            layers.append(nn.ReLU())
    return _drawn(nn.Sequential(*layers))


def shrunk_linear(n: int, h: int, m: int, layers: int = 1) -> nn.Module:
    """Of a run of hidden layers: as many, n → h → … → h → m; of one, n → h → m, else there were no width between."""
    widths = [n] + [h] * max(1, layers - 1) + [m]
    parts: list[nn.Module] = []
    for a, b in pairwise(widths):
        parts += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def _drawn(module: nn.Module) -> nn.Module:
    """Drawn as the stages themselves are (`learning/models_conv.py`)."""
    for m in module.modules():
        if isinstance(m, nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    return module


class Bypass(nn.Module):
    """The residual module: what comes in, averaged to the output's size, with zeros for channels it has not; the first of them where the
    output has fewer.

    Averages are over squares that do not overlap where those give the size, as a stride does; else, as of a convolution without
    padding, over the even parts of `adaptive_avg_pool2d`.
    """

    def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...]):
        super().__init__()
        self.channels = outputs[0]
        self.stride = tuple(-(-i // o) for i, o in zip(inputs[1:], outputs[1:], strict=True))
        even = all(-(-i // s) == o for i, s, o in zip(inputs[1:], self.stride, outputs[1:], strict=True))
        self.size = None if even else outputs[1:]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.size is not None:
            adaptive = nn.functional.adaptive_avg_pool2d if len(self.size) == 2 else nn.functional.adaptive_avg_pool1d
            x = adaptive(x, self.size if len(self.size) == 2 else self.size[0])
        elif any(s > 1 for s in self.stride):
            pool = nn.functional.avg_pool2d if len(self.stride) == 2 else nn.functional.avg_pool1d
            x = pool(x, self.stride, ceil_mode=True)
        more = self.channels - x.shape[1]  # below 0 it cuts
        return nn.functional.pad(x, (0, 0) * len(self.stride) + (0, more)) if more else x


class ModuleLayer(nn.Module):
    """N modules in the place of a stage, of which those of `present` exist.

    `inputs`, `outputs`: shapes of one sample. Before a pass `gate` (n, N) is set for its samples. While BatchNorm takes
    statistics every module that is there runs on the whole batch, for its statistics; otherwise each on the samples that come to it, with the same
    result.
    """

    def __init__(
        self,
        shrunk: Callable[[], nn.Module],
        number: int,
        present: Sequence[int],
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
    ):
        super().__init__()
        self.number, self.present = number, tuple(present)
        self.inputs, self.outputs = inputs, outputs
        self.parts = nn.ModuleDict(
            {str(n): Bypass(inputs, outputs) if n == number - 1 else shrunk() for n in self.present}
        )
        self.gate: torch.Tensor | None = None

    @property
    def whole(self) -> bool:
        """Whether modules have BatchNorm."""
        return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.parts.modules())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.gate is None or self.gate.shape != (len(x), self.number):
            raise ValueError("a module layer is run by its Modular, which sets the gate of each sample")
        shape = (-1,) + (1,) * (x.dim() - 1)
        # Of the norms and not of the layer: an evaluator has norms alone take statistics.
        whole = any(m.training for m in self.parts.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        total: torch.Tensor | None = None
        for n, part in zip(self.present, self.parts.values(), strict=True):
            weight = self.gate[:, n]
            if whole:
                y = part(x) * weight.view(shape)
                total = y if total is None else total + y
                continue
            rows = weight.nonzero().flatten()
            if len(rows):
                y = part(x[rows]) * weight[rows].view(shape)
                total = x.new_zeros(len(x), *y.shape[1:]) if total is None else total
                total = total.index_add(0, rows, y)
        return torch.relu(x.new_zeros(len(x), *self.outputs) if total is None else total)  # none: of an empty batch
