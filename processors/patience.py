"""When an aggregator commits a sum: how long it waits for more, and what does not wait.

A sum is a part of what is written to the log, so one that is large waits for more to go into it. It does not wait where somebody waits
for it: where its round is closed, where it may be all that the round lacks, where nobody is left who could add to it, or where a shard
is to be given back. Nor where its commit would not fit a record.
"""

from collections.abc import Collection

from processors.accumulator import Accumulator
from processors.work import Work
from schemas.facts import Opened
from schemas.partitioner import shard_of
from streams.ledger import Round, ZoneTask

COMMIT_INTERVAL = 500
"""A commit at least every so many ms, if its sum is small."""
WORTH = 10_000
"""Bytes of a sum for which a commit may be put off by another ms: sums take at most 10 MB/s of the log, but for those that a
round waits for."""
PAYS, SPARSE = 4, 6
"""A commit with less than `PAYS` times the bytes of its sum in deltas waits `SPARSE` times as long: with little to do, the sums that an
aggregator writes are a part of what arrives, and not more than that."""
LONGEST = 20_000
"""ms that a commit is put off at most; a claim that outlives it moves its shard whatever happens."""
MOST_ENTRIES = 4_000
"""Slots and held blocks that one commit lists, about: it must fit a record."""
MOST_TOLD = 50_000
"""Blocks that one commit gives an outcome, about: memory, and the receipt of a device that sends without end must fit a record."""


class Patience:
    """Of one aggregator. `commit_interval` in ms; `worth`: see `WORTH`."""

    def __init__(self, commit_interval: int = COMMIT_INTERVAL, worth: float | None = None):
        self.commit_interval, self.worth = commit_interval, worth or WORTH

    def ms(self, acc: Accumulator, o: Opened | None = None) -> int:
        """How long an accumulator waits for more: as its sum is dear, and by what went into it. Of a round's leases it takes a quarter at
        most, or devices that delivered would lapse; and what does not pay does not wait where places are given anew as they are free."""
        size = 0 if acc.total is None else acc.total.nbytes
        waits = SPARSE if acc.bytes < PAYS * size and not (o and o.refill) else 1
        worth = min(size // self.worth * waits, LONGEST, o.lease // 4 if o else LONGEST)
        return max(self.commit_interval, round(worth))

    def due(self, work: Work, t: ZoneTask, acc: Accumulator, wanted: frozenset[int], now: int) -> bool:
        """Whether an accumulator is to be committed now. `wanted`: the shards that the group gives this aggregator."""
        r = t.rounds.get(acc.round)
        patience = self.ms(acc, r.opened if r else None)
        if now - acc.started >= patience or not wanted.issuperset(acc.ranges) or full(acc):
            return True
        if r is None or r.opened is None:
            return False
        mine = [s for s in work.shards if t.at[s] == acc.round]
        if r.closed:
            return all(work.shards[s].position >= r.closed.ends[s] for s in mine)
        return _meets(acc, r, t, mine) or _nobody_is_left(work, acc, r, t, mine, now)


def full(acc: Accumulator) -> bool:
    """Whether its commit would not fit a record if much more went in."""
    return acc.entries > MOST_ENTRIES or acc.outcomes > MOST_TOLD


def _meets(acc: Accumulator, r: Round, t: ZoneTask, mine: Collection[int]) -> bool:
    """Whether a round has its demand with this commit, if the other shards have as much for it as these, about."""
    assert r.opened
    if not acc.done or r.met_at is not None:
        return False
    missing = r.opened.demand - r.contributors
    return len(acc.done) >= missing * len(mine) / len(t.at)


def _nobody_is_left(work: Work, acc: Accumulator, r: Round, t: ZoneTask, mine: Collection[int], now: int) -> bool:
    """Whether all of a cohort whose blocks come into these shards have delivered, or will not any more."""
    assert r.opened
    if (
        not acc.done
        or r.opened.refill
        or (r.got(now) is None and len(r.devices) - len(r.lapsed) < r.opened.demand)
        or any(x.queue for x in work.shards.values())
    ):
        return False
    while acc.cursor < len(r.devices) and (
        acc.cursor in acc.whole
        or acc.cursor in r.done
        or acc.cursor in r.lapsed
        or acc.cursor in r.voided
        or shard_of(r.devices[acc.cursor], len(t.at)) not in mine
    ):
        acc.cursor += 1
    return acc.cursor == len(r.devices)
