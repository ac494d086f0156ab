"""What goes wrong on devices, on purpose: each mishap with a probability, drawn from the seed. Pure: no state, no clock.

The same seed, device, task and round give the same mishap in every process, whatever else was drawn; and a probability that
changes moves no other mishap. So two runs of a scenario differ by what was changed in it, not by luck.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from device_sim.pseudonym import throw


class Mishap(NamedTuple):
    """What befalls one device in one round of a task. As it stands, nothing does."""

    leaves: float | None = None
    """The share of the run, in (0, 1), after which the device is gone for good."""
    slowdown: float = 1.0
    """Training takes this many times as long."""
    late_ms: int = 0
    """It starts so much later in its window than it planned."""
    breaks: float | None = None
    """The share of the upload, in (0, 1), after which it breaks off."""
    pause_ms: int = 0
    """How long it waits then, before it sends the blocks that are left."""

    def sent(self, blocks: int) -> int:
        """How many of a delta's blocks are sent before the upload breaks off; all, if it does not. At least one, and one is left, where
        there are two."""
        if self.breaks is None or blocks < 2:
            return blocks
        return max(1, math.floor(blocks * self.breaks))


@dataclass(frozen=True)
class Whims:
    """How often devices fail, and how badly. `drop`, `slow`, `late` and `interrupted` are probabilities, for each run its own draw.

    Raises `ValueError` for a probability outside [0, 1], a slowdown below 1 and times below 0.
    """

    seed: int = 0
    drop: float = 0.0
    """It leaves in the middle of a run, at a moment drawn evenly."""
    slow: float = 0.0
    slow_times: float = 3.0
    """A slow run trains this many times as long."""
    late: float = 0.0
    latest_ms: int = 60_000
    """It wakes up late by at most this, drawn evenly."""
    interrupted: float = 0.0
    """Its upload breaks off after some blocks, and goes on after a pause of at most `pause_ms`, drawn evenly."""
    pause_ms: int = 10_000

    def __post_init__(self) -> None:
        for what in ("drop", "slow", "late", "interrupted"):
            chance = getattr(self, what)
            if not 0 <= chance <= 1:  # nor is NaN
                raise ValueError(f"{what} is a probability from 0 to 1, not {chance}")
        if not 1 <= self.slow_times < math.inf:
            raise ValueError(f"a slow run takes 1 or more times as long, not {self.slow_times}")
        for what in ("latest_ms", "pause_ms"):
            if getattr(self, what) < 0:
                raise ValueError(f"{what} is 0 or more, not {getattr(self, what)}")

    def of(self, device: str, task: str, round: int) -> Mishap:
        """What befalls this device in this round of the task."""

        def die(what: str) -> float:
            return throw(self.seed, "whims", what, device, task, round)

        leaves = breaks = None
        slowdown, late, pause = 1.0, 0, 0
        if self.drop and die("drop") < self.drop:
            leaves = die("when it leaves")
        if self.slow and die("slow") < self.slow:
            slowdown = self.slow_times
        if self.late and die("late") < self.late:
            late = math.ceil(self.latest_ms * die("how late"))
        if self.interrupted and die("interrupted") < self.interrupted:
            breaks, pause = die("when it breaks"), math.ceil(self.pause_ms * die("how long"))
        return Mishap(leaves, slowdown, late, breaks, pause)
