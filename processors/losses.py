"""What an aggregator finds gone: a log's end or beginning, the partials of a commit. It is said in a `Lost`, and the task stands still then
until a person says `Abandoned`.

Of a log nothing is said while what was read of the shard is not committed, nor while the task stands still already.
"""

from collections.abc import Iterator, Mapping

from processors.offers import AGAIN
from processors.work import Shard, Work
from schemas.facts import Lost
from streams.ledger import Zone

SHORT = 10_000
"""ms that a log must end too early before that is a loss: a partition's new leader may know a lower end for a moment."""


def ended(task: str, work: Work, zone: Zone, ends: Mapping[int, int], asked_at: int, now: int) -> Iterator[Lost]:
    """Logs that lost their end, if they still say so after a while: they end below the fold's next offset, where blocks
    that are held are to be read again (all others are followed from there, which says it); or they end there, and a
    closed round beyond it. For that the question must have been put, at `asked_at` of the ledger, when it was read beyond the `Closed`."""
    t = zone.tasks[task]
    for s, shard in work.shards.items():
        r = t.rounds.get(t.at[s])
        short: tuple[int, ...]
        if not shard.reaches and ends[s] < t.next[s]:
            short, beyond = (), f"{t.next[s]} was to be read"
        elif r and r.closed and r.closed_at < asked_at and ends[s] == t.next[s] < r.closed.ends[s]:
            short, beyond = (s,), f"round {t.at[s]} at {r.closed.ends[s]}"
        else:
            shard.short = None
            continue
        if work.uncommitted(s) or t.loss:
            shard.short = None
            continue
        shard.short = now if shard.short is None else shard.short
        if now - shard.short >= SHORT and now - shard.told >= AGAIN:
            shard.told = now
            what = f"{work.topic} [{s}] ends at {ends[s]}, and {beyond}: the log lost its end"
            yield _lost(task, s, zone, what, ranges={s: (t.next[s], ends[s])}, short=short)


def goes_on(shard: Shard, next: int, log: tuple[int, int]) -> int | None:
    """Where a shard is read on whose log holds [start, end) and not what was to be read; None: that is a gap. `next`: the fold's."""
    at = shard.queue[-1].offset + 1 if shard.queue else shard.position
    if not shard.recall and shard.position < next and log[0] <= next <= log[1]:
        return next  # nobody wants what lies between
    if log[0] <= at <= log[1]:
        return at  # the log lost what was fetched beyond it, and not handed over yet
    return None


def gaps(task: str, work: Work, zone: Zone, now: int) -> Iterator[Lost]:
    """Logs that do not hold what was to be read."""
    t = zone.tasks[task]
    for s, shard in work.shards.items():
        if shard.gap is None or shard.queue or work.uncommitted(s) or t.loss or now - shard.told < AGAIN:
            continue
        shard.told = now
        start, end = shard.gap
        to = end if end < t.next[s] else max(start, t.next[s])
        if end < t.next[s]:
            what = f"{work.topic} [{s}] ends at {end}, and {t.next[s]} was to be read: the log lost its end"
        elif start > t.next[s]:
            what = f"{work.topic} [{s}] begins at {start}, and {t.next[s]} was to be read: retention was too short"
        else:
            what = f"{work.topic} [{s}] begins at {start}: blocks before it waited for the rest of their deltas"
        yield _lost(task, s, zone, what, ranges={s: (t.next[s], to)})


def bitmap(task: str, s: int, zone: Zone, commit: int, partials: str) -> Lost:
    """The bitmap of the commit at that offset is not in the partials; shard `s` is one of those it covers."""
    what = f"the bitmap of the commit at {zone.ledger}@{commit} is not in {partials}"
    return _lost(task, s, zone, what, commits=(commit,))


def _lost(
    task: str,
    s: int,
    zone: Zone,
    what: str,
    ranges: dict[int, tuple[int, int]] | None = None,
    commits: tuple[int, ...] = (),
    short: tuple[int, ...] = (),
) -> Lost:
    return Lost(zone.shards[s].token, s, task, what, ranges or {}, commits, short)
