"""The outcome of a delta block: a pure function of the log below it and of the fold, whoever judges (design: Judging)."""

from typing import Protocol

from learning.aggregation import read_int32, within
from schemas.blocks import MOST_LOSS, DeltaBlock
from schemas.partitioner import shard_of
from streams.ledger import ZoneTask

COUNTED, DUPLICATE, LATE, INVALID, INCOMPLETE = "counted", "duplicate", "late", "invalid", "incomplete"


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
) -> tuple[str, str] | None:
    """(outcome, reason if invalid), or None: the fold does not know this round or slot, so read the ledger to the end it
    has now and judge again with `fresh`. In this order: invalid, incomplete (its slot was given up), duplicate, late,
    counted."""
    if b.task != task:
        return INVALID, f"a block of task {b.task}"
    if key != b.device or shard_of(b.device, len(t.at)) != shard:
        return INVALID, "not in the shard of its device"
    if b.round < t.kept(shard):
        return LATE, ""
    r = t.rounds.get(b.round)
    if r is None or r.opened is None or b.slot >= len(r.devices):
        return (INVALID, f"round {b.round} has no slot {b.slot}") if fresh else None
    if r.devices[b.slot] != b.device:
        return INVALID, f"slot {b.slot} of round {b.round} is not this device's"
    o = r.opened
    if b.block >= len(o.sizes):
        return INVALID, f"the model has {len(o.sizes)} blocks"
    if b.codec != "int32":
        return INVALID, f"codec {b.codec} is not known"
    if not 0 < b.weight <= o.heaviest or not 0 < b.samples <= o.heaviest:
        return INVALID, f"weight {b.weight} or samples {b.samples} is not in 1 to {o.heaviest}"
    if b.loss > b.samples * MOST_LOSS:
        return INVALID, f"a loss of {b.loss} millionths over {b.samples} samples is absurd"
    if len(b.data) != 4 * o.sizes[b.block]:
        return INVALID, f"block {b.block} has {o.sizes[b.block]} values of 4 bytes, not {len(b.data)} bytes"
    if not within(read_int32(b.data, o.sizes[b.block]), b.exponent, o.largest):
        return INVALID, "a value is larger than the task allows"
    if b.slot in r.voided or before.given_up(b.round, b.slot):
        return INCOMPLETE, ""
    if before.known(b.round, b.slot, b.block):
        return DUPLICATE, ""
    if t.at[shard] - b.round > o.staleness:
        return LATE, ""
    return COUNTED, ""
