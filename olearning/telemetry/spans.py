"""Spans: steps of a round that are over, and where they go."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from schemas.tracing import Step


@dataclass(frozen=True, slots=True)
class Span:
    """A step that is over, and the step that it comes of. `start` and `end` in ms, each by the clock of who said it."""

    what: str
    at: Step
    parent: Step | None
    start: int
    end: int
    about: Mapping[str, str | int]
    links: tuple[Step, ...] = ()
    error: str = ""


class Spans(Protocol):
    """Where spans go."""

    def sampled(self, trace: int) -> bool:
        """Whether this trace is wanted: every role says the same of it."""
        ...

    def take(self, span: Span) -> None: ...


def about(zone: str, task: str, round: int, **more: str | int) -> dict[str, str | int]:
    """A span's attributes."""
    return {f"olearning.{k}": v for k, v in {"zone": zone, "task": task, "round": round, **more}.items()}
