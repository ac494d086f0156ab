"""Serving the page: NiceGUI in an event loop of ours, beside the view that reads the topics."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from nicegui import ui

from olearning.connect import Broker, attended, find
from olearning.errors import USAGE, Trouble
from olearning.hosting import complain, drive, must_exist, narrator
from olearning.monitor.board import Board
from olearning.monitor.guard import Guard, User, may_listen, read_users
from olearning.monitor.page import Page
from olearning.roles import new_life
from olearning.telemetry import logs
from olearning.telemetry.exporter import Exporter, watched
from olearning.view import View
from schemas.topics import GLOBAL, topic
from streams.kafka import Kafka, wall_clock

LOOK = 1.0
"""Seconds between two looks."""
RECONNECT = 30.0
"""Seconds for which a browser that was cut off finds its page as it left it."""
STANDS_STILL = 60.0
"""Seconds without a look after which it is not well."""
DUTY = 0.2
"""The share of its time that looking may take: a namespace so large that one look takes long is looked at less often."""


class Server(uvicorn.Server):
    """Leaves signals to whoever runs the loop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """Raises `Trouble`, in words, where nobody can listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as e:
        why = e.strerror or str(e)
        raise Trouble(f"cannot listen at {host}, port {port}: {why}; choose another --port or --host", USAGE) from None


async def serve(board: Board, sock: socket.socket, users: Sequence[User] = ()) -> None:
    """Serve the page of a board, and keep it looking, until cancelled. `users`: who may look; none: whoever reaches it."""

    @ui.page("/")
    def index(tab: str = "", task: str = "") -> None:
        Page(board, tab, task)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> PlainTextResponse:
        """For probes, who have no password: it turns, and it looked."""
        since = time.monotonic() - board.looked
        return (
            PlainTextResponse("ok\n")
            if since < STANDS_STILL
            else PlainTextResponse(f"it looked {since:.0f} s ago\n", 503)
        )

    ui.run_with(
        app, title="OLearning", favicon=FAVICON, dark=None, language="en-US", tailwind=False, show_welcome_message=False,
        binding_refresh_interval=None, reconnect_timeout=RECONNECT,
    )  # fmt: skip
    config = uvicorn.Config(
        Guard(app, users) if users else app,
        log_level="warning",
        access_log=False,
        ws_max_size=2**20,
        timeout_graceful_shutdown=1,
    )
    looking = asyncio.create_task(_look(board))
    server = Server(config)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        done, _ = await asyncio.wait({looking, serving}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        looking.cancel()
        server.should_exit = True
        await asyncio.wait({serving}, timeout=3)
        serving.cancel()
        await asyncio.gather(looking, serving, return_exceptions=True)


async def _look(board: Board) -> None:
    while True:
        board.look()
        await asyncio.sleep(max(LOOK, board.took / DUTY))


FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><circle cx="16" cy="16" r="12" fill="none" stroke="#2563d9" '
    'stroke-width="4" stroke-dasharray="54 22" stroke-linecap="round" transform="rotate(-58 16 16)"/><circle cx="16" cy="16" '
    'r="4.5" fill="#2563d9"/></svg>'
)


def monitor(
    host: str,
    port: int,
    namespace: str,
    bootstrap: str,
    metrics_port: int = 0,
    password_file: Path | None = None,
    open_: bool = False,
) -> None:
    """Read a namespace and serve its page until told to end. Raises `Trouble` if it cannot be read, or not any more; and where others could
    reach it without a password, unless it is to be open."""
    logs.set_up(about={"role": "monitor"})
    users = read_users(password_file) if password_file else []
    may_listen(host, bool(users), open_)
    ledger = topic(namespace, GLOBAL, "ledger").name
    where = find(bootstrap, namespace)
    view = View(namespace, name=f"monitor-{new_life()}")

    async def work() -> None:
        async with Exporter(metrics_port or None) as exporter, Kafka(where, view.name) as kafka:
            exporter.watch(watched("view", "", view, kafka))
            must_exist(await kafka.topics(), where, namespace, ledger)
            sock = listen(host, port)
            asks = "asks for a password" if users else "asks for no password"
            narrator("monitor")(
                f"the page of {namespace} is at {address(host, sock.getsockname()[1])} (Ctrl-C ends it; it only reads, and {asks})"
            )
            watching = asyncio.create_task(kafka.host(view))
            serving = asyncio.create_task(serve(Board(view, wall_clock), sock, users))
            try:
                await asyncio.wait({watching, serving}, return_when=asyncio.FIRST_COMPLETED)
                if watching.done():
                    raise Trouble(f"the view stopped: {watching.result().reason}")
                await serving
            finally:
                for task in (watching, serving):
                    task.cancel()
                await asyncio.gather(watching, serving, return_exceptions=True)

    drive(lambda: attended(work(), Broker(where), complain))


def address(host: str, port: int) -> str:
    """Where to point a browser."""
    here = {"0.0.0.0": "localhost", "::": "localhost", "127.0.0.1": "localhost"}.get(host, host)
    return f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"
