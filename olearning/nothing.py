"""Simulations for the benchmark: devices that train nothing, and devices that train as little as a real task asks."""

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from device_sim.device import Device
from olearning.outcome import Result
from olearning.scenario import Loaded, Place, Scenario
from olearning.simulation import Simulation
from schemas.blocks import Layout
from schemas.messages import Announcement
from schemas.task import Epochs, Rounds, TaskSpec, Training

Vector = npt.NDArray[np.float32]
REAL = Training(epochs=1, batch=16, learning_rate=0.1)


class Nothing:
    """A learner that trains nothing: the same run for everyone."""

    samples, loss_sum = 10, 5.0
    losses = None

    def __init__(self, size: int):
        self.delta = np.random.default_rng(0).standard_normal(size).astype(np.float32) * np.float32(0.01)

    def objection(self, a: Announcement) -> str:
        return ""

    def size(self, a: Announcement, device: Device) -> tuple[int, int]:
        return self.samples, 2

    def run(self, a: Announcement, device: Device, base: Vector) -> "Nothing":
        return self

    def runs(self, work: Sequence[object]) -> list["Nothing"]:
        return [self] * len(work)


def _loaded(devices: int, spec: TaskSpec) -> Loaded:
    scenario = Scenario(zones={"z": Place(devices=devices)}, tasks=({},), evaluate=False)
    return Loaded(scenario, (spec,), {"z": 0.0})


def _rounds(devices: int) -> Rounds:
    return Rounds(demand=devices, over_commit=1.0, minimum=devices, deadline_s=1_000, lease_s=500)


def simulate_nothing(devices: int, shape: Layout, rounds: int) -> Result:
    """One zone in which all devices take part in every round."""
    size = sum(shape.sizes)
    spec = TaskSpec(task="t", model="m", data="d", rounds=_rounds(devices), epochs=Epochs(count=1, rounds=rounds))
    made = Simulation(_loaded(devices, spec), Nothing(size), lambda s, seed: (shape, np.zeros(size, np.float32)), None)
    for _ in made.run():
        pass
    return made.result


def simulate_training(devices: int, rounds: int) -> tuple[Result, float]:
    """The digits of scikit-learn, each device with its share; and how long the bare loop takes for as many runs (s)."""
    from device_sim.data import load, share
    from device_sim.learner import TorchLearner, prepare
    from device_sim.trainer import train

    spec = TaskSpec(
        task="t",
        model="mlp",
        data="digits",
        data_args={"devices": min(devices, 100)},
        training=REAL,
        rounds=_rounds(devices),
        epochs=Epochs(count=1, rounds=rounds),
    )

    class Shared(TorchLearner):
        """More devices than shares: some have the same."""

        def size(self, a: Announcement, device: Device) -> tuple[int, int]:
            device.number %= 100
            return super().size(a, device)

    shape, vector, _ = prepare(spec, 0)
    made = Simulation(_loaded(devices, spec), Shared(), lambda s, seed: (shape, vector), None)
    for _ in made.run():
        pass
    data = load("digits", {})
    shares = [share(data, i, spec.data_args) for i in range(min(devices, 100))]
    began = time.perf_counter()
    for i in range(made.result.updates):
        x, y = shares[i % len(shares)]
        train("mlp", {}, vector, x, y, REAL, i)
    return made.result, time.perf_counter() - began
