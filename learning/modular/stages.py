"""Finds the stages of a network that become module layers (ECLM §4.1, "the smallest repeated layer patterns").

What is a stage, in the order of the network's modules:

- **residual**: a `nn.Sequential` of blocks that have conv1, bn1, conv2, bn2 and downsample, as ResNet-18's and -34's, here and in torchvision;
- **plain**: in a `nn.Sequential` a run of convolutions, each followed by BatchNorm (all of a run, or none) and ReLU, up to what
  is none: VGG's between two poolings, which stay outside;
- **linear**: in a `nn.Sequential` a linear layer followed by ReLU, each of its own; or with `hidden="run"` a run of them together.

Where the first of all is plain or linear, and no weights stand before it, it takes the sample itself, and stays as it is: that is
the stem. A run of hidden layers has none: it is where an MLP's weights are.

A network with other blocks says itself which are stages, and builds a narrower one. It has to have the stage's input and
output, and ends without ReLU, since the layer has one:

    network.module_layers = {"body.0": lambda n, h, m: Body(n, h, m), "body.1": …}    # by path; n, m channels in and out, h inside
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from learning.modular.forms import EACH
from learning.modular.modules import Convolution, shrunk_linear, shrunk_plain, shrunk_residual

Builder = Callable[[int, int, int], nn.Module]
"""A shrunk module from the channels that come in, its width, and the channels that go out."""
_CONVOLUTIONS, _NORMS = (nn.Conv1d, nn.Conv2d), (nn.BatchNorm1d, nn.BatchNorm2d)


class Stage(NamedTuple):
    """Children of the module at path `parent`, one after another, that a module layer takes the place of."""

    parent: str
    children: tuple[str, ...]
    kind: str
    shrunk: Builder

    @property
    def name(self) -> str:
        return f"{self.parent}.{self.children[0]}".lstrip(".")


def stages(network: nn.Module, norm: str, last: int = 0, hidden: str = EACH) -> list[Stage]:
    """The stages, in order; with `last` only so many at the end. Arguments as of a form (`learning/modular/forms.py`). Raises `ValueError` if there are none, or fewer than `last`."""
    if own := getattr(network, "module_layers", None):
        found = [Stage(*_split(path), "own", builder) for path, builder in own.items()]
        for stage in found:
            try:
                network.get_submodule(stage.name)
            except AttributeError as e:
                raise ValueError(f"module_layers names {stage.name}, which the network has not") from e
    else:
        found = list(_walk(network, "", norm, hidden))
        first = next((name for name, _ in network.named_parameters()), "")
        stems = ("plain", "linear") if hidden == EACH else ("plain",)
        if found and found[0].kind in stems and first.startswith(f"{found[0].name}."):
            found = found[1:]
    if not found:
        raise ValueError(
            "no repeated blocks were found: module layers take the place of Sequentials of residual blocks, of runs of convolutions with "
            "ReLU, and of hidden layers after the first; otherwise the network says its stages in module_layers"
        )
    if last > len(found):
        raise ValueError(
            f"{last} stages are to be modular, and there are {len(found)}: {', '.join(s.name for s in found)}"
        )
    return found[-last:] if last else found


def _split(path: str) -> tuple[str, tuple[str, ...]]:
    parent, _, child = path.rpartition(".")
    return parent, (child,)


def _walk(module: nn.Module, path: str, norm: str, hidden: str) -> Iterator[Stage]:
    if path and _is_residual(module):
        first = next(module.children())
        many, stride = len(list(module.children())), _first(first.conv1.stride)
        build = lambda n, h, m: shrunk_residual(n, h, m, many, stride, norm)  # noqa: E731
        yield Stage(*_split(path), "residual", build)
    elif isinstance(module, nn.Sequential):
        yield from _runs(module, path, norm, hidden)
    else:
        for name, child in module.named_children():
            yield from _walk(child, f"{path}.{name}".lstrip("."), norm, hidden)


def _is_residual(module: nn.Module) -> bool:
    parts = ("conv1", "bn1", "conv2", "bn2", "downsample")
    return (
        isinstance(module, nn.Sequential)
        and len(module) > 0
        and all(all(hasattr(b, p) for p in parts) and not hasattr(b, "conv3") for b in module)
    )


def _runs(module: nn.Sequential, path: str, norm: str, hidden: str) -> Iterator[Stage]:
    children = list(module.named_children())
    at = 0
    while at < len(children):
        name, child = children[at]
        if many := _hidden(children, at, hidden):
            end = at + 2 * many
            yield Stage(path, tuple(n for n, _ in children[at:end]), "linear", partial(shrunk_linear, layers=many))
            at = end
        elif run := _run(children, at):
            convolutions, normed, end = run
            kind = norm if normed else None
            yield Stage(path, tuple(n for n, _ in children[at:end]), "plain", _plain(convolutions, kind))
            at = end
        else:
            yield from _walk(child, f"{path}.{name}".lstrip("."), norm, hidden)
            at += 1


def _hidden(children: list[tuple[str, nn.Module]], at: int, hidden: str) -> int:
    """How many hidden layers are one stage from here."""
    many = 0
    while at < len(children) and isinstance(children[at][1], nn.Linear) and _is_relu(children, at + 1):
        many, at = many + 1, at + 2
    return min(many, 1) if hidden == EACH else many


def _plain(convolutions: list[Convolution], kind: str | None) -> Builder:
    return lambda n, h, m: shrunk_plain(n, h, m, convolutions, kind)


def _run(children: list[tuple[str, nn.Module]], at: int) -> tuple[list[Convolution], bool, int] | None:
    """The longest run of alike units from here: its convolutions, whether they are normalised, and where it ends."""
    convolutions: list[Convolution] = []
    like: tuple[type, bool] | None = None
    while at < len(children) and isinstance(conv := children[at][1], _CONVOLUTIONS):
        normed = at + 1 < len(children) and isinstance(children[at + 1][1], _NORMS)
        after = at + 1 + normed
        if conv.groups != 1 or set(conv.dilation) != {1} or not _is_relu(children, after):
            break
        if like not in (None, (type(conv), normed)):
            break
        like = (type(conv), normed)
        convolutions.append(Convolution(conv.kernel_size, conv.stride, conv.padding))
        at = after + 1
    return (convolutions, like[1], at) if like else None


def _is_relu(children: list[tuple[str, nn.Module]], at: int) -> bool:
    return at < len(children) and isinstance(children[at][1], nn.ReLU)


def _first(value: Any) -> int:
    return value if isinstance(value, int) else value[0]


# ------------------------------------------------------------------ shapes


def shapes(
    network: nn.Module, found: list[Stage], shape: tuple[int, ...]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Of each stage the shapes of a sample that comes in and goes out, seen in one pass. Raises `ValueError` for a stage that
    a pass does not run through once."""
    ins: list[list[tuple[int, ...]]] = [[] for _ in found]
    outs: list[list[tuple[int, ...]]] = [[] for _ in found]
    hooks = []
    for i, stage in enumerate(found):
        parent = network.get_submodule(stage.parent)
        head, tail = parent.get_submodule(stage.children[0]), parent.get_submodule(stage.children[-1])
        hooks.append(head.register_forward_pre_hook(lambda _, args, i=i: ins[i].append(tuple(args[0].shape[1:]))))
        hooks.append(tail.register_forward_hook(lambda _, __, out, i=i: outs[i].append(tuple(out.shape[1:]))))
    training, device = network.training, next(network.parameters()).device
    try:
        network.eval()
        with torch.no_grad():
            network(torch.zeros(1, *shape, device=device))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    for i, stage in enumerate(found):
        if len(ins[i]) != 1 or len(outs[i]) != 1:
            raise ValueError(f"a pass runs {len(ins[i])} times through {stage.name}; a module layer is run once")
    return [(ins[i][0], outs[i][0]) for i in range(len(found))]
