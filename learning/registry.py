"""Models by name. It needs no torch, so that code which brings a model and more is loaded by roles that train nothing, too.

    @model("twin")
    def twin(inputs: int = 64, classes: int = 10) -> nn.Module:
        from torch import nn

        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes, bias=False))

Its parameters are the task's `model_args`; it raises `ValueError` for values that cannot be.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from learning.words import Plain

Builder = TypeVar("Builder", bound=Callable[..., Any])

models: dict[str, Callable[..., Any]] = {}
"""What builds each: a function that returns a `torch.nn.Module`."""


class UnknownModel(Plain):
    """No model of that name is known here; the text lists those that are."""


def model(name: str) -> Callable[[Builder], Builder]:
    """Make a function that returns a module known by `name`. Raises `ValueError` if the name is taken."""

    def register(builder: Builder) -> Builder:
        if name in models:
            raise ValueError(f"there is a model {name!r} already")
        models[name] = builder
        return builder

    return register
