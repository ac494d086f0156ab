"""A plane of one zone on real Kafka, each role a process of its own, with what a test hosts beside it."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olearning.planes import Processes
from olearning.roles import Role
from streams.processor import Processor

Z = "east"


@dataclass
class Staged:
    namespace: str
    plane: Processes
    said: list[str]
    """By the plane: which role ended."""
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    async def does(self, make: Callable[[str], Processor]) -> None:
        """Host a processor until it has done its work."""
        done = await self.plane.host(make)
        assert done.ok, done.reason

    def beside(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """What runs until the plane ends, or longer than the test needs it."""
        self.tasks.append(task := asyncio.create_task(work))
        return task

    def hosts(self, processor: Processor) -> "asyncio.Task[Any]":
        return self.beside(self.plane.host(lambda life: processor))


@asynccontextmanager
async def staged(
    bootstrap: str, folder: Path, name: str, partitions: int, kinds: tuple[str, ...] = (), *more: Role
) -> AsyncIterator[Staged]:
    """A zone with its coordinator and an aggregator, these kinds of roles, and those that have options of their own."""
    namespace, p = f"{name}-{secrets.token_hex(4)}", {"partitions": str(partitions)}
    roles = [Role("global", "global", namespace, options={"zones": Z, **p})]
    roles += [Role(kind, kind, namespace, Z, p) for kind in ("zone", "aggregator", *kinds)]
    roles += [Role(r.kind, r.name, namespace, Z, p | r.options) for r in more]
    said: list[str] = []
    stage = Staged(namespace, Processes(bootstrap, folder, said.append, 6_000, 0.5), said)
    try:
        await stage.plane.start(roles)
        yield stage
    finally:
        for t in stage.tasks:
            t.cancel()
        await stage.plane.stop()
