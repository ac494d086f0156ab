"""Which broker: yours if KAFKA_BOOTSTRAP_SERVERS or --bootstrap names one, else a local one, else one in Docker, else none, and said aloud."""

import asyncio
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

from olearning.errors import NO_BROKER, USAGE, Trouble
from streams import security
from streams.broker import LocalBroker, status
from streams.docker_broker import DockerBroker
from streams.jars import BrokerError

T = TypeVar("T")
Say = Callable[[str], None]
ENV = "KAFKA_BOOTSTRAP_SERVERS"
DEFAULT_NAMESPACE = "olearning"
LOOK = 1.0
"""Seconds between looks whether the broker still listens."""
ANSWER = 2.0
"""Seconds in which somebody who listens does so."""


def state_folder() -> Path:
    """Where this user's brokers and running planes note their whereabouts."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "olearning"


def broker_folder() -> Path:
    """The folder of the broker that `olearning broker start` leaves running."""
    return state_folder() / "broker"


@dataclass
class Broker:
    """The broker chosen, for as long as the block lasts. `bootstrap` "": none, the log is in memory. `local`: it is ours."""

    bootstrap: str
    local: LocalBroker | DockerBroker | None = None

    def __enter__(self) -> "Broker":
        return self

    def __exit__(self, *_: object) -> None:
        if self.local:
            self.local.stop()


def choose(folder: Path, say: Say, bootstrap: str = "") -> Broker:
    """The broker for a plane that starts now, in the order that docs/running.md gives.

    To be called in the main thread, where Ctrl-C interrupts it: it may start Java and, the first time, Maven.
    """
    if named := _named(bootstrap):
        say(f"broker: yours, at {named}{_by(security.from_environment())}")
        return Broker(named)
    if config := os.environ.get(security.ENV):
        raise Trouble(
            f"client config {config} says how to speak to a Kafka of yours, and none is named: set {ENV}, pass --bootstrap, or "
            f"say {security.BOOTSTRAP} in it",
            USAGE,
        )
    if running := status(broker_folder()):
        say(f"broker: the local one that runs already, at {running['bootstrap']}")
        return Broker(running["bootstrap"])
    local = LocalBroker(folder)
    say("broker: a local Apache Kafka, started for this run (the first time, Maven fetches it)")
    try:
        return Broker(local.start(), local)
    except BrokerError as e:
        say(f"broker: not a local one. {e}")
    contained = DockerBroker(folder)
    say(
        f"broker: Apache Kafka in Docker, started for this run from {contained.image} (the first time, Docker pulls it)"
    )
    try:
        return Broker(contained.start(), contained)
    except BrokerError as e:
        say(f"broker: none. {e}")
        say(
            "WARNING: going on with the log in memory and all roles in this one process. Nothing survives it: "
            "no durability, no other process can take part, and killing a role is only simulated."
        )
        return Broker("")


def _by(how: security.Security) -> str:
    """How your broker is spoken to, in words."""
    ignored = f"; ignored there: {', '.join(how.left_out)}" if how.left_out else ""
    return f", by {how.protocol} as {how.source} says{ignored}" if how.source else ""


def _named(bootstrap: str) -> str:
    """The servers that somebody named, if anybody did. Raises `Trouble` for what can be none, and `BadConfig`."""
    named = bootstrap or os.environ.get(ENV, "")
    source = "--bootstrap" if bootstrap else ENV
    config = security.from_environment()
    if not named and config.bootstrap:
        named, source = config.bootstrap, f"{security.BOOTSTRAP} of {config.source}"
    for part in filter(None, map(str.strip, named.split(","))):
        whole = ":" not in part or part.endswith("]")  # Kafka's client knows the port
        if not (part if whole else (address(part) or ("", 0))[0]):
            raise Trouble(f"{source} {named}: write HOST:PORT, as in localhost:9092; several with commas", USAGE)
    return named


def address(text: str) -> tuple[str, int] | None:
    """HOST:PORT or [HOST]:PORT, as (host, port); None if it is neither. The host may be empty."""
    host, colon, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if colon and port.isdecimal() and int(port) < 65_536 else None


def find(bootstrap: str = "", namespace: str = "") -> str:
    """The broker of a plane that runs, of that namespace if there are several. Raises `Trouble` if none is known."""
    if named := _named(bootstrap):
        return named
    if notes := planes():
        return next((n["bootstrap"] for n in notes if n["namespace"] == namespace), notes[0]["bootstrap"])
    if running := status(broker_folder()):
        return str(running["bootstrap"])
    raise Trouble(
        f"no broker is known: set {ENV}, pass --bootstrap, or start one with `olearning broker start` or `olearning up`",
        NO_BROKER,
    )


# ------------------------------------------------------------------ planes that run


class Noted:
    """While it is open, other commands of this user find this plane's broker by themselves.

    The note is locked for as long as its writer lives, so one that a killed plane left is known for what it is.
    """

    def __init__(self, bootstrap: str, namespace: str):
        self.note = {"pid": os.getpid(), "bootstrap": bootstrap, "namespace": namespace, "since": time.time()}
        self.path = state_folder() / "planes" / f"{namespace}-{os.getpid()}.json"
        self._file: TextIO | None = None

    def __enter__(self) -> None:
        if not self.note["bootstrap"]:
            return
        with suppress(OSError):  # without the note one has to name the broker; the plane runs all the same
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = self.path.with_suffix(".new")
            self._file = new.open("w")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._file.write(json.dumps(self.note))
            self._file.flush()
            new.rename(self.path)

    def __exit__(self, *_: object) -> None:
        if self._file:
            self.path.unlink(missing_ok=True)
            self._file.close()


def planes() -> list[dict[str, Any]]:
    """The notes of this user's planes that run, the newest first."""
    found = []
    for path in (state_folder() / "planes").glob("*.json"):
        with suppress(OSError, ValueError), path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(json.load(file))
            else:
                path.unlink(missing_ok=True)
    return sorted(found, key=lambda n: -n["since"])


# ------------------------------------------------------------------ a broker that goes away


async def attended(work: Coroutine[Any, Any, T], broker: Broker, say: Say, patience: float | None = None) -> T:
    """Do the work; meanwhile say when the broker goes and comes back, and start it again if it is ours.

    Raises `Trouble` if it stays away for `patience` seconds; without one, the work goes on when it is back.
    """
    doing = asyncio.create_task(work)
    minding = asyncio.create_task(_mind(broker, say, patience))
    try:
        await asyncio.wait({doing, minding}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            await minding  # it only ends with trouble
        return await doing
    finally:
        minding.cancel()
        doing.cancel()
        await asyncio.gather(doing, minding, return_exceptions=True)


async def _mind(broker: Broker, say: Say, patience: float | None) -> None:
    while True:
        await asyncio.sleep(LOOK)
        if not broker.bootstrap or await listens(broker.bootstrap):
            continue
        gone = time.monotonic()
        if broker.local:
            say(f"the broker at {broker.bootstrap} is gone; it is started again, with its data and on its port")
        else:
            say(f"the broker at {broker.bootstrap} does not answer; waiting for it to come back")
        while not await listens(broker.bootstrap):
            if patience is not None and time.monotonic() - gone > patience:
                raise Trouble(
                    f"the broker at {broker.bootstrap} stayed away for {patience:g} s: start it again, or see its log",
                    NO_BROKER,
                )
            if broker.local:
                try:
                    await asyncio.to_thread(_restart, broker.local)
                except BrokerError as e:
                    say(f"it does not start: {e}")
            await asyncio.sleep(LOOK)
        say("the broker is back; everything goes on where it was")


def _restart(local: LocalBroker | DockerBroker) -> None:
    local.stop()
    local.start()


async def listens(bootstrap: str) -> bool:
    """Does anybody listen at one of these addresses? Asked in a thread of its own: an event loop that stands still for a while (devices
    that train, a machine that slept) is no broker that is gone."""
    return await asyncio.to_thread(_listens, bootstrap)


def _listens(bootstrap: str) -> bool:
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER).close()
            return True
        except ValueError:
            return True  # Kafka's client understands more than we do here
        except OSError:  # TimeoutError is one
            continue
    return False
