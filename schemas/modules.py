"""Modular models on the wire (ECLM): how a task's model is made modular, what its parts cost, and a device's sub-model as it is asked for
and answered. Whole numbers throughout, so that the same question has the same answer everywhere.
"""

from typing import Annotated

import msgspec

from schemas.wire import YEAR, Count, Ident, Message, Part, Slug

FRACTION = 10
"""Importance travels, and weighs, as whole numbers of 2^-10: the importance 1 is 1024, and 1/16 is known to 1/128 of it. Under a task's
default limits a value of a module that is all to a device may so move by 64 in a run: running variances move by several."""
UNLIMITED = 2**60
"""Of a limit that does not matter."""

Choice = tuple[tuple[Count, ...], ...]
"""The modules of a sub-model: of each layer their numbers, ascending. `complete` says what a choice must have."""
Share = Annotated[int, msgspec.Meta(ge=0, le=2**FRACTION)]
Shares = tuple[tuple[Share, ...], ...]
"""Of each layer its modules' importance for a device (ECLM §5.1), in units of 2^-`FRACTION`."""
Limit = Annotated[int, msgspec.Meta(ge=0, le=UNLIMITED)]


# ------------------------------------------------------------------ what a model is made of


class Cost(Part, frozen=True):
    """Of a module, of what is shared, or of a sub-model: whole numbers, `activations` and `macs` for one sample.

    `values`: float32 values that travel, parameters and running statistics. `activations`: values that training keeps for its
    way back, an estimate: what comes out of layers that have weights. `macs`: multiplications of one pass forward.
    """

    values: Count = 0
    parameters: Count = 0
    activations: Count = 0
    macs: Count = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.values + other.values,
            self.parameters + other.parameters,
            self.activations + other.activations,
            self.macs + other.macs,
        )

    @property
    def bytes(self) -> int:
        """What one transfer takes, uncompressed [bytes]."""
        return 4 * self.values

    def memory(self, batch: int) -> int:
        """What training with momentum takes [bytes]: weights, gradients, momentum, and the activations of a batch."""
        return 4 * (3 * self.parameters + batch * self.activations)

    @property
    def training_macs(self) -> int:
        """Multiplications of one training step, for each sample: the way back counts twice the way forward."""
        return 3 * self.macs


class Structure(Part, frozen=True):
    """The costs of the shared part with its selector (without what only the offline stage needs), and of each layer's modules, the
    residual one last."""

    shared: Cost
    layers: tuple[tuple[Cost, ...], ...]

    def __post_init__(self) -> None:
        if not self.layers or any(len(layer) < 2 for layer in self.layers):
            raise ValueError("a modular model has a layer at least, and a layer a shrunk module and the residual one")

    @property
    def whole(self) -> Choice:
        """All modules: the cloud's model."""
        return tuple(tuple(range(len(layer))) for layer in self.layers)

    def cost(self, choice: Choice) -> Cost:
        """Of a sub-model: the sum of its parts (ECLM §5.1). Raises `ValueError` for a choice that cannot be."""
        complete(self, choice)
        total = self.shared
        for layer, chosen in zip(self.layers, choice, strict=True):
            for n in chosen:
                total += layer[n]
        return total


def complete(structure: Structure, choice: Choice) -> None:
    """Raises `ValueError`, in words, unless of each layer there are modules that it has, each once and ascending, the residual one
    and a shrunk one at least."""
    if len(choice) != len(structure.layers):
        raise ValueError(f"a choice of {len(choice)} layers for a model of {len(structure.layers)} module layers")
    for i, (layer, chosen) in enumerate(zip(structure.layers, choice, strict=True)):
        residual = len(layer) - 1
        if list(chosen) != sorted(set(chosen)) or not all(0 <= n <= residual for n in chosen):
            raise ValueError(f"layer {i} has modules 0 to {residual}; chosen are {chosen}, to be ascending, each once")
        if residual not in chosen or len(chosen) < 2:
            raise ValueError(
                f"of layer {i} a shrunk module and the residual one, {residual}, are needed; chosen are {chosen}"
            )


# ------------------------------------------------------------------ what a tenant asks for


class Modules(Part, frozen=True):
    """A task whose model is modular (`docs/modular.md`), and each device's part of it.

    How the model is made modular, by default as `learning/modular/forms.py` has it for the task's model: `modules` of a layer, the
    residual one among them, how much narrower they are (`ratio`), of how many (`k`) a sample makes use, how many of the last stages
    (`last`; 0: all), whether modules have a `norm` by batch or by group, whether `hidden` layers are stages each or a run of them is one.

    What a sub-model may be: one transfer takes a device's link `transfer_s` at most, one training step for each sample the device
    `sample_ms` (0: whatever it takes); training takes the share `memory` of what it has free.
    """

    modules: Annotated[int, msgspec.Meta(ge=2, le=1024)] | None = None
    ratio: Annotated[float, msgspec.Meta(ge=1, le=1024)] | None = None
    k: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    last: Annotated[int, msgspec.Meta(ge=0, le=1024)] | None = None
    norm: str | None = None
    hidden: str | None = None
    transfer_s: Annotated[float, msgspec.Meta(ge=0, le=YEAR)] = 0.0
    sample_ms: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    memory: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    drift: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 0.25
    """A device's model has drifted from its data when the held-back loss, over a `window` of runs, is above the best one before by more than this
    share (0: nobody looks)."""
    window: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 3
    """Runs whose held-back losses are averaged."""
    gain: Annotated[float, msgspec.Meta(ge=-1e6, le=1)] | None = None
    """A device sends what it learned only if the held-back loss fell by this share at least. None: always."""

    def __post_init__(self) -> None:
        if self.norm not in (None, "batch", "group"):
            raise ValueError(f"modules.norm is batch or group, not {self.norm!r}")
        if self.hidden not in (None, "each", "run"):
            raise ValueError(f"modules.hidden is each or run, not {self.hidden!r}")
        if self.k is not None and self.modules is not None and self.k > self.modules:
            raise ValueError(f"modules.k ({self.k}) is more than a layer's modules.modules ({self.modules})")


# ------------------------------------------------------------------ a device's question, and the answer


class Profile(Message, frozen=True):
    """`<zone>.profiles`: which sub-model of a task a device is to have (ECLM §5.1): how important each module is for its data, and what it
    has at most for it. `bytes` of one transfer, bytes of `memory` to train in by batches of `batch`, multiplications (`macs`) of a
    training step for each sample. `asked` counts its questions of a task."""

    device: Ident
    task: Slug
    asked: Count
    importance: Shares
    bytes: Limit = UNLIMITED
    memory: Limit = UNLIMITED
    macs: Limit = UNLIMITED
    batch: Annotated[int, msgspec.Meta(ge=1, le=10**9)] = 16


class Submodel(Message, frozen=True):
    """`<zone>.submodels`: the answer to a device's question number `asked`, the `profile` at that offset of the partition with the same number: the modules to fetch, or `why`
    there is no sub-model for it. The answers to all profiles `below` have landed before this one."""

    device: Ident
    task: Slug
    asked: Count
    profile: Count
    below: Count
    choice: Choice = ()
    why: str = ""
