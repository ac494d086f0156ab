"""Where a message belongs in the trace of its round (W3C Trace Context, https://www.w3.org/TR/trace-context/).

The trace is named by the round: its ID is a hash of the zone's ledger, the task and the round's number, and each step's ID one of
these and the step. So whoever works for a round knows its trace: nothing is kept, a restart loses nothing, and steps that are said
twice are the same step.
"""

import re
from typing import NamedTuple

import xxhash

from schemas.wire import Headers

TRACE_PARENT = "traceparent"
ROUND, GATHER, FINALISE, REGISTER, ADMIT, DELIVER, COMMIT = (
    "round", "gather", "finalise", "register", "admit", "deliver", "commit",
)  # fmt: skip
"""A round's steps: all of it; from its opening to its close; from there to its result; a device's wish; its slot; its delta; a sum
of deltas."""
_FORM = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


class Step(NamedTuple):
    """A span: 128 bits of its trace, 64 of its own, neither 0."""

    trace: int
    span: int


def step(ledger: str, task: str, round: int, what: str = ROUND, who: str = "") -> Step:
    """A step of a round. `who` tells those of one kind apart: the device's pseudonym (REGISTER), its slot, where a commit begins."""
    of = f"{ledger}\n{task}\n{round}"
    own = f"{of}\n{what}\n{who}"
    return Step(xxhash.xxh3_128_intdigest(of.encode()) or 1, xxhash.xxh3_64_intdigest(own.encode()) or 1)


def trace_parent(at: Step, sampled: bool = True) -> tuple[str, bytes]:
    """The header of what comes of this step."""
    return TRACE_PARENT, b"00-%032x-%016x-%02x" % (at.trace, at.span, sampled)


def parent(headers: Headers) -> Step | None:
    """The step that a record's headers name, if they name one in this form."""
    for key, value in headers:
        if key == TRACE_PARENT and (found := _FORM.fullmatch(value or b"")):
            at = Step(int(found[1], 16), int(found[2], 16))
            return at if at.trace and at.span else None
    return None
