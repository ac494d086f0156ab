"""Model versions on a topic: a flat vector out as blocks, and back from a manifest."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from schemas.blocks import BESIDE, Difference, DifferenceBlock, Last, Manifest, ModelBlock, Place, checksum_of, slices
from schemas.partitioner import shard_of
from schemas.topics import GLOBAL, Topic, topic
from schemas.wire import Malformed, checksum, decode
from streams.processor import Fetch, Record, Requests, Send, send

Vector = npt.NDArray[np.float32]


class Lost(RuntimeError):
    """Blocks that a manifest names are not there; the text says which."""


class Writing:
    """One version on its way to its topic: send `sends`, tell it the places, and `manifest` is there when all are.

    `where` must never have been used before: it makes the blocks' keys unique. All blocks go to the task's partition, and so do
    `differences`: by block, the checksum of the one that it begins from, and its bytes.
    """

    def __init__(
        self,
        to: Topic,
        partitions: int,
        task: str,
        version: int,
        where: str,
        vector: Vector,
        sizes: Sequence[int],
        differences: Mapping[int, tuple[int, bytes]] = MappingProxyType({}),
    ):
        self.topic, self.version = to, version
        self._places: dict[str, Place] = {}
        self.first = f"{task}/{version}/{where}/0"
        """The key of its first block: no other version has it."""
        self._missing: set[str] = set()
        self._blocks: list[tuple[str, ModelBlock | DifferenceBlock]] = []
        self._differences: dict[str, Difference] = {}
        partition = shard_of(task, partitions)
        for i, piece in enumerate(slices(tuple(sizes))):
            key, data = f"{task}/{version}/{where}/{i}", np.ascontiguousarray(vector[piece], "<f4").data.cast("B")
            self._blocks.append((key, ModelBlock(task, version, i, data)))
            self._places[key] = Place(partition, 0, key, checksum(data))
            self._missing.add(key)
        for i, (
            base,
            short,
        ) in differences.items():  # behind the blocks, so that these lie in one stretch, and so do those
            key = f"{task}/{version}/{where}/{i}{BESIDE}"
            self._blocks.append((key, DifferenceBlock(task, version, i, base, memoryview(short))))
            self._differences[key] = Difference(0, base)
            self._missing.add(key)
        self._partition = partition

    def sends(self, requests: Requests, *meaning: object) -> list[Send]:
        """The appends; each answer's meaning is (*meaning, key)."""
        out = []
        for key, block in self._blocks:
            tag = requests.new((*meaning, key))
            out.append(send(self.topic, block, key, self._partition, tag))
        self._blocks = []
        return out

    def stored(self, key: str, place: tuple[int, int]) -> bool:
        """Note where a block lies; True when all are there."""
        if key in self._differences:
            self._differences[key] = Difference(place[1], self._differences[key].base)
        else:
            self._places[key] = Place(*place, key, self._places[key].checksum)
        self._missing.discard(key)
        return not self._missing

    @property
    def manifest(self) -> Manifest:
        assert not self._missing
        short = tuple(self._differences.get(key + BESIDE) for key in self._places) if self._differences else ()
        return Manifest(self.topic.name, self.version, tuple(self._places.values()), short)


def _keys(kept: Last) -> list[str]:
    """Of its blocks."""
    stem = kept.key.rpartition("/")[0]
    return [f"{stem}/{i}" for i in range(kept.blocks)]


def kept_places(kept: Last) -> tuple[Place, ...]:
    """Where the blocks lie that are kept of a task which is over: hints, without checksums."""
    return tuple(Place(p, first + i, key, 0) for p, first in kept.starts for i, key in enumerate(_keys(kept)))


def kept_vector(kept: Last, found: Mapping[str, bytes]) -> Vector:
    """The vector that is kept of a task which is over, from what was found of its blocks' keys. Raises `Lost` where it is not there whole,
    or not what was written."""
    pieces: dict[int, Vector] = {}
    for i, key in enumerate(_keys(kept)):
        with suppress(Malformed, ValueError):  # of other bytes than whole values
            pieces[i] = np.frombuffer(decode(found.get(key), (ModelBlock,)).data, "<f4")
    if missing := [i for i in range(kept.blocks) if i not in pieces]:
        raise Lost(f"block {missing[0]} of the last version, {kept.version}, is not there ({kept.key})")
    if checksum_of(checksum(x.data.cast("B")) for x in pieces.values()) != kept.checksum:
        raise Lost(f"the last version, {kept.version}, is not what was written ({kept.key})")
    return np.concatenate(list(pieces.values()))


def look_up(kept: Last, records: Callable[[int, int], Iterable[Record]]) -> Vector:
    """The same, from the records of `global.models` in a partition from an offset on."""
    wanted, found = set(_keys(kept)), dict[str, bytes]()
    for r in (r for start in kept.starts for r in records(*start)):
        if r.key in wanted and r.value is not None:
            found.setdefault(r.key, r.value)
    return kept_vector(kept, found)


def fetch(manifest: Manifest, requests: Requests, *meaning: object) -> Fetch:
    """Ask for a version's blocks."""
    return Fetch(requests.new(meaning), manifest.topic, manifest.blocks)


def fetch_global(namespace: str, model: Manifest | Last, requests: Requests, *meaning: object) -> Fetch:
    """The same of a global model, of a task that is over, too."""
    if isinstance(model, Manifest):
        return fetch(model, requests, *meaning)
    return Fetch(requests.new(meaning), topic(namespace, GLOBAL, "models").name, kept_places(model))


def assemble_global(model: Manifest | Last, found: Mapping[str, bytes]) -> Vector:
    """The vector of a global model, from the values fetched. Raises `Lost` where one is missing or not what was written."""
    return assemble(model, found) if isinstance(model, Manifest) else kept_vector(model, found)


def beside(manifest: Manifest, i: int) -> Place | None:
    """Where the difference lies that gives block `i`, if there is one."""
    short = manifest.differences[i] if i < len(manifest.differences) else None
    block = manifest.blocks[i]
    return Place(block.partition, short.offset, block.key + BESIDE, 0) if short else None


def assemble(manifest: Manifest, found: Mapping[str, bytes]) -> Vector:
    """The vector a manifest names, from the values fetched. Raises `Lost` where one is missing or not what was written."""
    pieces = [values(manifest, i, found.get(place.key)) for i, place in enumerate(manifest.blocks)]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def values(manifest: Manifest, i: int, found: bytes | None) -> Vector:
    """The values of block `i` of a version, from what was fetched of its place. Raises `Lost` where that is nothing, or not what was
    written."""
    place = manifest.blocks[i]
    try:
        block = decode(found, (ModelBlock,))
    except Malformed as e:
        raise Lost(f"block {i} of {manifest.topic} version {manifest.version} ({place.key}): {e}") from None
    if len(block.data) % 4 or block.block != i or checksum(block.data) != place.checksum:
        raise Lost(f"block {i} of {manifest.topic} version {manifest.version} ({place.key}) is not what was written")
    return np.frombuffer(block.data, "<f4")
