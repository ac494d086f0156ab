"""A model as the plane knows it: one flat vector, cut into blocks.

The tensors of a model, in order, flattened and laid end to end, make a float32 vector. A block is a stretch of it, at most
`BLOCK` values, so that it fits a record with every default of Kafka's: 256 KiB as int32 or float32, 512 KiB as a sum.
A block never spans two groups (a group is what may travel alone: a module, say).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate, product
from math import ceil
from typing import NamedTuple

from schemas.wire import Count, Ident, Message, Part, Slug, checksum

BLOCK = 65_536
STATISTICS = "statistics"
"""The group of tensors that are no weights: what training notes of its data, as BatchNorm's running mean and variance."""
MOST_LOSS = 10**7
"""A sample's loss is said as this many millionths at most. With at most 10^6 samples a delta, the losses of 900,000 deltas
add up within 64 bits."""


class Tensor(Part, frozen=True):
    """One tensor of a model; `group` names what travels together."""

    name: Ident
    shape: tuple[Count, ...]
    group: str = ""

    @property
    def size(self) -> int:
        n = 1
        for d in self.shape:
            n *= d
        return n


class Layout(Part, frozen=True):
    """The tensors of a model and the sizes (in values) of the blocks that cover them."""

    tensors: tuple[Tensor, ...]
    sizes: tuple[Count, ...]

    def __post_init__(self) -> None:
        if sum(self.sizes) != sum(t.size for t in self.tensors):
            raise ValueError("the blocks do not cover the tensors")
        if not self.sizes:
            raise ValueError("a model has at least one value")
        if any(not 0 < n <= BLOCK for n in self.sizes):
            raise ValueError(f"a block holds 1 to {BLOCK} values")

    @property
    def plain(self) -> frozenset[int]:
        """The blocks that hold statistics alone: they take the plain mean, whatever the server optimiser does to weights."""
        ends, weights, at = list(accumulate(self.sizes)), set[int](), 0
        for t in self.tensors:
            if t.size and t.group != STATISTICS:
                weights |= set(range(bisect_right(ends, at), bisect_left(ends, at + t.size) + 1))
            at += t.size
        return frozenset(range(len(ends))) - weights


def layout(tensors: tuple[Tensor, ...], block: int = BLOCK) -> Layout:
    """Cut tensors into blocks: groups apart, each group in blocks of `block` values and a last shorter one."""
    sizes: list[int] = []
    left, group = 0, None
    for t in tensors:
        n = t.size
        if t.group != group:
            left, group = 0, t.group
        while n:
            if not left:
                sizes.append(0)
                left = block
            take = min(left, n)
            sizes[-1] += take
            left -= take
            n -= take
    return Layout(tensors=tensors, sizes=tuple(sizes))


@lru_cache(maxsize=256)
def slices(sizes: tuple[int, ...]) -> tuple[slice, ...]:
    """Where each block lies in the flat vector."""
    out, at = [], 0
    for n in sizes:
        out.append(slice(at, at + n))
        at += n
    return tuple(out)


class Codec(NamedTuple):
    """How a delta block's integers are written: `bits` of each, whether only the largest are there, whether zstd packs them.
    `learning/codecs.py` says what the bytes are."""

    name: str
    bits: int
    sparse: bool
    packed: bool

    def size(self, n: int, keep: float) -> int:
        """Bytes of a block of `n` values of which the share `keep` is sent, before zstd."""
        return (self.bits // 8 + 2 * self.sparse) * ceil(keep * n)  # a step between two positions takes two


CODECS = {
    (name := "top-k+" * sparse + f"int{bits}" + "+zstd" * packed): Codec(name, bits, sparse, packed)
    for sparse, packed, bits in product((False, True), (False, True), (32, 16, 8))
}
"""Every codec by its name: `[top-k+]int{32,16,8}[+zstd]`."""


def codec(name: str) -> Codec:
    """The codec of that name. Raises `ValueError`, naming those that are."""
    if name not in CODECS:
        raise ValueError(f"codec {name} is not known; known: {', '.join(CODECS)}")
    return CODECS[name]


class Place(Part, frozen=True):
    """Where a block lies: partition and offset as acknowledged (a hint), a key that is unique, a checksum of its data."""

    partition: Count
    offset: Count
    key: Ident
    checksum: Count


class Difference(Part, frozen=True):
    """A block may be made from another one, which has the checksum `base`: `learning/differences.py` says how. It lies beside the
    block, in its partition, under its key and `BESIDE`; `offset` is a hint. It has no checksum: what it makes has the block's, or
    is not it."""

    offset: Count
    base: Count


BESIDE = "/difference"


class Manifest(Part, frozen=True):
    """A version of a model: one place for each block. `differences`: for each block a shorter way to it from the version before, or
    None; () if there is none at all. Nobody needs them."""

    topic: Ident
    version: Count
    blocks: tuple[Place, ...]
    differences: tuple[Difference | None, ...] = ()


class Last(Part, frozen=True, array_like=True):
    """Where the last model of a task that is over lies in `global.models`: as much as finds its blocks and knows them, and no more however
    many there are. `key` is that of its first block; `starts`: (partition, offset) of the first in each partition that has some;
    `checksum`: of the checksums of all blocks in order (8 bytes each, little-endian)."""

    version: Count
    blocks: Count
    key: Ident
    starts: tuple[tuple[Count, Count], ...]
    checksum: Count


def last(m: Manifest) -> Last:
    """What of a manifest is kept for good."""
    starts: dict[int, int] = {}
    for p in m.blocks:
        starts[p.partition] = min(p.offset, starts.get(p.partition, p.offset))
    key = m.blocks[0].key if m.blocks else m.topic
    return Last(m.version, len(m.blocks), key, tuple(sorted(starts.items())), checksum_of(p.checksum for p in m.blocks))


def checksum_of(checksums: Iterable[int]) -> int:
    """One for many."""
    return checksum(b"".join(x.to_bytes(8, "little") for x in checksums))


class ModelBlock(Message, frozen=True):
    """`<zone>.models`, `global.models`: float32 values of one block of one version."""

    task: str
    version: Count
    block: Count
    data: memoryview


class DifferenceBlock(Message, frozen=True):
    """`<zone>.models`, `global.models`: what makes one block of one version from the block that has the checksum `base`."""

    task: str
    version: Count
    block: Count
    base: Count
    data: memoryview


class DeltaBlock(Message, frozen=True):
    """`<zone>.deltas.<task>`: one block of a device's weighted delta, w·δ, as integers.

    An integer i in `data`, which is written as `codec` says, stands for i · 2^(exponent + unit), `unit` as `Opened` says;
    exponent ≥ 0. `weight` is w, which may be another in each block. `samples` and `loss` (the loss sum over the run's samples, in
    millionths) belong to the whole delta and are the same in all its blocks.
    """

    task: Slug
    round: Count
    slot: Count
    device: Ident
    block: Count
    codec: Ident
    exponent: Count
    weight: Count
    samples: Count
    loss: Count
    data: memoryview


class SumBlock(Message, frozen=True):
    """`<zone>.partials`: int64 sums of one block, in units of 2^unit."""

    task: str
    round: Count
    block: Count
    data: memoryview


class Counted(Message, frozen=True):
    """`<zone>.partials`: which (slot, block) of which base round a commit counted; bits packed, slots × blocks, row by row."""

    task: str
    round: Count
    blocks: Count
    bits: dict[Count, bytes]


class FoldBlock(Message, frozen=True):
    """`checkpoints`: a piece of the fold of a ledger's records below `offset`; the pieces in order are its canonical bytes."""

    ledger: Ident
    offset: Count
    block: Count
    data: memoryview
