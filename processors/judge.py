"""The outcome of a delta block: a pure function of the log below it and of the fold, whoever judges (design: Judging)."""

from typing import Protocol

from learning.aggregation import read_int32, within
from schemas.blocks import MOST_LOSS, DeltaBlock
from schemas.partitioner import shard_of
from streams.ledger import ZoneTask

COUNTED, DUPLICATE, LATE, INVALID = "counted", "duplicate", "late", "invalid"


class Known(Protocol):
    """The blocks already counted: those in the fold's bitmaps and those in the own accumulator."""

    def __call__(self, round: int, slot: int, block: int) -> bool: ...


def judge(
    task: str, t: ZoneTask, shard: int, key: str | None, b: DeltaBlock, known: Known, fresh: bool
) -> tuple[str, str] | None:
    """(outcome, reason if invalid), or None: the fold does not know this round or slot, so read the ledger to the end it
    has now and judge again with `fresh`. In this order: invalid, duplicate, late, counted."""
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
    if known(b.round, b.slot, b.block):
        return DUPLICATE, ""
    if t.at[shard] - b.round > o.staleness:
        return LATE, ""
    return COUNTED, ""
