"""Who is compared (§7.1): no adaptation, local adaptation, AdaptiveNet-like, FedAvg, HeteroFL, ECLM. One process, no Kafka: the maths alone.

All train with the same optimiser, batch and rate. On-device ways take 10 passes over a device's data once; the others rounds of 25 devices
with 3 passes each. `fetched` is the model a device has from the cloud, `adapted` what it makes of it with 3 passes over its own data. The
paper has no such column for FedAvg and HeteroFL; it is here since ECLM's devices train what they fetch.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from device_sim.pseudonym import seed_of
from device_sim.trainer import fit
from experiments.eclm import adaptive, heterofl
from experiments.eclm.adaptive import Supernet, supernet
from experiments.eclm.cloud import BATCH, RATE, Cloud
from experiments.eclm.worlds import Device, Float32, Samples, World
from learning.aggregation import merge, quantise
from learning.models import load_vector, score, to_vector
from learning.modular import model as modular
from learning.modular.aggregation import Contribution, Sums, weights_of
from learning.modular.costs import measure
from learning.modular.derivation import Limits, derive
from learning.modular.model import Modular, importance, layout_of, sub_model
from learning.modular.structure import SELECTOR, blocks_of, cut, owners, paste
from schemas.blocks import slices
from schemas.modules import Choice
from schemas.task import Training

LOCAL = Training(epochs=3, batch=16, learning_rate=RATE, optimiser="adamw")
ALONE = Training(epochs=10, batch=16, learning_rate=RATE, optimiser="adamw")
"""Of on-device ways."""
UNIT, LARGEST = -24, 2.0**17
"""Of exact sums; what no weighted delta here comes near."""


def trained(module: nn.Module, data: Samples, training: Training, *what: str | int) -> nn.Module:
    """The module, trained in place."""
    fit(module, data.x, data.y, training, seed_of(*what))
    return module


def accuracy(module: nn.Module, data: Samples) -> float:
    """On a device's test samples, 0 to 1."""
    return score(module, data.x, data.y)[0]


class Federated(Protocol):
    """A way with rounds. What a device has may differ from call to call."""

    def round(self, some: Sequence[tuple[Device, Samples]], number: int) -> int:
        """A round with these devices: bytes down and up, all together."""
        ...

    def fetched(self, device: Device, data: Samples) -> nn.Module:
        """The model this device has from the cloud now, its own copy."""
        ...

    def train(self, device: Device, module: nn.Module, data: Samples, *what: str | int) -> nn.Module:
        """Train it as in a round, in place."""
        ...


# ------------------------------------------------------------------ FedAvg


class FedAvg:
    """The original network whole, the sample-weighted mean (McMahan et al. 2017)."""

    def __init__(self, cloud: Cloud):
        self.module, self.vector = cloud.network(), cloud.plain()
        self.updates: list[Float32] = []
        """Of the last round what each device changed."""

    def round(self, some: Sequence[tuple[Device, Samples]], number: int) -> int:
        models = [to_vector(self.train(d, self.fetched(d, data), data, number, d.number)) for d, data in some]
        self.updates = [m - self.vector for m in models]
        self.vector = merge(models, [len(data) for _, data in some])
        return 2 * 4 * len(self.vector) * len(some)

    def fetched(self, device: Device, data: Samples) -> nn.Module:
        module = copy.deepcopy(self.module)
        load_vector(module, self.vector)
        return module

    def train(self, device: Device, module: nn.Module, data: Samples, *what: str | int) -> nn.Module:
        return trained(module, data, LOCAL, *what)


# ------------------------------------------------------------------ HeteroFL


class HeteroFL:
    """Nested models by width. It begins as the original network, trained on in passes over the proxy data in which each batch draws a
    rate (ours: the paper does not say how its levels are pre-trained). `masked`: with the masked loss."""

    def __init__(self, cloud: Cloud, limits: Mapping[int, Limits], masked: bool):
        s = cloud.world.subject
        self.shape, self.args, self.masked = s.shape, s.args, masked
        self.networks = {r: heterofl.static(cloud.network(**heterofl.narrowed(s.args, r))) for r in heterofl.RATES}
        names = list(heterofl.state_of(self.networks[1.0]))
        self.head = names[-2:]
        self.costs = {r: _needs(net, s.shape) for r, net in self.networks.items()}
        self.levels = {
            d.number: next(
                (
                    r
                    for r in heterofl.RATES
                    if all(a <= b for a, b in zip(self.costs[r], limits[d.number], strict=True))
                ),
                heterofl.RATES[-1],
            )
            for d in cloud.world.devices
        }
        vector = cloud.kept("heterofl", {"passes": s.passes, "batch": BATCH}, lambda: self._pretrained(cloud))
        self.state = _as_state(self.networks[1.0], vector)

    def _pretrained(self, cloud: Cloud) -> Float32:
        s, world = cloud.world.subject, cloud.world
        whole = copy.deepcopy(self.networks[1.0])
        load_vector(whole, cloud.plain())
        state = heterofl.state_of(whole)
        dice = np.random.default_rng(seed_of(world.seed, "heterofl"))
        one = Training(batch=BATCH, learning_rate=RATE, optimiser="adamw", steps=4)
        x, y = world.proxy.x, world.proxy.y
        for number in range(sum(s.passes[1:]) * max(1, len(y) // (4 * BATCH))):
            rate = float(dice.choice(heterofl.RATES))
            net = copy.deepcopy(self.networks[rate])
            heterofl.load(net, state)
            rows = dice.choice(len(y), min(len(y), 4 * BATCH), replace=False)
            with heterofl.training(net, rate, None):
                trained(net, Samples(x[rows], y[rows]), one, world.seed, "heterofl", number)
            state = heterofl.combined(state, [heterofl.state_of(net)], [None], self.head)
        return np.concatenate([v.reshape(-1) for v in state.values()])

    def round(self, some: Sequence[tuple[Device, Samples]], number: int) -> int:
        states, rows, sent = [], [], 0
        for d, data in some:
            net = copy.deepcopy(self.networks[self.levels[d.number]])
            heterofl.load(net, self.state)
            states.append(heterofl.state_of(self.train(d, net, data, number, d.number)))
            rows.append(sorted(set(data.y.tolist())))
            sent += 2 * 4 * sum(v.size for v in states[-1].values())
        self.state = heterofl.combined(self.state, states, rows, self.head)
        return sent

    def fetched(self, device: Device, data: Samples) -> nn.Module:
        net = copy.deepcopy(self.networks[self.levels[device.number]])
        heterofl.load(net, self.state)
        return self._tested(net, data)

    def train(self, device: Device, module: nn.Module, data: Samples, *what: str | int) -> nn.Module:
        with heterofl.training(
            module, self.levels[device.number], sorted(set(data.y.tolist())) if self.masked else None
        ):
            trained(module, data, LOCAL, *what)
        return self._tested(module, data)

    def _tested(self, module: nn.Module, data: Samples) -> nn.Module:
        heterofl.seen(module, data.x)
        return module


def _needs(net: nn.Module, shape: tuple[int, ...]) -> Limits:
    """What training a plain network takes, as sub-models are reckoned."""
    many = sum(p.numel() for p in net.parameters())
    activations, macs = measure(net, shape)
    return Limits(4 * many, 4 * (3 * many + LOCAL.batch * activations), 3 * macs)


def _as_state(net: nn.Module, vector: Float32) -> heterofl.State:
    state, at = {}, 0
    for name, p in net.named_parameters():
        state[name] = vector[at : at + p.numel()].reshape(p.shape)
        at += p.numel()
    return state


# ------------------------------------------------------------------ ECLM


@dataclass
class Eclm:
    """The modular model: sub-models derived for what a device has now, module-wise sums. `share`: a limit on the size of sub-models, as
    a share of all modules, in place of the devices' own."""

    cloud: Cloud
    whole: Modular
    share: float | None = None
    updates: list[dict[int, Float32]] = field(default_factory=list)
    """Of the last round what each device changed, by block."""

    def __post_init__(self) -> None:
        self.layout, self.structure = layout_of(self.whole), self.cloud.structure()
        self.vector = modular.to_vector(self.whole)
        self._choices: dict[bytes, Choice] = {}
        self._has_selector: set[int] = set()

    def limits(self, device: Device) -> Limits:
        """What the device has for a sub-model."""
        room = device.room if self.share is None else (self.share, self.share)
        return Device(device.number, device.cells, device.samples, room).limits(self.structure, LOCAL.batch)

    def choice(self, device: Device, data: Samples) -> Choice:
        """The modules for what this device has now, within its limits."""
        a, limits = importance(self.whole, data.x), self.limits(device)
        key = a.tobytes() + repr(limits).encode()
        if key not in self._choices:
            found = derive(self.structure, a.tolist(), limits, LOCAL.batch)
            there = (set(layer) for layer in self.whole.choice)  # trained without residual modules it has none
            self._choices[key] = tuple(
                tuple(n for n in chosen if n in some) for chosen, some in zip(found, there, strict=True)
            )
        return self._choices[key]

    def round(self, some: Sequence[tuple[Device, Samples]], number: int) -> int:
        return self.merge([(d, data, self.train(d, self.fetched(d, data), data, number, d.number)) for d, data in some])

    def merge(self, some: Sequence[tuple[Device, Samples, nn.Module]]) -> int:
        """Devices send what they made of the present version: bytes both ways. The selector goes to a device once."""
        sums, pieces, names, sent = Sums(self.layout), slices(self.layout.sizes), owners(self.layout), 0
        self.updates = []
        for d, data, part in some:
            assert isinstance(part, Modular)
            choice, a = part.choice, importance(self.whole, data.x).tolist()
            blocks = blocks_of(self.layout, choice)
            after = paste(self.vector, self.layout, blocks, modular.to_vector(part))
            weights = weights_of(self.layout, choice, a, len(data))
            delta = {b: (after[pieces[b]] - self.vector[pieces[b]]).astype(np.float64) for b in weights}
            values = {b: quantise(delta[b] * w, UNIT, LARGEST) for b, w in weights.items()}
            sums.add(Contribution({}, weights, values), {})
            self.updates.append({b: v.astype(np.float32) for b, v in delta.items()})
            down = [b for b in blocks if names[b] != SELECTOR or d.number not in self._has_selector]
            self._has_selector.add(d.number)
            sent += 4 * sum(self.layout.sizes[b] for b in (*down, *weights))
        self.vector = sums.model(self.vector, UNIT)
        modular.load_vector(self.whole, self.vector)
        return sent

    def fetched(self, device: Device, data: Samples) -> nn.Module:
        return sub_model(self.whole, self.choice(device, data))

    def train(self, device: Device, module: nn.Module, data: Samples, *what: str | int) -> nn.Module:
        return trained(module, data, LOCAL, *what)

    def size(self, choice: Choice) -> int:
        """Values of a sub-model."""
        return len(cut(self.vector, self.layout, blocks_of(self.layout, choice)))


# ------------------------------------------------------------------ alone


class Alone:
    """Local adaptation: the original network, 10 passes over a device's own data."""

    def __init__(self, cloud: Cloud):
        self.module = cloud.network()
        load_vector(self.module, cloud.plain())

    def fetched(self) -> nn.Module:
        return copy.deepcopy(self.module)


class Adaptive:
    """AdaptiveNet-like: the supernet of the original network, and a device's search in it."""

    def __init__(self, cloud: Cloud):
        s, world = cloud.world.subject, cloud.world
        network = cloud.network()
        load_vector(network, cloud.plain())
        self.net: Supernet = supernet(network.eval())

        def make() -> Float32:
            adaptive.train(self.net, world.proxy, sum(s.passes[1:]), BATCH, RATE, seed_of(world.seed, "supernet"))
            return to_vector(self.net)

        load_vector(self.net, cloud.kept("supernet", {"passes": s.passes}, make))
        self.net.eval()
        self.costs, self.seed = adaptive.Costs(self.net, s.shape), world.seed

    def found(self, data: Samples, limits: Limits, *what: str | int) -> nn.Module:
        """The path for a device's data within its multiplications, its own copy."""
        path = adaptive.search(self.net, self.costs, data, limits.macs // 3, seed_of(self.seed, *what)).path
        return adaptive.Chosen(self.net, path)


# ------------------------------------------------------------------ a whole run


def participants(world: World, many: int, number: int) -> list[Device]:
    """Who takes part in a round: the same in all ways."""
    dice = np.random.default_rng(seed_of(world.seed, "participants", number))
    return [
        world.devices[int(i)] for i in dice.choice(len(world.devices), min(many, len(world.devices)), replace=False)
    ]


def rounds(
    way: Federated, world: World, many: int, number: int, every: int, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """`number` rounds of `many` devices. `curve`: by rounds that are done, bytes so far and mean accuracy of what tested devices
    fetch; at the end also of what they make of it."""
    data = {d.number: world.of(d) for d in world.devices}
    tested = world.devices[: world.subject.tested]
    curve, sent = [[0, 0, fmean(accuracy(way.fetched(d, data[d.number][0]), data[d.number][1]) for d in tested)]], 0
    for r in range(1, number + 1):
        sent += way.round([(d, data[d.number][0]) for d in participants(world, many, r)], r)
        if r % every == 0 or r == number:
            now = fmean(accuracy(way.fetched(d, data[d.number][0]), data[d.number][1]) for d in tested)
            curve.append([r, sent, now])
            say(f"round {r}: {now:.3f}")
    ends = [way.train(d, way.fetched(d, data[d.number][0]), data[d.number][0], "end", d.number) for d in tested]
    adapted = fmean(accuracy(m, data[d.number][1]) for m, d in zip(ends, tested, strict=True))
    return {"curve": curve, "fetched": curve[-1][2], "adapted": adapted, "bytes": sent}


def limits_of(cloud: Cloud) -> dict[int, Limits]:
    """By device what it has, as the modular model has it."""
    structure = cloud.structure()
    return {d.number: d.limits(structure, LOCAL.batch) for d in cloud.world.devices}


def once(cloud: Cloud, make: Callable[[Device, Samples], nn.Module]) -> float:
    """Mean accuracy of what tested devices make of their own data."""
    out = []
    for d in cloud.world.devices[: cloud.world.subject.tested]:
        mine, test = cloud.world.of(d)
        with torch.random.fork_rng(devices=[]):
            out.append(accuracy(make(d, mine), test))
    return fmean(out)
