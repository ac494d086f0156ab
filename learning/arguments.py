"""What model arguments say, or why they cannot be: a task file holds numbers and text, and no lists."""

from schemas.wire import Scalar


def positive(name: str, value: Scalar) -> int:
    """A whole number of at least 1. Raises `ValueError`, naming the argument."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    return value


def numbers(name: str, value: Scalar) -> list[int]:
    """Whole numbers of at least 1: one, or several as text, "64,32". Raises `ValueError`, naming the argument."""
    if not isinstance(value, str):
        return [positive(name, value)]
    parts = [p.strip() for p in value.split(",")]
    if not all(p.isascii() and p.isdigit() for p in parts):
        raise ValueError(f'{name} must be a whole number, or several as text like "64,32", not {value!r}')
    return [positive(name, int(p)) for p in parts]


def shape_of(value: Scalar, axes: str) -> tuple[int, ...]:
    """The shape of one sample, as text, "3,32,32"; `axes` names what its numbers are. Raises `ValueError`."""
    shape = tuple(numbers("shape", value))
    if len(shape) != (wanted := axes.count(",") + 1):
        raise ValueError(f"shape must be {wanted} numbers ({axes}), not {value!r}")
    return shape


def one_of(name: str, value: Scalar, choices: tuple[str, ...]) -> str:
    """One of these words. Raises `ValueError`, naming the argument."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be {' or '.join(choices)}, not {value!r}")
    return value
