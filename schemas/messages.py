"""What travels between devices and the plane, and what the plane says of itself. Decisions are in `facts.py`."""

from typing import Annotated

import msgspec

from schemas.blocks import Manifest
from schemas.modules import Modules
from schemas.sets import WHOLE, Set
from schemas.sharing import Abilities, Needs, Quota, Weight
from schemas.task import Adapt, Training
from schemas.wire import Count, Ident, Message, Part, Scalar, Slug


class Ref(Part, frozen=True):
    """A record of a ledger: which ledger, and the offset there."""

    ledger: Ident
    offset: Count


class CheckIn(Message, frozen=True):
    """`<zone>.checkins`: "I am here", with public abilities; or, `gone`, that it left the zone. No forecast: that stays on the
    device."""

    device: Ident
    abilities: Abilities = {}
    gone: bool = False


class Announcement(Message, frozen=True):
    """`<zone>.announcements`: the round a task has open in this zone, or that it has none now. `cause` orders them. `reward`: what it
    is worth to a device of this zone, but for the device's own quality (OLearning §5.1)."""

    task: Slug
    tenant: Slug
    round: Count
    open: bool
    cause: Ref
    model: str
    model_args: dict[str, Scalar]
    data: str
    data_args: dict[str, Scalar]
    training: Training
    sizes: tuple[Count, ...]
    unit: int
    largest: float
    base: Manifest
    deadline: Count
    seed: Count = 0
    staleness: Count = 0
    """How many rounds old the base of a delta may be."""
    codec: Ident = "int32"
    """How deltas are to be written, and with top-k which share of their values."""
    keep: float = 1.0
    reward: Annotated[float, msgspec.Meta(ge=0, le=10**6)] = 1.0
    lease: Count = 0
    """For how many ms an admitted device holds its slot."""
    serve: Count = 0
    """For how many ms the round waits, once it has its devices; 0: until the deadline."""
    over: bool = False
    """The task is over here: this is the last word on it."""
    needs: Needs = Needs()
    adapt: Adapt = Adapt()
    """How far devices may depart from `training` and `codec`."""
    modules: Modules | None = None
    """The model is modular: a device asks for a sub-model before it registers (`<zone>.profiles`)."""
    partial: bool = False
    """A device may register for some of the model's blocks."""

    def takes(self, round: int) -> bool:
        """Whether a delta of that round may still count, as far as this says."""
        return (self.open and round == self.round) or 0 < self.staleness >= self.round - round >= 0


class Registration(Message, frozen=True):
    """`<zone>.registrations`: a device's wish to take part in a round of a task, with those of its public abilities that are asked for:
    a tenant's pseudonym is not that of its check-in, so the plane cannot look them up. `blocks`: those of the model that its delta is to
    have (`schemas/sets.py`), where the round takes parts of it."""

    device: Ident
    task: Slug
    round: Count
    abilities: Abilities = {}
    blocks: Set = WHOLE


class Admission(Message, frozen=True):
    """`<zone>.admissions`: a slot, held until `lease_until` (ms); `cause` is the `Admitted` fact that says so. `blocks` are those that it
    owes: a device that asked twice, for others, owes those of the first time."""

    device: Ident
    task: Slug
    round: Count
    slot: Count
    lease_until: Count
    cause: Ref
    blocks: Set = WHOLE


class Refusal(Message, frozen=True):
    """`<zone>.admissions`: no slot; try again after `retry_ms`."""

    device: Ident
    task: Slug
    round: Count
    reason: str
    retry_ms: Count
    cause: Ref


class Receipt(Message, frozen=True):
    """`<zone>.receipts`: what became of a device's blocks; `offsets` are where they lie in the delta log, one for each block.

    One receipt tells of all blocks of a delta that one commit gave this outcome.
    """

    device: Ident
    task: Slug
    round: Count
    slot: Count
    outcome: str
    blocks: tuple[Count, ...]
    offsets: tuple[Count, ...]


class DeadLetter(Message, frozen=True):
    """`global.dead-letters`: a record that could not be read or was refused, with the reason and where it came from.
    Long keys and values are cut."""

    topic: str
    partition: Count
    offset: Count
    reason: str
    by: str
    key: bytes | None
    value: bytes | None


class Waiting(Part, frozen=True):
    """What of a shard's log is not aggregated: from where commits end to where the log ended when that was asked last; and for
    how many ms the oldest of it has lain there, as far as who says this saw it."""

    start: Count
    end: Count
    ms: Count = 0


class TaskLoad(Part, frozen=True):
    """One task at one aggregator since its start: what arrived, what became of it, and what waits in the log unread.
    `waiting` by shard; `size`: bytes of a block, on average."""

    task: Slug
    round: Count
    blocks: Count
    bytes: Count
    outcomes: dict[str, Count]
    unread: Count
    waiting: dict[Count, Waiting] = {}
    size: Count = 0


class AggregatorReport(Message, frozen=True):
    """`global.metrics`: an aggregator's shards (shard -> token of its claim) and its load by task."""

    source: Ident
    zone: Slug
    at: Count
    shards: dict[Count, Count]
    tasks: tuple[TaskLoad, ...]


class Priorities(Message, frozen=True):
    """`<zone>.priorities`: which of a tenant's tasks aggregators are to work for first, best first, and why each stands where it does;
    and by tenant what it weighs, if not 1: that is how tenants share the work."""

    source: Ident
    zone: Slug
    at: Count
    order: tuple[Slug, ...]
    why: dict[Slug, str]
    weights: dict[Slug, Weight] = {}


class Credits(Message, frozen=True):
    """`<zone>.credits`: how many bytes of deltas a second the zone's edges may send together, `rate`, and why so many. `shares`: by edge,
    of those that had deltas waiting; any other edge may send `other`. Who hears none for long sends as it likes."""

    source: Ident
    zone: Slug
    at: Count
    rate: Count
    shares: dict[Ident, Count]
    other: Count
    why: str


class SchedulerReport(Message, frozen=True):
    """`global.metrics`: how many aggregators a zone has (`workers`) and how many its load calls for (`wanted`), and why.
    Bytes a second, and bytes that are not aggregated; `capacity` is what one aggregator was seen to do, 0: unknown."""

    source: Ident
    zone: Slug
    at: Count
    workers: Count
    wanted: Count
    arriving: Count
    backlog: Count
    capacity: Count
    why: str


class LocalTime(Part, frozen=True):
    """What clocks show where a fleet's devices live: `hours` of the day, 0 to 24, of which each lasts `day` ms of the plane's clock."""

    hours: Annotated[float, msgspec.Meta(ge=0, le=24)]
    day: Annotated[int, msgspec.Meta(ge=1)]


DEVICE_STATES = ("asleep", "idle", "asking", "registered", "training")
"""A device is in one of these; `asking`: it waits for a sub-model."""


class FleetReport(Message, frozen=True):
    """`global.metrics`: how many of a fleet's devices are in which state, and what it sent since its start.

    Of models, in bytes: `fetched` are records read from the log; `handed` is what devices began to train from, out of the edge's
    copy. Of deltas: `waiting` bytes have no credit yet, and `left` blocks were not sent, since their round was over meanwhile.
    """

    source: Ident
    zone: Slug
    at: Count
    states: dict[str, Count]
    blocks: Count
    bytes: Count
    fetched: Count = 0
    handed: Count = 0
    waiting: Count = 0
    left: Count = 0
    local: LocalTime | None = None
    """At `at`. None: its devices have no days, or live by several clocks."""
    busy: Count = 0
    """Devices awake, in whichever state, of which other work takes a share of their memory and speed."""
    elsewhere: dict[Slug, Count] = {}
    """By other zone to which devices of it travelled, the bytes of their deltas that have no credit there yet."""


class Eligible(Part, frozen=True):
    """How many of a zone's devices meet the public needs of a task, and by bound how many do not."""

    devices: Count
    below: dict[str, Count] = {}


class Presence(Part, frozen=True):
    """A zone's devices heard of within a day, how many came and how many said goodbye since the registry began to read. `eligible` by
    task that has public needs and has not ended."""

    devices: Count
    came: Count
    left: Count
    eligible: dict[Slug, Eligible] = {}


class RegistryReport(Message, frozen=True):
    """`global.metrics`: how many devices each zone has, and for which tasks, from their check-ins."""

    source: Ident
    at: Count
    zones: dict[Slug, Presence]


class Standing(Part, frozen=True):
    """What a tenant has of what it may have: tasks that have not ended, devices at work, and bytes of the present day (UTC)."""

    weight: float
    quota: Quota
    tasks: Count
    devices: Count
    bytes: Count


class TenantsReport(Message, frozen=True):
    """`global.metrics`: how tenants stand, and by which policy devices are shared."""

    source: Ident
    at: Count
    policy: Slug
    tenants: dict[Slug, Standing]


class Objection(Message, frozen=True):
    """`global.metrics`: a fleet or an evaluator cannot do its part for a task, and why; it goes on with the others."""

    source: Ident
    at: Count
    task: Slug
    reason: str


class Evaluation(Message, frozen=True):
    """`global.evaluations`, the last of each task, and `global.metrics`: a global model scored on held-out data."""

    source: Ident
    at: Count
    task: Slug
    epoch: Count
    version: Count
    accuracy: Annotated[float, msgspec.Meta(ge=0, le=1)]
    loss: float
    samples: Count
