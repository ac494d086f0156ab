"""What devices that are elsewhere ask of a gateway, and how it replies: the words of the link between them (`device_sim/gateway.py`)."""

from dataclasses import dataclass
from enum import StrEnum

from schemas.blocks import DeltaBlock
from schemas.messages import CheckIn, Registration
from schemas.modules import Profile

ME = "me"
"""What a device calls itself."""
SAYS = (CheckIn, Registration, Profile, DeltaBlock)
"""The messages that devices send, as they are on their topics."""
MOST_BYTES = 640 * 1024
"""Of what a device says: a delta block has 512 KiB at most."""


class Status(StrEnum):
    """How an answer goes. `LATER`: ask again, the same. `BUSY`: first wait for the answers to what was asked."""

    DONE, BAD, LARGE, UNKNOWN, LATE, GONE, BUSY, LATER = (
        "done", "bad", "too large", "unknown", "late", "gone", "busy", "later",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Poll:
    """What is new for it `after` the cursor that it was given last; if nothing is, it waits until then (ms)."""

    after: str
    until: int


@dataclass(frozen=True, slots=True)
class Say:
    """A message of its own, as bytes."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """A block of the model of a round that was announced."""

    task: str
    round: int
    block: int


Asked = Poll | Say | Ask


@dataclass(frozen=True, slots=True)
class Reply:
    """To the question of that number. `words`: why it is not `DONE`, and what to do."""

    number: int
    status: Status
    body: bytes | memoryview = b""
    words: str = ""
