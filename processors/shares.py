"""How an aggregator divides its work between tenants: each has a share by its weight, whatever the others send.

Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996) in turns of `TURN` bytes. Of each tenant it is known what it was served,
over its weight. Who is a turn ahead of the one that was served least waits until that one has caught up or has nothing left to
read. So who floods delays another by a turn and by what is its share, not by what it sends; nobody waits for a tenant that has
nothing to read; and who was idle has saved up nothing.

The turns are long because a pause drops what the client has fetched of a partition: a shorter one would be fairer from moment to
moment, and read more twice. Where the tenants' partitions come in at about their shares anyway, nobody ever waits.

Pure: bytes and names in, names out. `processors/order.py` obeys it; within a tenant the scheduler's order holds.
"""

from collections.abc import Mapping, Set

TURN = 32 * 2**20
"""Bytes that a tenant may be ahead; of one that weighs less than another, in proportion, but `LEAST` at least."""
LEAST = 4 * 2**20
RECORD = 16 * 1024
"""What a record costs beside its bytes, as bytes: so a flood of tiny ones is work as well."""


class Shares:
    """Of one aggregator. `ahead`: the tenants that wait now."""

    def __init__(self, turn: int = TURN):
        self.turn = turn
        self.weights: Mapping[str, float] = {}
        """By tenant; one that is not named weighs 1."""
        self.ahead: frozenset[str] = frozenset()
        self._had: dict[str, float] = {}
        """By tenant, the bytes that it was served, over its weight."""
        self._ready: frozenset[str] = frozenset()
        self._level = 0.0
        """Of the tenants that had something to read, the least that one had: who comes begins there."""
        self._until: dict[str, float] = {}
        """By tenant, what it may have had before there is something to decide."""

    def served(self, tenant: str, bytes: int) -> bool:
        """So much was done for a tenant: whether it is time to decide anew."""
        had = self._had[tenant] = self._had.get(tenant, self._level) + (bytes + RECORD) / self._weight(tenant)
        return had >= self._until.get(tenant, float("inf"))

    def decide(self, there: Set[str], ready: Set[str]) -> frozenset[str]:
        """Who waits, of the tenants that are `there`; the `ready` have something that could be read at once."""
        if known := [self._had[t] for t in self._ready if t in self._had]:
            self._level = max(self._level, min(known))
        self._had = {t: x for t, x in self._had.items() if t in there}
        for t in ready - self._ready:
            self._had[t] = max(self._had.get(t, 0.0), self._level)
        self._ready = frozenset(ready)
        if len(ready) < 2:
            self.ahead, self._until = frozenset(), {}
            return self.ahead
        most = max(self._had[t] - self.turn / self._weight(t) for t in ready)
        self._had.update((t, most) for t in ready if self._had[t] < most)  # nobody makes up for more than a turn
        least = min(self._had[t] for t in ready)
        heaviest = max(self._weight(t) for t in ready)
        lead = {t: self._lead(self._weight(t) / heaviest) / self._weight(t) for t in ready}
        self.ahead = frozenset(
            t for t in ready if (self._had[t] > least if t in self.ahead else self._had[t] >= least + lead[t])
        )
        waiting = [self._had[t] for t in self.ahead]
        self._until = {t: min([least + lead[t], *(x for x in waiting if x > self._had[t])]) for t in ready - self.ahead}
        return self.ahead

    def _weight(self, tenant: str) -> float:
        return self.weights.get(tenant, 1.0)

    def _lead(self, part: float) -> float:
        return min(self.turn, max(self.turn * part, LEAST))
