"""A scheduler out of its mind: orders at random, and aggregators that let any tasks wait at any moment. No bit may change."""

from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from typing import Any
from unittest.mock import patch

from processors import order
from processors.order import Order
from schemas.messages import Priorities
from schemas.topics import topic
from streams.processor import Effect, Input, Membership, send
from tests.plane import NS


class Whims:
    """In the scheduler's place."""

    name = "scheduler"
    membership: Membership | None = None
    tick = 130

    def __init__(self, zones: tuple[str, ...], seed: int):
        self.zones, self.dice = zones, Random(f"orders {seed}")

    def start(self, now: int) -> Iterator[Effect]:
        return iter(())

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        for zone in self.zones:
            tasks = tuple(self.dice.sample(("toy-0", "toy-1", "toy-2"), self.dice.randint(0, 3)))
            yield send(topic(NS, zone, "priorities"), Priorities(self.name, zone, now, tasks, {}), key=zone)


def unruly(seed: int) -> ExitStack:
    """Aggregators that obey for a single block already, and half the time let just any tasks wait."""
    decide, dice = Order._decide, Random(f"whims {seed}")

    def whim(self: Order, works: dict[str, Any], zone: Any, now: int) -> tuple[str, frozenset[str]]:
        right = decide(self, works, zone, now)
        return right if dice.random() < 0.5 else ("", frozenset(t for t in sorted(works) if dice.random() < 0.5))

    both = ExitStack()
    both.enter_context(patch.object(Order, "_decide", whim))
    both.enter_context(patch.object(order, "MANY", 0))
    return both
