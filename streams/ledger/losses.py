"""What is lost for good: a task stands still until a person gives it up, and goes on without it."""

from msgspec.structs import replace

from schemas.facts import LEADERSHIP, Abandoned, Lost
from schemas.partitioner import shard_of
from streams.ledger import chains, rounds
from streams.ledger.chains import Void, put
from streams.ledger.rounds import put_back, shards_done
from streams.ledger.states import Commit, Holder, Loss, Round, Zone, ZoneTask


def lost(z: Zone, at: int, time: int, f: Lost) -> Zone:
    if f.seat == LEADERSHIP:
        chains.lead(z, f.token)
    else:
        chains.require(
            f.seat < len(z.shards) and f.token == z.shards[f.seat].token != 0, f"shard {f.seat} is another's"
        )
    t = z.tasks.get(f.task)
    if t is None:
        raise Void(f"{f.task} is {rounds.standing(z, f.task)}")
    chains.require(t.loss is None, "the task stands still for another loss")
    chains.require(bool(f.ranges or f.commits), "it names nothing")
    for s, (start, to) in f.ranges.items():
        chains.require(s < len(t.next) and start == t.next[s], f"shard {s} is committed up to elsewhere")
        r = t.rounds.get(t.at[s])
        short = s in f.short and r is not None and r.closed is not None and start < r.closed.ends[s]
        chains.require(to != start or bool(t.held[s]) or short, f"nothing of shard {s} is gone")
    loss = Loss(at=at, what=f.what, ranges=f.ranges, commits=f.commits, short=f.short)
    kept = {c.offset for r in t.rounds.values() for c in r.commits if not c.lost}
    chains.require(kept.issuperset(f.commits), "it names commits that are not there")
    return put_back(z, f.task, replace(t, loss=loss))


def abandoned(z: Zone, at: int, time: int, f: Abandoned) -> Zone:
    """The task goes on where its logs do, and without the sums that are gone. No slot that may have had a part in them
    counts any more, so that whoever judges its next block says the same. Who holds a shard that is concerned must claim it
    again: what is under way under its token was judged before, or lies at offsets that are used again."""
    t = z.tasks.get(f.task)
    if t is None or t.loss is None or t.loss.at != f.lost:
        raise Void(f"{f.task} has no loss at {f.lost}")
    loss = t.loss
    t = replace(t, loss=None)
    concerned = set(loss.ranges)
    for s, (start, to) in loss.ranges.items():
        t = rounds.given_up(t, s)
        n = t.at[s]
        r = t.rounds.get(n) or Round(round=n)
        gone = max(0, to - start)
        r = replace(r, tally=r.tally.plus(gone, lost=gone))
        t = replace(
            t,
            next=put(t.next, s, to),
            rounds={**t.rounds, n: r},
            tally=t.tally.plus(gone, lost=gone),
            rewound=t.rewound + max(0, start - to),
        )
        if r.closed and (to < start or to >= r.closed.ends[s] or s in loss.short):
            t = shards_done(t, [s])
    for n, r in t.rounds.items():
        if commits := [c for c in r.commits if c.offset in loss.commits]:
            over = n < t.round or (n == t.round and t.state == "finalised")  # its model is there, and keeps its figures
            counted = 0 if over else sum(c.fact.counts.counted for c in commits)
            delivered = t.delivered - (0 if over else sum(len(c.fact.done) for c in commits))
            kept = {**t.rounds, n: _without(r, commits, counted, over)}
            t = replace(t, rounds=kept, tally=t.tally.lose(counted), delivered=delivered)
            covered = {s for c in commits for s in c.fact.stretches}
            t = _voiding(t, n, covered)
            concerned |= covered
    z = replace(z, shards=tuple(Holder(token=at) if s in concerned else h for s, h in enumerate(z.shards)))
    if any(
        to < start for start, to in loss.ranges.values()
    ):  # so must the leader: it may have asked where the logs ended
        z = replace(z, leader=Holder(token=at))
    return put_back(z, f.task, t)


def _without(r: Round, commits: list[Commit], counted: int, over: bool) -> Round:
    """A round without what these commits counted; one that is over only knows that their partials are gone."""
    kept = tuple(replace(c, lost=c.lost or c in commits) for c in r.commits)
    if over:
        return replace(r, commits=kept)
    contributors = r.contributors - sum(len(c.fact.done) for c in commits)
    met = r.met_at if r.opened and contributors >= r.opened.demand else None
    return replace(r, commits=kept, tally=r.tally.lose(counted), contributors=contributors, met_at=met)


def _voiding(t: ZoneTask, n: int, shards: set[int]) -> ZoneTask:
    """Give up the slots of these shards in every round that a segment of round `n` could take blocks of."""
    rounds = {**t.rounds}
    for m, r in t.rounds.items():
        if n - t.staleness() <= m <= n:
            there = {i for i, d in enumerate(r.devices) if shard_of(d, len(t.next)) in shards}
            rounds[m] = replace(r, voided=r.voided | there)
    return replace(t, rounds=rounds)
