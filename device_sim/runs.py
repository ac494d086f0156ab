"""Runs: what trains them, and those of an edge's devices that wait to be trained or are."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from device_sim.device import Device
from device_sim.job import Job, Run
from device_sim.submodels import Model
from schemas.messages import Announcement
from schemas.modules import Shares

Vector = npt.NDArray[np.float32]


class Learner(Protocol):
    """What the devices of a fleet can train."""

    def objection(self, a: Announcement) -> str:
        """Why they cannot train this task, or ""."""
        ...

    def size(self, a: Announcement, device: Device) -> tuple[int, int]:
        """How many samples of the task's data the device has, and of how many classes. Raises `ValueError` if it has none."""
        ...

    def run(self, a: Announcement, device: Device, base: Vector) -> Run:
        """One device's training for one round."""
        ...


class Modular(Learner, Protocol):
    """One that trains sub-models of modular tasks, too."""

    def known(self, a: Announcement) -> Model:
        """The model of a modular task."""
        ...

    def profile(self, a: Announcement, device: Device, selector: Vector) -> Shares:
        """How important each module is for the device's data, from the values of the selector's blocks, end to end."""
        ...


Work = tuple[Announcement, Device, Vector]


def run_all(learner: Learner, work: Sequence[Work]) -> Sequence[Run | Exception]:
    """Train them all, together if the learner can (`runs`). What one raises is its own."""
    if together := getattr(learner, "runs", None):
        return together(work)
    out: list[Run | Exception] = []
    for w in work:
        try:
            out.append(learner.run(*w))
        except Exception as e:
            out.append(e)
    return out


class Runs:
    """Those of an edge's devices."""

    def __init__(self, devices: Sequence[Device]):
        self.devices = devices
        self.waiting: list[tuple[Device, Job]] = []
        """Who is to train what."""
        self._ahead: dict[Job, Run | Exception] = {}
        """What was trained before its time."""
        self._due: list[tuple[Device, Job, Run | Exception]] = []

    def begin(self, d: Device, job: Job) -> None:
        """Have it trained before its time."""
        self.waiting.append((d, job))

    def due(self, d: Device, job: Job) -> None:
        """Its time has come: it is trained already, or is to be."""
        if job in self._ahead:
            self._due.append((d, job, self._ahead.pop(job)))
        elif (d, job) not in self.waiting:
            self.waiting.append((d, job))

    def train(self, learner: Learner, ready: Sequence[tuple[Device, Job, Vector]], now: int) -> None:
        """Train these, each from its model."""
        if len(self._ahead) > len(self.devices):  # those that were left meanwhile
            running = {d.running for d in self.devices}
            self._ahead = {job: run for job, run in self._ahead.items() if job in running}
        runs = run_all(learner, [(job.work, d, base) for d, job, base in ready])
        for (d, job, _), run in zip(ready, runs, strict=True):
            if now < job.until:
                self._ahead[job] = run
            else:
                self._due.append((d, job, run))

    def take(self) -> list[tuple[Device, Job, Run | Exception]]:
        """What is trained, its time being over, since the last call."""
        due, self._due = self._due, []
        return due
