"""What installed packages offer by name: entry points (Python Packaging User Guide, "Entry points specification").

A package says in its pyproject.toml, and installs what it names beside olearning:

    [project.entry-points."olearning.data"]
    noise = "my_package.data:noise"
"""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any


def names(group: str) -> set[str]:
    """The names that installed packages offer in this group."""
    return set(entry_points(group=group).names)


def plugin(group: str, name: str) -> Callable[..., Any] | None:
    """The function offered by that name, imported now; None if nobody offers one.

    Raises `ValueError` if it cannot be imported, if it is no function, or if two packages offer different ones.
    """
    offers = {e.value: e for e in entry_points(group=group, name=name)}
    if not offers:
        return None
    if len(offers) > 1:
        raise ValueError(f"{name!r} of {group} is offered more than once: {', '.join(sorted(offers))}")
    ((value, offer),) = offers.items()
    try:
        found = offer.load()
    except Exception as e:  # another's code: whatever it raises
        raise ValueError(f"{name!r} of {group} cannot be imported from {value}: {e}") from e
    if not callable(found):
        raise ValueError(f"{name!r} of {group} must be a function, and {value} is {type(found).__name__}")
    return found
