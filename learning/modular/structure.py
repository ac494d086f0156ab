"""What a modular model is made of, as the plane sees it: names and blocks (what parts cost: `schemas/modules.py`). No torch.

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
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from schemas.blocks import STATISTICS, Layout, slices
from schemas.modules import Choice
from schemas.sets import bitmap

Float32 = npt.NDArray[np.float32]

SHARED, SELECTOR, NOISE = "", "selector", "noise"

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


def choice_of(layout: Layout, blocks: Sequence[int]) -> Choice:
    """The sub-model that has these blocks, with each layer's residual module, which has none. `layout` is the whole model's. Raises
    `ValueError` if the blocks are not those that are fetched for a sub-model."""
    names = owners(layout)
    shrunk = Counter(int(name.split("/")[0]) for name in set(names) if "/" in name)
    mine = {names[b] for b in blocks}
    choice = tuple((*(n for n in range(shrunk[i]) if group(i, n) in mine), shrunk[i]) for i in range(len(shrunk)))
    if tuple(blocks) != blocks_of(layout, choice):
        raise ValueError("these blocks are no sub-model's: it has whole modules, the shared part and the selector")
    return choice


def masks(layout: Layout) -> dict[str, int]:
    """By owner its blocks, as the number that a set of them is (`schemas/sets.py`, the first byte the highest). Raises `ValueError` as
    `owners` does."""
    names = owners(layout)
    of: dict[str, list[int]] = {}
    for b, name in enumerate(names):
        of.setdefault(name, []).append(b)
    return {name: int.from_bytes(bitmap(blocks, len(names))) for name, blocks in of.items()}


def objection(masks: Mapping[str, int], blocks: bytes) -> str:
    """Why a device cannot train just this set of blocks, or "": modules go whole, and the shared part with all of them. A model in which
    nothing has an owner of its own may be cut anywhere. `masks` are its own."""
    if masks.keys() <= {SHARED} or not blocks:
        return ""
    mine = int.from_bytes(blocks)
    for owner, mask in masks.items():
        if (mine & mask) not in ((0, mask) if owner != SHARED else (mask,)):
            name = f"module {owner}" if owner else "the shared part"
            return f"{name} has {mask.bit_count()} blocks, and only {(mine & mask).bit_count()} of them are named: it goes whole"
    return ""


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
