"""How a command runs: an event loop that ends in good order, a role or a visitor hosted in it, lines out."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar

import typer

from olearning.connect import Broker, attended, find
from olearning.errors import INTERRUPTED, NO_BROKER, OK, TERMINATED, Trouble
from olearning.happenings import Event
from olearning.roles import RARELY, Groundwork, Role, new_life
from olearning.telemetry import logs
from olearning.telemetry.exporter import Exporter, watched
from schemas.topics import GLOBAL, check_zone, topic
from streams.kafka import Kafka
from streams.processor import Processor, Stop
from streams.queries import Refused

T = TypeVar("T")
PATIENCE = 10.0
"""Seconds that a broker may be away before a command that only looks gives up."""
READING = 60.0
"""Seconds that such a command may take."""
CLEANING = 8.0
"""Seconds after which who was told to end is told again: asyncio of Python 3.11 may lose a cancellation."""


def complain(text: str) -> None:
    if logs.wanted() is logs.Format.JSON:
        logging.getLogger("olearning").error(text, extra={"event": "trouble"})
        return
    print(f"olearning: {text}", file=sys.stderr, flush=True)


def emit(text: str) -> bool:
    """Print a line; False if nobody reads any more (`| head`), which is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        nobody_reads()
        return False
    return True


def emit_or_end(text: str) -> None:
    """Print a line; when nobody reads any more, end in good order."""
    if not emit(text):
        os.kill(os.getpid(), signal.SIGTERM)


def narrator(role: str) -> Callable[..., None]:
    """How a command that stays tells what it does, and what happens (`event`): a line each, JSON where logs are."""

    def narrate(text: str, event: Event | None = None) -> None:
        emit_or_end(logs.line(text, role, event) if logs.wanted() is logs.Format.JSON else text)

    return narrate


def nobody_reads() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def on_terminate() -> None:
    """Where no event loop runs, SIGTERM and a terminal that is closed end us as an exception, which cleans up."""

    def end(sign: int, frame: object) -> NoReturn:
        raise SystemExit(TERMINATED)

    for sign in _signs()[1:]:
        signal.signal(sign, end)


def _signs() -> list[signal.Signals]:
    """What ends us in good order; under nohup a closed terminal does not."""
    signs = [signal.SIGINT, signal.SIGTERM]
    return signs if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [*signs, signal.SIGHUP]


def drive(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run to the end and give the result; or until SIGINT (exit code 130) or SIGTERM (0) has let it clean up."""
    came: list[int] = []

    async def main() -> T | None:
        task = asyncio.ensure_future(work())
        loop = asyncio.get_running_loop()

        def stop(sign: int) -> None:
            came.append(sign)
            task.cancel()
            loop.call_later(CLEANING, task.cancel)

        for sign in _signs():
            loop.add_signal_handler(sign, stop, sign)
        if os.environ.get("OLEARNING_TIED"):
            threading.Thread(target=_until_parent_ends, daemon=True).start()
        try:
            return await task
        except asyncio.CancelledError:
            return None

    before = {sign: signal.getsignal(sign) for sign in _signs()}
    try:
        result = asyncio.run(main())
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
    if came:
        raise typer.Exit(INTERRUPTED if signal.SIGINT in came else OK)
    return result  # type: ignore[return-value]  # None only if it was cancelled


def _until_parent_ends() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):  # not sys.stdin: a thread that waits in it breaks the end of the interpreter
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(CLEANING)
    os._exit(TERMINATED)  # it hangs; nobody is left who could end it


def host(
    role: Role,
    bootstrap: str,
    session_timeout: int,
    metrics_port: int = 0,
    front: Callable[[Processor, Kafka], contextlib.AbstractAsyncContextManager[object]] | None = None,
) -> None:
    """Run one role until it stops or we are told to. It logs what happens, and shows metrics at a port if one is given. `front`: what
    is open while it runs, of a role that others speak to."""
    logs.set_up(logs.Level.INFO, {"role": role.kind, "name": role.name})
    topic(role.namespace, GLOBAL, "ledger")  # names are checked before anything is started
    for zone in [role.zone] if role.zone else role.options["zones"].split(",") if "zones" in role.options else []:
        check_zone(zone)
    where = find(bootstrap, role.namespace)

    async def work() -> Stop:
        async with (
            Exporter(metrics_port or None) as exporter,
            Kafka(where, role.name, session_timeout) as kafka,
        ):
            ground = await kafka.host(Groundwork(role.topics()))
            if not ground.ok:
                return ground
            processor = role.build(new_life())
            if role.kind in ("global", "zone"):  # what they take in and give out is small and makes few circles
                gc.freeze()
                gc.set_threshold(*RARELY)
            logs.tell(processor)
            inside = getattr(processor, "gateway", processor)  # what HTTP asks stands around it
            exporter.watch(shown := watched(role.kind, role.zone, inside, kafka, around=processor))
            async with front(processor, kafka) if front else contextlib.nullcontext():
                return await kafka.host(shown.hosted)

    stop = drive(lambda: attended(work(), Broker(where), complain))
    if not stop.ok:
        raise Trouble(f"{role.name} stopped: {stop.reason}")


def visit(
    namespace: str,
    bootstrap: str,
    processor: Processor,
    name: str = "",
    patience: float | None = PATIENCE,
    seconds: float | None = READING,
    client: str = "",
) -> Stop:
    """Host a processor of our own in a namespace that is there, until it stops. Raises `Trouble` if that is not well.

    `name`: the topic that must be there, too. It may take `seconds`; the broker may be away for `patience`. `client`: what it is to
    the broker, for whose quotas it must be the same each time; else the processor's name.
    """
    client = client or processor.name
    stop = on_kafka(namespace, bootstrap, client, lambda kafka: kafka.host(processor), name, patience, seconds)
    if not stop.ok:
        raise Trouble(stop.reason)
    return stop


def on_kafka(
    namespace: str,
    bootstrap: str,
    client: str,
    ask: Callable[[Kafka], Awaitable[T]],
    name: str = "",
    patience: float | None = PATIENCE,
    seconds: float | None = READING,
) -> T:
    """What `ask` gives, on the Kafka of a namespace that is there. Raises `Trouble`; arguments as in `visit`."""
    ledger = topic(namespace, GLOBAL, "ledger").name
    where = find(bootstrap, namespace)

    async def work() -> T:
        async with Kafka(where, client) as kafka:
            must_exist(await kafka.topics(), where, namespace, name or ledger)
            return await ask(kafka)

    async def in_time() -> T:
        try:
            async with asyncio.timeout(seconds):
                return await attended(work(), Broker(where), complain, patience)
        except TimeoutError:
            raise Trouble(
                f"the broker at {where} did not give an answer within {seconds:g} s: see how busy it is, and try again",
                NO_BROKER,
            ) from None
        except Refused as e:
            raise Trouble(f"the broker at {where} refused it: {e}") from None

    return drive(in_time)


def must_exist(there: set[str], where: str, namespace: str, name: str) -> None:
    """Raises `Trouble` in words if the namespace, or this topic of it, is not among the topics that are there."""
    if topic(namespace, GLOBAL, "ledger").name not in there:
        others = sorted({t.split(".")[0] for t in there if t.endswith(".global.ledger")})
        there_are = ", ".join(others) or "none"
        hint = "choose one with --namespace" if others else "start a plane with `olearning up`"
        raise Trouble(f"there is no namespace {namespace} at {where}; there: {there_are}. To go on: {hint}")
    if name not in there:
        mine = sorted(t.removeprefix(f"{namespace}.") for t in there if t.startswith(f"{namespace}."))
        wanted = name.removeprefix(f"{namespace}.")
        zones = {t.split(".")[0] for t in mine} - {GLOBAL}
        zone, dot, _ = wanted.partition(".")
        if dot and zone not in zones | {GLOBAL}:
            raise Trouble(
                f"there is no zone {zone} in namespace {namespace}; there: {', '.join(sorted(zones)) or 'none'}"
            )
        near = get_close_matches(wanted, mine)
        near += [t for t in mine if t not in near and (not dot or t.startswith(f"{zone}."))]
        raise Trouble(f"there is no topic {name}; there: {', '.join(near)}")
