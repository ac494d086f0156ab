"""How delta blocks come and go, from one snapshot to the next: what no single one can say. It begins when the monitor does."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from olearning.monitor.facts import Facts

KEPT_MS = 300_000
SMOOTH = 4
"""Samples over which a rate is taken: ends of logs are asked for about as often as this looks."""


@dataclass(frozen=True, slots=True)
class Sample:
    """At `at` (ms): blocks in the logs, what became of them so far, and what is unread."""

    at: int
    blocks: int
    counted: int
    duplicate: int
    late: int
    refused: int
    """Invalid or incomplete."""
    unread: int


def sample(f: Facts) -> Sample:
    i, zones = f.identity, f.s.zones
    blocks, unread = sum(z.blocks for z in zones), sum(z.unread for z in zones)
    return Sample(f.s.at, blocks, i.counted, i.duplicate, i.late, i.invalid + i.incomplete, unread)


class Trend:
    """The last minutes."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque()

    def add(self, f: Facts) -> None:
        """Nothing is added while the log is away or its past is still being read."""
        if f.s.away or not f.s.caught_up or (self.samples and f.s.at <= self.samples[-1].at):
            return
        self.samples.append(sample(f))
        while f.s.at - self.samples[0].at > KEPT_MS:
            self.samples.popleft()

    def rate(self, of: Callable[[Sample], int]) -> float | None:
        """Now, a second; None: not known yet."""
        points = self.rates(of)
        return points[-1][1] if points else None

    def rates(self, of: Callable[[Sample], int]) -> list[tuple[int, float]]:
        """By time (ms), a second. Where a task was forgotten its blocks go with it: that is no negative rate."""
        kept = list(self.samples)
        out = []
        for a, b in zip(kept, kept[SMOOTH:], strict=False):
            out.append((b.at, round(max(0, of(b) - of(a)) * 1000 / (b.at - a.at), 2)))
        return out
