"""The offline stage, once for each seed: models trained on the proxy data, kept on disk so that a long experiment goes on where it ended.

The modular model begins as the original network that was trained first, its module layers new ("ECLM takes over an initial large cloud
model", §3); then end-to-end training and, unless it is left out, fine-tuning for its modules' abilities (§4.3).
"""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from device_sim.trainer import fit, one_thread
from experiments.eclm.worlds import BY_CELL, BY_CLASS, Float32, Subject, World
from learning.models import build, load_vector, to_vector
from learning.modular import model as modular
from learning.modular.assignment import MODULES
from learning.modular.costs import structure_of
from learning.modular.model import Modular, modularise
from learning.modular.stages import stages
from learning.modular.training import Settings, enhance, optimiser_of, plan, pretrain
from schemas.modules import Structure
from schemas.task import Training

BATCH, RATE = 64, 0.001


@dataclass(frozen=True)
class Offline:
    """How the modular model is trained. `enhanced`: with fine-tuning, else as many passes end to end. `load`: κ1 in mean loads, 0 for
    the library's own; `modules`: κ2. `subtasks`: what is one. `residual`: whether the model has its residual modules."""

    balance: float = 0.01
    guide: float = 0.1
    load: float = 0.0
    modules: int = MODULES
    enhanced: bool = True
    subtasks: str = BY_CELL
    residual: bool = True


def trainings(people: bool) -> dict[str, Offline]:
    """What is compared, by how it is said. Where cells are `people`, sub-tasks may be classes instead."""
    usual = {"enhanced": Offline(), "not enhanced": Offline(enhanced=False)}
    return usual | ({"enhanced by class": Offline(subtasks=BY_CLASS)} if people else {})


def named(how: Offline) -> dict[str, Any]:
    """Of `trainings`, as a run's settings have it."""
    return {"enhanced": how.enhanced} | ({} if how.subtasks == BY_CELL else {"subtasks": how.subtasks})


class Cloud:
    """Models of one world. `folder` keeps them; None keeps nothing."""

    def __init__(self, world: World, folder: Path | None):
        one_thread()
        self.world, self.folder = world, folder
        self._first: dict[tuple[float, bool], tuple[Modular, torch.optim.Optimizer]] = {}

    def network(self, **changed: Any) -> nn.Module:
        """The original network, untrained, with other arguments if so `changed`."""
        s = self.world.subject
        return build(s.model, s.args | changed, self.world.seed)

    def plain(self) -> Float32:
        """The original network, trained on the proxy data."""
        s, proxy = self.world.subject, self.world.proxy

        def make() -> Float32:
            network = self.network()
            fit(network, proxy.x, proxy.y, _training(s.passes[0]), self.world.seed)
            return to_vector(network)

        return self.kept("plain", {"passes": s.passes[0]}, make)

    def modular(self, how: Offline | None = None) -> Modular:
        """The modular model, trained."""
        s, how = self.world.subject, how or Offline()
        model = self._new(how)
        what = {"passes": s.passes, "form": repr(s.form), "how": repr(how)}
        modular.load_vector(model, self.kept("modular", what, lambda: self._trained(how)))
        return model.eval()

    def _new(self, how: Offline) -> Modular:
        s, network = self.world.subject, self.network()
        load_vector(network, self.plain())
        layers = stages(network, s.form.norm, s.form.last, s.form.hidden)
        shrunk = (tuple(range(s.form.modules - 1)),) * len(layers)
        return modularise(network, s.shape, s.form, None if how.residual else shrunk, seed=self.world.seed)

    def _trained(self, how: Offline) -> Float32:
        s, world, proxy = self.world.subject, self.world, self.world.proxy
        _, first, then = s.passes
        settings, t = Settings(BATCH, RATE, how.balance, how.guide), world.subtasks[how.subtasks]
        model, optimiser = self._begun(how, settings)
        if how.enhanced:
            most = how.load * (int(t.max()) + 1) / s.form.modules if how.load else None
            guide = plan(model, proxy.x, t, most, how.modules).targets
        for number in range(first, first + then):
            if how.enhanced:
                enhance(model, optimiser, proxy.x, proxy.y, t, guide, settings, world.seed, number)
            else:
                pretrain(model, optimiser, proxy.x, proxy.y, settings, world.seed, number)
        return modular.to_vector(model)

    def _begun(self, how: Offline, settings: Settings) -> tuple[Modular, torch.optim.Optimizer]:
        """Copies of model and optimiser after the passes with which trainings begin, whatever comes then."""
        key = how.balance, how.residual
        if key not in self._first:
            model, proxy = self._new(how), self.world.proxy
            optimiser = optimiser_of(model, settings)
            for number in range(self.world.subject.passes[1]):
                pretrain(model, optimiser, proxy.x, proxy.y, settings, self.world.seed, number)
            self._first[key] = model, optimiser
        return copy.deepcopy(self._first[key])

    def structure(self) -> Structure:
        """What the parts of the modular model cost."""
        s = self.world.subject
        return structure_of(modularise(self.network(), s.shape, s.form, seed=0))

    def kept(self, name: str, what: Mapping[str, Any], make: Callable[[], Float32]) -> Float32:
        """The vector of a model, from disk or made."""
        if self.folder is None:
            return make()
        s = self.world.subject
        key = {"seed": self.world.seed, "model": s.model, "args": s.args, "people": len(self.world.proxy)} | dict(what)
        mark = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        file = self.folder / f"{s.name}-{name}-{self.world.seed}-{mark}.npy"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            half = file.with_suffix(".part")
            with half.open("wb") as f:
                np.save(f, make())
            half.rename(file)
        vector: Float32 = np.load(file)
        return vector


def _training(passes: int) -> Training:
    return Training(epochs=passes, batch=BATCH, learning_rate=RATE, optimiser="adamw")


def with_form(s: Subject, **changed: Any) -> Subject:
    """The subject with another form of its modular model."""
    return replace(s, form=replace(s.form, **changed))


def parameters(module: nn.Module) -> int:
    """How many a network has."""
    return sum(p.numel() for p in module.parameters())


def seeded(module_of: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A module whose weights are drawn from `seed` alone; the process's random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return module_of()
