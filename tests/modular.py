"""A modular model without torch, for tests: two stages of three shrunk modules and a residual one, which devices "train" by arithmetic."""

import numpy as np

from device_sim.device import Device
from device_sim.portion import Portion
from device_sim.pseudonym import seed_of
from learning.modular.aggregation import weights_of
from learning.modular.structure import blocks_of, choice_of, cut
from schemas.blocks import Tensor, layout
from schemas.messages import Announcement
from schemas.modules import FRACTION, Cost, Modules, Shares, Structure
from schemas.task import Epochs, Rounds, TaskSpec
from schemas.wire import checksum
from tests.plane import Arithmetic, Done

MODULE = Cost(values=10, parameters=10, activations=5, macs=100)
STRUCTURE = Structure(Cost(values=20, parameters=20, activations=10, macs=200), ((*(MODULE,) * 3, Cost()),) * 2)
TENSORS = [("", 16), ("selector", 4), *((f"{i}/{n}", 10) for i in range(2) for n in range(3))]
START = np.linspace(-1, 1, sum(n for _, n in TENSORS), dtype=np.float32)
MBIT = 8e-6
"""A link that takes a byte in a second."""


class Known:
    structure = STRUCTURE
    layout = layout(tuple(Tensor(f"t{i}", (n,), owner) for i, (owner, n) in enumerate(TENSORS)))
    selector = (1,)


class Learner(Arithmetic):
    """The delta is drawn from a seed and pulls the sub-model towards zero; importance follows from who it is and the selector's values."""

    def known(self, a: Announcement) -> Known:
        return Known()

    def profile(self, a: Announcement, device: Device, selector: np.ndarray) -> Shares:
        assert selector.tobytes() == cut(START, Known.layout, Known.selector).tobytes()
        dice = np.random.default_rng(seed_of(device.id, checksum(selector.tobytes())))
        drawn = (dice.dirichlet(np.ones(len(layer))) for layer in STRUCTURE.layers)
        return tuple(tuple(max(1, int(x * 2**FRACTION)) for x in layer) for layer in drawn)

    def run(self, a: Announcement, device: Device, base: np.ndarray) -> Done:
        assert isinstance(a, Portion)
        choice, seed = choice_of(Known.layout, a.blocks), seed_of(a.seed, device.id, a.task, a.round)
        noise = np.random.default_rng(seed).standard_normal(len(START)).astype(np.float32)
        importance = [[share / 2**FRACTION for share in layer] for layer in device.own[a.task].shares]
        samples = 1 + seed % 50
        delta = 0.1 * cut(noise, Known.layout, blocks_of(Known.layout, choice)) - 0.1 * base
        return Done(delta, samples, 1.0, weights_of(Known.layout, choice, importance, samples))


def spec(devices: int, rounds: int, task: str = "toy") -> TaskSpec:
    """A task whose rounds wait for so many devices; a sub-model's bytes are those that a device's link moves in a second."""
    return TaskSpec(
        task,
        "arithmetic",
        "none",
        rounds=Rounds(devices, 1.0, devices, partial=True),
        epochs=Epochs(1, rounds),
        modules=Modules(transfer_s=1.0),
    )
