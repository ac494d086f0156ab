"""A plane with tasks that are over, for what is done about these some day."""

from collections.abc import Callable
from typing import Any

from olearning.view import View
from tests.plane import NS, Plane, spec

KEPT = 5_000
"""ms that deltas are kept in these tests."""


class World(Plane):
    """A plane, and a view of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.view: Any = self.memory.host(lambda life: View(NS, self.zones)).processor

    def train(self, task: str) -> None:
        self.submit(spec(task, demand=2, epochs=1, rounds=1, deadline_s=20, lease_s=10))
        assert self.memory.run(lambda: self.ended(task), 100_000)
        self.memory.run(limit=2_000)

    def age(self, done: Callable[[], list[Any]]) -> None:
        """Then "one" is over for long enough, "two" is not, and "three" runs. `done` says what is done, while there is nothing to do."""
        self.train("one")
        assert done() == [], "its deltas are still kept"
        self.memory.run(limit=KEPT)
        self.train("two")
        self.submit(spec("three", epochs=9, rounds=9))
        assert self.memory.run(lambda: all("three" in self.zone(z).tasks for z in self.zones), 20_000)
        self.memory.run(limit=500)
