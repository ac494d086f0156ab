"""Convolutional models: small ones for windows and images, ResNet-18 and -34, VGG-16.

`shape` is that of one sample: "channels,height,width" for images, "length,channels" for windows. Samples that come flat, or as
(height, width), are given that shape. `learning/models.py` registers the functions at the end by their names.

Batches of one occur (the last of a pass), so a model that normalises wants more than one pixel everywhere, or says so.

Weights over images lie with the channels last, as oneDNN computes: on a CPU a step of a small model takes seven tenths of the time for
it, one of a modular ResNet as little. It is nobody else's matter, since tensors say their values in the same order.
"""

from math import ceil

import torch
from torch import nn

from learning.arguments import numbers, one_of, positive, shape_of

KEPT_STATISTICS = {"*running_mean": "keep", "*running_var": "keep"}


class Shaped(nn.Module):
    """Gives samples (n, …) the shape (n, *shape), and with `swap` its last two axes the other way round."""

    def __init__(self, shape: tuple[int, ...], swap: bool = False):
        super().__init__()
        self.shape, self.swap = shape, swap

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.reshape(len(x), *self.shape)
        return x.transpose(-1, -2) if self.swap else x


# ------------------------------------------------------------------ small


def cnn1d(
    shape: str = "128,6", channels: int | str = "32,64", kernel: int = 9, hidden: int = 128, classes: int = 6
) -> nn.Module:
    """For windows (length, channels): stages of a convolution over time, ReLU and max-pooling by 2; then one hidden layer."""
    length, sensors = shape_of(shape, "length,channels")
    stages, ends = _stages(nn.Conv1d, nn.MaxPool1d, sensors, channels, kernel, (length,))
    return nn.Sequential(Shaped((length, sensors), swap=True), *stages, *_head(ends, hidden, classes))


def cnn(
    shape: str = "1,28,28", channels: int | str = "32,64", kernel: int = 5, hidden: int = 512, classes: int = 10
) -> nn.Module:
    """For images: stages of a convolution, ReLU and max-pooling by 2; then one hidden layer.

    By default the CNN for MNIST of McMahan et al., AISTATS 2017, with its 1,663,370 parameters.
    """
    colours, *size = sample = shape_of(shape, "channels,height,width")
    stages, ends = _stages(nn.Conv2d, nn.MaxPool2d, colours, channels, kernel, tuple(size))
    return channels_last(nn.Sequential(Shaped(sample), *stages, *_head(ends, hidden, classes)))


def _stages(
    conv: type[nn.Module], pool: type[nn.Module], n: int, channels: int | str, kernel: int, size: tuple[int, ...]
) -> tuple[list[nn.Module], int]:
    """The stages, and how many values come out of the last."""
    if positive("kernel", kernel) % 2 == 0:
        raise ValueError(f"kernel must be odd, not {kernel}: the convolutions keep the size")
    layers: list[nn.Module] = []
    widths = numbers("channels", channels)
    for m in widths:
        layers += [conv(n, m, kernel, padding=kernel // 2), nn.ReLU(), pool(2)]
        n = m
    if min(size) < 2 ** len(widths):
        raise ValueError(f"shape is too small for {len(widths)} stages, each of which halves it: {size}")
    for s in size:
        n *= s // 2 ** len(widths)
    return layers, n


def _head(n: int, hidden: int, classes: int) -> list[nn.Module]:
    m = positive("hidden", hidden)
    return [nn.Flatten(), nn.Linear(n, m), nn.ReLU(), nn.Linear(m, positive("classes", classes))]


# ------------------------------------------------------------------ ResNet


class Pointwise(nn.Conv2d):
    """A convolution of 1×1 on every `every`-th pixel. As a stride of the convolution itself it would corrupt memory: oneDNN takes too
    little for its gradient where few channels lie last (its issue 6035)."""

    def __init__(self, n: int, m: int, every: int):
        super().__init__(n, m, 1, bias=False)
        self.every = every

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x[:, :, :: self.every, :: self.every])


class Residual(nn.Module):
    """Two 3×3 convolutions and a way around them (He et al., CVPR 2016, the block of ResNet-18 and -34)."""

    def __init__(self, n: int, m: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(n, m, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(m)
        self.conv2 = nn.Conv2d(m, m, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(m)
        same = stride == 1 and n == m
        self.downsample = None if same else nn.Sequential(Pointwise(n, m, stride), nn.BatchNorm2d(m))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + around)


class ResNet(nn.Module):
    """A stem, stages of which all but the first halve the size, the mean over the image, one linear layer.

    Tensors have the names that they have in torchvision.
    """

    def __init__(self, blocks: tuple[int, ...], shape: tuple[int, ...], classes: int, width: int, imagenet: bool):
        super().__init__()
        self.shape, self.stages = shape, [f"layer{i + 1}" for i in range(len(blocks))]
        self.conv1 = nn.Conv2d(shape[0], width, *((7, 2, 3) if imagenet else (3, 1, 1)), bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if imagenet else nn.Identity()
        n = width
        for i, many in enumerate(blocks):
            stage = []
            for k in range(many):
                stage.append(Residual(n, width * 2**i, 2 if i and not k else 1))
                n = width * 2**i
            self.add_module(self.stages[i], nn.Sequential(*stage))
        self.fc = nn.Linear(n, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x.reshape(len(x), *self.shape)))))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        return self.fc(x.mean((2, 3)))


def _resnet(blocks: tuple[int, ...], shape: str, classes: int, width: int, stem: str, statistics: str) -> nn.Module:
    sample = shape_of(shape, "channels,height,width")
    imagenet = one_of("stem", stem, ("cifar", "imagenet")) == "imagenet"
    _more_than_a_pixel(sample, 2 ** (len(blocks) - 1) * (4 if imagenet else 1))
    module = ResNet(blocks, sample, positive("classes", classes), positive("width", width), imagenet)
    return _drawn(module, statistics)


def resnet8(shape: str = "3,32,32", classes: int = 10, width: int = 16, statistics: str = "mean") -> nn.Module:
    """The smallest of He et al.'s for CIFAR: three stages of a block each, with the stem "cifar" of `resnet18` and its arguments."""
    return _resnet((1, 1, 1), shape, classes, width, "cifar", statistics)


def resnet18(
    shape: str = "3,32,32", classes: int = 10, width: int = 64, stem: str = "cifar", statistics: str = "mean"
) -> nn.Module:
    """ResNet-18 (He et al., CVPR 2016). `stem`: "cifar", 3×3 without pooling, or "imagenet", 7×7, for images of 224 pixels.

    `width`: of the first stage. `statistics`: the rule of BatchNorm's running mean and variance, "mean" or "keep".
    """
    return _resnet((2, 2, 2, 2), shape, classes, width, stem, statistics)


def resnet34(
    shape: str = "3,32,32", classes: int = 10, width: int = 64, stem: str = "cifar", statistics: str = "mean"
) -> nn.Module:
    """ResNet-34, with the arguments of `resnet18`."""
    return _resnet((3, 4, 6, 3), shape, classes, width, stem, statistics)


# ------------------------------------------------------------------ VGG


def vgg16(shape: str = "3,32,32", classes: int = 10, statistics: str = "mean") -> nn.Module:
    """VGG-16's 13 convolutions (Simonyan and Zisserman, ICLR 2015) with BatchNorm, and one linear layer: ECLM's form.

    `statistics` as in `resnet18`.
    """
    sample = shape_of(shape, "channels,height,width")
    _more_than_a_pixel(sample, 16)
    layers: list[nn.Module] = []
    n = sample[0]
    for m, many in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(many):
            layers += [nn.Conv2d(n, m, 3, padding=1), nn.BatchNorm2d(m), nn.ReLU()]
            n = m
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    ends = n * ceil(sample[1] / 32) * ceil(sample[2] / 32)
    head = nn.Linear(ends, positive("classes", classes))
    return _drawn(nn.Sequential(Shaped(sample), *layers, nn.Flatten(), head), statistics)


def _more_than_a_pixel(shape: tuple[int, ...], most: int) -> None:
    """`most`: of how many pixels one is left where the last convolutions are."""
    if max(shape[1:]) <= most:
        raise ValueError(
            f"shape must be more than {most} pixels high or wide, not {shape}: of less, one pixel is left at the end, and a batch "
            "of one sample could not be normalised"
        )


def _drawn(module: nn.Module, statistics: str) -> nn.Module:
    """Convolutions drawn as He et al. (ICCV 2015) say, by what goes out; and the rule of the statistics."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    if one_of("statistics", statistics, ("mean", "keep")) == "keep":
        module.tensor_rules = KEPT_STATISTICS
    return channels_last(module)


def channels_last(module: nn.Module) -> nn.Module:
    """The module, its weights over images laid so."""
    return module.to(memory_format=torch.channels_last)


def is_channels_last(module: nn.Module) -> bool:
    """Whether any are. A network of another's stays as it is: one that says `view` of what comes out could not take it."""
    images = (p for p in module.parameters() if p.dim() == 4 and not p.is_contiguous())
    return any(p.is_contiguous(memory_format=torch.channels_last) for p in images)
