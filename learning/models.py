"""Models by name, and a model as the plane knows it: one flat float32 vector.

A task names its model and the arguments; devices, `submit` and the evaluator build it here. `learning/registry.py` shows
how to add one; a package of one's own offers such a function as an entry point of the group `olearning.models`.

A tensor of `state_dict` has a rule. "mean": it is in the vector, and the plane takes the mean of what devices changed it by.
"keep": no device sends it, and each module keeps its own. Parameters are "mean". Other tensors are "mean" if they are floats
(the running statistics of BatchNorm), else "keep" (counters); a module says otherwise by patterns for their names:

    module.tensor_rules = {"*.running_mean": "keep", "*.running_var": "keep"}

The vector is the parameters in the order of `state_dict`, then the other tensors. These are a group of their own in the layout,
`STATISTICS`, so a block has one kind only, and the server optimiser leaves theirs alone.
"""

import inspect
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from itertools import pairwise
from math import ceil

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from learning import models_conv, registry
from learning.arguments import numbers, positive
from learning.plugins import names, plugin
from learning.registry import UnknownModel as UnknownModel
from learning.registry import model as model
from schemas.blocks import STATISTICS, Layout, Tensor, layout
from schemas.wire import Scalar

Float32 = npt.NDArray[np.float32]

GROUP = "olearning.models"
"""The entry points that are looked up when no model of a name is known."""
MEAN, KEEP = "mean", "keep"

_SCORED = 1024  # samples scored at once: bounds memory, and a copy of them stays in the cache


def build(model: str, args: Mapping[str, Scalar], seed: int) -> nn.Module:
    """The module, its weights drawn from `seed` alone; the process's random state stays as it was.

    Not for two threads at once, since torch initialises from one generator for the process.
    Raises `UnknownModel`, or `ValueError` for arguments the model does not take.
    """
    builder = _builder(model)
    takes = inspect.signature(builder).parameters
    if strangers := [name for name in args if name not in takes]:
        raise ValueError(f"model {model!r} takes {', '.join(takes)}; not {', '.join(strangers)}")
    if missing := [n for n, p in takes.items() if p.default is p.empty and n not in args]:
        raise ValueError(f"model {model!r} needs {', '.join(missing)}")
    # The CPU generator only: torch.manual_seed would seed the accelerators' too, which fork_rng([]) does not give back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return builder(**args)


def origin(model: str) -> str:
    """The Python module that makes the model known when it is imported. Raises `UnknownModel`."""
    return _builder(model).__module__


def _builder(name: str) -> Callable[..., nn.Module]:
    known = registry.models
    if name not in known and (found := plugin(GROUP, name)) and name not in known:  # its import may register it
        model(name)(found)
    if name not in known:
        listed = ", ".join(sorted({*known, *names(GROUP)}))
        raise UnknownModel(f"no model {name!r} is known here; known: {listed}. Your own: --load its file")
    return known[name]


# ------------------------------------------------------------------ the models


@model("linear")
def linear(inputs: int = 64, classes: int = 10) -> nn.Module:
    """Softmax regression."""
    return nn.Sequential(nn.Flatten(), nn.Linear(positive("inputs", inputs), positive("classes", classes)))


@model("mlp")
def mlp(inputs: int = 64, hidden: int | str = 64, classes: int = 10) -> nn.Module:
    """Linear layers with ReLU between; `hidden` is a width, or widths as text: "64,32". HARBox' is 900, 300, 5."""
    widths = [positive("inputs", inputs), *numbers("hidden", hidden)]
    layers: list[nn.Module] = [nn.Flatten()]
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], positive("classes", classes)))


for _name in ("cnn", "cnn1d", "resnet8", "resnet18", "resnet34", "vgg16"):
    model(_name)(getattr(models_conv, _name))


# ------------------------------------------------------------------ a module as a vector


def rules_of(module: nn.Module) -> dict[str, str]:
    """The rule of each tensor of `state_dict`. Raises `ValueError` for `tensor_rules` that cannot be."""
    return _rules(module, module.state_dict())


def _rules(module: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    rules = {name: MEAN if t.is_floating_point() else KEEP for name, t in state.items()}
    table = getattr(module, "tensor_rules", {})
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)} if table else ()
    for pattern, rule in table.items():
        if rule not in (MEAN, KEEP):
            raise ValueError(f"the rule of {pattern} is {rule!r}; rules are {MEAN} and {KEEP}")
        if not (meant := [name for name in state if fnmatchcase(name, pattern)]):
            raise ValueError(f"the rule of {pattern} is for no tensor: there are {', '.join(state)}")
        for name in meant:
            if rule == KEEP and name in parameters:
                raise ValueError(f"{name} is a parameter: no device would keep what it learned, so its rule is {MEAN}")
            if rule == MEAN and not state[name].is_floating_point():
                raise ValueError(f"{name} is not of floats and has no mean: its rule is {KEEP}")
            rules[name] = rule
    return rules


def _sent(module: nn.Module) -> list[tuple[str, torch.Tensor, str]]:
    """The tensors in the vector, in order: name, tensor, group."""
    state = module.state_dict()
    rules, buffers = _rules(module, state), {name for name, _ in module.named_buffers(remove_duplicate=False)}
    sent = [(n, t, STATISTICS if n in buffers else "") for n, t in state.items() if rules[n] == MEAN]
    return sorted(sent, key=lambda s: s[2])


def layout_of(module: nn.Module) -> Layout:
    """The names and shapes of the tensors in the vector, in its order, and the blocks that cover them."""
    return layout(tuple(Tensor(name=n, shape=tuple(t.shape), group=group) for n, t, group in _sent(module)))


def to_vector(module: nn.Module) -> Float32:
    """A copy of the tensors whose rule is "mean", flattened and laid end to end: float32, shape (n,)."""
    return torch.cat([t.detach().reshape(-1).to("cpu", torch.float32) for _, t, _ in _sent(module)]).numpy()


def load_vector(module: nn.Module, vector: Float32) -> None:
    """Set these tensors from a vector of shape (n,). Raises `ValueError`, changing nothing, if n is another."""
    tensors = [t for _, t, _ in _sent(module)]
    size = sum(t.numel() for t in tensors)
    if vector.shape != (size,):
        raise ValueError(f"this model has {size} values, the vector has shape {vector.shape}")
    whole = torch.tensor(
        vector, dtype=torch.float32
    )  # a copy: views of records are read-only, which torch has no word for
    with torch.no_grad():
        for t, part in zip(tensors, whole.split([t.numel() for t in tensors]), strict=True):
            t.copy_(part.view(t.shape))


# ------------------------------------------------------------------ scoring


def score(module: nn.Module, x: Float32, y: npt.NDArray[np.int64]) -> tuple[float, float]:
    """(accuracy in 0..1, mean cross-entropy in nats) on samples `x` (n, …) of classes `y` (n,).

    BatchNorm's statistics that are kept and have seen no sample yet, as in an evaluator, are first taken from `x`, without its
    labels, and forgotten afterwards (static batch normalisation: Diao et al., HeteroFL, ICLR 2021).
    Raises `ValueError` without samples, or if `x` and `y` differ in number.
    """
    if len(x) != len(y) or not len(y):
        raise ValueError(f"scoring needs samples, as many as labels: {len(x)} and {len(y)} given")
    was_training = module.training
    module.eval()
    norms = _unseen(module)
    if norms:
        _see(module, norms, x)
    right, loss = 0, 0.0
    with torch.inference_mode():
        for at in range(0, len(y), _SCORED):
            labels = torch.tensor(y[at : at + _SCORED])
            logits = module(torch.tensor(x[at : at + _SCORED]))
            right += int((logits.argmax(dim=1) == labels).sum())
            loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
    for norm in norms:
        norm.reset_running_stats()
    module.train(was_training)
    return right / len(y), loss / len(y)


def _unseen(module: nn.Module) -> list[_BatchNorm]:
    """The norms whose statistics are kept and are still those they were made with."""
    kept = {name for name, rule in rules_of(module).items() if rule == KEEP}
    norms = [(name, m) for name, m in module.named_modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    return [m for name, m in norms if f"{name}.running_mean".lstrip(".") in kept and not int(m.num_batches_tracked)]


def _see(module: nn.Module, norms: list[_BatchNorm], x: Float32) -> None:
    """Have these norms take the mean of their batches' statistics, in batches of nearly equal size, of two samples at least."""
    momentums = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # torch: the plain mean of all batches
        norm.train()
    with torch.no_grad():
        for batch in np.array_split(np.repeat(x, 2, axis=0) if len(x) == 1 else x, ceil(len(x) / _SCORED)):
            module(torch.tensor(batch))
    for norm, momentum in zip(norms, momentums, strict=True):
        norm.momentum = momentum
        norm.eval()
