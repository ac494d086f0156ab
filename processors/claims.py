"""Claiming seats: whoever the group gives a seat claims it on the ledger until the ledger says it holds it."""

from collections.abc import Callable, Iterable, Mapping

from schemas.facts import Claimed
from streams.ledger import Holder

FIRST_PAUSE, LONGEST_PAUSE = 200, 30_000
"""ms. The longest outlives the longest stretch without a commit (`patience.LONGEST`), so that who holds a seat gets on."""


AGAIN = 2_000
"""ms until an offer is made again."""


class Claims:
    """The claims of one life of one holder. A claim that got nothing is made again after a pause that doubles, so two who
    both think that a seat is theirs do not fight at full speed.

    A seat that another holds is claimed after `patience` ms, and as long after each sign of that holder's life: it may be about
    to give the seat back, with all its work committed, and nothing is to be done twice then. It waits no longer than the longest
    pause.
    """

    def __init__(self, holder: str, life: str, patience: int = 0):
        self.holder, self.life, self.patience = holder, life, patience
        self.wanted: frozenset[int] = frozenset()
        self._due: dict[int, tuple[int, int]] = {}
        self._free: dict[int, int] = {}
        """By seat, the token under which it was nobody's when it was last claimed."""
        self._waits: dict[int, tuple[int, int, int]] = {}
        """By seat: the token that is waited for, since when, and until when."""
        self._given: dict[int, tuple[int, int]] = {}
        """By seat: the token under which it was given back, and when that was last said."""

    def want(self, seats: frozenset[int]) -> None:
        self.wanted = seats
        self._due, self._waits = {}, {}

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
            if not self.mine(seats[seat]) and now >= at and not self._patient(seat, seats[seat], now):
                due[seat] = seats[seat].token
                self._due[seat] = now + pause, min(2 * pause, LONGEST_PAUSE)
        return Claimed(holder=self.holder, life=self.life, seats=due) if due else None

    def _patient(self, seat: int, h: Holder, now: int) -> bool:
        """Whether its holder may still give it back. An earlier life of one's own does not."""
        if h.holder in ("", self.holder):
            return False
        token, _, until = self._waits.get(seat, (0, 0, 0))
        if token != h.token:
            until = now + self.patience
            self._waits[seat] = h.token, now, until
        return now < until

    def alive(self, seats: Iterable[int], now: int) -> None:
        """Who holds these seats was heard of."""
        for seat in self._waits.keys() & set(seats):
            token, since, _ = self._waits[seat]
            self._waits[seat] = token, since, min(now + self.patience, since + LONGEST_PAUSE)

    def give_back(self, seats: Mapping[int, Holder], idle: Callable[[int], bool], now: int) -> Claimed | None:
        """What says that seats are nobody's which are held and not wanted any more, and for which nothing is left to do."""
        free: dict[int, int] = {}
        for seat, h in seats.items():
            token, said = self._given.get(seat, (0, 0))
            if self.mine(h) and seat not in self.wanted and (token != h.token or now - said >= AGAIN) and idle(seat):
                free[seat] = h.token
                self._given[seat] = h.token, now
        return Claimed(holder="", life=self.life, seats=free) if free else None
