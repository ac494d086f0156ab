"""What an audit found of a round, and how it compares: each commit, the round and its model with what they must be.

Texts are for a person and name where something lies: offsets of the ledger, blocks, the first value that differs.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from typing import Any

import numpy as np
import numpy.typing as npt

from learning.aggregation import norm
from learning.optimisers import apply_sums, first_state, state_sizes
from learning.strategies import StrategyFailed
from processors.oracle import HELD, INCOMPLETE, OUTCOMES, Bits, Int64, Seen, Sum, unpack
from processors.story import Entry, Story
from schemas.blocks import Counted, Manifest, ModelBlock, Place, SumBlock, slices
from schemas.facts import Committed, Opened
from schemas.task import Server
from schemas.wire import Malformed, checksum, decode, encode

MOST = 100
"""Differences that are named; the others are counted."""
Blocks = Sequence[npt.NDArray[np.float32] | str]
"""The blocks of a version of a model, or why one is none."""


@dataclass
class Audit:
    """What an audit found. All texts are for a person, the first difference first."""

    task: str
    zone: str
    round: int
    story: Story
    ledger: str = ""
    partitions: int = 0
    owners: tuple[str, ...] = ()
    """By block of a modular model, whose it is (`learning/modular/structure.py`); () of any other."""
    differs: list[str] = field(default_factory=list)
    more: int = 0
    """Differences beyond `MOST`."""
    missing: list[str] = field(default_factory=list)
    """What could not be checked, and why."""
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    offsets: int = 0
    lost: int = 0
    """Offsets that a person gave up."""
    held: int = 0
    """Blocks that wait for the rest of their delta, while the round is not over."""
    devices: int = 0
    samples: int = 0
    loss: int = 0
    weights: list[int] = field(default_factory=list)
    commits: int = 0
    recomputed: int = 0
    """Of the commits, those whose every block was judged and added again."""
    model: bool = False
    """The finalised model was recomputed, and its bytes compared."""
    norm: float = 0.0
    seen: list[Seen] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.differs and not self.missing

    def differ(self, text: str) -> None:
        if len(self.differs) < MOST:
            self.differs.append(text)
        else:
            self.more += 1

    total: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    whole: bool = True
    """The total holds every commit's sum."""

    def begin(self) -> None:
        """The story is told; the commits come next."""
        c = self.story.chapter
        sizes = c.opened.sizes if c.opened else ()
        self.total, self.weights = np.zeros(sum(sizes), np.int64), [0] * len(sizes)
        self.commits, self.lost = len(c.commits), sum(c.gone.values())

    # ------------------------------------------------------------------ commits

    def recount(self, e: Entry, s: Sum, found: Mapping[str, bytes]) -> None:
        """A commit against what it must say, and what lies in the partials of it."""
        f, where, claimed = e.fact, self._where(e), bitmap(e, found)
        for text in (*differences(s, f), *sum_differences(s, f, self._sizes, found)):
            self.differ(f"{where}: {text}")
        if claimed is None and f.bitmap and f.bitmap.key in found:
            self.differ(f"{where}: its bitmap ({f.bitmap.key}) is not what was written")
        for text in bit_differences(s.bits, claimed) if claimed is not None else ():
            self.differ(f"{where}: {text}")
        gone = [p.key for p in (f.bitmap, *f.sums) if p and p.key not in found]
        if gone and e.offset not in self.story.chapter.lost:
            self.missing.append(
                f"{where}: {len(gone)} of its partials are gone ({gone[0]}): only checksums were compared"
            )
        self.recomputed += 1
        self._add(e, s.counts, s.total, s.weights, (len(s.done), s.samples, s.loss))

    def take(self, e: Entry, found: Mapping[str, bytes]) -> None:
        """A commit whose blocks are gone counts as it says, with the sums that lie in the partials."""
        f, where = e.fact, self._where(e)
        self.missing.append(f"{where}: its deltas are not in the log any more, so what it counted is taken as it says")
        total, weights = np.zeros_like(self.total), [0] * len(self._sizes)
        weights[: len(f.weights)] = f.weights
        for place, piece in zip(f.sums, slices(self._sizes), strict=False):
            if place is None:
                continue
            try:
                block: SumBlock = decode(found.get(place.key), (SumBlock,))
                if checksum(block.data) != place.checksum or len(block.data) != 8 * len(total[piece]):
                    raise Malformed("it is not what was written")
                total[piece] = np.frombuffer(block.data, "<i8")
            except Malformed as err:
                self.whole = False
                self.missing.append(f"{where}: its sum at {place.key} is gone, too: {err}")
        counts = {n: getattr(f.counts, n) for n in OUTCOMES}
        self._add(e, counts, total, weights, (len(f.done), f.samples, f.loss))

    def _add(
        self, e: Entry, counts: dict[str, int], total: Int64, weights: Sequence[int], figures: tuple[int, int, int]
    ) -> None:
        self.offsets += sum(x.end - x.start for x in e.fact.stretches.values())
        if e.offset in self.story.chapter.lost:  # given up: what it counted is lost
            self.lost += counts["counted"]
            counts = counts | {"counted": 0}
        else:
            self.total += total
            self.weights = [a + b for a, b in zip(self.weights, weights, strict=True)]
            self.devices, self.samples, self.loss = (
                a + b for a, b in zip((self.devices, self.samples, self.loss), figures, strict=True)
            )
        self.counts = {n: self.counts[n] + counts[n] for n in OUTCOMES}

    @property
    def _sizes(self) -> tuple[int, ...]:
        o = self.story.chapter.opened
        return o.sizes if o else ()

    def _where(self, e: Entry) -> str:
        return f"the commit at {self.ledger}@{e.offset} ({e.holder or 'holder unknown'})"

    # ------------------------------------------------------------------ the round

    def end(self, seen: Sequence[Seen]) -> None:
        """All commits are added: the round's figures, the identity, and what `Finalised` and the fold say of them."""
        c = self.story.chapter
        over, facts = c.finalised is not None, [e.fact for e in c.commits]
        waiting = sum(sum(map(len, f.held.values())) - sum(map(len, f.released.values())) for f in facts)
        self.held = 0 if over else waiting
        if over:  # a shard that is done gives up what it holds
            self.counts[INCOMPLETE] += waiting
        self.seen = [s.become(INCOMPLETE) if over and s.outcome == HELD else s for s in seen]
        offsets, outcomes = self.offsets + sum(c.gone.values()), sum(self.counts.values())
        if outcomes + self.held + self.lost != offsets:
            rest = f"{outcomes} outcomes, {self.held} held, {self.lost} lost"
            self.differ(f"{offsets} offsets, and {rest}: they must add up")
        if c.folded:  # the fold counts in a way of its own
            for name in OUTCOMES:
                if (said := getattr(c.folded.counts, name)) != self.counts[name]:
                    self.differ(f"the round: {name} must be {self.counts[name]}, the fold says {said}")
        if (f := c.finalised) is None:
            return
        summed = tuple(e.offset for e in c.commits if any(e.fact.sums) and e.offset not in c.lost)
        must: dict[str, Any] = {"commits": summed} | {n: getattr(self, n) for n in ("devices", "samples", "loss")}
        for name, value in must.items():
            if getattr(f, name) != value:
                self.differ(f"{self._final}: {name} must be {value}, the ledger says {getattr(f, name)}")
        fails = bool(c.opened and self.devices < c.opened.minimum) or not summed
        if c.opened and fails != (f.manifest is None):
            few = f"{self.devices} devices of {c.opened.minimum} needed, {len(summed)} sums"
            self.differ(f"{self._final}: it must {'not ' if fails else ''}have a model: {few}")

    @property
    def _final(self) -> str:
        return f"Finalised at {self.ledger}@{self.story.chapter.finalised_at}"

    # ------------------------------------------------------------------ the model

    def versions(self) -> dict[str, Manifest]:
        """The versions that `step` needs, by what they are; none if there is no model, or it cannot be recomputed."""
        c = self.story.chapter
        if c.finalised is None or c.opened is None or c.finalised.manifest is None:
            return {}
        if not self.whole:
            self.missing.append("the model was not recomputed: sums are missing")
            return {}
        of = {
            "base": c.opened.base,
            "model": c.finalised.manifest,
            "state": c.optimiser,
            "next state": c.finalised.optimiser,
        }
        return {name: m for name, m in of.items() if m}

    def blocks(self, name: str, manifest: Manifest, found: Mapping[str, bytes]) -> Blocks:
        """The blocks of a version, as far as they are there and can be read."""
        out = [_block(i, p, found) for i, p in enumerate(manifest.blocks)]
        for b, place in zip(out, manifest.blocks, strict=True):
            if isinstance(b, str) and place.key in found:
                self.differ(f"a block of the {name} ({place.key}): {b}")
            elif isinstance(b, str):
                self.missing.append(f"a block of the {name} is gone ({place.key})")
        return out

    def step(self, server: Server, plain: Collection[int], have: Mapping[str, Blocks]) -> None:
        """The optimiser's step from the base, compared with what was written: values, and the ledger's checksums."""
        try:
            self._step(server, plain, have)
        except StrategyFailed as e:
            self.missing.append(f"the model was not recomputed: {e}")

    def _step(self, server: Server, plain: Collection[int], have: Mapping[str, Blocks]) -> None:
        c = self.story.chapter
        assert c.opened
        assert c.finalised
        o = c.opened
        inputs = {"base": o.base, "state": c.optimiser}
        for name, manifest in inputs.items():
            for i, b in enumerate(have.get(name, ())):
                if isinstance(b, str):
                    return  # said before
                assert manifest
                if checksum(little(b)) != manifest.blocks[i].checksum:
                    self.differ(f"block {i} of the {name} ({manifest.blocks[i].key}) is not what was written")
                    return
        base = _vector(have["base"])
        state = _vector(have["state"]) if "state" in have else first_state(server, len(base))
        if server.optimiser == "fedavg" and server.settings["learning_rate"] == 1:
            new = mean_step(base, self.total, self.weights, o)
        else:
            unit = o.unit - o.fraction
            new, state = apply_sums(server, base, self.total, self.weights, o.sizes, unit, state, plain=plain)
        self._same("model", c.finalised.manifest, new, o.sizes, have["model"])
        if c.finalised.optimiser or state.size:
            sizes = state_sizes(server, len(base))
            self._same("next state", c.finalised.optimiser, state, sizes, have.get("next state", []))
        self.norm, self.model = self._mean_norm(o), True
        if not isclose(self.norm, c.finalised.norm, rel_tol=1e-9, abs_tol=1e-12):
            self.differ(f"{self._final}: norm must be {self.norm!r}, the ledger says {c.finalised.norm!r}")

    def _mean_norm(self, o: Opened) -> float:
        """Of the devices' mean delta, as one vector."""
        weights = np.repeat(self.weights, o.sizes)
        mean = np.divide(self.total, weights, out=np.zeros(len(self.total)), where=weights > 0)
        return norm(mean * 2.0 ** (o.unit - o.fraction))

    def _same(
        self, name: str, manifest: Manifest | None, must: npt.NDArray[np.float32], sizes: Sequence[int], said: Blocks
    ) -> None:
        places = manifest.blocks if manifest else ()
        if len(places) != len(sizes):
            self.differ(f"{self._final}: its {name} has {len(places)} blocks, and must have {len(sizes)}")
        for i, (place, piece) in enumerate(zip(places, slices(tuple(sizes)), strict=False)):
            where = f"block {i} of the {name} ({place.key})"
            here, there = must[piece], said[i]
            if not isinstance(there, str) and (text := first_difference(here, there.astype(np.float32, copy=False))):
                self.differ(f"{where}: {text}")
            if (own := checksum(little(here))) != place.checksum:
                self.differ(f"{where}: the checksum must be {own:016x}, the ledger says {place.checksum:016x}")


def bitmap(e: Entry, found: Mapping[str, bytes]) -> Bits | None:
    """What a commit's bitmap says; None if it is not there as the ledger says."""
    place = e.fact.bitmap
    if place is None:
        return {}
    try:
        counted: Counted = decode(found.get(place.key), (Counted,))
    except Malformed:
        return None
    return unpack(counted) if checksum(encode(counted.bits)) == place.checksum else None


def _block(i: int, place: Place, found: Mapping[str, bytes]) -> npt.NDArray[np.float32] | str:
    try:
        block: ModelBlock = decode(found.get(place.key), (ModelBlock,))
    except Malformed as e:
        return f"it cannot be read: {e}"
    if block.block != i or len(block.data) % 4:
        return f"it holds block {block.block}, {len(block.data)} bytes"
    return np.frombuffer(block.data, "<f4")


def _vector(blocks: Blocks) -> npt.NDArray[np.float32]:
    return np.concatenate([b for b in blocks if not isinstance(b, str)])


# ------------------------------------------------------------------ what differs


def differences(s: Sum, f: Committed) -> Iterator[str]:
    """Where a commit's fact is not what it must be: counts, deltas done, held and given up, samples, loss, weights."""
    for name in OUTCOMES:
        if s.counts[name] != getattr(f.counts, name):
            yield f"{name}: must be {s.counts[name]}, the ledger says {getattr(f.counts, name)}"
    for word, mine, theirs in (("done", s.done, f.done), ("given up", s.voided, f.voided)):
        must, said = ({(d.round, d.slot) for d in which} for which in (mine, theirs))
        for what, which in (("is not said to be", must - said), ("is said to be, and is not,", said - must)):
            for n, slot in sorted(which)[:1]:
                yield f"slot {slot} of round {n} {what} {word} ({len(which)} such)"
    for shard in sorted(s.held.keys() | f.held.keys()):
        if set(s.held.get(shard, {}).values()) != set(f.held.get(shard, ())):
            yield f"shard {shard}: it must hold offsets {sorted(s.held.get(shard, {}))}, and holds others"
    for shard in sorted(s.released.keys() | f.released.keys()):
        if s.released.get(shard, set()) != set(f.released.get(shard, ())):
            yield f"shard {shard}: it must release offsets {sorted(s.released.get(shard, ()))}, and releases others"
    for name in ("samples", "loss"):
        if getattr(s, name) != getattr(f, name):
            yield f"{name}: must be {getattr(s, name)}, the ledger says {getattr(f, name)}"
    counted = any(s.weights)
    if counted != bool(f.bitmap):
        yield f"it must {'' if counted else 'not '}have a bitmap"
    weights = f.weights
    for i, must_weigh in enumerate(s.weights):
        weight = weights[i] if i < len(weights) else 0
        if must_weigh != weight:
            yield f"block {i}: the weight must be {must_weigh}, the ledger says {weight}"
        if bool(must_weigh) != bool(f.sums[i] if i < len(f.sums) else None):
            yield f"block {i}: it must {'' if must_weigh else 'not '}have a sum"


def sum_differences(s: Sum, f: Committed, sizes: Sequence[int], found: Mapping[str, bytes]) -> Iterator[str]:
    """Where the sums of a commit differ from what they must be, in the partials (as far as these are still there) or by the
    ledger's checksum."""
    for i, (place, piece) in enumerate(zip(f.sums, slices(tuple(sizes)), strict=False)):
        if place is None:
            continue
        must, said = s.total[piece], ""
        if place.key in found:
            try:
                block: SumBlock = decode(found[place.key], (SumBlock,))
                said = (
                    first_difference(must, np.frombuffer(block.data, "<i8"))
                    if len(block.data) % 8 == 0
                    else "cut short"
                )
            except Malformed as e:
                said = f"unreadable: {e}"
            if said:
                yield f"block {i}: its sum in the partials ({place.key}): {said}"
        if (own := checksum(little(must))) != place.checksum:
            yield f"block {i}: the sum's checksum must be {own:016x}, the ledger says {place.checksum:016x}"


def bit_differences(must: Bits, said: Bits) -> Iterator[str]:
    """The first slot and block on which two bitmaps differ, in each base round."""
    for n in sorted(must.keys() | said.keys()):
        cells = [{(int(a), int(b)) for a, b in np.argwhere(x[n])} if n in x else set() for x in (must, said)]
        for slot, block in sorted(cells[0] ^ cells[1])[:1]:
            there = (slot, block) in cells[0]
            yield f"slot {slot} block {block} of round {n} {'is' if there else 'is not'} counted, its bitmap says otherwise"


def first_difference(must: npt.NDArray, said: npt.NDArray) -> str:
    """The first value in which two arrays differ, bit by bit; "" if none does."""
    if must.dtype != said.dtype or len(must) != len(said):
        return f"{len(must)} {must.dtype} values are expected, {len(said)} {said.dtype} are there"
    raw = np.dtype(f"i{must.dtype.itemsize}")
    where = np.flatnonzero(must.view(raw) != said.view(raw))
    if not len(where):
        return ""
    i = int(where[0])
    return f"value {i}: expected {must[i]}, found {said[i]} ({len(where)} of {len(must)} values differ)"


def little(values: npt.NDArray) -> memoryview:
    """The bytes of an array as they travel."""
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data.cast("B")


def mean_step(
    base: npt.NDArray[np.float32], total: Int64, weights: Sequence[int], o: Opened
) -> npt.NDArray[np.float32]:
    """The base model plus the weighted mean of the deltas, rounded once; sums are in multiples of 2^(unit - fraction)."""
    new = base.copy()
    for i, piece in enumerate(slices(o.sizes)):
        if weights[i]:
            new[piece] = base[piece].astype(np.float64) + total[piece] * 2.0 ** (o.unit - o.fraction) / weights[i]
    return new
