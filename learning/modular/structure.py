"""What a modular model is made of, as the plane sees it: costs, names and blocks. No torch.

A modular model (ECLM §4) has module layers of N modules each: N-1 shrunk ones and, last, a residual one without parameters. All
else is its shared part. A sub-model has a choice of the modules, and the shared part whole.

In the model's vector each module is a stretch of its own, so a device can fetch and send just its modules:

    shared weights, shared statistics, selector, noise, module 0 of layer 0 (weights, statistics), module 1 of layer 0, …

A tensor's group says whose it is: `SHARED`, `SELECTOR`, `NOISE`, or `group(layer, n)`. Running statistics keep the group
`STATISTICS` that the server optimiser goes by, and belong to whose weights stand before them. `schemas.blocks.layout` starts a
block at each change of group, so a block has one owner. `NOISE` serves the offline stage alone: no device is sent it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.blocks import STATISTICS, Layout, slices
from schemas.sets import bitmap

Float32 = npt.NDArray[np.float32]

SHARED, SELECTOR, NOISE = "", "selector", "noise"

Choice = tuple[tuple[int, ...], ...]
"""The modules of a sub-model: of each layer their numbers, ascending. `complete` says what a choice must have."""


@dataclass(frozen=True)
class Cost:
    """Of a module, of what is shared, or of a sub-model: whole numbers, `activations` and `macs` for one sample.

    `values`: float32 values that travel, parameters and running statistics. `activations`: values that training keeps for its
    way back, an estimate: what comes out of layers that have weights. `macs`: multiplications of one pass forward.
    """

    values: int = 0
    parameters: int = 0
    activations: int = 0
    macs: int = 0

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


@dataclass(frozen=True)
class Structure:
    """The costs of the shared part with its selector (without `NOISE`), and of each layer's modules, the residual one last."""

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


# ------------------------------------------------------------------ blocks


def group(layer: int, n: int) -> str:
    """The name of module n of a layer, as its tensors' group says it: "0/3"."""
    return f"{layer}/{n}"


@lru_cache(maxsize=64)
def owners(layout: Layout) -> tuple[str, ...]:
    """Whose each block is: `SHARED`, `SELECTOR`, `NOISE` or a module's name. Raises `ValueError` if one is of two."""
    stretches: list[tuple[str, int]] = []
    owner = SHARED
    for t in layout.tensors:
        owner = owner if t.group == STATISTICS else t.group
        if stretches and stretches[-1][0] == owner:
            stretches[-1] = owner, stretches[-1][1] + t.size
        else:
            stretches.append((owner, t.size))
    names = [name for name, _ in stretches]
    if len(names) != len(set(names)):
        raise ValueError(f"the tensors of one owner do not stand together: {', '.join(map(repr, names))}")
    out: list[str] = []
    left, at = dict(stretches), 0
    for size in layout.sizes:
        while at < len(names) and not left[names[at]]:
            at += 1
        if size > left[names[at]]:
            raise ValueError(f"block {len(out)} holds values of {names[at]!r} and of what comes after it")
        left[names[at]] -= size
        out.append(names[at])
    return tuple(out)


def blocks_of(layout: Layout, choice: Choice, selector: bool = True) -> tuple[int, ...]:
    """The blocks of a sub-model, ascending: what a device fetches; without the `selector` what it sends while that is frozen.

    `layout` is the whole model's. Raises `ValueError` if it has other layers, or not these modules.
    """
    names = owners(layout)
    shrunk = Counter(int(name.split("/")[0]) for name in set(names) if "/" in name)
    if set(shrunk) != set(range(len(choice))):
        raise ValueError(f"a choice of {len(choice)} layers for a model of {len(shrunk)} module layers")
    wanted = {group(i, n) for i, chosen in enumerate(choice) for n in chosen if n != shrunk[i]}  # residual: no blocks
    if strangers := wanted - set(names):
        raise ValueError(f"the model has no modules {', '.join(sorted(strangers))}")
    wanted |= {SHARED, SELECTOR} if selector else {SHARED}
    return tuple(b for b, name in enumerate(names) if name in wanted)


class Masks(NamedTuple):
    """What of a model goes whole. Sets of blocks are the numbers that `schemas/sets.py`'s are, the first byte the highest."""

    names: tuple[str, ...] = ()
    """By block its owner."""
    of: Mapping[str, int] = {}
    """By owner its blocks."""
    inner: int = 0
    """The blocks that have one of the same owner before them: an owner's stand together, so one is cut where such two differ."""


def masks(layout: Layout) -> Masks:
    """What of a model goes whole. Raises `ValueError` as `owners` does."""
    names = owners(layout)
    of: dict[str, list[int]] = {}
    for b, name in enumerate(names):
        of.setdefault(name, []).append(b)
    inner = [b for b, pair in enumerate(pairwise(names), 1) if pair[0] == pair[1]]
    whole = {name: int.from_bytes(bitmap(blocks, len(names))) for name, blocks in of.items()}
    return Masks(names, whole, int.from_bytes(bitmap(inner, len(names))))


def objection(masks: Masks, blocks: bytes) -> str:
    """Why a device cannot train just this set of blocks, or "": modules go whole, and the shared part with all of them. A model in which
    nothing has an owner of its own may be cut anywhere. `masks` are its own. Every registration is asked that: it takes the same few
    steps, however many modules there are."""
    if masks.of.keys() <= {SHARED} or not blocks:
        return ""
    mine, shared = int.from_bytes(blocks), masks.of.get(SHARED, 0)
    if mine & shared != shared:
        owner, name = SHARED, "the shared part"
    elif cut := (mine ^ (mine >> 1)) & masks.inner:
        owner = masks.names[8 * len(blocks) - cut.bit_length()]
        name = f"module {owner}"
    else:
        return ""
    mask = masks.of[owner]
    return (
        f"{name} has {mask.bit_count()} blocks, and only {(mine & mask).bit_count()} of them are named: it goes whole"
    )


def cut(vector: Float32, layout: Layout, blocks: Sequence[int]) -> Float32:
    """These blocks of a vector (n,), end to end. A sub-model's vector is that of its blocks."""
    pieces = slices(layout.sizes)
    return np.concatenate([vector[pieces[b]] for b in blocks])


def paste(vector: Float32, layout: Layout, blocks: Sequence[int], part: Float32) -> Float32:
    """The vector (n,) with these blocks from `part`, where they lie end to end; a new array. Raises `ValueError` if it is another
    length."""
    pieces, out, at = slices(layout.sizes), vector.copy(), 0
    if part.shape != (wanted := (sum(layout.sizes[b] for b in blocks),)):
        raise ValueError(f"{len(blocks)} blocks have {wanted[0]} values, the part has shape {part.shape}")
    for b in blocks:
        out[pieces[b]] = part[at : at + layout.sizes[b]]
        at += layout.sizes[b]
    return out
