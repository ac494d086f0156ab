"""A device's sub-models (ECLM §5.1, §6): what it asks the cloud for, what it has, and what of it it uses just now. Pure.

The cloud answers a profile with the modules that a device is to have: its candidates. Of these it uses as many as its present limits allow,
the most important first: what it must drop while memory or speed are short it takes up again when they are not, and asks nobody.

By the loss on samples that it holds back it sees that its model does not fit its data any more. Then it first adapts by itself: it
weighs its candidates anew by its present data. Only if that does not help it asks the cloud again.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Protocol

from device_sim.pace import Pace, Phone
from learning.modular.derivation import DoesNotFit, Limits, derive
from learning.modular.structure import blocks_of
from schemas.blocks import Layout
from schemas.modules import FRACTION, UNLIMITED, Choice, Modules, Profile, Shares, Structure, Submodel, complete

PATIENCE = 5_000
"""ms after which a device that hears nothing of its profile asks again."""
AGAIN = 60_000
"""ms after which a device asks again for which there was no sub-model: what it has may have changed."""


class Model(Protocol):
    """What a device knows of a task's modular model before it has any of it."""

    @property
    def layout(self) -> Layout: ...
    @property
    def structure(self) -> Structure: ...
    @property
    def selector(self) -> tuple[int, ...]:
        """The selector's blocks."""
        ...


def limits(how: Modules, structure: Structure, abilities: Mapping[str, float], pace: Pace, free: float = 1.0) -> Limits:
    """What a device has for a sub-model, `free` being the share of its memory and speed that others leave it. What it does not know of
    itself does not limit it.

    bytes    what its link moves in `transfer_s`
    memory   the share `memory` of its memory for training
    macs     multiplications of a training step that it does in `sample_ms` for each sample: its speed is that of its capacity, ms a
             sample, taken for the whole modular model's, as all its other times are. An estimate
    """
    known = pace.capacity if isinstance(pace, Phone) else None
    link = 125_000 * abilities.get("bandwidth", 0.0) or (known.bytes_s if known else 0.0)
    memory = 1e6 * abilities.get("memory", 0.0)
    whole = structure.cost(structure.whole).training_macs
    macs = whole * how.sample_ms * free / known.training_ms if known else 0.0
    return Limits(
        _limit(how.transfer_s * link),
        _limit(how.memory * memory * free),
        _limit(macs),
    )


def _limit(there: float) -> int:
    """0 stands for what is not known, or does not matter."""
    return min(UNLIMITED, max(1, int(there))) if there > 0 else UNLIMITED


def used(structure: Structure, shares: Shares, candidates: Choice, within: Limits, batch: int) -> Choice | None:
    """Which of a device's candidates it uses within its present limits: the most important of each layer, then by what they bring for
    what they take; None: not even one of each layer fits."""
    there = [
        [share / 2**FRACTION if n in mine else 0.0 for n, share in enumerate(layer)]
        for layer, mine in zip(shares, candidates, strict=True)
    ]
    try:
        return derive(structure, there, within, batch, solver=False)
    except DoesNotFit:
        return None


@dataclass
class Watch:
    """Sees that a model has drifted from a device's data: by the loss on held-back samples, of models as they come, over a `window` of runs.
    `share`: by so much it is above the best window before. 0: nobody looks."""

    window: int
    share: float
    losses: deque[float] = field(init=False)
    best: float = inf

    def __post_init__(self) -> None:
        self.losses = deque(maxlen=self.window)

    def hear(self, loss: float) -> bool | None:
        """Whether it has drifted; None: that is not to be said yet."""
        if not self.share or not isfinite(loss):
            return None
        self.losses.append(loss)
        if len(self.losses) < self.window:
            return None
        mean = sum(self.losses) / self.window
        if mean > self.best * (1 + self.share):
            self.losses.clear()  # what it does now is to be judged by itself
            return True
        self.best = min(self.best, mean)
        return False

    def forget(self) -> None:
        """It has another model: what was best with the old one does not count."""
        self.losses.clear()
        self.best = inf


@dataclass
class Own:
    """What a device has of one modular task."""

    model: Model
    how: Modules
    watch: Watch = field(init=False)
    shares: Shares = ()
    """Its modules' importance, as of its last look at its data."""
    candidates: Choice = ()
    """The modules that the cloud gave it; (): none yet."""
    asked: int = 0
    """Its questions so far."""
    heard: int = 0
    """The last of them that was answered."""
    since: int = 0
    """When it asked last (ms)."""
    waits: bool = False
    """For an answer."""
    due: int = 0
    """When it may ask (ms), if it has nothing."""
    why: str = ""
    """Why the cloud had no sub-model for it."""
    looks: bool = False
    """It is about to look at its data."""
    ask: bool = True
    """What it sees in its data is for the cloud; else for itself alone."""
    _used: tuple[tuple, Choice | None] | None = None
    """What it uses, and what that was made of."""
    tried: int = 0
    """Adaptations of its own since its model last fitted its data."""

    def __post_init__(self) -> None:
        self.watch = Watch(self.how.window, self.how.drift)

    @property
    def next(self) -> int:
        """When it is to look whether it may ask, as long as it has nothing."""
        return self.since + PATIENCE if self.waits else self.due

    def use(self, within: Limits, batch: int) -> Choice | None:
        """What it uses of its modules within its present limits; None: it has none, or they do not fit."""
        if not self.candidates:
            return None
        asked = self.candidates, self.shares, within, batch
        if self._used is None or self._used[0] != asked:
            self._used = asked, used(self.model.structure, self.shares, self.candidates, within, batch)
        return self._used[1]

    def wants(self, now: int) -> bool:
        """Whether it is to look at its data now: it has no modules, or they do not fit."""
        if self.waits and now - self.since >= PATIENCE:
            self.waits, self.due = False, now  # nobody answered
        if not self.candidates and not self.waits and now >= self.due:
            self.looks = self.ask = True
        return self.looks

    def seen(self, device: str, task: str, shares: Shares, within: Limits, batch: int, now: int) -> Profile | None:
        """It looked at its data. What it asks the cloud, if it does."""
        self.shares, self.looks = shares, False
        if not self.ask:
            return None
        self.waits, self.since, self.ask = True, now, False
        self.asked += 1
        return Profile(device, task, self.asked, shares, *within, batch)

    def answered(self, m: Submodel, now: int) -> bool:
        """The cloud's answer; False: it waits for none, or this is none that can be. A slow cloud's to an earlier question is as good:
        else who asks again before it answers would never have one."""
        if not self.waits or not self.heard < m.asked <= self.asked:
            return False
        self.heard = m.asked
        self.waits, self.why, self.tried = False, m.why, 0
        if m.choice:
            try:
                complete(self.model.structure, m.choice)
            except ValueError as e:
                self.why, self.due = str(e), now + AGAIN
                return False
            self.candidates = m.choice
            self.watch.forget()
        else:
            self.due = now + AGAIN  # with what it has, if it has anything, it goes on
        return True

    def trained(self, before: float) -> None:
        """It trained; `before`: the held-back loss of the model that it began with. It adapts by itself first, then asks."""
        match self.watch.hear(before):
            case True:
                self.looks, self.ask = True, self.tried > 0
                self.tried += 1
            case False:
                self.tried = 0

    def blocks(self, choice: Choice) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of a sub-model the blocks that it fetches, and those that it sends: the selector it does not train."""
        layout = self.model.layout
        return blocks_of(layout, choice), blocks_of(layout, choice, selector=False)


def worth_sending(how: Modules, before: float, after: float) -> bool:
    """The upload condition (§6): the held-back loss has fallen by the share `gain` at least, where the task asks for that and it is known."""
    return how.gain is None or not (isfinite(before) and isfinite(after)) or after <= before * (1 - how.gain)
