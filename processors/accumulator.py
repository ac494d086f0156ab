"""What an aggregator has in hand: the sum over a stretch of its shards, and which blocks were counted before."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from learning.aggregation import staleness_factor
from learning.codecs import Values, read_values
from schemas.blocks import Counted, DeltaBlock, Place, SumBlock, codec, slices
from schemas.facts import Committed, Counts, Done, Held, Opened, Stretch
from schemas.messages import Receipt
from schemas.wire import Malformed, checksum, decode, encode
from streams.ledger import ZoneTask


class Bitmap:
    """Which (slot, block) of one base round are counted; grows with the slots."""

    def __init__(self, blocks: int, bits: npt.NDArray[np.bool_] | None = None):
        self.bits = np.zeros((8, blocks), np.bool_) if bits is None else bits
        self.sums: list[int] = self.bits.sum(axis=1).tolist()
        """By slot, how many blocks."""

    def has(self, slot: int, block: int) -> bool:
        return slot < len(self.bits) and block < self.bits.shape[1] and bool(self.bits[slot, block])

    def count(self, slot: int) -> int:
        return self.sums[slot] if slot < len(self.sums) else 0

    def set(self, slot: int, block: int) -> None:
        """Note a block that was not there."""
        self._hold(slot + 1)
        self.bits[slot, block] = True
        self.sums[slot] += 1

    def merge(self, other: "Bitmap") -> None:
        self._hold(len(other.bits))
        self.bits[: len(other.bits)] |= other.bits
        self.sums = self.bits.sum(axis=1).tolist()

    def _hold(self, slots: int) -> None:
        if slots > len(self.bits):
            more = np.zeros((max(slots, 2 * len(self.bits)), self.bits.shape[1]), np.bool_)
            more[: len(self.bits)] = self.bits
            self.sums += [0] * (len(more) - len(self.bits))
            self.bits = more

    def pack(self) -> bytes:
        """As it travels: up to the last slot that has anything."""
        used = np.flatnonzero(self.bits.any(axis=1))
        return np.packbits(self.bits[: used[-1] + 1 if len(used) else 0]).tobytes()

    @classmethod
    def unpack(cls, packed: bytes, blocks: int) -> "Bitmap":
        flat = np.unpackbits(np.frombuffer(packed, np.uint8)).astype(np.bool_)
        return cls(blocks, flat[: len(flat) // blocks * blocks].reshape(-1, blocks))


@dataclass
class Bitmaps:
    """The bitmaps of a task's accepted commits, as far as they are loaded, by base round."""

    known: dict[int, Bitmap] = field(default_factory=dict)
    loaded: set[int] = field(default_factory=set)
    """The ledger offsets of those commits."""
    unloaded: dict[int, Committed] = field(default_factory=dict)
    """Commits whose bitmaps are on their way: their shards wait."""

    def wanted(self, t: ZoneTask, shards: Iterable[int]) -> list[int]:
        """The commits over these shards whose bitmaps are still to be fetched. Forgets rounds no block to come can name."""
        for n in [n for n in self.known if n not in t.rounds]:
            del self.known[n]
        mine = set(shards)
        commits = {c.offset: c.fact for r in t.rounds.values() for c in r.commits if c.fact.bitmap and not c.lost}
        self.loaded &= commits.keys()
        self.unloaded = {
            offset: fact
            for offset, fact in commits.items()
            if offset not in self.loaded and not mine.isdisjoint(fact.stretches)
        }
        return list(self.unloaded)

    def note(self, offset: int, fact: Committed, shards: Iterable[int]) -> bool:
        """Another's commit was accepted: whether its bitmap is to be fetched."""
        if fact.bitmap is None or offset in self.loaded or set(shards).isdisjoint(fact.stretches):
            return False
        self.unloaded[offset] = fact
        return True

    def missing(self, shard: int) -> bool:
        """Whether a bitmap is on its way without which this shard's blocks cannot be judged."""
        return any(shard in fact.stretches for fact in self.unloaded.values())

    def load(self, offset: int, found: Mapping[str, bytes]) -> bool:
        """Take a bitmap that was fetched; False if it is not what was written."""
        place = self.unloaded[offset].bitmap
        try:
            counted = decode(found.get(place.key) if place else None, (Counted,))
        except Malformed:
            return False
        if place is None or checksum(encode(counted.bits)) != place.checksum:
            return False
        del self.unloaded[offset]
        self.learn(offset, {n: Bitmap.unpack(packed, counted.blocks) for n, packed in counted.bits.items()})
        return True

    def do_without(self, offset: int) -> None:
        """It is gone, and none of its blocks can count any more: what comes again of them is late, if not known to be a duplicate."""
        del self.unloaded[offset]
        self.loaded.add(offset)

    def learn(self, offset: int, counted: Mapping[int, Bitmap]) -> None:
        """What the commit at this offset counted is known from now on."""
        for base, bitmap in counted.items():
            self.known.setdefault(base, Bitmap(bitmap.bits.shape[1])).merge(bitmap)
        self.loaded.add(offset)


class Told(NamedTuple):
    """What one receipt says of the blocks that it lists."""

    device: str
    task: str
    round: int
    slot: int
    outcome: str


@dataclass
class Accumulator:
    """The sum over a stretch of some shards, for one round of one task.

    From `seal` on nothing more goes in: sum and bitmap are on their way to the partials (`unstored` of them are not
    acknowledged), then the fact on its way to the ledger.
    """

    round: int
    started: int
    ranges: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """shard -> (token, from, next)"""
    counts: dict[str, int] = field(default_factory=dict)
    total: npt.NDArray[np.int64] | None = None
    sizes: tuple[int, ...] = ()
    weights: list[int] = field(default_factory=list)
    bitmaps: dict[int, Bitmap] = field(default_factory=dict)
    """By base round, what is counted here."""
    done: list[Done] = field(default_factory=list)
    whole: set[int] = field(default_factory=set)
    """The slots of this very round that are done here."""
    held: dict[int, dict[int, Held]] = field(default_factory=dict)
    """By shard and offset, blocks of the stretches that wait for the rest of their delta."""
    released: dict[int, list[int]] = field(default_factory=dict)
    """By shard, offsets that earlier commits held and that have their outcome here."""
    voided: list[Done] = field(default_factory=list)
    cursor: int = 0
    """The first slot of the round that was not done when it was last looked."""
    samples: int = 0
    loss: int = 0
    bytes: int = 0
    """Of the blocks that are in the sum."""
    told: dict[Told, tuple[list[int], list[int]]] = field(default_factory=dict)
    """Blocks and offsets of each receipt; sent when the commit is accepted."""
    outcomes: int = 0
    """How many of them."""
    places: dict[str, Place] = field(default_factory=dict)
    """By name ("bits", or the block's number) where the pieces lie, once they are stored."""
    unstored: int = 0
    pieces: dict[str, Place] = field(default_factory=dict)
    """Those of them that are not handed out yet, by name."""
    fact: Committed | None = None
    sent: int = 0

    def cover(self, shard: int, token: int, offset: int) -> None:
        """The block at this offset is dealt with here."""
        token, start, _ = self.ranges.get(shard, (token, offset, 0))
        self.ranges[shard] = token, start, offset + 1

    def tally(self, outcome: str) -> None:
        self.counts[outcome] = self.counts.get(outcome, 0) + 1

    def tell(self, what: Told, block: int, offset: int) -> None:
        """A receipt is to say that of this block."""
        blocks, offsets = self.told.setdefault(what, ([], []))
        blocks.append(block)
        offsets.append(offset)
        self.outcomes += 1

    def receipts(self) -> Iterator[Receipt]:
        return (Receipt(*what, tuple(blocks), tuple(offsets)) for what, (blocks, offsets) in self.told.items())

    def hold(self, shard: int, held: Held) -> None:
        self.held.setdefault(shard, {})[held.offset] = held

    def release(self, shard: int, offset: int) -> None:
        """A held block has its outcome now."""
        if self.held.get(shard, {}).pop(offset, None) is None:
            self.released.setdefault(shard, []).append(offset)

    def count(self, b: DeltaBlock, o: Opened, values: Values | None = None) -> None:
        """Add a block that counts, whose values are at hand or still to be unpacked; `o` opened the round it is based on, and
        its weight falls with its age."""
        if self.total is None:
            self.sizes = o.sizes
            self.total, self.weights = np.zeros(sum(o.sizes), np.int64), [0] * len(o.sizes)
        values = values or read_values(codec(b.codec), b.data, o.sizes[b.block])
        factor = staleness_factor(self.round - b.round, o.fraction)
        values.add(self.total[slices(o.sizes)[b.block]], b.exponent, factor)
        self.weights[b.block] += b.weight
        self.bytes += len(b.data)
        if b.round not in self.bitmaps:
            self.bitmaps[b.round] = Bitmap(len(o.sizes))
        self.bitmaps[b.round].set(b.slot, b.block)

    @property
    def entries(self) -> int:
        """How long the lists of its commit are: the fact must fit a record."""
        waiting = (*self.held.values(), *self.released.values())
        return len(self.done) + len(self.voided) + sum(map(len, waiting))

    def complete(self, b: DeltaBlock) -> None:
        """With this block its delta is whole: the run's samples and loss count."""
        self.done.append(Done(round=b.round, slot=b.slot))
        if b.round == self.round:
            self.whole.add(b.slot)
        self.samples += b.samples
        self.loss += b.loss

    def seal(self, where: str, first: int, partitions: int) -> None:
        """Nothing more goes in: `pieces` are to be stored, in these partitions from `first` on, side by side, as many as a
        request takes. `where` was never used before. Nothing counted, nothing to store."""
        if self.total is not None:
            self.pieces = {"bits": Place(first, 0, f"{where}/bits", 0)} | {
                str(i): Place((first + 1 + i) % partitions, 0, f"{where}/{i}", 0)
                for i, weight in enumerate(self.weights)
                if weight
            }
            self.unstored = len(self.pieces)

    def hand_out(self, task: str, most: int) -> Iterator[tuple[Place, Counted | SumBlock]]:
        """The next pieces and where they go. Each is made only now: memory."""
        message: Counted | SumBlock
        for name in list(islice(self.pieces, most)):
            place = self.pieces.pop(name)
            if name == "bits":
                bits = {n: bitmap.pack() for n, bitmap in self.bitmaps.items()}
                check, message = checksum(encode(bits)), Counted(task, self.round, len(self.sizes), bits)
            else:
                assert self.total is not None
                data = self.total[slices(self.sizes)[int(name)]].astype("<i8", copy=False).data.cast("B")
                check, message = checksum(data), SumBlock(task, self.round, int(name), data)
            self.places[name] = Place(place.partition, 0, place.key, check)
            yield place, message

    def stored(self, key: str, place: tuple[int, int]) -> bool:
        """Note where a piece lies; False if it is none of this accumulator's."""
        name = key.rsplit("/", 1)[-1]
        if name not in self.places or self.places[name].key != key:
            return False
        self.places[name] = Place(*place, key, self.places[name].checksum)
        self.unstored -= 1
        if not self.unstored:
            self.total = None  # it lies in the partials now
        return True

    def committed(self, task: str) -> Committed:
        """The fact to append, the same each time."""
        self.fact = self.fact or Committed(
            task=task,
            round=self.round,
            stretches={s: Stretch(*x) for s, x in sorted(self.ranges.items())},
            counts=Counts(**self.counts),
            done=tuple(self.done),
            weights=tuple(self.weights),
            samples=self.samples,
            loss=self.loss,
            bitmap=self.places.get("bits"),
            sums=tuple(self.places.get(str(i)) for i in range(len(self.weights))),
            held={s: tuple(x.values()) for s, x in sorted(self.held.items()) if x},
            released={s: tuple(x) for s, x in sorted(self.released.items())},
            voided=tuple(self.voided),
        )
        return self.fact
