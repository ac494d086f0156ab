"""The fold: what a ledger says, as a pure function of its records. Everything that changes a ledger's state is in this file.

An append is an offer, the fold is the verdict. A fact names what it follows and is accepted iff that is still the last of its
chain when it lands; else it is void, changes nothing, and is so for every reader alike. Nobody acts on an acknowledgement.
`TRANSITIONS` is the table; each entry returns the next state or raises `Void` with the reason.

States are never changed in place: a reader may keep any of them. `schemas.wire.encode(state)` is canonical.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from schemas import facts, sets
from schemas.blocks import Layout, Manifest, Place
from schemas.facts import (
    LEADERSHIP,
    RULES,
    Abandoned,
    Admitted,
    Checkpoint,
    Claimed,
    Closed,
    Committed,
    Counts,
    Done,
    EpochClosed,
    EpochOpened,
    Finalised,
    Founded,
    Held,
    Lost,
    Merged,
    Opened,
    Retired,
    Rules,
    Scored,
    SharingSet,
    Taken,
    TaskAdmitted,
    TaskEnded,
    TaskRefused,
    TaskUpdated,
    TenantSet,
    Update,
    WishRefused,
    ZoneJoined,
)
from schemas.messages import Ref
from schemas.modules import Structure
from schemas.partitioner import shard_of
from schemas.sharing import SHARING, Tenant
from schemas.task import TaskSpec, Upload, fixed
from schemas.topics import DAY
from schemas.wire import Malformed, Message, Part, checksum, decode, encode
from streams.processor import Record

MARKS = 4
"""A checkpoint's offset is at most so many times `every` behind: so many folds of its own a reader keeps to compare."""
MOST_BITS = 2**22
"""Slots × blocks of a round: its bitmap then takes 512 KiB at most."""


class Void(Exception):
    """The fact does not follow the last of its chain; the text says why."""


class UnknownRules(RuntimeError):
    """The ledger is folded by rules that this version does not know: stop, and install a newer one."""


class Diverged(RuntimeError):
    """This reader's fold is not the one that the leader's checkpoint names: stop, nothing it decides can be trusted."""


class Holder(Part, frozen=True):
    """Who holds a seat. Token 0: nobody."""

    holder: str = ""
    life: str = ""
    token: int = 0


class Mark(Part, frozen=True):
    """An accepted `Checkpoint`: the fold below `offset`, its hash, and where it lies."""

    offset: int
    hash: int
    places: tuple[Place, ...]


# ------------------------------------------------------------------ a zone


class Commit(Part, frozen=True):
    """An accepted `Committed` and the ledger offset it landed at. `lost`: its partials are gone, and a person gave it up."""

    offset: int
    fact: Committed
    lost: bool = False


class Loss(Part, frozen=True):
    """An accepted `Lost`, by its offset: the task stands still until it is `Abandoned`."""

    at: int
    what: str
    ranges: dict[int, tuple[int, int]]
    commits: tuple[int, ...]
    short: tuple[int, ...] = ()


NO_COUNTS = Counts()


class Tally(Part, frozen=True):
    """What became of offsets of delta logs. `lost`: their outcome went with a loss that a person gave up."""

    offsets: int = 0
    counts: Counts = Counts()
    lost: int = 0

    def plus(self, offsets: int = 0, counts: Counts = NO_COUNTS, lost: int = 0) -> "Tally":
        added = Counts(*(getattr(self.counts, n) + getattr(counts, n) for n in counts.__struct_fields__))
        return Tally(offsets=self.offsets + offsets, counts=added, lost=self.lost + lost)

    def lose(self, counted: int) -> "Tally":
        """What was counted is lost after all."""
        return replace(
            self, counts=replace(self.counts, counted=self.counts.counted - counted), lost=self.lost + counted
        )

    def adds_up(self, held: int) -> bool:
        """Whether every offset has one outcome, or is held."""
        return self.offsets == self.counts.total() + self.lost + held


class Round(Part, frozen=True):
    """A round of a task. Slot i belongs to devices[i], whose lease ends at leases[i] (ms)."""

    round: int
    opened: Opened | None = None
    opened_at: int = 0
    devices: tuple[str, ...] = ()
    leases: tuple[int, ...] = ()
    sets: dict[int, bytes] = {}
    """By slot, the blocks that it owes, of those that do not owe all."""
    lapsed: frozenset[int] = frozenset()
    done: frozenset[int] = frozenset()
    voided: frozenset[int] = frozenset()
    """Slots that were given up: no block of theirs counts any more."""
    commits: tuple[Commit, ...] = ()
    tally: Tally = Tally()
    contributors: int = 0
    met_at: int | None = None
    opened_time: int = 0
    """When it opened (ms)."""
    full_at: int | None = None
    """When all its places were taken for the first time (ms)."""
    closed: Closed | None = None
    closed_at: int = 0

    @property
    def counts(self) -> Counts:
        return self.tally.counts

    def set_of(self, slot: int) -> bytes:
        """The blocks that a slot owes."""
        return self.sets.get(slot, sets.WHOLE)

    def owed(self, slot: int) -> int:
        """How many blocks a slot's delta has: it is done when they are all counted."""
        assert self.opened
        return sets.size(self.set_of(slot), len(self.opened.sizes))

    def got(self, now: int) -> int | None:
        """Since when (ms) it takes no more devices: all places were taken, or the scheduling time-out passed. None: it still does."""
        out = self.opened.fill if self.opened and 0 < self.opened.fill <= now else None
        return min((t for t in (self.full_at, out) if t is not None), default=None)


class ZoneTask(Part, frozen=True):
    """A task in a zone. By shard: `next`, the first offset no commit covers, `at`, the round that offset falls into, and
    `held`, the blocks below it that wait for the rest of their delta."""

    next: tuple[int, ...]
    at: tuple[int, ...]
    held: tuple[tuple[Held, ...], ...]
    round: int = 0
    state: str = "finalised"
    filling: bool = True
    """Whether free places are given now (`_filled`)."""
    epoch: int = 0
    merged_rounds: int = 0
    """Rounds of this epoch that gave a model."""
    manifest: Manifest | None = None
    manifest_at: int = 0
    """The offset of the `Finalised` that names the manifest."""
    optimiser: Manifest | None = None
    """The server optimiser's state after the round that gave the manifest."""
    measured: tuple[tuple[float, float], ...] = ()
    """Of the last two rounds that gave a model: the norm of the mean delta, and the mean loss of a sample."""
    starved: int = 0
    """How many rounds in a row, up to the last, closed with too few devices."""
    service: int = 0
    """Devices that had a slot, over all its rounds."""
    delivered: int = 0
    """Slots that were done, over all its rounds."""
    began: int = 0
    """When its first round opened (ms)."""
    fill_ms: int = 0
    """How long rounds took to get their devices: the mean of the last round's and of this before it; 0 before the first closed."""
    serve_ms: int = 0
    """Likewise, from then until they closed: of rounds that got them before."""
    rounds: dict[int, Round] = {}
    retired: bool = False
    retired_at: int = 0
    loss: Loss | None = None
    tally: Tally = Tally()
    """Over all its rounds."""
    rewound: int = 0
    """By how many offsets logs lost their end after they were committed: these are used again."""

    def kept(self, shard: int) -> int:
        """The oldest round whose bitmaps count when a block of this shard is judged; older ones are late unseen."""
        return self.at[shard] - self.staleness() - 1

    def staleness(self) -> int:
        r = self.rounds.get(self.round)
        return r.opened.staleness if r and r.opened else 0


class Spent(Part, frozen=True):
    """Bytes that a tenant's devices may have moved in a zone on a `day` (UTC, days since 1970): `cost` for each slot given."""

    day: int
    bytes: int


class Zone(Part, frozen=True):
    """The state of a zone's ledger below `position`."""

    position: int = 0
    ledger: str = ""
    zone: str = ""
    partitions: int = 0
    rules: int = RULES
    every: int = 0
    checkpoints: tuple[Mark, ...] = ()
    """Those at or above the last `cut`, oldest first."""
    cut: int = 0
    """Below this offset nobody needs the ledger any more."""
    leader: Holder = Holder()
    shards: tuple[Holder, ...] = ()
    tasks: dict[str, ZoneTask] = {}
    admitted: int = 0
    """Offset of the last `Admitted`."""
    registrations: tuple[int, ...] = ()
    """By partition, the first registration not dealt with."""
    spent: dict[str, Spent] = {}
    """By tenant, on the last day on which its devices had slots. Those of days before are forgotten with the next `Admitted`."""

    def spent_on(self, tenant: str, day: int) -> int:
        """Bytes that this tenant's devices may have moved on that day."""
        s = self.spent.get(tenant)
        return s.bytes if s and s.day >= day else 0


# ------------------------------------------------------------------ the globe


class Score(Part, frozen=True):
    """How good the global model of an epoch is on held-out data."""

    epoch: int
    accuracy: float
    loss: float


class GlobalTask(Part, frozen=True):
    """A task in the globe. `taken`: by zone, the first offset of its ledger not dealt with."""

    spec: TaskSpec
    layout: Layout
    manifest: Manifest
    zones: tuple[str, ...]
    admitted_at: int
    seed: int = 0
    state: str = "admitted"
    epoch: int = 0
    opened_at: int = 0
    opened_time: int = 0
    taken: dict[str, int] = {}
    ends: dict[str, int] = {}
    updates: dict[str, Update] = {}
    optimiser: Manifest | None = None
    """The server optimiser's state after the last epoch that gave a model."""
    first: Manifest | None = None
    """Version 0 of the model."""
    submission: int = 0
    """The offset of the last record of `global.tasks` that holds for it."""
    wanted: str = "run"
    by: str = ""
    """Who wanted it last."""
    part: tuple[str, ...] = ()
    """The zones that take part in the present epoch, or took in the last."""
    waited: dict[str, int] = {}
    """By zone, how many epochs in a row, up to the present one, went without it."""
    contributions: dict[str, float] = {}
    """By zone, as of the last merge; empty before the first."""
    merged_time: int = 0
    """When the last epoch was merged (ms)."""
    fresh: bool = False
    """Whether the last merge gave a model."""
    score: Score | None = None
    best: Score | None = None
    """The last score, and the one with the lowest loss that was better by more than the stop rule's `delta`."""
    why: str = ""
    heard: int = 0
    """When its tenant said something of it last (ms)."""
    enough: dict[str, int] = {}
    """By zone, the last round that its tenant wanted ended early."""
    structure: Structure | None = None
    """What a modular model's parts cost."""

    def contribution(self, zone: str) -> float:
        """The zone's share (OLearning's eq. 1): 1/n before the first merge."""
        return self.contributions.get(zone, 1 / len(self.zones))


class Joined(Part, frozen=True):
    ledger: str
    partitions: int


class Globe(Part, frozen=True):
    """The state of the global ledger below `position`."""

    position: int = 0
    ledger: str = ""
    zone: str = ""
    partitions: int = 0
    rules: int = RULES
    every: int = 0
    checkpoints: tuple[Mark, ...] = ()
    """Those at or above the last `cut`, oldest first."""
    cut: int = 0
    """Below this offset nobody needs the ledger any more."""
    leader: Holder = Holder()
    zones: dict[str, Joined] = {}
    tasks: dict[str, GlobalTask] = {}
    refused: dict[str, TaskRefused] = {}
    tenants: dict[str, TenantSet] = {}
    """What holds for those that were ever said something of."""
    sharing: SharingSet | None = None
    """None: nobody said anything yet."""
    wishes: dict[str, WishRefused] = {}
    """By key of `global.tenants`, the last record that was refused."""

    def tenant(self, name: str) -> Tenant:
        """What a tenant may have."""
        return self.tenants[name].tenant if name in self.tenants else Tenant(tenant=name)

    def dealt(self, key: str) -> int:
        """The last record of `global.tenants` under this key that is dealt with; -1: none."""
        held = self.sharing if key == SHARING else self.tenants.get(key)
        return max((x.submission for x in (held, self.wishes.get(key)) if x), default=-1)


S = TypeVar("S", Zone, Globe)


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise Void(reason)


def _put(items: tuple, i: int, x: Any) -> tuple:
    return (*items[:i], x, *items[i + 1 :])


# ------------------------------------------------------------------ both


def known_rules(ledger: str, rules: int) -> None:
    """Raises `UnknownRules` if this version cannot fold a ledger by these."""
    if rules > RULES:
        raise UnknownRules(f"ledger {ledger} follows rules {rules}; this version knows {RULES}: install a newer one")
    if rules < RULES:
        raise UnknownRules(
            f"ledger {ledger} follows rules {rules} of an older version, and this one folds by {RULES}: let the older one finish its "
            "tasks, or begin anew under another --namespace"
        )


def _founded(s: S, at: int, time: int, f: Founded) -> S:
    _require(not s.ledger, "already founded")
    known_rules(f.ledger, f.rules)
    _require(f.every != 1, "a checkpoint is a record: one for each record would never end")
    new = replace(s, ledger=f.ledger, zone=f.zone, partitions=f.partitions, rules=f.rules, every=f.every)
    if isinstance(new, Zone):
        new = replace(new, shards=(Holder(),) * f.partitions, registrations=(0,) * f.partitions)
    return new


def _rules(s: S, at: int, time: int, f: Rules) -> S:
    _require(f.n > s.rules, f"rules {s.rules} are followed already")
    if f.n > RULES:
        raise UnknownRules(f"from offset {at} on ledger {s.ledger} follows rules {f.n}; this version knows {RULES}")
    return replace(s, rules=f.n)


def _claimed(s: S, at: int, time: int, f: Claimed) -> S:
    """Judged seat by seat; the claim's own offset becomes the token of those it gets."""
    mine, gained = Holder(holder=f.holder, life=f.life, token=at), False
    for seat, replaces in f.seats.items():
        if seat == LEADERSHIP and s.leader.token == replaces:
            s, gained = replace(s, leader=mine), True
        elif isinstance(s, Zone) and 0 <= seat < len(s.shards) and s.shards[seat].token == replaces:
            s, gained = replace(s, shards=_put(s.shards, seat, mine)), True
    _require(gained, "someone else claimed since")
    return s


def _lead(s: S, token: int) -> None:
    _require(token == s.leader.token != 0, f"token {token} is not the leader's ({s.leader.token})")


def _checkpoint(s: S, at: int, time: int, f: Checkpoint) -> S:
    """One at most for each multiple of `every`, and soon after it, so that every reader still has its own fold of that
    offset to compare (`Ledger.feed` does)."""
    _lead(s, f.token)
    last = s.checkpoints[-1].offset if s.checkpoints else 0
    _require(s.every > 0 and f.offset % s.every == 0 and last < f.offset <= at, f"no checkpoint is due at {f.offset}")
    _require(at - f.offset < MARKS * s.every, f"the checkpoint of {f.offset} comes too late")
    known = {0, *(m.offset for m in s.checkpoints)}
    _require(s.cut <= f.cut and f.cut in known, f"the ledger cannot be cut at {f.cut}")
    _require(not s.checkpoints or f.cut <= last, f"the checkpoint of {last} must stay")
    marks = (*s.checkpoints, Mark(offset=f.offset, hash=f.hash, places=f.places))
    return replace(s, checkpoints=tuple(m for m in marks if m.offset >= f.cut), cut=f.cut)


# ------------------------------------------------------------------ zone: rounds


def _current(z: Zone, f: Closed | Finalised, state: str) -> tuple[ZoneTask, Round]:
    _lead(z, f.token)
    t = z.tasks.get(f.task)
    if t is None or t.retired or t.round != f.round or t.state != state:
        raise Void(f"round {f.round} of {f.task} is not {state}")
    _whole(t, f.task)
    return t, t.rounds[f.round]


def _with(z: Zone, task: str, t: ZoneTask) -> Zone:
    """Forget the rounds that no block to come can name, and put the task back."""
    oldest = min(min(t.kept(s) for s in range(len(t.at))), t.round)
    if any(r < oldest for r in t.rounds):
        t = replace(t, rounds={n: r for n, r in t.rounds.items() if n >= oldest})
    return replace(z, tasks={**z.tasks, task: t})


def _whole(t: ZoneTask, task: str) -> None:
    _require(t.loss is None, f"{task} stands still: something is lost and nobody gave it up yet")


def _opened(z: Zone, at: int, time: int, f: Opened) -> Zone:
    _lead(z, f.token)
    p = z.partitions
    t = z.tasks.get(f.task) or ZoneTask(next=(0,) * p, at=(1,) * p, held=((),) * p)
    _require(not t.retired, f"{f.task} is retired")
    _whole(t, f.task)
    _require(t.state == "finalised" and f.round == t.round + 1, f"round {t.round} of {f.task} is {t.state}")
    _require(f.epoch >= t.epoch, f"epoch {f.epoch} is over")
    r = replace(t.rounds.get(f.round) or Round(round=f.round), opened=f, opened_at=at, opened_time=time)
    if r.contributors >= f.demand:  # what came before it opened fell into it already
        r = replace(r, met_at=time)
    merged = t.merged_rounds if f.epoch == t.epoch else 0
    t = replace(t, round=f.round, state="open", epoch=f.epoch, merged_rounds=merged, rounds={**t.rounds, f.round: r})
    t = replace(t, began=t.began or time)
    if places_taken(t) >= f.places:  # by devices that still work for earlier rounds
        t = replace(t, rounds={**t.rounds, f.round: replace(r, full_at=time)})
    return _with(z, f.task, _filled(t))


def _admitted(z: Zone, at: int, time: int, f: Admitted) -> Zone:
    """Slots in a round that is closed by now are void one by one; all else must hold for the whole fact."""
    _lead(z, f.token)
    _require(f.after == z.admitted, f"{f.after} is not the last Admitted ({z.admitted})")
    registrations = z.registrations
    for p, (start, end) in f.ranges.items():
        _require(
            p < len(registrations) and registrations[p] == start,  # the end may lie below, where the log lost its own
            f"registrations {p} are dealt with to elsewhere",
        )
        registrations = _put(registrations, p, end)
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
        if t is None or t.retired or t.loss or t.round != n or t.state != "open":
            continue
        r = t.rounds[n]
        assert r.opened
        numbers = range(len(r.devices), len(r.devices) + len(slots))
        _require(
            [x.slot for x in slots] == list(numbers), f"the next new slot of round {n} of {task} is {len(r.devices)}"
        )
        devices, twice = _joined_by(r.devices, [x.device for x in slots])
        _require(not twice, f"a device has two slots of round {n} of {task}")
        most = slots_of(r.opened)
        _require(len(devices) <= most, f"round {n} of {task} can have {most} slots")
        taken = places_taken(t) + len(slots)
        _require(taken <= r.opened.places, f"round {n} of {task} has {r.opened.places} places")
        owing = [x for x in slots if x.blocks]
        _require(r.opened.partial or not owing, f"round {n} of {task} takes whole models alone")
        for x in owing:
            why = sets.flaw(x.blocks, len(r.opened.sizes))
            _require(not why, f"slot {x.slot} of round {n} of {task} owes no set of blocks: {why}")
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
        tasks[task] = _filled(tasks[task])
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


def cost(o: Opened, blocks: bytes = sets.WHOLE) -> int:
    """Bytes that a device of the round moves at most which owes these blocks: them to it, and its delta of them back."""
    if not blocks or o.upload is None:
        return o.cost
    return sum(sets.chosen(blocks, _prices(o.sizes, o.upload)))


@lru_cache(maxsize=64)
def _prices(sizes: tuple[int, ...], upload: Upload) -> tuple[int, ...]:
    """The same by block. Each registration has its cost weighed, and each slot's is folded by every reader."""
    return tuple(4 * n + upload.bytes((n,)) for n in sizes)


def most_slots(largest: int, blocks: int, staleness: int = 0, fraction: int = 0) -> int:
    """How many slots a round may ever have: the sum of so many deltas of each round that may count here, each value at most
    `largest` units and weighed in multiples of 2^-fraction, fits 64 bits, and the bitmaps of all these slots a record."""
    return min((2**63 - 1) // (largest << fraction), MOST_BITS // blocks) // (staleness + 1)


def slots_of(o: Opened) -> int:
    """The same for a round as it was opened."""
    return most_slots(o.largest, len(o.sizes), o.staleness, o.fraction)


def places_taken(t: ZoneTask) -> int:
    """How many of a task's places are taken: by the round's cohort for its whole length; in an asynchronous task by every
    device at work for a round whose delta could still count."""
    r = t.rounds[t.round]
    assert r.opened
    if not r.opened.refill:
        return len(r.devices) - len(r.lapsed | r.voided if r.voided else r.lapsed)
    return _busy(t)


def at_work(t: ZoneTask) -> int:
    """How many devices hold a slot of the task, and are neither done nor given up."""
    return _busy(t) if has_devices(t) else 0


def has_devices(t: ZoneTask) -> bool:
    """Whether devices may be at work for it: in an open round; between two rounds of an asynchronous task, too."""
    r = t.rounds.get(t.round)
    return not t.retired and (t.state == "open" or bool(r and r.opened and r.opened.refill))


def _busy(t: ZoneTask) -> int:
    return sum(len(r.devices) - len(r.done | r.lapsed | r.voided) for r in working(t))


def _filled(t: ZoneTask) -> ZoneTask:
    """Free places are given from when `refill` of them are free until all are taken."""
    r = t.rounds.get(t.round)
    if r is None or r.opened is None or not r.opened.refill:
        return t if t.filling else replace(t, filling=True)
    free = r.opened.places - places_taken(t)
    filling = free > 0 and (t.filling or free >= r.opened.refill)
    return t if filling == t.filling else replace(t, filling=filling)


def working(t: ZoneTask) -> list[Round]:
    """The rounds whose devices' deltas could still count in the present one: it alone, but in an asynchronous task."""
    r = t.rounds[t.round]
    if r.opened is None or not r.opened.refill:
        return [r]
    return [x for n, x in sorted(t.rounds.items()) if t.round - r.opened.staleness <= n <= t.round]


def _by_round(items: Iterable[Any]) -> dict[tuple[str, int], list[Any]]:
    out: dict[tuple[str, int], list[Any]] = {}
    task, n, group = "", -1, list[Any]()
    for x in items:
        if x.round != n or x.task != task:  # most come behind one of their own
            task, n = x.task, x.round
            group = out.setdefault((task, n), [])
        group.append(x)
    return out


def _committed(z: Zone, at: int, time: int, f: Committed) -> Zone:
    t = z.tasks.get(f.task)
    if t is None or t.retired:
        raise Void(f"{f.task} is {'retired' if t else 'not known'}")
    _whole(t, f.task)
    _require(bool(f.stretches), "it covers nothing")
    _require(
        f.stretches.keys() >= f.held.keys() | f.released.keys(), "it holds or releases in a shard it does not cover"
    )
    nexts, ats, helds = t.next, t.at, t.held
    rounds = {**t.rounds}
    rounds[f.round] = r = t.rounds.get(f.round) or Round(round=f.round)
    over: list[int] = []
    for s, stretch in f.stretches.items():
        _require(0 <= s < len(nexts), f"there is no shard {s}")
        _require(stretch.token == z.shards[s].token != 0, f"token {stretch.token} is not that of shard {s}")
        _require(stretch.start == nexts[s] < stretch.end, f"shard {s} is committed up to {nexts[s]}")
        _require(f.round == ats[s], f"shard {s} is in round {ats[s]}")
        nexts = _put(nexts, s, stretch.end)
        helds = _put(helds, s, _holding(helds[s], s, stretch, f))
        if r.closed and stretch.end >= r.closed.ends[s]:
            over.append(s)
    offsets = sum(x.end - x.start for x in f.stretches.values())
    waiting = sum(map(len, f.held.values())) - sum(map(len, f.released.values()))
    _require(f.counts.total() + waiting == offsets, "the counts do not add up to the offsets")
    done: dict[int, set[int]] = {}
    for d in f.done:
        base, here = _slot(rounds, d), done.setdefault(d.round, set())
        new = d.slot not in base.done and d.slot not in base.voided and d.slot not in here
        _require(new, f"slot {d.slot} of round {d.round} is done or given up before")
        here.add(d.slot)
    for n, slots in done.items():
        rounds[n] = replace(rounds[n], done=rounds[n].done | slots)
    for d in f.voided:
        base = _slot(rounds, d)
        _require(d.slot not in base.done, f"slot {d.slot} of round {d.round} is done")
        rounds[d.round] = replace(base, voided=base.voided | {d.slot})
    for held in f.held.values():
        for h in held:
            base = _slot(rounds, h)
            waits = h.slot not in base.done and h.slot not in base.voided
            _require(waits, f"slot {h.slot} of round {h.round} is done or given up")
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
    return _with(z, f.task, _filled(_shards_done(t, over)))


def _holding(held: tuple[Held, ...], s: int, stretch: Any, f: Committed) -> tuple[Held, ...]:
    """What a shard holds after a commit."""
    new, released = f.held.get(s, ()), f.released.get(s, ())
    inside = [h.offset for h in new]
    _require(
        inside == sorted({o for o in inside if stretch.start <= o < stretch.end}), "it holds what it does not cover"
    )
    _require(len(set(released)) == len(released), "it releases an offset twice")
    _require({h.offset for h in held}.issuperset(released), f"it releases what shard {s} does not hold")
    return (*(h for h in held if h.offset not in released), *new)


def _slot(rounds: dict[int, Round], d: Done | Held) -> Round:
    base = rounds.get(d.round)
    if base is None or d.slot >= len(base.devices):
        raise Void(f"slot {d.slot} of round {d.round} is unknown")
    return base


def _shards_done(t: ZoneTask, shards: Iterable[int]) -> ZoneTask:
    """These shards are done with the round they are in: what they hold is given up, the next block falls into the next."""
    for s in shards:
        t = _given_up(t, s)
        t = replace(t, at=_put(t.at, s, t.at[s] + 1))
    return t


def _given_up(t: ZoneTask, s: int) -> ZoneTask:
    """All that a shard holds is incomplete for good."""
    if not t.held[s]:
        return t
    rounds, n, more = {**t.rounds}, t.at[s], Counts(incomplete=len(t.held[s]))
    rounds[n] = replace(rounds[n], tally=rounds[n].tally.plus(counts=more))
    for h in t.held[s]:
        base = rounds.get(h.round)
        if base:
            rounds[h.round] = replace(base, voided=base.voided | {h.slot})
    return replace(t, held=_put(t.held, s, ()), rounds=rounds, tally=t.tally.plus(counts=more))


def _closed(z: Zone, at: int, time: int, f: Closed) -> Zone:
    t, r = _current(z, f, "open")
    _require(sorted(f.ends) == list(range(len(t.next))), "it does not name the ends of all shards")
    r = replace(r, closed=f, closed_at=at)
    t = replace(t, state="closed", rounds={**t.rounds, f.round: r}, starved=t.starved + 1 if _starved(t, r) else 0)
    t = _timed(t, r, time)
    over = [s for s, n in enumerate(t.at) if n == f.round and t.next[s] >= f.ends[s]]
    return _with(z, f.task, _shards_done(t, over))


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


def _finalised(z: Zone, at: int, time: int, f: Finalised) -> Zone:
    t, r = _current(z, f, "closed")
    _require(min(t.at) > f.round, "not all shards are done with the round")
    _require(f.commits == summed(r), "it does not sum the accepted commits")
    t = replace(t, state="finalised")
    if f.manifest:
        measured = (*t.measured, (f.norm, f.mean_loss))[-2:]
        t = replace(t, manifest=f.manifest, manifest_at=at, optimiser=f.optimiser, measured=measured)
        t = replace(t, merged_rounds=t.merged_rounds + 1)
    return _with(z, f.task, t)


def _retired(z: Zone, at: int, time: int, f: Retired) -> Zone:
    _lead(z, f.token)
    t = z.tasks.get(f.task)
    if t is None or t.retired:
        raise Void(f"{f.task} is unknown or retired before")
    for s in range(len(t.next)):
        t = _given_up(t, s)
    none: frozenset[int] = frozenset()
    last = replace(t.rounds[t.round], devices=(), leases=(), sets={}, lapsed=none, done=none, voided=none, commits=())
    rounds = {t.round: last}  # for people to look at; what is large is of no use any more
    t = replace(t, retired=True, retired_at=at, rounds=rounds, loss=None)
    return replace(z, tasks={**z.tasks, f.task: t})


def summed(r: Round) -> tuple[int, ...]:
    """The ledger offsets of a round's commits that hold a sum, in ledger order."""
    return tuple(c.offset for c in r.commits if any(c.fact.sums) and not c.lost)


# ------------------------------------------------------------------ zone: loss


def _lost(z: Zone, at: int, time: int, f: Lost) -> Zone:
    if f.seat == LEADERSHIP:
        _lead(z, f.token)
    else:
        _require(f.seat < len(z.shards) and f.token == z.shards[f.seat].token != 0, f"shard {f.seat} is another's")
    t = z.tasks.get(f.task)
    if t is None or t.retired:
        raise Void(f"{f.task} is unknown or retired")
    _require(t.loss is None, "the task stands still for another loss")
    _require(bool(f.ranges or f.commits), "it names nothing")
    for s, (start, to) in f.ranges.items():
        _require(s < len(t.next) and start == t.next[s], f"shard {s} is committed up to elsewhere")
        r = t.rounds.get(t.at[s])
        short = s in f.short and r is not None and r.closed is not None and start < r.closed.ends[s]
        _require(to != start or bool(t.held[s]) or short, f"nothing of shard {s} is gone")
    loss = Loss(at=at, what=f.what, ranges=f.ranges, commits=f.commits, short=f.short)
    kept = {c.offset for r in t.rounds.values() for c in r.commits if not c.lost}
    _require(kept.issuperset(f.commits), "it names commits that are not there")
    return _with(z, f.task, replace(t, loss=loss))


def _abandoned(z: Zone, at: int, time: int, f: Abandoned) -> Zone:
    """The task goes on where its logs do, and without the sums that are gone. No slot that may have had a part in them
    counts any more, so that whoever judges its next block says the same. Who holds a shard that is concerned must claim it
    again: what is under way under its token was judged before, or lies at offsets that are used again."""
    t = z.tasks.get(f.task)
    if t is None or t.retired or t.loss is None or t.loss.at != f.lost:
        raise Void(f"{f.task} has no loss at {f.lost}")
    loss = t.loss
    t = replace(t, loss=None)
    concerned = set(loss.ranges)
    for s, (start, to) in loss.ranges.items():
        t = _given_up(t, s)
        n = t.at[s]
        r = t.rounds.get(n) or Round(round=n)
        gone = max(0, to - start)
        r = replace(r, tally=r.tally.plus(gone, lost=gone))
        t = replace(
            t,
            next=_put(t.next, s, to),
            rounds={**t.rounds, n: r},
            tally=t.tally.plus(gone, lost=gone),
            rewound=t.rewound + max(0, start - to),
        )
        if r.closed and (to < start or to >= r.closed.ends[s] or s in loss.short):
            t = _shards_done(t, [s])
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
    return _with(z, f.task, t)


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


def identity(t: ZoneTask, n: int = 0) -> bool:
    """Whether every offset of a round's segment (0: of all rounds) has its outcome: counted, duplicate, late, invalid,
    incomplete, lost to a loss that was given up, or held while its delta is not whole."""
    held = sum(len(h) for s, h in enumerate(t.held) if not n or t.at[s] == n)
    tally = t.rounds[n].tally if n else t.tally
    return tally.adds_up(held) and (n > 0 or sum(t.next) == tally.offsets - t.rewound)


# ------------------------------------------------------------------ globe: epochs


def _joined(g: Globe, at: int, time: int, f: ZoneJoined) -> Globe:
    _lead(g, f.token)
    _require(f.zone not in g.zones, f"zone {f.zone} is in already")
    return replace(g, zones={**g.zones, f.zone: Joined(ledger=f.ledger, partitions=f.partitions)})


def _task_admitted(g: Globe, at: int, time: int, f: TaskAdmitted) -> Globe:
    _lead(g, f.token)
    _require(f.spec.task not in g.tasks, f"the name {f.spec.task} is used")
    _require(bool(f.zones) and all(z in g.zones for z in f.zones), "it names zones that are not there")
    t = GlobalTask(
        spec=f.spec,
        layout=f.layout,
        manifest=f.manifest,
        zones=f.zones,
        admitted_at=at,
        seed=f.seed,
        taken=dict.fromkeys(f.zones, 0),
        submission=f.submission,
        first=f.manifest,
        heard=time,
        structure=f.structure,
    )
    refused = {k: v for k, v in g.refused.items() if k != f.spec.task}
    return replace(g, tasks={**g.tasks, f.spec.task: t}, refused=refused)


def silent(t: GlobalTask, time: int) -> bool:
    """Whether at this time, of the ledger's clock (ms), the task's tenant has said nothing of it for too long."""
    return t.spec.silent_s > 0 and time - t.heard >= 1000 * t.spec.silent_s


def _task_updated(g: Globe, at: int, time: int, f: TaskUpdated) -> Globe:
    t = _task(g, f, "admitted", "open", "closed", "merged")
    _require(t.wanted != "stop", f"{f.task} is stopped")
    if f.submission == t.submission and (f.spec, f.wanted, f.enough) == (t.spec, "stop", {}):
        _require(
            silent(t, time), f"submission {t.submission} holds for {f.task}, and its tenant was heard of at {t.heard}"
        )
        return replace(g, tasks={**g.tasks, f.task: replace(t, wanted="stop", by=f.by)})
    _require(f.submission > t.submission, f"submission {t.submission} holds for {f.task}")
    what = fixed(t.spec, f.spec)
    _require(not what, f"{what} of {f.task} cannot change")
    enough = {**t.enough, **{z: max(n, t.enough.get(z, 0)) for z, n in f.enough.items()}}
    new = replace(t, spec=f.spec, wanted=f.wanted, by=f.by, submission=f.submission, heard=time, enough=enough)
    return replace(g, tasks={**g.tasks, f.task: new})


def _task_refused(g: Globe, at: int, time: int, f: TaskRefused) -> Globe:
    _lead(g, f.token)
    last, t = g.refused.get(f.task), g.tasks.get(f.task)
    _require(t is None or t.submission < f.submission, f"{f.task} is admitted")
    _require(last is None or last.submission < f.submission, f"submission {f.submission} is refused before")
    tasks = {**g.tasks, f.task: replace(t, heard=time)} if t else g.tasks
    return replace(g, tasks=tasks, refused={**g.refused, f.task: f})


def _wish(g: Globe, f: TenantSet | SharingSet | WishRefused, key: str) -> None:
    """Records of `global.tenants` under one key are dealt with in order, each once."""
    _lead(g, f.token)
    newest = g.dealt(key)
    _require(f.submission > newest, f"record {newest} of {key} is dealt with already")


def _tenant_set(g: Globe, at: int, time: int, f: TenantSet) -> Globe:
    _wish(g, f, f.tenant.tenant)
    return replace(g, tenants={**g.tenants, f.tenant.tenant: f})


def _sharing_set(g: Globe, at: int, time: int, f: SharingSet) -> Globe:
    _wish(g, f, SHARING)
    return replace(g, sharing=f)


def _wish_refused(g: Globe, at: int, time: int, f: WishRefused) -> Globe:
    _wish(g, f, f.key)
    return replace(g, wishes={**g.wishes, f.key: f})


def _task(g: Globe, f: Any, *states: str) -> GlobalTask:
    _lead(g, f.token)
    t = g.tasks.get(f.task)
    if t is None or t.state not in states:
        raise Void(f"{f.task} is {t.state if t else 'unknown'}, not {' or '.join(states)}")
    return t


def _epoch_opened(g: Globe, at: int, time: int, f: EpochOpened) -> Globe:
    t = _task(g, f, "admitted", "merged")
    _require(f.epoch == t.epoch + 1, f"epoch {t.epoch} is the last")
    _require(f.manifest == t.manifest, "it does not start from the last global model")
    _require(set(f.zones) <= set(t.zones), "it names zones that are not the task's")
    part = f.zones or t.zones
    new = replace(t, state="open", epoch=f.epoch, opened_at=at, opened_time=time, updates={}, ends={}, part=part)
    new = replace(new, waited={z: 0 if z in part else t.waited.get(z, 0) + 1 for z in t.zones})
    return replace(g, tasks={**g.tasks, f.task: new})


def _taken(g: Globe, at: int, time: int, f: Taken) -> Globe:
    t = _task(g, f, "open", "closed")
    _require(f.epoch == t.epoch, f"epoch {t.epoch} is the present one")
    taken, updates = dict(t.taken), dict(t.updates)
    for zone, (start, end) in f.ranges.items():
        _require(taken.get(zone) == start <= end, f"zone {zone} is taken up to {taken.get(zone)}")
        _require(t.state == "open" or end <= t.ends[zone], f"the epoch ends at {t.ends.get(zone)} in zone {zone}")
        taken[zone] = end
    for u in f.updates:
        _require(u.zone in f.ranges, f"the update of zone {u.zone} is from no range")
        _require(len(u.weights) in (0, len(t.layout.sizes)), f"the update of zone {u.zone} weighs other blocks")
        if old := updates.get(u.zone):
            u = _both(old, u, len(t.layout.sizes))
        updates[u.zone] = u
    return replace(g, tasks={**g.tasks, f.task: replace(t, taken=taken, updates=updates)})


def _both(old: Update, new: Update, blocks: int) -> Update:
    """What a zone did in two stretches of its ledger."""
    weights: tuple[int, ...] = ()
    if old.weights or new.weights:
        weights = tuple(a + b for a, b in zip(old.weigh(blocks), new.weigh(blocks), strict=True))
    samples, devices, loss = (getattr(old, n) + getattr(new, n) for n in ("samples", "devices", "loss"))
    return replace(new, samples=samples, devices=devices, loss=loss, weights=weights)


def _epoch_closed(g: Globe, at: int, time: int, f: EpochClosed) -> Globe:
    t = _task(g, f, "open")
    _require(f.epoch == t.epoch, f"epoch {t.epoch} is the present one")
    _require(sorted(f.ends) == sorted(t.zones), "it does not name the ends of all zones")
    _require(all(f.ends[z] >= t.taken[z] for z in t.zones), "it ends before what is taken")
    return replace(g, tasks={**g.tasks, f.task: replace(t, state="closed", ends=f.ends)})


def _merged(g: Globe, at: int, time: int, f: Merged) -> Globe:
    t = _task(g, f, "closed")
    _require(f.epoch == t.epoch, f"epoch {t.epoch} is the present one")
    _require(all(t.taken[z] >= t.ends[z] for z in t.zones), "not all zones are taken to their ends")
    new = replace(t, state="merged", manifest=f.manifest or t.manifest, optimiser=f.optimiser or t.optimiser)
    new = replace(new, contributions=f.contributions or t.contributions, merged_time=time, fresh=f.manifest is not None)
    return replace(g, tasks={**g.tasks, f.task: new})


def _scored(g: Globe, at: int, time: int, f: Scored) -> Globe:
    t = _task(g, f, "merged")
    _require(f.epoch == t.epoch and t.fresh, f"epoch {t.epoch} is the last")
    _require(t.score is None or t.score.epoch < f.epoch, f"epoch {f.epoch} is scored before")
    score = Score(epoch=f.epoch, accuracy=f.accuracy, loss=f.loss)
    better = t.best is None or f.loss < t.best.loss - t.spec.stop.delta
    return replace(g, tasks={**g.tasks, f.task: replace(t, score=score, best=score if better else t.best)})


def _task_ended(g: Globe, at: int, time: int, f: TaskEnded) -> Globe:
    t = _task(g, f, "admitted", "merged")
    return replace(g, tasks={**g.tasks, f.task: replace(t, state="ended", why=f.why, updates={}, ends={})})


# ------------------------------------------------------------------ the fold

Transition = Callable[[Any, int, int, Any], Any]
TRANSITIONS: Mapping[type, Mapping[type, Transition]] = {
    Zone: {
        Founded: _founded,
        Rules: _rules,
        Checkpoint: _checkpoint,
        Claimed: _claimed,
        Opened: _opened,
        Admitted: _admitted,
        Committed: _committed,
        Closed: _closed,
        Finalised: _finalised,
        Lost: _lost,
        Abandoned: _abandoned,
        Retired: _retired,
    },
    Globe: {
        Founded: _founded,
        Rules: _rules,
        Checkpoint: _checkpoint,
        Claimed: _claimed,
        ZoneJoined: _joined,
        TaskAdmitted: _task_admitted,
        TaskUpdated: _task_updated,
        TaskRefused: _task_refused,
        TenantSet: _tenant_set,
        SharingSet: _sharing_set,
        WishRefused: _wish_refused,
        EpochOpened: _epoch_opened,
        Taken: _taken,
        EpochClosed: _epoch_closed,
        Merged: _merged,
        Scored: _scored,
        TaskEnded: _task_ended,
    },
}
_FACTS: Mapping[type, tuple[type, ...]] = {Zone: facts.ZONE_FACTS, Globe: facts.GLOBAL_FACTS}


def fold(state: S, offset: int, time: int, fact: Message | None) -> tuple[S, str]:
    """The state after the record at `offset`, written at `time` (ms): (state, why it is void or "").

    `fact` None stands for what could not be read. Raises `ValueError` if `offset` is not the next one.
    """
    if offset != state.position:
        raise ValueError(f"ledger {state.ledger}: offset {offset} comes after {state.position - 1}")
    void, new = "", state
    try:
        _require(bool(state.ledger) or isinstance(fact, Founded), "the ledger is not founded")
        transition = TRANSITIONS[type(state)].get(type(fact))
        if transition is None:
            raise Void("not a fact of this ledger")
        new = transition(state, offset, time, fact)
    except Void as e:
        void, new = str(e), state
    return replace(new, position=offset + 1), void


class Ledger(Generic[S]):
    """A reader's copy of a ledger: feed it the records in order, from `state.position` on."""

    def __init__(self, state: S):
        self.state: S = state
        self.marks: dict[int, S] = {}
        """The last states at multiples of `every`: what a checkpoint is made of, and compared with."""

    def feed(self, record: Record) -> tuple[Message | None, str]:
        """The fact and why it is void ("" if accepted); None for what cannot be read, which is void."""
        try:
            fact, unread = decode(record.value, _FACTS[type(self.state)], record.headers), ""
        except Malformed as e:
            fact, unread = None, str(e)
        self.state, void = fold(self.state, record.offset, record.timestamp, fact)
        if isinstance(fact, Checkpoint):  # a void one, too: whoever errs may err about who leads
            self._compare(fact)
        if self.state.every and self.state.position % self.state.every == 0:
            self.marks[self.state.position] = self.state
            while len(self.marks) > MARKS:
                del self.marks[min(self.marks)]
        return fact, unread or void

    def _compare(self, f: Checkpoint) -> None:
        mine = self.marks.get(f.offset)
        if mine is not None and checksum(snapshot(mine)) != f.hash:  # None: read from a later checkpoint on
            raise Diverged(
                f"the fold of ledger {self.state.ledger} below {f.offset} is not the one its checkpoint names: this "
                "version folds otherwise than the leader's; run one version everywhere"
            )

    def ref(self, offset: int) -> Ref:
        return Ref(ledger=self.state.ledger, offset=offset)


def leads(state: Zone | Globe, holder: str, life: str) -> int:
    """The token by which this life of `holder` leads, or 0."""
    leader = state.leader
    return leader.token if (leader.holder, leader.life) == (holder, life) else 0


def shards_of(zone: Zone, holder: str, life: str) -> dict[int, int]:
    """The shards that this life of `holder` holds, with their tokens."""
    return {i: h.token for i, h in enumerate(zone.shards) if (h.holder, h.life) == (holder, life)}


def snapshot(state: Zone | Globe) -> bytes:
    """The state as canonical bytes: equal states, equal bytes."""
    return encode(state)


def restore(data: bytes, kind: type[S]) -> S:
    """The state that `snapshot` made these bytes of. Raises `Malformed`."""
    return decode(data, (kind,))
