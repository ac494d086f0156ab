"""The contract between a processor and the runtime that hosts it.

A processor is a state machine. It is handed one input with the time and answers with effects; it awaits nothing, opens
nothing, reads no clock. The runtime carries the effects out and never makes two calls at once for one processor. Two
runtimes keep this contract, `streams/memory.py` and `streams/kafka.py`; `tests/streams/test_contract.py` runs on both.

What a processor may lean on:
- Records of a followed partition come in order from the offset it asked for, each once, none from before the last
  `Follow` of that partition. Nothing comes of a paused or unfollowed one.
- A `Send` lands at least once, perhaps late, perhaps after a later one; its answer, if it has a tag, comes at most once.
- Answers may come in any order, or never (after a crash). Questions (`Ends`, `Starts`, `Fetch`, `CreateTopics`) are asked until they
  are answered; an answer bears an error only for what can never be: a topic that is not there and does not come, another
  number of partitions, a record too large. The same of a `Send` without a tag stops the processor; but a `spare` one whose topic is
  not there is dropped: it went with its task, and nobody is left who would read it.
- A followed offset that the log does not hold (cut, or past the end) stops the processor: records are lost. With a tag
  it is answered instead, and the partition is followed no longer.
- A pause outlives a `Follow`. Partitions that are compacted have holes and tombstones; all others are dense: what is no record there (a
  transaction's marker, what cannot be parsed) comes as an empty one, key and value None.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from schemas.blocks import Place
from schemas.topics import Topic, compacted
from schemas.wire import HEADERS, Headers, Message, encode

# ------------------------------------------------------------------ inputs


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record of a followed partition. `timestamp` in ms.

    This and `Send` are there by the ten thousand a second: a struct is made in a tenth of the time that a frozen dataclass takes, and
    the collector need not look at what can be in no circle.
    """

    topic: str
    partition: int
    offset: int
    key: str | None
    value: bytes | None
    timestamp: int
    headers: Headers = ()

    @property
    def tombstone(self) -> bool:
        """Whether all it says is that nothing is kept under its key any more, in a topic where else the last of each key is."""
        return self.value is None and compacted(self.topic)


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; comes at least every `Processor.tick` ms."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """The seats that the group gives this member now, all of them: shards, or {0} for a leadership."""

    seats: frozenset[int]


@dataclass(frozen=True, slots=True)
class Answer:
    """To a tagged effect. `Send`: (partition, offset). `Ends`: {partition: end}. `Starts`: {partition: start}. `Fetch`: {place key: value}, what was not
    found missing. `CreateTopics`: None. `error` says in words why there is none. `Follow`: only if the log does not hold the
    offset, or does no longer: (start, end) of what it holds, and the error in words."""

    tag: Hashable
    value: Any = None
    error: str = ""


Input = Record | Tick | Assigned | Answer

# ------------------------------------------------------------------ effects


class Send(msgspec.Struct, frozen=True, gc=False):
    """Append a record. Without a partition the key decides (murmur2). No value: a tombstone. `spare`, without a tag: it may go with its
    topic."""

    topic: str
    value: bytes | None
    key: str | None = None
    partition: int | None = None
    tag: Hashable = None
    headers: Headers = HEADERS
    spare: bool = False

    @property
    def size(self) -> int:
        """Bytes of its value."""
        return len(self.value or b"")


@dataclass(frozen=True, slots=True)
class Ends:
    """Ask for the end offsets of a topic's partitions, as they are now."""

    tag: Hashable
    topic: str


@dataclass(frozen=True, slots=True)
class Starts:
    """Ask for the first offset that each partition of a topic holds: above 0 where the log was cut."""

    tag: Hashable
    topic: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask for the values at places. What does not bear the place's key there is looked for by its key."""

    tag: Hashable
    topic: str
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Follow:
    """Deliver a partition's records from this offset on; for one already followed, a seek."""

    topic: str
    partition: int
    offset: int
    tag: Hashable = None


@dataclass(frozen=True, slots=True)
class Unfollow:
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Deliver nothing of a followed partition until `Resume`."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Resume:
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Delete a partition's records below `offset`, for good. No answer; twice does no harm; past the end nothing is deleted."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Say how far the partitions of topics are dealt with, as a consumer group's committed offsets: for the tools that show lag, and for
    nobody in the plane. (topic, partition) -> next offset. No answer; it may get lost, and a later one says it again."""

    group: str
    offsets: Mapping[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class CreateTopics:
    """Make topics that may be there already; (topic, number of partitions)."""

    tag: Hashable
    topics: tuple[tuple[Topic, int], ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Host this processor no longer. `ok` False: something is wrong, and `reason` says what and what to do."""

    reason: str
    ok: bool = False


Effect = Send | Ends | Starts | Fetch | Follow | Unfollow | Pause | Resume | Cut | Mark | CreateTopics | Stop

# ------------------------------------------------------------------ the processor


@dataclass(frozen=True, slots=True)
class Membership:
    """The group a processor joins over a topic: its partitions are the seats that the members share."""

    group: str
    topic: str


class Processor(Protocol):
    name: str
    """Who it is on the ledger and in the metrics."""
    membership: Membership | None
    tick: int
    """The longest it wants to go without an input, in ms."""

    def start(self, now: int) -> Iterable[Effect]:
        """What it wants at first. `now` in ms."""
        ...

    def handle(self, event: Input, now: int) -> Iterable[Effect]:
        """One input, at a time in ms."""
        ...


def send(
    topic: Topic,
    message: Message,
    key: str | None = None,
    partition: int | None = None,
    tag: Hashable = None,
    cause: str = "",
    spare: bool = False,
) -> Send:
    """Append a message; `cause` names the ledger record it comes from."""
    headers = (*HEADERS, ("cause", cause.encode())) if cause else HEADERS
    return Send(topic.name, encode(message), key, partition, tag, headers, spare)


@dataclass
class Requests:
    """Tags for effects, and what was meant by each until its answer comes."""

    last: int = 0
    open: dict[int, Any] = field(default_factory=dict)

    def new(self, meaning: Any) -> int:
        self.last += 1
        self.open[self.last] = meaning
        return self.last

    def close(self, tag: Hashable) -> Any:
        """What was asked, or None if it is of no interest any more."""
        return self.open.pop(tag, None)  # type: ignore[call-overload]

    def forget(self, holds: Callable[[Any], bool] = lambda meaning: True) -> None:
        """Nothing that was asked, or nothing of which this holds, is of interest any more."""
        self.open = {tag: meaning for tag, meaning in self.open.items() if not holds(meaning)}

    def asked(self, meaning: Any) -> bool:
        return meaning in self.open.values()
