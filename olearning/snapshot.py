"""What a person can see of a namespace at one moment, as plain frozen values. `view.py` takes it, `screen.py` shows it.

Times are in ms. Nothing here is decided by anyone: all of it is read off the topics.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median

OK, BEHIND, STALLED, SILENT, NOBODY = "OK", "behind", "stalled", "silent", "nobody"
"""Of a shard. Behind: unread work grows. Stalled: there is some and nothing moves. Silent: its holder reports no more.
Nobody: no one holds it."""
SHARD_WORDS = (OK, BEHIND, STALLED, SILENT, NOBODY)
"""From good to bad."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Is every offset that commits cover accounted for by exactly one outcome? `problem` says what does not add up."""

    offsets: int = 0
    counted: int = 0
    duplicate: int = 0
    late: int = 0
    invalid: int = 0
    incomplete: int = 0
    held: int = 0
    """Wait for the rest of their delta."""
    lost: int = 0
    """Went with a loss that a person gave up."""
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem


@dataclass(frozen=True, slots=True)
class ShardView:
    """A shard over all tasks of its zone. `next` by task: the first offset no commit covers."""

    shard: int
    holder: str
    token: int
    next: dict[str, int]
    unread: int
    word: str


@dataclass(frozen=True, slots=True)
class RoundPoint:
    """A round that is over, finalised at `at`. `loss`: the devices' own, the mean over their samples; None: the round failed."""

    round: int
    epoch: int
    at: int
    devices: int
    samples: int
    loss: float | None


@dataclass(frozen=True, slots=True)
class Place:
    """A task's place in a sharing policy's plan: after how many of the plan's `of` tasks its devices take it, from 1. `first` for the
    devices for which it comes soonest, `last` for those for which it comes latest; 0: no device is to take it. `chosen`: there is no
    order, devices choose by reward."""

    policy: str
    first: int = 0
    last: int = 0
    of: int = 0
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class RoundView:
    """A task in a zone: its last round, and what it waits for since when ("" and 0: for nothing)."""

    task: str
    epoch: int
    round: int
    state: str
    devices: int
    demand: int
    registered: int
    lapsed: int
    deadline_left: int | None
    rounds_done: int
    """Of this epoch, with a model."""
    rounds_goal: int
    mean_loss: float | None
    """Of the last finalised round, over its samples."""
    waits: str
    since: int
    segment: Identity
    """Of the round's segment of the shards."""
    total: Identity
    """Since the task began here."""
    unread: int
    blocks: int
    """In the log of its deltas."""
    places: int = 0
    """How many devices may hold a slot at once."""
    eligible: int | None = None
    """Devices seen within a day that meet its public needs. None: nobody said, or it is over."""
    below: dict[str, int] = field(default_factory=dict)
    """By bound of its public needs, how many of the devices seen have less."""
    curve: tuple[RoundPoint, ...] = ()
    """The last of its rounds that are over, as far back as the ledger goes and `books.MOST_ROUNDS` at most."""
    place: Place | None = None
    """In the zone's plan. None: it was not heard yet."""

    @property
    def queued(self) -> bool:
        """Does it wait for devices, or for a round that would take some?"""
        return self.state != "closed" and self.waits.startswith("waiting for")

    @property
    def usual_ms(self) -> int:
        """From the end of a round to the end of the next, in the median of the last few; 0: not known."""
        ends = [p.at for p in self.curve[-12:]]
        return round(median(b - a for a, b in pairwise(ends))) if len(ends) > 3 else 0


@dataclass(frozen=True, slots=True)
class SourceView:
    """A process that reports on the metrics, and when it was last heard."""

    name: str
    heard: int
    silent: bool
    blocks: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LocalView:
    """The time of day in a zone, 0 to 24 hours; whether that is night; and how many ms of the plane's clock a day lasts."""

    hours: float
    night: bool
    day: int

    @property
    def clock(self) -> str:
        """As clocks show it, 02:15."""
        minutes = int(60 * self.hours) % (24 * 60)
        return f"{minutes // 60:02}:{minutes % 60:02}"


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """What the scheduler last said of a zone: which tasks come first and why, and how many aggregators its load calls for, and
    why. `silent`: it says nothing any more, so nobody goes by its order."""

    scheduler: str
    heard: int
    silent: bool
    order: tuple[str, ...]
    order_why: dict[str, str]
    workers: int
    wanted: int
    wanted_why: str


@dataclass(frozen=True, slots=True)
class ZoneView:
    """A zone. `blocks` lie in its delta logs; `sent_bytes` is what its fleets sent, `read_bytes` what aggregators read
    (again, too, after a take-over)."""

    zone: str
    position: int
    leader: str
    leader_token: int
    rounds: tuple[RoundView, ...]
    shards: tuple[ShardView, ...]
    devices: dict[str, int]
    """By state, over the fleets that report."""
    fleets: tuple[SourceView, ...]
    aggregators: tuple[SourceView, ...]
    voids: dict[str, int]
    blocks: int
    sent_bytes: int
    read_bytes: int
    unread: int
    schedule: ScheduleView | None = None
    """None: no scheduler was heard of."""
    seen: int | None = None
    """Devices that checked in within a day, as the global coordinator said last. None: it did not."""
    local: LocalView | None = None
    """None: no fleet that reports knows it."""
    leader_silent: bool = False
    """A round is open, and nobody repeats that it is."""
    busy: int = 0
    """Devices of which other work takes a share; they are in any state but asleep."""

    @property
    def identity(self) -> Identity:
        """All tasks together; the first problem of any."""
        totals = [r.total for r in self.rounds]
        sums = {n: sum(getattr(i, n) for i in totals) for n in COUNTS}
        return replace(Identity(**sums), problem=next((i.problem for i in totals if i.problem), ""))


COUNTS = ("offsets", "counted", "duplicate", "late", "invalid", "incomplete", "held", "lost")


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task in the globe. `rounds`: by zone, (done in this epoch, wanted). `accuracy` by epoch; 0 is the untrained model."""

    task: str
    tenant: str
    state: str
    epoch: int
    epochs: int
    rounds: dict[str, tuple[int, int]]
    accuracy: dict[int, float] = field(default_factory=dict)
    waits: str = ""
    since: int = 0
    why: str = ""
    phase: str = ""
    """Where its epoch stands, in the paper's words (§4.2): preparation, execution, finalisation; or what it is instead."""
    losses: dict[int, float] = field(default_factory=dict)
    """On held-out data, by epoch like `accuracy`."""


@dataclass(frozen=True, slots=True)
class TenantView:
    """A tenant: what it has, and at most may have (0: no limit). `bytes` of today, UTC."""

    tenant: str
    weight: float
    tasks: tuple[str, ...]
    """Those that have not ended."""
    most_tasks: int
    devices: int
    """At work now."""
    most_devices: int
    bytes: int
    most_bytes: int
    share: float | None = None
    """By weight, of the devices, among tenants who have open tasks or devices at work; 0 to 1. None: it has neither."""
    share_now: float | None = None
    """Of the devices at work. None: there are none, or it takes no part."""
    waits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By task, the zones in which it waits for devices."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A namespace at `at`, as far as the topics were read. While the log is away, that is when it was heard last."""

    at: int
    namespace: str
    caught_up: bool
    leader: str
    leader_token: int
    tasks: tuple[TaskView, ...]
    zones: tuple[ZoneView, ...]
    letters: dict[str, int]
    """Dead letters by reason."""
    voids: dict[str, int]
    """Void facts of the global ledger by kind."""
    tenants: tuple[TenantView, ...] = ()
    policy: str = ""
    """By which devices are shared."""
    policy_args: dict[str, str | int | float | bool] = field(default_factory=dict)
    policy_by: str = ""
    """Who said so, if anyone did."""
    away: int = 0
    """For how many ms the log has given no answer; 0: it does."""

    def task(self, name: str) -> TaskView | None:
        return next((t for t in self.tasks if t.task == name), None)
