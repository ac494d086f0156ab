"""`olearning up`: a whole plane on this machine, and what happens on it as lines of text."""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from olearning.connect import Broker, Noted, attended, planes
from olearning.errors import USAGE, Trouble
from olearning.happenings import Event
from olearning.planes import InMemory, Plane, Processes, Say
from olearning.roles import SESSION_TIMEOUT, Role
from olearning.telemetry.exporter import Exporter, watched
from processors.submitter import Submitter
from schemas.topics import GLOBAL, BadName, check_zone, topic
from streams import security


@dataclass(frozen=True)
class Shape:
    """What a plane is made of. `devices` by zone; 0: the fleets are started elsewhere."""

    namespace: str
    zones: tuple[str, ...] = ("east", "west")
    aggregators: int = 2
    devices: int = 0
    evaluator: bool = True
    partitions: int = 8
    day_seconds: float = 60.0
    apart_h: float = 8.0
    """The hours between one zone's time and the next one's."""
    resend: float = 0.0
    seed: int = 0
    load: tuple[str, ...] = ()
    """People's own code, for the roles that merge, train and score."""
    modules: bool = False
    """Whether somebody answers devices of modular tasks."""

    def __post_init__(self) -> None:
        topic(self.namespace, GLOBAL, "ledger")  # raises BadName
        for zone in self.zones:
            check_zone(zone)
        if twice := sorted({z for z in self.zones if self.zones.count(z) > 1}):
            raise BadName(f"zone {', '.join(twice)} is named more than once")

    @property
    def day_ms(self) -> int:
        return round(1000 * self.day_seconds)

    def nights(self, origin_ms: int, until_ms: int) -> dict[str, list[tuple[int, int]]]:
        """When it is night in each zone, for the middle one of its devices: [start, end) in epoch ms."""
        from device_sim.availability import BEDTIME_H, LENGTH_H

        out: dict[str, list[tuple[int, int]]] = {}
        for i, zone in enumerate(self.zones):
            start = origin_ms + round((BEDTIME_H + i * self.apart_h - 24) * self.day_ms / 24)
            length = round(LENGTH_H * self.day_ms / 24)
            out[zone] = [(at, at + length) for at in range(start, until_ms, self.day_ms)]
        return out

    def plane(self) -> list[Role]:
        """The roles that coordinate."""
        p = {"partitions": str(self.partitions)}
        roles = [Role("global", "global", self.namespace, options={"zones": ",".join(self.zones), **p}, load=self.load)]
        for zone in self.zones:
            roles.append(Role("zone", f"zone-{zone}", self.namespace, zone, p, self.load))
            for n in range(self.aggregators):
                roles.append(Role("aggregator", f"aggregator-{zone}-{n}", self.namespace, zone, p))
            if self.modules:
                roles.append(Role("modules", f"modules-{zone}", self.namespace, zone, p))
        roles.append(Role("scheduler", "scheduler", self.namespace, options=p))
        if self.evaluator:
            roles.append(Role("evaluator", "evaluator", self.namespace, options=p, load=self.load))
        return roles

    def fleets(self, origin_ms: int = 0) -> list[Role]:
        """The simulated devices, zone after zone apart in time: the first zone's evening comes first."""
        roles = []
        for i, zone in enumerate(self.zones):
            options = {
                "count": str(self.devices),
                "first": str(i * self.devices),
                "day-seconds": str(self.day_seconds),
                "utc-offset": str((12 - i * self.apart_h) % 24 - 12),  # where the first zone is after a whole day
                "origin-ms": str(origin_ms),
                "resend": str(self.resend),
                "seed": str(self.seed),
                "partitions": str(self.partitions),
            }
            roles.append(Role("fleet", f"fleet-{zone}", self.namespace, zone, options, self.load))
        return roles if self.devices else []


def run_folder(root: Path) -> Path:
    """A folder of its own for this run, named after the time. Raises `Trouble` if there can be none."""
    stem = datetime.now().strftime("%Y%m%d-%H%M%S")
    for n in range(1000):
        folder = root / (f"{stem}-{n}" if n else stem)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as e:
            raise Trouble(f"cannot make {folder}: {e.strerror}", USAGE) from None
        return folder.resolve()
    raise Trouble(f"{root} is full of runs named {stem}", USAGE)


def make_plane(
    broker: Broker,
    folder: Path,
    say: Say,
    session_timeout: int = SESSION_TIMEOUT,
    exporter: Exporter | None = None,
) -> Plane:
    """Processes if there is a broker, else everything here."""
    if broker.bootstrap:
        port = exporter.port if exporter else None
        return Processes(broker.bootstrap, folder / "logs", say, session_timeout, metrics_port=port or 0)
    return InMemory(say, exporter=exporter)


def refuse_twice(namespace: str, bootstrap: str) -> None:
    """Raises `Trouble` if a plane of this user is up in that namespace: their devices would be the same."""
    for note in planes():
        if note["namespace"] == namespace and note["bootstrap"] == bootstrap:
            raise Trouble(
                f"a plane in namespace {namespace} is up at {bootstrap} already, process {note['pid']}: "
                "stop it, or choose another --namespace",
                USAGE,
            )


class Narrate(Protocol):
    def __call__(self, text: str, event: Event | None = None) -> None:
        """A line of text; `event`: what happened, if it is one of the plane's."""


async def up(
    shape: Shape,
    folder: Path,
    broker: Broker,
    tasks: Sequence[Callable[[str], Submitter]],
    say: Narrate,
    metrics_port: int = 0,
) -> None:
    """Run a plane until cancelled. Submits `tasks` first. Metrics are served at `metrics_port` and those behind it; 0: nowhere."""
    refuse_twice(shape.namespace, broker.bootstrap)
    async with Exporter(metrics_port or None) as exporter:
        await _up(shape, folder, broker, tasks, say, exporter)


async def _up(
    shape: Shape,
    folder: Path,
    broker: Broker,
    tasks: Sequence[Callable[[str], Submitter]],
    say: Narrate,
    exporter: Exporter,
) -> None:
    plane = make_plane(broker, folder, say, exporter=exporter)
    roles = shape.plane() + shape.fleets()

    async def run() -> None:
        await plane.start(roles)
        logs = f", logs in {folder}" if isinstance(plane, Processes) else ""
        say(f"plane: {len(roles)} roles, namespace {shape.namespace}{logs}; Ctrl-C ends it")
        if broker.bootstrap:
            config = os.environ.get(security.ENV)
            also = f" {security.ENV}={config}" if config else ""
            say(f"other terminals: this user's find it; else export KAFKA_BOOTSTRAP_SERVERS={broker.bootstrap}{also}")
        if exporter.port:
            others: list[str] = (
                [f"{name} at {port}" for name, port in plane.ports.items()] if isinstance(plane, Processes) else []
            )
            say(f"metrics: http://localhost:{exporter.port}/metrics" + "".join(f"; {x}" for x in others))
        for make in tasks:
            say((await plane.host(make)).reason)
        await watch(plane, shape.namespace, say, exporter)

    try:
        with Noted(broker.bootstrap, shape.namespace):
            await attended(run(), broker, say)
    finally:
        await plane.stop()


async def watch(plane: Plane, namespace: str, say: Narrate, exporter: Exporter) -> None:
    """Say what happens, for ever, and show what the view knows. Raises `Trouble` if it cannot be read any more."""
    from olearning.happenings import VOID
    from olearning.view import View

    view = View(namespace)
    exporter.watch(watched("view", "", view, plane.kafka, plane.now))
    watching = asyncio.create_task(plane.host(lambda life: view))
    over = False
    try:
        while not watching.done():
            for event in view.drain():
                if event.kind != VOID:
                    say(event.text, event)
            was, over = over, bool(view.globe.over) and not view.globe.tasks
            if over and not was and view.caught_up:
                say("all tasks have ended; the plane is there for more, and Ctrl-C ends it")
            await asyncio.sleep(0.3)
    finally:
        watching.cancel()
        await asyncio.wait({watching})
    raise Trouble(f"the view stopped: {watching.result().reason}")
