"""A plane that runs: its roles as processes on Kafka, or all in this process on the log in memory. One face for both."""

import asyncio
import contextlib
import json
import os
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from olearning.errors import Trouble
from olearning.roles import SESSION_TIMEOUT, Groundwork, Role, new_life
from olearning.telemetry.exporter import Exporter, watched
from streams.kafka import Kafka
from streams.memory import Host, Memory
from streams.processor import Processor, Stop

Say = Callable[[str], None]
TIED = "OLEARNING_TIED"
"""Set for child processes: they end when their standard input does, that is with us, however we end."""
LONG = 30.0
"""Seconds after which a role that ends is taken to have run well."""
LONGEST_PAUSE = 30.0
BREATH = 0.1
"""Seconds that the log in memory works before others in the event loop have their turn."""


def next_pause(last: float, lived: float, least: float) -> float:
    """Seconds before a role that lived so long is started again: more each time, if it keeps ending."""
    return least if lived > LONG else min(2 * last, LONGEST_PAUSE)


class Plane(Protocol):
    @property
    def kafka(self) -> Kafka | None:
        """The connection that what is hosted here has; None: the log is in memory."""
        ...

    async def start(self, roles: Iterable[Role]) -> None:
        """Lay the ground and run these roles; one that dies is started again."""
        ...

    async def host(self, make: Callable[[str], Processor]) -> Stop:
        """Host a processor of our own here until it stops; `make` is given its life."""
        ...

    def kill(self, name: str, away: float = 0.0) -> None:
        """SIGKILL, or what comes closest; it starts again after `away` seconds or more."""
        ...

    async def stop(self) -> None: ...

    def now(self) -> int:
        """The plane's clock, in ms."""
        ...


class Processes:
    """Each role a process of its own; its output goes to a file named after it."""

    def __init__(
        self,
        bootstrap: str,
        folder: Path,
        say: Say,
        session_timeout: int = SESSION_TIMEOUT,
        pause: float = 2.0,
        metrics_port: int = 0,
    ):
        """`metrics_port`: the roles serve metrics at the ports behind it; 0: nowhere."""
        self.bootstrap, self.folder, self.say, self.pause = bootstrap, folder, say, pause
        self.session_timeout, self.metrics_port = session_timeout, metrics_port
        self.ports: dict[str, int] = {}
        """By role, where it serves metrics."""
        self.kafka: Kafka = Kafka(bootstrap, f"here-{os.getpid()}", session_timeout)
        self.children: dict[str, Process] = {}
        self._away: dict[str, float] = {}
        self._keepers: list[asyncio.Task[None]] = []

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    async def start(self, roles: Iterable[Role]) -> None:
        roles = list(roles)
        if not self.children:
            await self.kafka.start()
        done = await self.kafka.host(Groundwork([t for r in roles for t in r.topics()]))
        if not done.ok:
            raise Trouble(done.reason)
        self.folder.mkdir(parents=True, exist_ok=True)
        for role in roles:
            if self.metrics_port:
                self.ports[role.name] = self.metrics_port + 1 + len(self.ports)
            self.children[role.name] = await self._spawn(role)
            self._keepers.append(asyncio.create_task(self._keep(role), name=f"keeper of {role.name}"))

    def command(self, role: Role) -> list[str]:
        """The command line of a role's process."""
        port = self.ports.get(
            role.name, 0
        )  # said also if it is 0: what this process was told by its environment is not for them
        settings = {"--session-timeout": self.session_timeout, "--metrics-port": port}
        return [*role.command(self.bootstrap), *(str(x) for pair in settings.items() for x in pair)]

    async def _spawn(self, role: Role) -> Process:
        with (self.folder / f"{role.name}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self.command(role),
                stdin=PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | {TIED: "1"},
                start_new_session=True,
            )

    async def _keep(self, role: Role) -> None:
        """Start the role again whenever it ends."""
        pause = self.pause / 2
        while True:
            began = time.monotonic()
            code = await self.children[role.name].wait()
            away = self._away.pop(role.name, None)
            if away is None:  # what we killed did not fail by itself
                pause = next_pause(pause, time.monotonic() - began, self.pause)
            wait = pause if away is None else max(self.pause, away)
            self.say(f"{role.name} ended ({self._why(role, code)}); it starts again in {wait:g} s")
            await asyncio.sleep(wait)
            self.children[role.name] = await self._spawn(role)

    def _why(self, role: Role, code: int) -> str:
        """How it ended, with its own last words if it had any."""
        if code < 0:
            return signal.Signals(-code).name
        return f"exit code {code}: {last_words(self.folder / f'{role.name}.log') or 'it said nothing'}"

    async def host(self, make: Callable[[str], Processor]) -> Stop:
        return await self.kafka.host(make(new_life()))

    def kill(self, name: str, away: float = 0.0) -> None:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself just now
            self._away[name] = away
            self.children[name].kill()

    async def stop(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        for child in self.children.values():
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        ends = [asyncio.create_task(c.wait()) for c in self.children.values()]
        if ends:
            _, late = await asyncio.wait(ends, timeout=5)
            if late:
                for child in self.children.values():
                    with contextlib.suppress(ProcessLookupError):
                        child.kill()
                await asyncio.wait(late)
        await self.kafka.stop()


def last_words(log: Path) -> str:
    """The last line of a log, if there is one; not all of it if it is long."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        lines = file.read().decode(errors="replace").splitlines()
        last = next((x.strip() for x in reversed(lines) if x.strip()), "")
        with contextlib.suppress(ValueError, TypeError, KeyError):  # a log line in JSON
            last = json.loads(last)["message"]
        return last[:300].removeprefix("olearning: ")
    return ""


def _over_in(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


class InMemory:
    """All roles in this process, in step with the real clock; behind it if the machine is too slow for that."""

    kafka = None

    def __init__(self, say: Say, pause: float = 2.0, step: float = 0.02, exporter: Exporter | None = None):
        self.say, self.pause, self.step, self.exporter = say, pause, step, exporter
        self.memory = Memory(start=time.time_ns() // 1_000_000)
        self.hosts: dict[str, Host] = {}
        self._clock: asyncio.Task[None] | None = None
        self._began: dict[str, float] = {}
        self._pauses: dict[str, float] = {}

    def now(self) -> int:
        return self.memory.now

    async def start(self, roles: Iterable[Role]) -> None:
        if self._clock is None:
            self._clock = asyncio.create_task(self._run())
        for role in roles:
            for topic, partitions in role.topics():
                self.memory.create(topic.name, partitions)
            self.hosts[role.name] = self.memory.host(partial(self._build, role))
            self._began[role.name] = time.monotonic()
            await asyncio.sleep(0)  # building one may take seconds; whoever wants to end us is heard in between

    def _build(self, role: Role, life: str) -> Processor:
        shown = watched(role.kind, role.zone, role.build(life), None, self.now)
        if self.exporter:
            self.exporter.watch(shown)
        return shown.hosted

    async def _run(self) -> None:
        while True:
            behind = time.time_ns() // 1_000_000 - self.memory.now
            self.memory.run(_over_in(BREATH), limit=max(0, behind))
            for name, host in self.hosts.items():
                if host.stopped:
                    self._ended(name, host.stopped.reason)
                    host.stopped = None
            await asyncio.sleep(self.step)

    def _ended(self, name: str, how: str, away: float = 0.0) -> None:
        lived = time.monotonic() - self._began[name]
        pause = self._pauses[name] = max(next_pause(self._pauses.get(name, self.pause / 2), lived, self.pause), away)
        self.say(f"{name} ended ({how}); it starts again in {pause:g} s")
        asyncio.get_running_loop().call_later(pause, self._again, name)

    def _again(self, name: str) -> None:
        if not self.hosts[name].alive:
            self._began[name] = time.monotonic()
            self.hosts[name].restart()

    async def host(self, make: Callable[[str], Processor]) -> Stop:
        host: Any = self.memory.host(make)
        while host.stopped is None:
            if self._clock and self._clock.done():
                await self._clock  # says what went wrong
            await asyncio.sleep(self.step)
        stop: Stop = host.stopped
        return stop

    def kill(self, name: str, away: float = 0.0) -> None:
        if self.hosts[name].alive:
            self.hosts[name].crash()
            self._ended(name, "killed, in this simulation", away)

    async def stop(self) -> None:
        if self._clock:
            self._clock.cancel()
            await asyncio.wait({self._clock})
