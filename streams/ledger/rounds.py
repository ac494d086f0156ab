"""Rounds of a task in a zone: opened, filled, committed piece by piece, closed, finalised."""

from collections.abc import Iterable
from typing import Any

from msgspec.structs import asdict, replace

from schemas import sets
from schemas.facts import Admitted, Closed, Committed, Counts, Done, Finalised, Held, Opened, Retired
from schemas.topics import DAY
from streams.ledger import chains
from streams.ledger.chains import Void, put
from streams.ledger.places import cost, filled, places_taken, slots_of
from streams.ledger.states import Commit, Round, Spent, Zone, ZoneOver, ZoneTask


def _current(z: Zone, f: Closed | Finalised, state: str) -> tuple[ZoneTask, Round]:
    chains.lead(z, f.token)
    t = z.tasks.get(f.task)
    if t is None or t.round != f.round or t.state != state:
        raise Void(f"round {f.round} of {f.task} is not {state}")
    _whole(t, f.task)
    return t, t.rounds[f.round]


def put_back(z: Zone, task: str, t: ZoneTask) -> Zone:
    """Forget the rounds that no block to come can name, and put the task back."""
    oldest = min(min(t.kept(s) for s in range(len(t.at))), t.round)
    if any(r < oldest for r in t.rounds):
        t = replace(t, rounds={n: r for n, r in t.rounds.items() if n >= oldest})
    return replace(z, tasks={**z.tasks, task: t})


def _whole(t: ZoneTask, task: str) -> None:
    chains.require(t.loss is None, f"{task} stands still: something is lost and nobody gave it up yet")


def opened(z: Zone, at: int, time: int, f: Opened) -> Zone:
    chains.lead(z, f.token)
    p = z.partitions
    chains.require(f.task not in z.over, f"{f.task} is retired")
    t = z.tasks.get(f.task) or ZoneTask(next=(0,) * p, at=(1,) * p, held=((),) * p)
    _whole(t, f.task)
    chains.require(t.state == "finalised" and f.round == t.round + 1, f"round {t.round} of {f.task} is {t.state}")
    chains.require(f.epoch >= t.epoch, f"epoch {f.epoch} is over")
    r = replace(t.rounds.get(f.round) or Round(round=f.round), opened=f, opened_at=at, opened_time=time)
    if r.contributors >= f.demand:  # what came before it opened fell into it already
        r = replace(r, met_at=time)
    merged = t.merged_rounds if f.epoch == t.epoch else 0
    t = replace(t, round=f.round, state="open", epoch=f.epoch, merged_rounds=merged, rounds={**t.rounds, f.round: r})
    t = replace(t, began=t.began or time)
    if places_taken(t) >= f.places:  # by devices that still work for earlier rounds
        t = replace(t, rounds={**t.rounds, f.round: replace(r, full_at=time)})
    return put_back(z, f.task, filled(t))


def admitted(z: Zone, at: int, time: int, f: Admitted) -> Zone:
    """Slots in a round that is closed by now are void one by one; all else must hold for the whole fact."""
    chains.lead(z, f.token)
    chains.require(f.after == z.admitted, f"{f.after} is not the last Admitted ({z.admitted})")
    registrations = z.registrations
    for p, (start, end) in f.ranges.items():
        chains.require(
            p < len(registrations) and registrations[p] == start,  # the end may lie below, where the log lost its own
            f"registrations {p} are dealt with to elsewhere",
        )
        registrations = put(registrations, p, end)
    tasks, spent = dict(z.tasks), z.spent
    today = max([time // DAY, *(x.day for x in spent.values())])  # a clock that goes back begins no day anew
    spent = {tenant: x for tenant, x in spent.items() if x.day == today}
    ended, by_round = _by_round(f.lapsed), _by_round(f.slots)
    for (task, n), lapsed in ended.items():
        t = tasks.get(task)
        if t and n in t.rounds:
            r = t.rounds[n]
            gone = r.lapsed | {x.slot for x in lapsed if x.slot < len(r.devices)}
            tasks[task] = replace(t, rounds={**t.rounds, n: replace(r, lapsed=gone)})
    for (task, n), slots in by_round.items():
        t = tasks.get(task)
        if t is None or t.loss or t.round != n or t.state != "open":
            continue
        r = t.rounds[n]
        assert r.opened
        numbers = range(len(r.devices), len(r.devices) + len(slots))
        chains.require(
            [x.slot for x in slots] == list(numbers), f"the next new slot of round {n} of {task} is {len(r.devices)}"
        )
        devices, twice = _joined_by(r.devices, [x.device for x in slots])
        chains.require(not twice, f"a device has two slots of round {n} of {task}")
        most = slots_of(r.opened)
        chains.require(len(devices) <= most, f"round {n} of {task} can have {most} slots")
        taken = places_taken(t) + len(slots)
        chains.require(taken <= r.opened.places, f"round {n} of {task} has {r.opened.places} places")
        owing = [x for x in slots if x.blocks]
        chains.require(r.opened.partial or not owing, f"round {n} of {task} takes whole models alone")
        for x in owing:
            why = sets.flaw(x.blocks, len(r.opened.sizes))
            chains.require(not why, f"slot {x.slot} of round {n} of {task} owes no set of blocks: {why}")
        leases = r.leases + (time + r.opened.lease,) * len(slots)
        parts = {x.slot: x.blocks for x in owing}
        full = time if r.full_at is None and taken == r.opened.places else r.full_at
        service = t.service + len(slots)
        new = replace(r, devices=devices, leases=leases, sets=r.sets | parts if parts else r.sets, full_at=full)
        tasks[task] = replace(t, rounds={**t.rounds, n: new}, service=service)
        whole = cost(r.opened) * (len(slots) - len(owing))
        if moved := whole + sum(cost(r.opened, x.blocks) for x in owing):
            before = spent.get(r.opened.tenant, Spent(day=today, bytes=0))
            spent[r.opened.tenant] = replace(before, bytes=before.bytes + moved)
    for task in {task for task, _ in (*by_round, *ended)} & tasks.keys():
        tasks[task] = filled(tasks[task])
    return replace(z, tasks=tasks, admitted=at, registrations=registrations, spent=spent)


_NAMES: dict[int, tuple[tuple[str, ...], set[str]]] = {}
"""Of the rows of devices that were made last, the same as a set, by the row's identity. To remember it changes no result: without, a
round's devices would all be looked through for every few that join."""

_MOST_NAMES = 64


def _joined_by(devices: tuple[str, ...], new: list[str]) -> tuple[tuple[str, ...], bool]:
    """The devices and the new ones, and whether one is there twice."""
    known, names = _NAMES.get(id(devices), ((), set[str]()))
    if known is not devices:
        names = set(devices)
    row = (*devices, *new)
    if len(set(new)) < len(new) or not names.isdisjoint(new):
        return row, True
    _NAMES.pop(id(devices), None)
    names.update(new)
    _NAMES[id(row)] = row, names
    while len(_NAMES) > _MOST_NAMES:
        _NAMES.pop(next(iter(_NAMES)), None)
    return row, False


def _by_round(items: Iterable[Any]) -> dict[tuple[str, int], list[Any]]:
    out: dict[tuple[str, int], list[Any]] = {}
    task, n, group = "", -1, list[Any]()
    for x in items:
        if x.round != n or x.task != task:  # most come behind one of their own
            task, n = x.task, x.round
            group = out.setdefault((task, n), [])
        group.append(x)
    return out


def committed(z: Zone, at: int, time: int, f: Committed) -> Zone:
    t = z.tasks.get(f.task)
    if t is None:
        raise Void(f"{f.task} is {standing(z, f.task)}")
    _whole(t, f.task)
    chains.require(bool(f.stretches), "it covers nothing")
    chains.require(
        f.stretches.keys() >= f.held.keys() | f.released.keys(), "it holds or releases in a shard it does not cover"
    )
    nexts, ats, helds = t.next, t.at, t.held
    rounds = {**t.rounds}
    rounds[f.round] = r = t.rounds.get(f.round) or Round(round=f.round)
    over: list[int] = []
    for s, stretch in f.stretches.items():
        chains.require(0 <= s < len(nexts), f"there is no shard {s}")
        chains.require(stretch.token == z.shards[s].token != 0, f"token {stretch.token} is not that of shard {s}")
        chains.require(stretch.start == nexts[s] < stretch.end, f"shard {s} is committed up to {nexts[s]}")
        chains.require(f.round == ats[s], f"shard {s} is in round {ats[s]}")
        nexts = put(nexts, s, stretch.end)
        helds = put(helds, s, _holding(helds[s], s, stretch, f))
        if r.closed and stretch.end >= r.closed.ends[s]:
            over.append(s)
    offsets = sum(x.end - x.start for x in f.stretches.values())
    waiting = sum(map(len, f.held.values())) - sum(map(len, f.released.values()))
    chains.require(f.counts.total() + waiting == offsets, "the counts do not add up to the offsets")
    done: dict[int, set[int]] = {}
    for d in f.done:
        base, here = _slot(rounds, d), done.setdefault(d.round, set())
        new = d.slot not in base.done and d.slot not in base.voided and d.slot not in here
        chains.require(new, f"slot {d.slot} of round {d.round} is done or given up before")
        here.add(d.slot)
    for n, slots in done.items():
        rounds[n] = replace(rounds[n], done=rounds[n].done | slots)
    for d in f.voided:
        base = _slot(rounds, d)
        chains.require(d.slot not in base.done, f"slot {d.slot} of round {d.round} is done")
        rounds[d.round] = replace(base, voided=base.voided | {d.slot})
    for held in f.held.values():
        for h in held:
            base = _slot(rounds, h)
            waits = h.slot not in base.done and h.slot not in base.voided
            chains.require(waits, f"slot {h.slot} of round {h.round} is done or given up")
    r = rounds[f.round]
    contributors = r.contributors + len(f.done)
    met = r.met_at
    if met is None and r.opened and contributors >= r.opened.demand:
        met = time
    rounds[f.round] = replace(
        r,
        commits=(*r.commits, Commit(offset=at, fact=f)),
        tally=r.tally.plus(offsets, f.counts),
        contributors=contributors,
        met_at=met,
    )
    tally, delivered = t.tally.plus(offsets, f.counts), t.delivered + len(f.done)
    t = replace(t, next=nexts, held=helds, rounds=rounds, tally=tally, delivered=delivered)
    return put_back(z, f.task, filled(shards_done(t, over)))


def _holding(held: tuple[Held, ...], s: int, stretch: Any, f: Committed) -> tuple[Held, ...]:
    """What a shard holds after a commit."""
    new, released = f.held.get(s, ()), f.released.get(s, ())
    inside = [h.offset for h in new]
    chains.require(
        inside == sorted({o for o in inside if stretch.start <= o < stretch.end}), "it holds what it does not cover"
    )
    chains.require(len(set(released)) == len(released), "it releases an offset twice")
    chains.require({h.offset for h in held}.issuperset(released), f"it releases what shard {s} does not hold")
    return (*(h for h in held if h.offset not in released), *new)


def _slot(rounds: dict[int, Round], d: Done | Held) -> Round:
    base = rounds.get(d.round)
    if base is None or d.slot >= len(base.devices):
        raise Void(f"slot {d.slot} of round {d.round} is unknown")
    return base


def shards_done(t: ZoneTask, shards: Iterable[int]) -> ZoneTask:
    """These shards are done with the round they are in: what they hold is given up, the next block falls into the next."""
    for s in shards:
        t = given_up(t, s)
        t = replace(t, at=put(t.at, s, t.at[s] + 1))
    return t


def given_up(t: ZoneTask, s: int) -> ZoneTask:
    """All that a shard holds is incomplete for good."""
    if not t.held[s]:
        return t
    rounds, n, more = {**t.rounds}, t.at[s], Counts(incomplete=len(t.held[s]))
    rounds[n] = replace(rounds[n], tally=rounds[n].tally.plus(counts=more))
    for h in t.held[s]:
        base = rounds.get(h.round)
        if base:
            rounds[h.round] = replace(base, voided=base.voided | {h.slot})
    return replace(t, held=put(t.held, s, ()), rounds=rounds, tally=t.tally.plus(counts=more))


def closed(z: Zone, at: int, time: int, f: Closed) -> Zone:
    t, r = _current(z, f, "open")
    chains.require(sorted(f.ends) == list(range(len(t.next))), "it does not name the ends of all shards")
    r = replace(r, closed=f, closed_at=at)
    t = replace(t, state="closed", rounds={**t.rounds, f.round: r}, starved=t.starved + 1 if _starved(t, r) else 0)
    t = _timed(t, r, time)
    over = [s for s, n in enumerate(t.at) if n == f.round and t.next[s] >= f.ends[s]]
    return put_back(z, f.task, shards_done(t, over))


def _timed(t: ZoneTask, r: Round, time: int) -> ZoneTask:
    """What a round that closes says of how long rounds take. One that never got its devices took all its time to get them."""
    got = min(time, since) if (since := r.got(time)) is not None else time
    fill, serve = max(1, got - r.opened_time), max(0, time - got)
    fill = (t.fill_ms + fill) // 2 if t.fill_ms else fill
    return replace(
        t, fill_ms=max(1, fill), serve_ms=(t.serve_ms + serve) // 2 if t.serve_ms and serve else serve or t.serve_ms
    )


def _starved(t: ZoneTask, r: Round) -> bool:
    """Whether too few devices registered for the round: fewer than it wanted; or, asynchronous, places stayed free."""
    assert r.opened
    return r.contributors < r.opened.demand and (t.filling if r.opened.refill else len(r.devices) < r.opened.demand)


def finalised(z: Zone, at: int, time: int, f: Finalised) -> Zone:
    t, r = _current(z, f, "closed")
    chains.require(min(t.at) > f.round, "not all shards are done with the round")
    chains.require(f.commits == summed(r), "it does not sum the accepted commits")
    t = replace(t, state="finalised")
    if f.manifest:
        measured = (*t.measured, (f.norm, f.mean_loss))[-2:]
        t = replace(t, manifest=f.manifest, manifest_at=at, optimiser=f.optimiser, measured=measured)
        t = replace(t, merged_rounds=t.merged_rounds + 1)
    return put_back(z, f.task, t)


def retired(z: Zone, at: int, time: int, f: Retired) -> Zone:
    """The task is over here: what its shards still hold is given up, and all goes that only its blocks and its next round would ask for."""
    chains.lead(z, f.token)
    t = z.tasks.get(f.task)
    if t is None:
        raise Void(f"{f.task} is {standing(z, f.task)}")
    for s in range(len(t.next)):
        t = given_up(t, s)
    last = t.rounds[t.round]
    assert last.opened
    over = ZoneOver(
        at=at,
        time=time,
        tenant=last.opened.tenant,
        round=t.round,
        devices=last.contributors,
        demand=last.opened.demand,
        epoch=t.epoch,
        merged_rounds=t.merged_rounds,
        service=t.service,
        delivered=t.delivered,
        covered=sum(t.next) + t.rewound,
        offsets=t.tally.offsets,
        lost=t.tally.lost,
        **asdict(t.tally.counts),
    )
    tasks = {k: x for k, x in z.tasks.items() if k != f.task}
    return replace(z, tasks=tasks, over={**z.over, f.task: over})


def standing(z: Zone, task: str) -> str:
    """Of a task without a round to come, why there is none."""
    return "retired" if task in z.over else "not known"


def summed(r: Round) -> tuple[int, ...]:
    """The ledger offsets of a round's commits that hold a sum, in ledger order."""
    return tuple(c.offset for c in r.commits if any(c.fact.sums) and not c.lost)


def identity(t: ZoneTask, n: int = 0) -> bool:
    """Whether every offset of a round's segment (0: of all rounds) has its outcome: counted, duplicate, late, invalid,
    incomplete, lost to a loss that was given up, or held while its delta is not whole."""
    held = sum(len(h) for s, h in enumerate(t.held) if not n or t.at[s] == n)
    tally = t.rounds[n].tally if n else t.tally
    return tally.adds_up(held) and (n > 0 or sum(t.next) == tally.offsets - t.rewound)
