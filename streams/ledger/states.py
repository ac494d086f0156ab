"""What a ledger says, as data: the states of a zone's and of the global ledger. They are never changed in place: a reader may keep any."""

from typing import TypeVar

from msgspec.structs import replace

from schemas import sets
from schemas.blocks import Last, Layout, Manifest, Place
from schemas.facts import (
    RULES,
    Closed,
    Committed,
    Counts,
    Held,
    Opened,
    SharingSet,
    TaskRefused,
    TenantSet,
    Update,
    WishRefused,
)
from schemas.modules import Structure
from schemas.sharing import SHARING, Tenant
from schemas.task import TaskSpec
from schemas.wire import Part


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
    """Whether free places are given now (`filled`)."""
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


class ZoneOver(Part, frozen=True, array_like=True):
    """What is kept of a task that is over in a zone, for good: a row of numbers, since there is one for every task that ever ran."""

    at: int
    """The offset of its `Retired`."""
    time: int
    """When that landed (ms)."""
    tenant: str
    round: int
    """Its last; `devices` delivered in it, of the `demand`."""
    devices: int
    demand: int
    epoch: int
    """Its last; `merged_rounds` of it gave a model."""
    merged_rounds: int
    service: int
    delivered: int
    covered: int
    """What the first offsets that no commit covers add up to, and those that were used again: `offsets`, where all is right."""
    offsets: int
    counted: int
    duplicate: int
    late: int
    invalid: int
    incomplete: int
    lost: int

    @property
    def tally(self) -> Tally:
        """Over all its rounds."""
        counts = Counts(**{n: getattr(self, n) for n in Counts.__struct_fields__})
        return Tally(offsets=self.offsets, counts=counts, lost=self.lost)


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
    over: dict[str, ZoneOver] = {}
    """Tasks that are over here: none of them opens a round again."""
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


class GlobalOver(Part, frozen=True, array_like=True):
    """What is kept of a task that is over, for good: its name is never used again."""

    at: int
    """The offset of its `TaskEnded`."""
    time: int
    """When that landed (ms)."""
    tenant: str
    zones: tuple[str, ...]
    epoch: int
    """Its last."""
    epochs: int
    """How many there were to be, each of `rounds`."""
    rounds: int
    submission: int
    why: str
    model: Last


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
    over: dict[str, GlobalOver] = {}
    """Tasks that are over."""
    refused: dict[str, TaskRefused] = {}
    tenants: dict[str, TenantSet] = {}
    """What holds for those that were ever said something of."""
    sharing: SharingSet | None = None
    """None: nobody said anything yet."""
    wishes: dict[str, WishRefused] = {}
    """By key of `global.tenants`, the last record that was refused."""

    def knows(self, task: str) -> bool:
        """Whether a task of that name was ever admitted."""
        return task in self.tasks or task in self.over

    def tenant(self, name: str) -> Tenant:
        """What a tenant may have."""
        return self.tenants[name].tenant if name in self.tenants else Tenant(tenant=name)

    def dealt(self, key: str) -> int:
        """The last record of `global.tenants` under this key that is dealt with; -1: none."""
        held = self.sharing if key == SHARING else self.tenants.get(key)
        return max((x.submission for x in (held, self.wishes.get(key)) if x), default=-1)


S = TypeVar("S", Zone, Globe)
