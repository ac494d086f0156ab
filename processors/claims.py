"""Claiming seats: whoever the group gives a seat claims it on the ledger until the ledger says it holds it."""

from collections.abc import Mapping

from schemas.facts import Claimed
from streams.ledger import Holder

FIRST_PAUSE, LONGEST_PAUSE = 200, 10_000


class Claims:
    """The claims of one life of one holder. A claim that got nothing is made again after a pause that doubles, so two who
    both think that a seat is theirs do not fight at full speed."""

    def __init__(self, holder: str, life: str):
        self.holder, self.life = holder, life
        self.wanted: frozenset[int] = frozenset()
        self._due: dict[int, tuple[int, int]] = {}
        self._free: dict[int, int] = {}
        """By seat, the token under which it was nobody's when it was last claimed."""

    def want(self, seats: frozenset[int]) -> None:
        self.wanted = seats
        self._due = {}

    def mine(self, h: Holder) -> bool:
        return (h.holder, h.life) == (self.holder, self.life)

    def make(self, seats: Mapping[int, Holder], now: int) -> Claimed | None:
        """The claim that is due now, if any. `seats`: who holds each, by the fold."""
        due: dict[int, int] = {}
        for seat in sorted(self.wanted & seats.keys()):
            at, pause = self._due.get(seat, (now, FIRST_PAUSE))
            if not seats[seat].holder and self._free.get(seat) != seats[seat].token:
                at, pause = now, FIRST_PAUSE  # nobody's: there is none to fight with
                self._free[seat] = seats[seat].token
            if not self.mine(seats[seat]) and now >= at:
                due[seat] = seats[seat].token
                self._due[seat] = now + pause, min(2 * pause, LONGEST_PAUSE)
        return Claimed(holder=self.holder, life=self.life, seats=due) if due else None
