"""After how long refused devices may try again: so long that those who do are no more than a zone deals with easily, and that no tenant's
many delay another's few.

Registrations are dealt with in the order they came, whosesoever they are: that is how the ledger counts them. A device that is refused comes
again, so N of them at a full round are N registrations in each window. In each `EVERY` the window of a tenant becomes N / its part of `MOST`,
where N is what came of its devices in that time, times the window they were sent away with; but no less than the selector's own.
"""

from collections import Counter
from dataclasses import dataclass, field

import xxhash

EVERY = 1_000
MOST = 4_000
"""Registrations a second of devices that were refused before, of all tenants: a quarter of what a zone answers on one of two shared cores."""
LONGEST = 30_000
"""ms; what is longer than this is a round's time, and a place may be free again."""


@dataclass
class Pacing:
    """Nothing of it is decided: who leads next begins anew. Times in ms."""

    least: int
    since: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """By tenant, refusals since then."""
    windows: dict[str, int] = field(default_factory=dict)
    """By tenant, where it is not the least."""

    def retry(self, tenant: str, device: str, now: int) -> int:
        """A device of this tenant's is refused: in how many ms it may try again. Devices of a long window are spread over it."""
        if now - self.since >= EVERY:
            self._turn(now)
        self.counts[tenant] += 1
        window = self.windows.get(tenant, self.least)
        return window if window == self.least else window // 2 + xxhash.xxh3_64_intdigest(device.encode()) % window

    def _turn(self, now: int) -> None:
        """Windows for those who were refused meanwhile; who had none refused has the least."""
        part, seconds = MOST / max(1, len(self.counts)), max(now - self.since, EVERY) / 1000
        found = {}
        for tenant, n in self.counts.items():
            again = n / seconds * self.windows.get(tenant, self.least)  # devices, times 1000
            found[tenant] = min(LONGEST, round(again / part))
        self.windows = {tenant: ms for tenant, ms in found.items() if ms > self.least}
        self.since, self.counts = now, Counter()
