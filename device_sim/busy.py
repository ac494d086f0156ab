"""Other work on a device: it takes a share of its memory and speed, so that runs take longer, and a modular model must be smaller."""

from dataclasses import dataclass

from device_sim.pseudonym import throw

LEAST, MOST = 0.2, 0.8
"""The shares that other work takes, evenly drawn."""
SPANS = 24
"""Of a day: in each, a device draws whether there is other work, and how much."""
ALWAYS_MS = 60_000
"""Of a span, where devices have no days."""


@dataclass(frozen=True)
class Busy:
    """The share of a device's memory and speed that other work takes at a time (ms): 0 but in `chance` of its spans. The same each time."""

    id: str
    chance: float
    span_ms: int
    seed: int = 0

    def __call__(self, now: int) -> float:
        span = now // self.span_ms
        if throw(self.seed, "busy", self.id, span) > self.chance:
            return 0.0
        return LEAST + (MOST - LEAST) * throw(self.seed, "busy with", self.id, span)
