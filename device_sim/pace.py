"""How long a run takes a device: what it really takes, and what the device expects."""

from dataclasses import dataclass
from typing import Protocol

from schemas.messages import Announcement


class Pace(Protocol):
    """The speed of one device. Times in ms."""

    def expect(self, a: Announcement, samples: int) -> int:
        """How long the device thinks that a run takes, transfer included: time_t of eq. 7; 1 or more."""
        ...

    def take(self, a: Announcement, samples: int, now: int) -> int:
        """How long download and training take, if they begin now."""
        ...

    def upload(self, a: Announcement, now: int) -> int:
        """How long the upload takes, if it begins now."""
        ...

    def took(self, a: Announcement, samples: int, ms: int) -> None:
        """A run took so long."""
        ...


@dataclass
class Steady:
    """Every run takes `ms`, whatever the task, and the upload no time."""

    ms: int = 1_000

    def expect(self, a: Announcement, samples: int) -> int:
        return max(1, self.ms)

    def take(self, a: Announcement, samples: int, now: int) -> int:
        return self.ms

    def upload(self, a: Announcement, now: int) -> int:
        return 0

    def took(self, a: Announcement, samples: int, ms: int) -> None:
        pass
