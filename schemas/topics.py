"""The topic table: every topic there is. It creates them, documents them, and is what tests read."""

import re
from dataclasses import dataclass, field
from functools import lru_cache

from schemas import blocks, facts, messages, modules, sharing, task
from schemas.wire import SLUG, Malformed, Message, decode

DAY = 86_400_000
KEPT = 7 * DAY
"""ms that deltas and partial sums are kept."""
ROLL = DAY // 6
"""ms after which the broker may compact a record of a topic that keeps the last of each key; about twice as much lies there, at most,
beside what counts. Announcements are repeated every few seconds, and who starts reads them all."""
GLOBAL = "global"
DEFAULT_PARTITIONS = 8
COMMAND = "command"


class BadName(ValueError):
    """A name that cannot be part of a topic's; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the table. `partitions`: "one", or "zone" for the zone's P. Times in ms; None keeps for ever."""

    what: str
    key: str
    carries: tuple[type[Message], ...]
    about: str
    scopes: tuple[str, ...] = ("zone",)
    per_task: bool = False
    partitions: str = "zone"
    compact: bool = False
    retention: int | None = None
    bulk: bool = False
    """Tensor blocks: travels on a client of its own, so that a flood of it delays no decision."""
    writers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    """Which roles write and follow it, by the names of `olearning run`; `COMMAND` is a person at the command line. Whoever only looks
    (`status`, `tail`, `verify`, …) may read every topic."""


_ZONE, _GLOBAL = ("zone",), (GLOBAL,)
_ALL = ("global", "zone", "aggregator", "scheduler", "evaluator")
_LEDGERS = (*_ALL, "modules")
TABLE: tuple[Kind, ...] = (
    Kind("tasks", "task", (task.Submission,), "tasks as submitted", _GLOBAL, partitions="one", compact=True,
         writers=(COMMAND,), readers=("global", "evaluator", COMMAND)),
    Kind("tenants", "tenant", (sharing.Tenant, sharing.Sharing), "quotas, weights, and the policy by which devices are shared", _GLOBAL,
         partitions="one", compact=True, writers=(COMMAND,), readers=("global", COMMAND)),
    Kind("ledger", "–", (*facts.GLOBAL_FACTS, *facts.ZONE_FACTS), "every decision", (*_GLOBAL, *_ZONE),
         partitions="one", writers=("global", "zone", "aggregator", COMMAND), readers=(*_LEDGERS, COMMAND)),
    Kind("checkpoints", "place", (blocks.FoldBlock,), "the fold of the ledger, in pieces; a Checkpoint says which",
         (*_GLOBAL, *_ZONE), partitions="one", bulk=True, writers=("global", "zone"), readers=(*_LEDGERS, COMMAND)),
    Kind("models", "task, version, token, block", (blocks.ModelBlock, blocks.DifferenceBlock),
         "model blocks, and ways to them from the version before; a manifest in the ledger says which",
         (*_GLOBAL, *_ZONE), bulk=True, writers=(COMMAND, "global", "zone"), readers=("global", "zone", "evaluator", "fleet", COMMAND)),
    Kind("checkins", "device", (messages.CheckIn,), '"I am here"', retention=DAY, writers=("fleet",), readers=("global", "zone")),
    Kind("announcements", "task", (messages.Announcement, sharing.SharingPlan), "open rounds and the plan of the sharing policy, one copy in every partition", compact=True,
         writers=("zone", COMMAND), readers=("fleet",)),
    Kind("registrations", "device", (messages.Registration,), "wishes to take part", retention=DAY, writers=("fleet",), readers=("zone",)),
    Kind("admissions", "device", (messages.Admission, messages.Refusal), "slots with leases, refusals", retention=DAY,
         writers=("zone",), readers=("fleet",)),
    Kind("deltas", "device", (blocks.DeltaBlock,), "delta blocks", per_task=True, retention=KEPT, bulk=True,
         writers=("fleet",), readers=("aggregator",)),
    Kind("partials", "task, place", (blocks.SumBlock, blocks.Counted), "partial sums and what they count",
         retention=KEPT, bulk=True, writers=("aggregator",), readers=("aggregator", "zone")),
    Kind("profiles", "device", (modules.Profile,), "which sub-model of a modular task a device is to have (ECLM)", retention=DAY,
         writers=("fleet",), readers=("modules",)),
    Kind("submodels", "device", (modules.Submodel,), "the modules to fetch; the last record of a partition says how far its profiles are "
         "answered", retention=DAY, writers=("modules",), readers=("fleet", "modules")),
    Kind("receipts", "device", (messages.Receipt,), "what became of a delta", retention=DAY, writers=("aggregator",), readers=("fleet",)),
    Kind("shards", "–", (), "membership of aggregators; stays empty"),
    Kind("priorities", "zone", (messages.Priorities,), "which tasks come first; only the last record counts, and not for long",
         partitions="one", retention=DAY, writers=("scheduler",), readers=("aggregator",)),
    Kind("credits", "zone", (messages.Credits,), "how fast edges may send deltas; only the last record counts, and not for long",
         partitions="one", retention=DAY, writers=("scheduler",), readers=("fleet",)),
    Kind("evaluations", "task", (messages.Evaluation,), "the last score of each task's global model, for its stop rule", _GLOBAL,
         partitions="one", compact=True, writers=("evaluator", COMMAND), readers=("global", "evaluator")),
    Kind("metrics", "source", (messages.AggregatorReport, messages.SchedulerReport, messages.FleetReport, messages.RegistryReport,
                               messages.TenantsReport, messages.Evaluation, messages.Objection),
         "what the roles measure", _GLOBAL, partitions="one", retention=DAY, writers=(*_ALL, "fleet"), readers=("scheduler",)),
    Kind("dead-letters", "original", (messages.DeadLetter,), "what could not be read or was refused", _GLOBAL,
         partitions="one", retention=30 * DAY, writers=("global", "zone", "aggregator", "modules", "fleet")),
)  # fmt: skip
_BY_WHAT = {k.what: k for k in TABLE}


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of one namespace: a row of the table with its blanks filled."""

    namespace: str
    zone: str
    kind: Kind
    task: str = ""
    name: str = field(init=False, compare=False)
    """As Kafka knows it."""

    def __post_init__(self) -> None:
        name = ".".join(filter(None, (self.namespace, self.zone, self.kind.what, self.task)))
        object.__setattr__(self, "name", name)  # once: it is asked for with every record

    def partitions(self, p: int) -> int:
        """How many partitions it has in a zone (or globe) of `p`."""
        return p if self.kind.partitions == "zone" else 1

    def config(self) -> dict[str, str]:
        """Its settings at the broker."""
        retention = "-1" if self.kind.retention is None else str(self.kind.retention)
        config = {
            "cleanup.policy": "compact" if self.kind.compact else "delete",
            "retention.ms": retention,
            "compression.type": "uncompressed",  # whatever a client sends, every reader can read, and nothing swells on reading
            # The broker's clock: deadlines are counted in it, and no other is asked how long a record is kept, or whether it may land.
            "message.timestamp.type": "LogAppendTime",
        }
        if self.kind.compact:
            config["segment.ms"] = str(ROLL)  # only what is in a closed segment is compacted
        return config


def check_zone(zone: str) -> str:
    """The zone's name, if it can be one. Raises `BadName`."""
    if not re.search(SLUG, zone) or zone == GLOBAL:
        raise BadName(f"zone {zone!r}: use 1 to 63 of a-z, 0-9 and '-', no '-' at either end, and not {GLOBAL!r}")
    return zone


@lru_cache(maxsize=4096)
def topic(namespace: str, zone: str, what: str, task: str = "") -> Topic:
    """The topic of that row. Raises `BadName` for what is not a slug, `KeyError` for what is not in the table."""
    for label, text in (("namespace", namespace), ("zone", zone), ("task", task or "none")):
        if not re.search(SLUG, text):
            raise BadName(f"{label} {text!r}: use 1 to 63 of a-z, 0-9 and '-', no '-' at either end")
    kind = _BY_WHAT[what]
    scope = GLOBAL if zone == GLOBAL else "zone"
    if scope not in kind.scopes or bool(task) != kind.per_task:
        raise KeyError(f"there is no {what} topic for zone {zone!r} and task {task!r}")
    return Topic(namespace, zone, kind, task)


@lru_cache(maxsize=4096)
def parse(name: str) -> Topic:
    """The topic of that name. Raises `KeyError` if it is none of ours."""
    parts = name.split(".")
    if not 3 <= len(parts) <= 4 or parts[2] not in _BY_WHAT or not parts[-1]:
        raise KeyError(f"{name} is not in the topic table")
    try:
        return topic(*parts)
    except BadName as e:
        raise KeyError(str(e)) from None


def zone_topics(namespace: str, zone: str) -> list[Topic]:
    """The topics a zone (or the globe) has whatever its tasks."""
    scope = GLOBAL if zone == GLOBAL else "zone"
    return [Topic(namespace, zone, k) for k in TABLE if scope in k.scopes and not k.per_task]


def task_topics(namespace: str, zone: str, task: str) -> list[Topic]:
    """The topics a task has in a zone."""
    return [topic(namespace, zone, k.what, task) for k in TABLE if k.per_task]


@lru_cache(maxsize=4096)
def compacted(name: str) -> bool:
    """Does the broker remove superseded records from the topic of that name, so that gaps are no loss? Not from one that is none of ours."""
    try:
        return parse(name).kind.compact
    except KeyError:
        return False


def read(name: str, value: bytes | memoryview | None, headers: tuple[tuple[str, bytes], ...] = ()) -> Message:
    """The message in a record of that topic. Raises `Malformed`."""
    try:
        carries = parse(name).kind.carries
    except KeyError as e:
        raise Malformed(e.args[0]) from None
    if not carries:
        raise Malformed(f"{name} carries nothing")
    return decode(value, carries, headers)
