"""What a gateway knows of one device: what waits for it, what it waits for, and what it is called. All of it may be lost: the device says
it again."""

from collections import deque
from collections.abc import Set
from dataclasses import dataclass, field

from device_sim.job import ASKING, ASLEEP, IDLE, REGISTERED, TRAINING
from device_sim.news import Letter

ASKS_EVERY = 2_000
"""ms between two profiles of a device for a task: each takes the plane some milliseconds of a solver."""
MOST_MAIL = 256
"""Messages that wait for one device; of more, the oldest go: it will ask again."""
QUIET = 90_000
"""ms without a word after which a device is taken to sleep."""


@dataclass
class Box:
    """Of one device. Times in ms."""

    heard: int
    mail: deque[Letter] = field(default_factory=lambda: deque(maxlen=MOST_MAIL))
    """What is for it alone, the oldest first."""
    poll: tuple[int, int, int] | None = None
    """Its question that waits: number, after which message, until when."""
    asked: int = 0
    """Its other questions that wait."""
    waiting: int = 0
    """Bytes of its deltas that are not in the log yet."""
    wishes: set[str] = field(default_factory=set)
    """Tasks that it registered for and heard nothing of."""
    profiled: dict[str, int] = field(default_factory=dict)
    """By modular task, when it asked for a sub-model last."""
    asks: set[str] = field(default_factory=set)
    """Tasks of which it has no answer to that yet."""
    leases: dict[tuple[str, int], int] = field(default_factory=dict)
    """By task and round, until when it holds its slot."""
    names: dict[str, str] = field(default_factory=dict)
    """By task owner, "" for its check-ins, what it is called."""

    def state(self, now: int) -> str:
        """As far as can be seen from here."""
        if now - self.heard > QUIET:
            return ASLEEP
        if self.leases and max(self.leases.values()) > now:
            return TRAINING
        return REGISTERED if self.wishes else ASKING if self.asks else IDLE

    def tidy(self, now: int, tasks: Set[str]) -> None:
        """Forget what does not matter any more; `tasks` are those with a round."""
        if self.leases:
            self.leases = {k: lease for k, lease in self.leases.items() if lease > now}
        if self.profiled:
            self.profiled = {task: at for task, at in self.profiled.items() if now - at < ASKS_EVERY}
        if self.asks:
            self.asks &= tasks
        if self.wishes:
            self.wishes &= tasks
