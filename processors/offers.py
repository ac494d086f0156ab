"""Offers to a ledger: appended once, and again only when no verdict has come for a while."""

from collections.abc import Hashable, Iterator

from schemas.topics import Topic
from schemas.wire import Message
from streams.processor import Send, send

AGAIN = 3_000
"""ms without a verdict after which an append is made again. The same fact twice does no harm: the second is void."""

MOST = 1_000
"""Steps remembered; those that were offered long ago are over or will be offered again."""


class Offers:
    def __init__(self, ledger: Topic):
        self.ledger = ledger
        self._made: dict[Hashable, int] = {}

    def make(self, step: Hashable, fact: Message, now: int) -> Iterator[Send]:
        """Offer the fact for this step, unless that was done just now. `step` names what it would change."""
        at = self._made.get(step)
        if at is None or now - at >= AGAIN:
            if len(self._made) > MOST:
                self._made = {k: t for k, t in self._made.items() if now - t < AGAIN}
            self._made[step] = now
            yield send(self.ledger, fact)

    def forget(self) -> None:
        """The leadership changed: all offers under the old token are void."""
        self._made = {}
