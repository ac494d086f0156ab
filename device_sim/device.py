"""One simulated phone: when it is free, what it takes part in, and how far it is."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from device_sim.availability import Free
from device_sim.pseudonym import seed_of
from schemas.messages import Announcement

ASLEEP, IDLE, REGISTERED, TRAINING = "asleep", "idle", "registered", "training"
PATIENCE = 5_000
"""ms after which a device that hears nothing of its registration tries again."""


@dataclass
class Device:
    """A phone of a fleet. `number` says which share of the data is its own; `nights` None: always free."""

    id: str
    number: int
    nights: Free | None = None
    state: str = ASLEEP
    since: int = 0
    until: int = 0
    """Idle: when it may register; training: when the run is done (ms)."""
    task: str = ""
    round: int = 0
    slot: int = 0
    work: Announcement | None = None
    """The round it is training for."""
    taken: dict[str, int] = field(default_factory=dict)
    """By task, the last round it has finished or given up."""
    left: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """By task, what top-k left out of its weighted deltas: it is added to the next one."""

    def free(self, now: int) -> bool:
        return self.nights is None or self.nights.window(now) is not None

    def become(self, state: str, now: int, until: int = 0) -> None:
        self.state, self.since, self.until = state, now, until

    def drop(self, now: int) -> None:
        """Leave what it is in, for good: the lease, if it has one, will run out."""
        if self.state in (REGISTERED, TRAINING):
            self.taken[self.task] = self.round
        self.become(IDLE, now)

    def die(self, seed: int, *what: str | int, most: int) -> int:
        """A throw in [0, most), the same each time for the same device, seed and name."""
        return seed_of(seed, self.id, *what) % most if most else 0
