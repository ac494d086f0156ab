"""A job that wants phones round after round, and the round that it has open."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from experiments.sharing_world import CLASSES, Want
from learning.sharing.policy import Job
from schemas.sharing import Bounds
from schemas.wire import Scalar

PAST = 5
"""Rounds whose times tell how long a job's take."""
TENANTS = 3
BITS = {name: n for n, name in enumerate(CLASSES)}


@dataclass(frozen=True)
class Way:
    """`policy`: a name of `learning.sharing`, or "static" or "random-binding". `keeps`: what becomes of a round that times out."""

    policy: str
    args: tuple[tuple[str, Scalar], ...] = ()
    keeps: bool = True


@dataclass
class Open:
    """A round: `got` places taken; of each phone that it bound, when it began, when it is done or gone, and whether it is gone."""

    number: int
    since: int
    got: int = 0
    filled: int = -1
    who: list[np.ndarray] = field(default_factory=list)
    began: list[np.ndarray] = field(default_factory=list)
    until: list[np.ndarray] = field(default_factory=list)
    gone: list[np.ndarray] = field(default_factory=list)
    results: list[int] = field(default_factory=list)
    """When they come, in order."""


class Working:
    """A job under way."""

    def __init__(self, want: Want, way: Way):
        self.want, self.keeps = want, way.keeps
        self.task, self.tenant = f"job-{want.number}", f"tenant-{want.number % TENANTS}"
        self.needs: Bounds = CLASSES[want.kind][0]
        self.bit, self.places = BITS[want.kind], want.places
        self.open = Open(0, 0)
        self.done, self.ended, self.tries, self.service = 0, -1, 0, 0
        self.fills: deque[float] = deque(maxlen=PAST)
        self.serves: deque[float] = deque(maxlen=PAST)
        self.got_share = 0.0
        self.timed_out = 0

    @property
    def room(self) -> int:
        return self.places - self.open.got if self.open.filled < 0 or (self.keeps and not self.short) else 0

    short = False
    """It went on with fewer than it wanted: no more come."""

    def job(self, now: int) -> Job:
        """As policies see it."""
        w, past = self.want, lambda times: float(np.mean(times)) if times else 0.0
        return Job(
            self.task, self.tenant, self.needs, w.places, self.open.got, w.arrives, self.done, w.rounds,
            float(now - w.arrives), self.service, self.open.number, past(self.fills), past(self.serves),
            float(now - self.open.since), w.fill_within_s,
        )  # fmt: skip
