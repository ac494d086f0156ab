"""The vital signs of a runtime: plain numbers that it keeps while it works. Whoever shows them reads them at will, from any thread.

It costs a few additions for each run of inputs; nothing here knows who looks, or whether anyone does.
"""

import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

BOUNDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
"""Seconds: the upper bounds of `Pulse.runs`; one more is for what took longer."""
LANES = ("control", "mail", "bulk")
"""By which clients a topic goes (`streams/kafka.py`)."""


@dataclass
class Pulse:
    """Of one connection and the processors that it hosts. By lane: records and bytes that were handed over, and sent."""

    runs: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    """How many runs of inputs were handled (one input, or up to 32 records), by how long that took."""
    seconds: float = 0.0
    """How long they took together."""
    at: float | None = None
    """When the last was done, on the monotonic clock; None: none yet. There is one at least every `Processor.tick`."""
    read: list[int] = field(default_factory=lambda: [0] * len(LANES))
    read_bytes: list[int] = field(default_factory=lambda: [0] * len(LANES))
    sent: list[int] = field(default_factory=lambda: [0] * len(LANES))
    sent_bytes: list[int] = field(default_factory=lambda: [0] * len(LANES))
    letters: Counter[str] = field(default_factory=Counter)
    """Dead letters that were written, by the kind of topic that the record was in."""
    again: Counter[str] = field(default_factory=Counter)
    """How often a client had to be replaced or a question put again, by what it was to do."""

    def handled(self, seconds: float) -> None:
        self.runs[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
        self.at = time.monotonic()
