"""The facts of the ledgers. A fact names what it follows; `streams/ledger/` says when it is accepted.

A token is the ledger offset of an accepted claim. 0 stands for nobody: offset 0 holds `Founded`.
"""

from typing import Annotated

import msgspec

from schemas.blocks import Layout, Manifest, Place
from schemas.messages import Ref
from schemas.modules import Structure
from schemas.sets import WHOLE, Set
from schemas.sharing import Sharing, Tenant
from schemas.task import TaskSpec, Training, Upload, Wanted
from schemas.wire import Count, Ident, Message, Part, Slug

LEADERSHIP = -1
Seat = Annotated[int, msgspec.Meta(ge=LEADERSHIP)]
"""A shard, or the leadership."""
Offsets = dict[Count, Count]
Range = tuple[Count, Count]
"""[from, to)"""


RULES = 4
"""By which a fold of this version goes, and founds ledgers. 2: devices of tenants (`Opened.tenant`, what was moved on a day). 3: slots
that owe some of the model's blocks (`Opened.partial`, `Slot.blocks`), zones merged block by block (`Update.weights`). 4: of a task
that is over a fold keeps its name and in short what came of it."""


class Founded(Message, frozen=True):
    """The first record of a ledger: its identity, the rules it is folded by, the zone's number of partitions, and after
    how many records each a checkpoint may be made (0: never)."""

    ledger: Ident
    zone: Slug
    partitions: Annotated[int, msgspec.Meta(ge=1)]
    rules: Count = RULES
    every: Count = 0


class Rules(Message, frozen=True):
    """From here on the fold follows rules `n`; who does not know them stops."""

    n: Count


class Checkpoint(Message, frozen=True):
    """The fold of the records below `offset` has this hash and lies, in pieces, at `places` in the checkpoints topic.

    `cut` is the offset of the checkpoint below which nobody needs the ledger any more: the leader deletes those records.
    """

    token: Count
    offset: Count
    hash: Count
    places: tuple[Place, ...]
    cut: Count = 0


class Claimed(Message, frozen=True):
    """`holder`, in the life it has now, takes these seats, each from the token it replaces. Without a name: it gives them back,
    and they are nobody's."""

    holder: Annotated[str, msgspec.Meta(max_length=200)]
    life: Ident
    seats: dict[Seat, Count]


# ------------------------------------------------------------------ a zone's ledger


class Worth(Part, frozen=True):
    """What a round is worth to the devices of a zone (OLearning §5.1): `reward`, made of the zone's `contribution` (eq. 1), the
    task's `progress` in it (eq. 2), and how many rounds in a row before it got too few devices."""

    contribution: float
    progress: float
    starved: Count
    reward: float


class Opened(Message, frozen=True):
    """A round of a task begins, from the model in `base`, which `source` cites; all its limits are here."""

    token: Count
    task: Slug
    round: Count
    epoch: Count
    source: Ref
    base: Manifest
    demand: Count
    places: Count
    minimum: Count
    deadline: Count
    grace: Count
    lease: Count
    staleness: Count
    sizes: tuple[Count, ...]
    unit: int
    largest: Count
    heaviest: Count
    refill: Count = 0
    """0: a cohort of its own. n: devices that still work for earlier rounds take places here, and whenever n places are free
    they are given anew."""
    fraction: Count = 0
    """Staleness weights are multiples of 2^-fraction, and so are the sums."""
    atomic: bool = False
    """A delta counts whole or not at all."""
    hold: Count = 0
    """Bytes of incomplete deltas that a shard holds at most, when `atomic`."""
    worth: Worth = Worth(contribution=1.0, progress=1.0, starved=0, reward=1.0)
    tenant: Slug = "default"
    cost: Count = 0
    """Bytes that a device of the round moves at most, the model to it and its delta back: what a slot takes of its tenant's day."""
    fill: Count = 0
    """Until when (ms) devices are admitted, if not until the deadline; 0: until then."""
    serve: Count = 0
    """For how many ms a round that has its devices waits for their deltas, if not until the deadline; 0: until then."""
    training: Training | None = None
    """What all devices of the round do, though the task may change meanwhile. None: in ledgers from before this was said."""
    partial: bool = False
    """A slot may owe some of the model's blocks only."""
    upload: Upload | None = None
    """How deltas are written at the longest, when `partial`: a slot's cost is that of its own blocks."""


class Slot(Part, frozen=True, omit_defaults=True):
    """A device's place in a round of a task. Numbers count up within the round and are never used again. `blocks`: those that its delta
    has (`schemas/sets.py`), all of them unless the round is `partial`; no others of it count."""

    task: Slug
    round: Count
    slot: Count
    device: Ident
    blocks: Set = WHOLE


class Lapsed(Part, frozen=True):
    """A slot whose lease is over: its place may be given again, its blocks still count while the round lasts."""

    task: Slug
    round: Count
    slot: Count


class Admitted(Message, frozen=True):
    """The registrations in `ranges` (partition -> [from, to)) are dealt with; `after` is the offset of the last `Admitted`."""

    token: Count
    after: Count
    ranges: dict[Count, Range]
    slots: tuple[Slot, ...]
    lapsed: tuple[Lapsed, ...] = ()


class Stretch(Part, frozen=True):
    """Offsets [start, end) of a shard's log, read under a token."""

    token: Count
    start: Count
    end: Count


class Counts(Part, frozen=True):
    """Blocks by outcome."""

    counted: Count = 0
    duplicate: Count = 0
    late: Count = 0
    invalid: Count = 0
    incomplete: Count = 0

    def total(self) -> int:
        return self.counted + self.duplicate + self.late + self.invalid + self.incomplete


class Done(Part, frozen=True):
    """A slot all of whose blocks, those it owes, are counted: base round and slot."""

    round: Count
    slot: Count


class Held(Part, frozen=True):
    """A block of a delta that is not complete yet: where it lies in its shard, its base round, slot and block."""

    offset: Count
    round: Count
    slot: Count
    block: Count


class Committed(Message, frozen=True):
    """Stretches of a task's shards, judged and summed into a round. The sums and the bitmap lie in the partials.

    With `atomic`, by shard: `held` lie in the stretches and wait for the rest of their delta; `released` are offsets held by
    earlier commits that have their outcome in this one. `voided` slots were given up: no block of theirs counts any more.
    """

    task: Slug
    round: Count
    stretches: dict[Count, Stretch]
    counts: Counts
    done: tuple[Done, ...] = ()
    weights: tuple[Count, ...] = ()
    samples: Count = 0
    loss: Count = 0
    bitmap: Place | None = None
    sums: tuple[Place | None, ...] = ()
    held: dict[Count, tuple[Held, ...]] = {}
    released: dict[Count, tuple[Count, ...]] = {}
    voided: tuple[Done, ...] = ()


class Closed(Message, frozen=True):
    """No more is waited for. `ends` are the log ends of the task's shards: what lies below them still counts."""

    token: Count
    task: Slug
    round: Count
    why: str
    ends: Offsets


class Finalised(Message, frozen=True):
    """The round's result. `commits` are the offsets of the commits summed, `norm` is that of the devices' mean delta (∇W of
    OLearning's eq. 2), before the server optimiser; without a `manifest` the round failed."""

    token: Count
    task: Slug
    round: Count
    commits: tuple[Count, ...]
    devices: Count
    samples: Count
    loss: Count
    norm: float
    manifest: Manifest | None = None
    optimiser: Manifest | None = None
    """The server optimiser's state after this round, if it has one and works in the zone."""

    @property
    def mean_loss(self) -> float:
        """Of a sample, in nats; 0 if there is none."""
        return self.loss / 1e6 / self.samples if self.samples else 0.0


class Lost(Message, frozen=True):
    """Something is gone that a task needs: the task stands still until a person says `Abandoned`.

    Said by who holds `seat` under `token`. `ranges`: by shard, the fold's next offset and where the log goes on (above it:
    retention overtook the fold; below it: the log lost its end). `commits`: those whose partials are gone.
    `short`: of the shards, those whose log ends there though a closed round goes on.
    """

    token: Count
    seat: Seat
    task: Slug
    what: str
    ranges: dict[Count, Range] = {}
    commits: tuple[Count, ...] = ()
    short: tuple[Count, ...] = ()


class Abandoned(Message, frozen=True):
    """A person gives up what the `Lost` at this offset names, so that the task goes on without it."""

    task: Slug
    lost: Count
    by: Ident
    reason: str = ""


class Retired(Message, frozen=True):
    """The task is over in this zone; `source` cites the global fact that says so."""

    token: Count
    task: Slug
    source: Ref


# ------------------------------------------------------------------ the globe's ledger


class ZoneJoined(Message, frozen=True):
    """A zone's ledger becomes part of the globe."""

    token: Count
    zone: Slug
    ledger: Ident
    partitions: Count


class TaskAdmitted(Message, frozen=True):
    """A task may run in these zones; its topics are there. `submission` is the offset of its record in `global.tasks`."""

    token: Count
    spec: TaskSpec
    layout: Layout
    manifest: Manifest
    zones: tuple[Slug, ...]
    seed: Count = 0
    submission: Count = 0
    structure: Structure | None = None
    """What a modular model's parts cost."""


class TaskUpdated(Message, frozen=True):
    """A later record of `global.tasks` holds for a task that runs: other settings, or something else is wanted of it.

    Settings hold from the next round and epoch on. Paused, a task opens none; stopped, it ends with the epoch that is open, which
    ends at once with what the zones have. One that cites the record that holds already stops a task whose tenant is silent: it holds
    only if the ledger's own clock says so.
    """

    token: Count
    task: Slug
    submission: Count
    spec: TaskSpec
    wanted: Wanted
    by: str = ""
    enough: dict[Slug, Count] = {}
    """By zone, a round that is to end with what it has."""


class TaskRefused(Message, frozen=True):
    """The task in this record of `global.tasks` may not run, or not be changed like that, and why."""

    token: Count
    task: Slug
    submission: Count
    reason: str


class TenantSet(Message, frozen=True):
    """What a tenant may have from here on, as its record at `submission` of `global.tenants` says."""

    token: Count
    submission: Count
    tenant: Tenant


class SharingSet(Message, frozen=True):
    """By which policy devices are shared from here on, as the record at `submission` of `global.tenants` says."""

    token: Count
    submission: Count
    sharing: Sharing


class WishRefused(Message, frozen=True):
    """The record at `submission` of `global.tenants`, under this key, does not hold, and why."""

    token: Count
    submission: Count
    key: Ident
    reason: str


class EpochOpened(Message, frozen=True):
    """These zones (none named: all of the task's) may work from this global model."""

    token: Count
    task: Slug
    epoch: Count
    manifest: Manifest
    zones: tuple[Slug, ...] = ()


class Update(Part, frozen=True):
    """What a zone did in an epoch: its last model, the samples of all its rounds since the epoch began, and its progress (OLearning's
    eq. 2) after the last of them. `weights`: by block, those of all deltas counted in these rounds; (): all have the samples."""

    zone: Slug
    round: Count
    manifest: Manifest
    samples: Count
    devices: Count
    loss: Count
    progress: float = 1.0
    weights: tuple[Count, ...] = ()

    def weigh(self, n: int) -> tuple[int, ...]:
        """What each of the model's `n` blocks weighs in a merge."""
        return self.weights or (self.samples,) * n


class Taken(Message, frozen=True):
    """The stretches [from, to) of the zones' ledgers are dealt with for this task, and hold these updates."""

    token: Count
    task: Slug
    epoch: Count
    ranges: dict[Slug, Range]
    updates: tuple[Update, ...]


class EpochClosed(Message, frozen=True):
    """No more is waited for. What the zones' ledgers hold below `ends` belongs to the epoch."""

    token: Count
    task: Slug
    epoch: Count
    why: str
    ends: dict[Slug, Count]


class Merged(Message, frozen=True):
    """The global model of an epoch: the zones' updates, each block weighted by what was counted of it. `contributions`: by zone its share in how far all were
    from it (OLearning's eq. 1); a zone without an update was where the epoch began."""

    token: Count
    task: Slug
    epoch: Count
    manifest: Manifest | None
    samples: Count
    norm: float
    optimiser: Manifest | None = None
    """The server optimiser's state after this epoch, if it has one and works in the globe."""
    contributions: dict[Slug, float] = {}


class Scored(Message, frozen=True):
    """An evaluator's word on the global model of an epoch, which the task's stop rule asks for."""

    token: Count
    task: Slug
    epoch: Count
    accuracy: float
    loss: float


class TaskEnded(Message, frozen=True):
    """The task is over."""

    token: Count
    task: Slug
    why: str


ZONE_FACTS = (
    Founded, Rules, Checkpoint, Claimed, Opened, Admitted, Committed, Closed, Finalised, Lost, Abandoned, Retired,
)  # fmt: skip
GLOBAL_FACTS = (
    Founded, Rules, Checkpoint, Claimed, ZoneJoined, TaskAdmitted, TaskUpdated, TaskRefused, TenantSet, SharingSet, WishRefused, EpochOpened, Taken, EpochClosed,
    Merged, Scored, TaskEnded,
)  # fmt: skip
