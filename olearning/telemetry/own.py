"""Which commits on a ledger are this aggregator's own."""

from typing import Any

from processors.aggregator import Aggregator
from schemas.facts import Claimed, Committed
from schemas.wire import Message
from streams.processor import Record


class Own:
    """Listens to an aggregator's reading. A commit is its own if it was made under a token that it ever had: also one that comes too
    late, when another has the shard."""

    def __init__(self, p: Aggregator):
        self.p = p
        self.tokens: set[int] = set()
        p.reading.listeners.append(self._heard)

    def _heard(self, before: Any, fact: Message | None, void: str, record: Record) -> None:
        if isinstance(fact, Claimed) and not void and (fact.holder, fact.life) == (self.p.name, self.p.life):
            self.tokens.add(record.offset)

    def made(self, fact: Committed) -> bool:
        return any(s.token in self.tokens for s in fact.stretches.values())
