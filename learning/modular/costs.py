"""What the parts of a modular model cost, from the model itself: the structure that derivation goes by (ECLM §5.1)."""

from collections.abc import Sequence

import torch
from torch import nn

from learning.modular.model import Modular, tensors_of
from learning.modular.structure import SELECTOR, SHARED, group
from schemas.modules import Cost, Structure

_MULTIPLY = (nn.Conv1d, nn.Conv2d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm)


def structure_of(model: Modular) -> Structure:
    """Costs of the shared part with the selector, and of each layer's modules. All shrunk modules of a layer are alike, so one is
    measured. Raises `ValueError` if modules are missing: it is for the whole model."""
    if any(layer.present != tuple(range(layer.number)) for layer in model.layers):
        raise ValueError("costs are those of the whole model's parts, and this is a sub-model")
    parameters = {name for name, _ in model.named_parameters()}
    values: dict[str, int] = {}
    weights: dict[str, int] = {}
    for name, t, owner, _ in tensors_of(model):
        values[owner] = values.get(owner, 0) + t.numel()
        weights[owner] = weights.get(owner, 0) + t.numel() * (name in parameters)
    inside = [part for layer in model.layers for part in layer.modules()]
    activations, macs = measure(model, model.selector.shape, inside)
    both = (SHARED, SELECTOR)
    shared = Cost(sum(values.get(o, 0) for o in both), sum(weights.get(o, 0) for o in both), activations, macs)
    layers = []
    for i, layer in enumerate(model.layers):
        one, name = layer.parts["0"], group(i, 0)
        cost = Cost(values[name], weights[name], *measure(one, layer.inputs))
        layers.append((cost,) * (layer.number - 1) + (Cost(),))
    return Structure(shared, tuple(layers))


def measure(module: nn.Module, shape: tuple[int, ...], without: Sequence[nn.Module] = ()) -> tuple[int, int]:
    """(activations, multiplications) of one sample's pass forward, as `Cost` has them, leaving out modules `without`.

    Activations are what comes out of convolutions, linear layers and norms: about what a ReLU or the next layer keeps to go back.
    The residual module's averages and the weighted sums count as nothing.
    """
    left_out, seen = {id(m) for m in without}, [0, 0]

    def note(layer: nn.Module, _: object, out: torch.Tensor) -> None:
        seen[0] += out[0].numel()
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            seen[1] += out[0].numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            seen[1] += out[0].numel() * layer.in_features

    layers = [m for m in module.modules() if isinstance(m, _MULTIPLY + _NORMS) and id(m) not in left_out]
    hooks = [m.register_forward_hook(note) for m in layers]
    training = module.training
    try:
        module.eval()
        with torch.no_grad():
            module(torch.zeros(1, *shape, device=next(module.parameters()).device))
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    return seen[0], seen[1]
