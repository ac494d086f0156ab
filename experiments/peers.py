"""How a server of one layer chooses its devices, and what it has them do: at random, by Oort, by PyramidFL."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from device_sim.trainer import Run
from learning import oort, pyramidfl
from learning.pyramidfl import CODE, INTENT, Plan

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

RANDOM, OORT, PYRAMIDFL, PYRAMIDFL_CODE = "random", "oort", "pyramidfl", "pyramidfl-code"


@dataclass(frozen=True)
class Peer:
    """Who selects, `RANDOM` to `PYRAMIDFL_CODE` (whose gradient utility is the code's, not the paper's). `selection` is for Oort and
    for PyramidFL, which selects by Oort; `work`, what its devices do, for PyramidFL."""

    selector: str = RANDOM
    selection: oort.Settings = field(default_factory=oort.Settings)
    work: pyramidfl.Settings = field(default_factory=pyramidfl.Settings)


class Devices(NamedTuple):
    """What the server knows of each device, all of length n: samples, batches of a pass, steps of a round, and what these and a
    model's way to the device and back take in seconds."""

    samples: Sequence[int]
    batches: Sequence[int]
    steps: Sequence[int]
    training_s: Float64
    transfer_s: Float64

    @property
    def times(self) -> Float64:
        return self.training_s + self.transfer_s


class Heard(NamedTuple):
    """A run that counted, and the parameters of its delta as they arrived, of the model it began with: flat (p,)."""

    run: Run
    delta: Float32
    base: Float32


class Random:
    """Devices at random; each does what the task says."""

    def __init__(self, devices: Devices, batch: int, dice: np.random.Generator):
        self.devices, self.batch, self.dice = devices, batch, dice

    def select(self, count: int, now: int, feasible: Collection[int]) -> list[int]:
        """`count` of the feasible devices for round `now`, from 1 on, or all if they are fewer."""
        return self.dice.choice(sorted(feasible), min(count, len(feasible)), replace=False).tolist()

    def plan(self, running: Sequence[int], demand: int) -> Plan:
        """What these devices do, of which the round wants `demand`."""
        times = self.devices.times[list(running)]
        return Plan(np.zeros(len(running)), float(times.max()), [self.devices.steps[i] for i in running])

    def report(self, now: int, heard: Mapping[int, Heard], cut: Collection[int]) -> None:
        """What came of the round: by device what was heard, and who was selected for nothing."""


class ByOort(Random):
    """Devices by Oort. A sample's loss is that of the last time it was drawn: where a run has several passes, Oort's is of the first."""

    def __init__(self, devices: Devices, batch: int, dice: np.random.Generator, selection: oort.Settings):
        super().__init__(devices, batch, dice)
        self.oort = oort.Oort(devices.samples, devices.times.tolist(), dice, selection)

    def select(self, count: int, now: int, feasible: Collection[int]) -> list[int]:
        return self.oort.select(count, now, feasible)

    def report(self, now: int, heard: Mapping[int, Heard], cut: Collection[int]) -> None:
        reports = {}
        for i, h in heard.items():
            loss = oort.squared_loss(h.run.losses, self.batch)
            worth = oort.utility(loss, self.devices.samples[i], h.run.samples)
            reports[i] = oort.Report(worth, float(self.devices.times[i]))
        self.oort.report(now, reports, cut)


class ByPyramidFL(ByOort):
    """Devices by Oort; what they send and how long they train by PyramidFL."""

    def __init__(
        self,
        devices: Devices,
        batch: int,
        dice: np.random.Generator,
        selection: oort.Settings,
        work: pyramidfl.Settings,
        variant: str,
    ):
        super().__init__(devices, batch, dice, selection)
        self.work, self.variant = work, variant
        self.gradients = np.array(devices.samples, np.float64)
        """Gradient utilities; before its first run that is a device's number of samples."""

    def plan(self, running: Sequence[int], demand: int) -> Plan:
        some, d = list(running), self.devices
        steps, batches = ([of[i] for i in some] for of in (d.steps, d.batches))
        return pyramidfl.plan(
            self.gradients[some], d.training_s[some], d.transfer_s[some], steps, batches, demand, self.work
        )

    def report(self, now: int, heard: Mapping[int, Heard], cut: Collection[int]) -> None:
        super().report(now, heard, cut)
        for i, h in heard.items():
            self.gradients[i] = pyramidfl.gradient_utility(
                h.delta, h.base, self.devices.samples[i], h.run.samples, self.variant
            )
        if heard and cut:
            self.gradients[list(cut)] = self.gradients[list(heard)].mean()


def selector(peer: Peer, devices: Devices, batch: int, dice: np.random.Generator) -> Random:
    """Who selects. Raises `ValueError` for a name that is none."""
    match peer.selector:
        case "random":
            return Random(devices, batch, dice)
        case "oort":
            return ByOort(devices, batch, dice, peer.selection)
        case "pyramidfl" | "pyramidfl-code" as name:
            variant = INTENT if name == PYRAMIDFL else CODE
            return ByPyramidFL(devices, batch, dice, peer.selection, peer.work, variant)
    raise ValueError(f"no selector {peer.selector!r} is known; known: {RANDOM}, {OORT}, {PYRAMIDFL}, {PYRAMIDFL_CODE}")
