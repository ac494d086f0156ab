"""A round that a device is in, step by step, what its run gave, and what the device says on the way: its acts."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import nan
from typing import Protocol

import numpy as np
import numpy.typing as npt

from device_sim.whims import Mishap
from learning.rewards import ABSURD, quality
from schemas.messages import DEVICE_STATES, Announcement

ASLEEP, IDLE, ASKING, REGISTERED, TRAINING = DEVICE_STATES
ADMITTED, UPLOADING = "admitted", "uploading"
"""A job's steps that a device's state does not show."""
NO_MISHAP = Mishap()


class Run(Protocol):
    """What a device's training gave: new minus base, its samples, and the loss summed over them. It may have `losses`, of each
    sample, too: the device keeps them for its quality (eq. 3). And `weights`, by block of the model: what each weighs, if not all weigh
    its samples. And `before` and `after` it, the loss on samples that were held back."""

    @property
    def delta(self) -> npt.NDArray[np.float32]: ...
    @property
    def samples(self) -> int: ...
    @property
    def loss_sum(self) -> float: ...


def held_back(run: Run) -> tuple[float, float]:
    """A run's `before` and `after`, NaN where nobody looked."""
    return getattr(run, "before", nan), getattr(run, "after", nan)


def quality_of(run: Run) -> float:
    """Eq. 3 of a run; where the loss of each sample is not known, or one is none, as if all had the mean."""
    losses = getattr(run, "losses", None)
    if losses is not None and len(losses):
        with suppress(ValueError):  # of a training that diverged, or of someone's own client
            return quality(np.asarray(losses))
    return run.loss_sum if 0 <= run.loss_sum <= ABSURD else 0.0


@dataclass(eq=False)
class Job:
    """A round that a device is in: registered for, admitted to, being trained, or being uploaded."""

    zone: str
    work: Announcement
    since: int
    state: str = REGISTERED
    slot: int = 0
    lease: int = 0
    """Until when it holds the slot (ms)."""
    until: int = 0
    """When training, or the next block's upload, is done (ms)."""
    blocks: Sequence[object] = ()
    sent: int = 0
    due: bool = False
    """Its run is with the edge, which says when it is done."""
    apart: int = 0
    """ms between two blocks' uploads."""
    mishap: Mishap = NO_MISHAP

    @property
    def key(self) -> tuple[str, str]:
        return self.zone, self.work.task


@dataclass(frozen=True, slots=True)
class CheckIn:
    """It is there, in this zone; or it left it."""

    zone: str
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """It wants to take part."""

    job: Job


@dataclass(frozen=True, slots=True)
class Begin:
    """It begins a run; its result is asked for by `Train`, later."""

    job: Job


@dataclass(frozen=True, slots=True)
class Train:
    """Its run is due: the edge has it trained, and says `trained`, or has it `drop` the round."""

    job: Job


@dataclass(frozen=True, slots=True)
class Give:
    """A block of its delta."""

    job: Job
    block: object


@dataclass(frozen=True, slots=True)
class Look:
    """It is to see how important a modular task's modules are for its data: the edge finds out, and says `saw`."""

    zone: str
    work: Announcement


Act = CheckIn | Wish | Begin | Train | Give | Look
