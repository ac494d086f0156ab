"""Model versions on a topic: a flat vector out as blocks, and back from a manifest."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from schemas.blocks import Manifest, ModelBlock, Place, slices
from schemas.partitioner import shard_of
from schemas.topics import Topic
from schemas.wire import Malformed, checksum, decode
from streams.processor import Fetch, Requests, Send, send

Vector = npt.NDArray[np.float32]


class Lost(RuntimeError):
    """Blocks that a manifest names are not there; the text says which."""


class Writing:
    """One version on its way to its topic: send `sends`, tell it the places, and `manifest` is there when all are.

    `where` must never have been used before: it makes the blocks' keys unique. All blocks go to the task's partition.
    """

    def __init__(
        self, to: Topic, partitions: int, task: str, version: int, where: str, vector: Vector, sizes: Sequence[int]
    ):
        self.topic, self.version = to, version
        self._places: dict[str, Place] = {}
        self.first = f"{task}/{version}/{where}/0"
        """The key of its first block: no other version has it."""
        self._missing: set[str] = set()
        self._blocks: list[tuple[str, ModelBlock]] = []
        partition = shard_of(task, partitions)
        for i, piece in enumerate(slices(tuple(sizes))):
            key, data = f"{task}/{version}/{where}/{i}", np.ascontiguousarray(vector[piece], "<f4").data.cast("B")
            self._blocks.append((key, ModelBlock(task, version, i, data)))
            self._places[key] = Place(partition, 0, key, checksum(data))
            self._missing.add(key)

    def sends(self, requests: Requests, *meaning: object) -> list[Send]:
        """The appends; each answer's meaning is (*meaning, key)."""
        out = []
        for key, block in self._blocks:
            tag = requests.new((*meaning, key))
            out.append(send(self.topic, block, key, self._places[key].partition, tag))
        self._blocks = []
        return out

    def stored(self, key: str, place: tuple[int, int]) -> bool:
        """Note where a block lies; True when all are there."""
        self._places[key] = Place(*place, key, self._places[key].checksum)
        self._missing.discard(key)
        return not self._missing

    @property
    def manifest(self) -> Manifest:
        assert not self._missing
        return Manifest(self.topic.name, self.version, tuple(self._places.values()))


def fetch(manifest: Manifest, requests: Requests, *meaning: object) -> Fetch:
    """Ask for a version's blocks."""
    return Fetch(requests.new(meaning), manifest.topic, manifest.blocks)


def assemble(manifest: Manifest, found: Mapping[str, bytes]) -> Vector:
    """The vector a manifest names, from the values fetched. Raises `Lost` where one is missing or not what was written."""
    pieces = []
    for i, place in enumerate(manifest.blocks):
        try:
            block = decode(found.get(place.key), (ModelBlock,))
        except Malformed as e:
            raise Lost(f"block {i} of {manifest.topic} version {manifest.version} ({place.key}): {e}") from None
        if len(block.data) % 4 or block.block != i or checksum(block.data) != place.checksum:
            raise Lost(
                f"block {i} of {manifest.topic} version {manifest.version} ({place.key}) is not what was written"
            )
        pieces.append(np.frombuffer(block.data, "<f4"))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
