"""An edge's copy of models: what the devices behind it train from is read from the log once.

Blocks are known by what they hold, not by which version names them: tenant, number of values, and the checksum that the manifest
gives. So a block that training left as it was, or that the zone's and the global version share, is not fetched again. That two
blocks of a tenant that differ have the same 64 bits of xxh3 is a matter of chance: n²/2⁶⁵, for a million blocks 3 in 10⁸. But xxh3 is
no guard against someone who looks for two such blocks; so the tenant is part of the name, and nobody can have another tenant's
devices train from a block of his.

There is room for so many bytes; what was not used for longest goes first, and never what a job still waits for, so with many or
large models at work at once it may be more. Jobs that want the same block wait for one fetch; if its place does not have it, the
place that the next of them knows is asked. Where the manifest names a difference and the block it begins from is here, the
difference is fetched, and the block itself only if that does not give it.

A device that takes a part of a model (`device_sim/portion.py`) has its own blocks fetched, and no others; those that another's part or
the whole has as well are there for both.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from device_sim.portion import Portion, blocks_of, whole
from learning.differences import restore
from schemas.blocks import DifferenceBlock, Manifest, Place, slices
from schemas.messages import Announcement
from schemas.wire import Malformed, checksum, decode
from streams.models import Lost, beside, values
from streams.processor import Fetch, Requests

Vector = npt.NDArray[np.float32]
ROOM = 2**28
"""Bytes: three versions of 21 million parameters."""


class Block(NamedTuple):
    """What a block is known by."""

    tenant: str
    values: int
    checksum: int


@dataclass(frozen=True)
class Gone:
    """A version of which a block is nowhere any more: which, and why."""

    version: str
    why: str


@dataclass
class _Wanted:
    """A version, or a part of it, on its way; `blocks` by their numbers in it, `missing`: those that are not here yet."""

    version: str
    manifest: Manifest
    blocks: dict[int, Block]
    missing: set[Block]


@dataclass(frozen=True)
class _Ask:
    """Of a fetch: block `i` of a version, from its place, or by a difference from `base`."""

    block: Block
    manifest: Manifest
    i: int
    place: Place
    base: Vector | None = None


def version(a: Announcement) -> str:
    """What the model of a round is known by: a tenant's keys of blocks are unique within their topic."""
    return f"{a.tenant}/{a.base.topic}/{a.base.blocks[0].key}"


def named(a: Announcement) -> str:
    """What is trained from in a round: the version, and if it is a part of it, which."""
    return version(a) + (f" {a.name}" if isinstance(a, Portion) else "")


def contents(a: Announcement) -> tuple[Block, ...]:
    """The blocks that are trained from in a round."""
    places = a.base.blocks
    return tuple(
        Block(a.tenant, n, places[i].checksum) for i, n in zip(blocks_of(a), a.sizes, strict=True) if i < len(places)
    )


class Edge:
    """Models of one edge. `room` in bytes."""

    def __init__(self, requests: Requests, room: int = ROOM):
        self.requests, self.room = requests, room
        self.fetched = self.handed = 0
        """Bytes of records read from the log, and of models handed to devices."""
        self.held = 0
        """Bytes of the blocks that are here."""
        self._blocks: OrderedDict[Block, Vector] = OrderedDict()
        """What was used last is at the end."""
        self._vectors: WeakValueDictionary[str, Vector] = WeakValueDictionary()
        """Versions in one piece. Their blocks are views of it, so it takes no room of its own, and goes when the last of them goes."""
        self._wanted: dict[str, _Wanted] = {}
        self._flights: dict[Block, set[str]] = {}
        """Blocks that were asked for, with the keys of the places that were."""
        self._asks: dict[int, list[_Ask]] = {}
        self._asked = 0

    # ------------------------------------------------------------------ what devices train from

    def model(self, a: Announcement) -> Vector | None:
        """The round's model, or the part that is taken of it, block after block; None: not all of it is here."""
        name = named(a)
        vector, blocks = self._vectors.get(name), contents(a)
        if len(a.base.blocks) != whole(a):
            return None
        for b in blocks:
            if b in self._blocks:
                self._blocks.move_to_end(b)
            elif vector is None:
                return None
        if vector is None:
            pieces = [self._blocks[b] for b in blocks]
            vector = self._vectors[name] = np.concatenate(pieces)
            if isinstance(a, Portion):
                return vector  # there may be as many of them as devices: it goes with the last job that has it
            left = {id(x.base) for x in pieces if isinstance(x.base, np.ndarray)}
            for b, piece in zip(blocks, slices(a.sizes), strict=True):
                self._blocks[b] = vector[piece]
            for (
                b,
                x,
            ) in self._blocks.items():  # what stays of a version that gave blocks to this one would keep all of it
                if id(x.base) in left:
                    self._blocks[b] = x.copy()
        return vector

    def block(self, a: Announcement, i: int) -> Vector | None:
        """One block of the round's model, if it is here, whatever is there of the others."""
        if len(a.base.blocks) != len(a.sizes):
            return None
        b = Block(a.tenant, a.sizes[i], a.base.blocks[i].checksum)
        if (values := self._blocks.get(b)) is not None:
            self._blocks.move_to_end(b)
        return values

    def want(self, a: Announcement) -> Iterator[Fetch | Gone]:
        """Have a round's model here, or on its way."""
        name = named(a)
        if name in self._wanted or self._vectors.get(name) is not None:
            return
        if len(a.base.blocks) != whole(a):
            yield Gone(version(a), f"version {a.base.version} has {len(a.base.blocks)} blocks, and the task {whole(a)}")
            return
        blocks = dict(zip(blocks_of(a), contents(a), strict=True))
        missing = {b for b in blocks.values() if b not in self._blocks}
        if not missing:
            return
        self._wanted[name] = _Wanted(version(a), a.base, blocks, missing)
        asks = []
        for i, b in blocks.items():
            if b in missing and b not in self._flights:
                self._flights[b] = set()
                asks.append(self._ask(a.base, i, b))
        yield from self._fetch(asks)

    def trim(self, needed: Iterable[Announcement]) -> None:
        """Make room, if there is too little; blocks of these rounds stay."""
        if self.held <= self.room:
            return
        kept = {b for a in needed for b in contents(a)} | {b for w in self._wanted.values() for b in w.blocks.values()}
        for b in [b for b in self._blocks if b not in kept]:
            if self.held <= self.room:
                return
            del self._blocks[b]
            self.held -= 4 * b.values

    # ------------------------------------------------------------------ fetching

    def _ask(self, manifest: Manifest, i: int, block: Block, shortly: bool = True) -> _Ask:
        """The shortest way to a block."""
        short = manifest.differences[i] if shortly and i < len(manifest.differences) else None
        base = self._blocks.get(Block(block.tenant, block.values, short.base)) if short else None
        if base is not None and (place := beside(manifest, i)):
            return _Ask(block, manifest, i, place, base)
        self._flights[block].add(manifest.blocks[i].key)
        return _Ask(block, manifest, i, manifest.blocks[i])

    def _fetch(self, asks: list[_Ask]) -> Iterator[Fetch]:
        for topic in dict.fromkeys(ask.manifest.topic for ask in asks):
            here = [ask for ask in asks if ask.manifest.topic == topic]
            self._asked += 1
            self._asks[self._asked] = here
            yield Fetch(self.requests.new(("model", self._asked)), topic, tuple(ask.place for ask in here))

    def answer(self, number: int, found: Mapping[str, bytes]) -> Iterator[Fetch | Gone]:
        """What was fetched; `number` is of the request."""
        again: list[_Ask] = []
        for ask in self._asks.pop(number):
            value = found.get(ask.place.key)
            self.fetched += len(value or b"")
            try:
                got = _made(ask, value) if ask.base is not None else values(ask.manifest, ask.i, value)
                if got.size != ask.block.values:
                    raise Lost(f"block {ask.i} of {ask.manifest.topic} has {got.size} values, not {ask.block.values}")
            except Lost as e:
                if ask.base is not None:
                    again.append(self._ask(ask.manifest, ask.i, ask.block, shortly=False))
                elif other := self._elsewhere(ask.block):
                    again.append(other)
                else:
                    yield from self._give_up(ask.block, str(e))
            else:
                self._came(ask.block, got)
        yield from self._fetch(again)

    def _came(self, block: Block, got: Vector) -> None:
        self._flights.pop(block)
        self._blocks[block] = got
        self.held += got.nbytes
        for name, w in list(self._wanted.items()):
            w.missing.discard(block)
            if not w.missing:
                del self._wanted[name]

    def _elsewhere(self, block: Block) -> _Ask | None:
        """The same block at a place that another version names."""
        tried = self._flights[block]
        for w in self._wanted.values():
            for i, b in w.blocks.items() if block in w.missing else ():
                if b == block and w.manifest.blocks[i].key not in tried:
                    return self._ask(w.manifest, i, block, shortly=False)
        return None

    def _give_up(self, block: Block, why: str) -> Iterator[Gone]:
        self._flights.pop(block)
        gone = [name for name, w in self._wanted.items() if block in w.missing]
        versions = [self._wanted.pop(name).version for name in gone]
        yield from (Gone(v, why) for v in dict.fromkeys(versions))


def _made(ask: _Ask, value: bytes | None) -> Vector:
    """The block that a difference gives. Raises `Lost` if it is none, or gives another."""
    assert ask.base is not None
    try:
        made = restore(ask.base, decode(value, (DifferenceBlock,)).data)
    except (Malformed, ValueError) as e:
        raise Lost(str(e)) from None
    if checksum(np.ascontiguousarray(made, "<f4").data.cast("B")) != ask.block.checksum:
        raise Lost("a difference gives another block")
    return made
