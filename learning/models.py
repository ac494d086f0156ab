"""Models by name, and a model as the plane knows it: one flat float32 vector.

A task names its model and the arguments; devices, `submit` and the evaluator build it here. To add one:

    @model("twin")
    def twin(inputs: int = 64, classes: int = 10) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes, bias=False))

Its parameters are the task's `model_args`; it raises `ValueError` for values that cannot be. The vector holds the float
tensors of `state_dict`, in its order. Other tensors (counters) stay where they are: no device sends them.
"""

import inspect
from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from schemas.blocks import Layout, Tensor, layout
from schemas.task import Scalar

Float32 = npt.NDArray[np.float32]
Builder = Callable[..., nn.Module]

_models: dict[str, Builder] = {}
_SCORED = 1024  # samples scored at once: bounds memory, and a copy of them stays in the cache


class UnknownModel(ValueError):
    """No model of that name is known here; the text lists those that are."""


def model(name: str) -> Callable[[Builder], Builder]:
    """Make a function that returns a module known by `name`. Raises `ValueError` if the name is taken."""

    def register(builder: Builder) -> Builder:
        if name in _models:
            raise ValueError(f"there is a model {name!r} already")
        _models[name] = builder
        return builder

    return register


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


def _builder(model: str) -> Builder:
    if model not in _models:
        raise UnknownModel(f"no model {model!r} is known here; known: {', '.join(sorted(_models))}")
    return _models[model]


# ------------------------------------------------------------------ the models


@model("linear")
def linear(inputs: int = 64, classes: int = 10) -> nn.Module:
    """Softmax regression."""
    return nn.Sequential(nn.Flatten(), nn.Linear(_positive("inputs", inputs), _positive("classes", classes)))


@model("mlp")
def mlp(inputs: int = 64, hidden: int | str = 64, classes: int = 10) -> nn.Module:
    """Linear layers with ReLU between; `hidden` is a width, or widths as text: "64,32"."""
    widths = [_positive("inputs", inputs), *_widths(hidden)]
    layers: list[nn.Module] = [nn.Flatten()]
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], _positive("classes", classes)))


def _positive(name: str, value: Scalar) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    return value


def _widths(hidden: Scalar) -> list[int]:
    if not isinstance(hidden, str):
        return [_positive("hidden", hidden)]
    parts = [p.strip() for p in hidden.split(",")]
    if not all(p.isascii() and p.isdigit() for p in parts):
        raise ValueError(f'hidden must be a width, or widths as text like "64,32", not {hidden!r}')
    return [_positive("hidden", int(p)) for p in parts]


# ------------------------------------------------------------------ a module as a vector


def _floats(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [(name, t) for name, t in module.state_dict().items() if t.is_floating_point()]


def layout_of(module: nn.Module) -> Layout:
    """The names and shapes of the float tensors, in `state_dict` order, and the blocks that cover them."""
    return layout(tuple(Tensor(name=name, shape=tuple(t.shape)) for name, t in _floats(module)))


def to_vector(module: nn.Module) -> Float32:
    """A copy of all float tensors, flattened and laid end to end: float32, shape (n,)."""
    return torch.cat([t.detach().reshape(-1).to("cpu", torch.float32) for _, t in _floats(module)]).numpy()


def load_vector(module: nn.Module, vector: Float32) -> None:
    """Set all float tensors from a vector of shape (n,). Raises `ValueError`, changing nothing, if n is another."""
    tensors = [t for _, t in _floats(module)]
    size = sum(t.numel() for t in tensors)
    if vector.shape != (size,):
        raise ValueError(f"this model has {size} values, the vector has shape {vector.shape}")
    whole = torch.tensor(
        vector, dtype=torch.float32
    )  # a copy: views of records are read-only, which torch has no word for
    with torch.no_grad():
        for t, part in zip(tensors, whole.split([t.numel() for t in tensors]), strict=True):
            t.copy_(part.view(t.shape))


def score(module: nn.Module, x: Float32, y: npt.NDArray[np.int64]) -> tuple[float, float]:
    """(accuracy in 0..1, mean cross-entropy in nats) on samples `x` (n, …) of classes `y` (n,).

    Raises `ValueError` without samples, or if `x` and `y` differ in number.
    """
    if len(x) != len(y) or not len(y):
        raise ValueError(f"scoring needs samples, as many as labels: {len(x)} and {len(y)} given")
    was_training = module.training
    module.eval()
    right, loss = 0, 0.0
    with torch.inference_mode():
        for at in range(0, len(y), _SCORED):
            labels = torch.tensor(y[at : at + _SCORED])
            logits = module(torch.tensor(x[at : at + _SCORED]))
            right += int((logits.argmax(dim=1) == labels).sum())
            loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
    module.train(was_training)
    return right / len(y), loss / len(y)
