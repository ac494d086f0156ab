"""A modular model: a network whose stages are module layers, and its selector (ECLM §4.1, §4.2); sub-models of it; both as vectors.

    cloud = modularise(build("resnet18", {}, seed), (3, 32, 32), FORMS["resnet18"])
    part  = sub_model(cloud, choice)                       # on the cloud: a copy with just these modules
    mine  = received(blueprint, choice, vector)            # on a device: made of the blocks that it fetched

Where nothing else is said, shapes are of one sample.
"""

import copy
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from learning.models import KEEP, MEAN, rules_of
from learning.models_conv import channels_last, is_channels_last
from learning.modular.forms import Form
from learning.modular.gating import Gate, Selector
from learning.modular.modules import ModuleLayer
from learning.modular.stages import shapes, stages
from learning.modular.structure import NOISE, SELECTOR, SHARED, group
from schemas.blocks import STATISTICS, Layout, Tensor, layout
from schemas.modules import Choice

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_AT_ONCE = 256  # samples


class Modular(nn.Module):
    """`network` with its module layers in it, in order, and the selector that gates them all.

    `noisy`: in training, whether the gates are (there must be a W_noise). A sub-model of another model has a frozen selector.
    """

    def __init__(self, network: nn.Module, selector: Selector, layers: list[ModuleLayer]):
        super().__init__()
        self.network, self.selector = network, selector
        self.layers = layers  # a list: they are registered where they are in the network
        self.noisy = selector.noises is not None
        if table := getattr(network, "tensor_rules", {}):
            rules = {f"network.{pattern}": rule for pattern, rule in table.items()}
            self.tensor_rules = {p: r for p, r in rules.items() if any(fnmatchcase(n, p) for n in self.state_dict())}

    @property
    def choice(self) -> Choice:
        """The modules that are there."""
        return tuple(layer.present for layer in self.layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.routed(x)[0]

    def routed(self, x: torch.Tensor) -> tuple[torch.Tensor, list[Gate]]:
        """What the network says of samples (n, …), and the gates of each layer."""
        gates = self.selector(x, self.choice, noisy=self.noisy and self.training)
        try:
            for layer, gate in zip(self.layers, gates, strict=True):
                layer.gate = gate.gate
            return self.network(x), gates
        finally:
            for layer in self.layers:
                layer.gate = None


def modularise(
    network: nn.Module,
    shape: tuple[int, ...],
    form: Form,
    choice: Choice | None = None,
    noise: bool = True,
    seed: int = 0,
) -> Modular:
    """The network, taken over, with module layers in the place of its stages (`learning/modular/stages.py` says which). `shape` of a
    sample. With a `choice` only those modules are made. The network is on the CPU; new weights are drawn from
    `seed` alone where that is the CPU, and the process's random state stays as it was. They lie in memory as the network's do.

    Raises `ValueError` if there are no such stages, not the modules chosen, or modules of another shape than their stage.
    """
    found, laid = stages(network, form.norm, form.last, form.hidden), is_channels_last(network)
    seen = shapes(network, found, shape)
    if choice is None:
        choice = (tuple(range(form.modules)),) * len(found)
    if len(choice) != len(found) or any(not 0 <= n < form.modules for chosen in choice for n in chosen):
        raise ValueError(f"a choice of {choice} for {len(found)} layers of {form.modules} modules")
    layers = []
    with torch.random.fork_rng(devices=[]), torch.device(next(network.parameters()).device):
        torch.default_generator.manual_seed(seed)
        for stage, (n, m), chosen in zip(found, seen, choice, strict=True):
            build = _narrow(stage.shrunk, n[0], form.width(m[0]), m[0])
            layer = ModuleLayer(build, form.modules, chosen, n, m)
            _check(stage.name, layer)
            parent = network.get_submodule(stage.parent)
            setattr(parent, stage.children[0], layer)
            for child in stage.children[1:]:
                delattr(parent, child)
            layers.append(layer)
        selector = Selector(shape, [form.modules] * len(layers), form.k, noise)
    model = Modular(network, selector, layers)
    if laid:
        channels_last(model)
    return model


def _check(name: str, layer: ModuleLayer) -> None:
    """One sample through the first module. Raises `ValueError` if it gives another shape than the stage: sums would broadcast."""
    part = next(iter(layer.parts.values()), None)
    if part is None:
        return
    try:
        with torch.no_grad():
            got = tuple(part.eval()(torch.zeros(1, *layer.inputs)).shape[1:])
    except RuntimeError as e:
        raise ValueError(f"a module for {name} does not take what comes in, {layer.inputs} a sample: {e}") from e
    finally:
        part.train()
    if got != layer.outputs:
        raise ValueError(f"a module for {name} gives {got} of {layer.inputs}; the stage gives {layer.outputs}")


def _narrow(builder: Callable[[int, int, int], nn.Module], n: int, h: int, m: int) -> Callable[[], nn.Module]:
    return lambda: builder(n, h, m)


# ------------------------------------------------------------------ sub-models


def sub_model(model: Modular, choice: Choice, selector: bool = False) -> Modular:
    """A copy with just these modules, without W_noise; the selector is frozen unless `selector`. Raises `ValueError` for modules that
    are not there."""
    if len(choice) != len(model.layers) or not all(
        set(chosen) <= set(layer.present) and len(chosen) for chosen, layer in zip(choice, model.layers, strict=True)
    ):
        raise ValueError(f"a choice of {choice} from a model of {model.choice}")
    whole = [(layer.parts, layer.present) for layer in model.layers]
    noises = model.selector.noises
    try:  # the copy never sees the rest
        model.selector.noises = None
        for layer, chosen in zip(model.layers, choice, strict=True):
            layer.parts = nn.ModuleDict({str(n): layer.parts[str(n)] for n in sorted(chosen)})
            layer.present = tuple(sorted(chosen))
        part = copy.deepcopy(model)
    finally:
        model.selector.noises = noises
        for layer, (parts, present) in zip(model.layers, whole, strict=True):
            layer.parts, layer.present = parts, present
    return _for_device(part, selector)


class Blueprint(NamedTuple):
    """All that a device needs to make a sub-model but its blocks: how the original network is built, and what becomes of it."""

    network: Callable[[], nn.Module]
    shape: tuple[int, ...]
    form: Form


def received(blueprint: Blueprint, choice: Choice, vector: Float32, selector: bool = False) -> Modular:
    """A device's sub-model from its vector (n,), the blocks that it fetched. Neither the original's stages nor other modules are ever in
    memory. Raises `ValueError` for a vector of another length, or a network with tensors that would not come with it."""
    with torch.device("meta"):
        network = blueprint.network()
    model = modularise(network, blueprint.shape, blueprint.form, choice, noise=False)
    norms = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
    kept = [name for name, rule in rules_of(model).items() if rule == KEEP and name.rpartition(".")[0] not in norms]
    plain = {name for name, _ in model.named_buffers()} - set(model.state_dict())
    if kept := [*kept, *sorted(plain)]:
        raise ValueError(f"{', '.join(kept)} would not come with the model's blocks: only BatchNorm's may stay behind")
    model.to_empty(device="cpu")
    for norm in norms.values():
        norm.reset_running_stats()
    load_vector(model, vector)
    return _for_device(model, selector)


def _for_device(model: Modular, selector: bool) -> Modular:
    model.noisy = False
    model.selector.requires_grad_(selector)
    return model


# ------------------------------------------------------------------ importance


def importance(model: Modular, x: Float32) -> Float64:
    """Importance(ω_i | D_k) of all modules, (L, N): the mean over samples (n, …) of the selector's softmax (§5.1), as if all modules
    were there, so that devices compare. Rows add up to 1. Raises `ValueError` without samples."""
    return importances(model.selector, x)


def importances(selector: Selector, x: Float32) -> Float64:
    """The same from the selector alone: it is all that a device needs for it."""
    if not len(x):
        raise ValueError("importance is for data: there are no samples")
    total = [np.zeros(number) for number in selector.layers]
    with torch.inference_mode():
        for at in range(0, len(x), _AT_ONCE):
            for row, p in zip(total, selector.probabilities(torch.tensor(x[at : at + _AT_ONCE])), strict=True):
                row += p.sum(dim=0, dtype=torch.float64).numpy()
    return np.array(total) / len(x)


def routes(model: Modular, x: Float32) -> list[npt.NDArray[np.bool_]]:
    """Of each layer, which modules each sample is sent to, (samples, N), noise off: what H is made of."""
    parts: list[list[npt.NDArray[np.bool_]]] = [[] for _ in model.layers]
    with torch.inference_mode():
        for at in range(0, len(x), _AT_ONCE):
            for part, gate in zip(
                parts, model.selector(torch.tensor(x[at : at + _AT_ONCE]), model.choice), strict=True
            ):
                part.append(gate.gate.numpy() > 0)
    return [np.concatenate(part) for part in parts]


# ------------------------------------------------------------------ as a vector


def tensors_of(model: Modular) -> list[tuple[str, torch.Tensor, str, bool]]:
    """The tensors in the vector, in the order that `learning/modular/structure.py` says: name, tensor, owner, whether it is a statistic."""
    state, rules = model.state_dict(), rules_of(model)
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    places = {id(m): name for name, m in model.named_modules()}
    owners = {"selector.noises.": (2, 0, 0, NOISE), "selector.": (1, 0, 0, SELECTOR)}
    for i, layer in enumerate(model.layers):
        owners |= {f"{places[id(layer)]}.parts.{n}.": (3, i, n, group(i, n)) for n in layer.present}
    sent = []
    for name, t in state.items():
        if rules[name] == MEAN:
            rank = next((owner for prefix, owner in owners.items() if name.startswith(prefix)), (0, 0, 0, SHARED))
            sent.append((rank, name in buffers, name, t))
    sent.sort(key=lambda s: s[:2])
    return [(name, t, rank[3], statistic) for rank, statistic, name, t in sent]


def layout_of(model: Modular) -> Layout:
    """The model as the plane knows it, each module in blocks of its own. A sub-model's is what its choice leaves of the whole's."""
    return layout(
        tuple(
            Tensor(n, tuple(t.shape), STATISTICS if statistic else owner)
            for n, t, owner, statistic in tensors_of(model)
        )
    )


def to_vector(model: Modular) -> Float32:
    """A copy of these tensors end to end: float32, shape (n,)."""
    return torch.cat([t.detach().reshape(-1).to("cpu", torch.float32) for _, t, _, _ in tensors_of(model)]).numpy()


def load_vector(model: Modular, vector: Float32) -> None:
    """Set them from a vector of shape (n,). Raises `ValueError`, changing nothing, if n is another."""
    tensors = [t for _, t, _, _ in tensors_of(model)]
    if vector.shape != (size := sum(t.numel() for t in tensors),):
        raise ValueError(f"this model has {size} values, the vector has shape {vector.shape}")
    at = 0
    with torch.no_grad():
        for t in tensors:  # one after another: a device's memory holds the model and the vector, not a third
            t.copy_(torch.tensor(vector[at : at + t.numel()]).view(t.shape))
            at += t.numel()
