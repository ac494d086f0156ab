"""The outcome of a delta block: a pure function of the log below it and of the fold, whoever judges (design: Judging)."""

from typing import NamedTuple, Protocol

from learning.aggregation import within
from learning.codecs import Values, read_values
from schemas import sets
from schemas.blocks import MOST_LOSS, DeltaBlock, codec
from schemas.partitioner import shard_of
from streams.ledger import ZoneTask

COUNTED, DUPLICATE, LATE, INVALID, INCOMPLETE = "counted", "duplicate", "late", "invalid", "incomplete"


class Verdict(NamedTuple):
    """What a block is, the reason if it is invalid, and its values if it counts: they are unpacked once."""

    outcome: str
    reason: str = ""
    values: Values | None = None


class Before(Protocol):
    """What was said of the shard's earlier blocks: by the fold, and by accumulators that are not committed yet."""

    def known(self, round: int, slot: int, block: int) -> bool:
        """Whether the block is counted, or held until its delta is whole."""
        ...

    def given_up(self, round: int, slot: int) -> bool:
        """Whether no accumulator counts this slot's blocks any more, though the fold does not say so yet."""
        ...


def judge(
    task: str, t: ZoneTask, shard: int, key: str | None, b: DeltaBlock, before: Before, fresh: bool
) -> Verdict | None:
    """The verdict, or None: the fold does not know this round or slot, so read the ledger to the end it
    has now and judge again with `fresh`. In this order: invalid, incomplete (its slot was given up), duplicate, late,
    counted."""
    if b.task != task:
        return Verdict(INVALID, f"a block of task {b.task}")
    if key != b.device or shard_of(b.device, len(t.at)) != shard:
        return Verdict(INVALID, "not in the shard of its device")
    if b.round < t.kept(shard):
        return Verdict(LATE)
    r = t.rounds.get(b.round)
    if r is None or r.opened is None or b.slot >= len(r.devices):
        return Verdict(INVALID, f"round {b.round} has no slot {b.slot}") if fresh else None
    if r.devices[b.slot] != b.device:
        return Verdict(INVALID, f"slot {b.slot} of round {b.round} is not this device's")
    o = r.opened
    if b.block >= len(o.sizes):
        return Verdict(INVALID, f"the model has {len(o.sizes)} blocks")
    if not sets.has(r.set_of(b.slot), b.block):
        return Verdict(INVALID, f"slot {b.slot} of round {b.round} owes no block {b.block}")
    if not 0 < b.weight <= o.heaviest or not 0 < b.samples <= o.heaviest:
        return Verdict(INVALID, f"weight {b.weight} or samples {b.samples} is not in 1 to {o.heaviest}")
    if b.loss > b.samples * MOST_LOSS:
        return Verdict(INVALID, f"a loss of {b.loss} millionths over {b.samples} samples is absurd")
    try:
        values = read_values(codec(b.codec), b.data, o.sizes[b.block])
    except ValueError as e:
        return Verdict(INVALID, str(e))
    if not within(values.q, b.exponent, o.largest):
        return Verdict(INVALID, "a value is larger than the task allows")
    if b.slot in r.voided or before.given_up(b.round, b.slot):
        return Verdict(INCOMPLETE)
    if before.known(b.round, b.slot, b.block):
        return Verdict(DUPLICATE)
    if t.at[shard] - b.round > o.staleness:
        return Verdict(LATE)
    return Verdict(COUNTED, values=values)
