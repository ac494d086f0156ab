"""How long a run takes a device: what it really takes, and what the device expects (time_t of eq. 7)."""

import math
from dataclasses import dataclass, field
from typing import Protocol

from device_sim.capacity import Bandwidth, Capacity, constant
from device_sim.estimate import Estimate
from device_sim.portion import sent_sizes
from schemas.blocks import codec
from schemas.messages import Announcement


class Pace(Protocol):
    """The speed of one device. Times in ms of the plane's clock."""

    def expect(self, a: Announcement, samples: int) -> int:
        """How long the device thinks that a run takes, transfer included; 1 or more."""
        ...

    def take(self, a: Announcement, samples: int, now: int, slowdown: float = 1.0) -> int:
        """How long download and training take, if they begin now; training `slowdown` times as long as usual."""
        ...

    def upload(self, a: Announcement, now: int) -> int:
        """How long the upload takes, if it begins now."""
        ...

    def took(self, a: Announcement, samples: int, ms: int) -> None:
        """Download and training took so long: what the device measured."""
        ...

    def forget(self, task: str) -> None:
        """The task is over."""
        ...


@dataclass
class Steady:
    """Every run takes `ms`, whatever the task, and the upload no time."""

    ms: int = 1_000

    def expect(self, a: Announcement, samples: int) -> int:
        return max(1, self.ms)

    def take(self, a: Announcement, samples: int, now: int, slowdown: float = 1.0) -> int:
        return round(slowdown * self.ms)

    def upload(self, a: Announcement, now: int) -> int:
        return 0

    def took(self, a: Announcement, samples: int, ms: int) -> None:
        pass

    def forget(self, task: str) -> None:
        pass


@dataclass
class Phone:
    """A phone of a capacity, which learns from its own runs how long they take.

    `bandwidth` instead of the capacity's own where it changes with time. `scale`: a day of the plane's clock over 24 h, since
    all its times shrink with its day.
    """

    capacity: Capacity
    bandwidth: Bandwidth | None = None
    scale: float = 1.0
    estimate: Estimate = field(init=False)
    _down: float = field(default=0.0, init=False)
    """ms, not scaled, of the last download."""

    def __post_init__(self) -> None:
        self.bandwidth = self.bandwidth or constant(self.capacity.kbit_s)
        speed = self.capacity.bytes_s
        self.estimate = Estimate(self.capacity.training_ms, speed, speed)

    def expect(self, a: Announcement, samples: int) -> int:
        ms = self.estimate.time(a.training.drawn(samples), _down_bytes(a), up_bytes(a), a.task)
        return max(1, math.ceil(self.scale * ms))

    def take(self, a: Announcement, samples: int, now: int, slowdown: float = 1.0) -> int:
        self._down = self._transfer(_down_bytes(a), now)
        self.estimate.transferred(_down_bytes(a), self._down, up=False)
        training = a.training.drawn(samples) * self.capacity.training_ms * slowdown
        return math.ceil(self.scale * (self._down + training))

    def upload(self, a: Announcement, now: int) -> int:
        ms = self._transfer(up_bytes(a), now)
        self.estimate.transferred(up_bytes(a), ms, up=True)
        return math.ceil(self.scale * ms)

    def took(self, a: Announcement, samples: int, ms: int) -> None:
        self.estimate.measured(a.task, a.training.drawn(samples), max(0.0, ms / self.scale - self._down))

    def forget(self, task: str) -> None:
        self.estimate.forget(task)

    def _transfer(self, bytes: int, now: int) -> float:
        assert self.bandwidth
        return self.bandwidth.transfer_ms(bytes, round(now / self.scale))


def _down_bytes(a: Announcement) -> int:
    return 4 * sum(a.sizes)


def up_bytes(a: Announcement) -> int:
    """Of a delta, before zstd."""
    return sum(codec(a.codec).size(n, a.keep) for n in sent_sizes(a))
