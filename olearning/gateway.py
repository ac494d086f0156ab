"""`olearning gateway`: the gateway (`device_sim/gateway.py`) behind an HTTP server. docs/gateway.md is the protocol.

HTTP's questions wait in a queue until the runtime has its turn with the gateway, so nothing of it is touched by two at once; the replies
come back as futures. A connection that is slow holds up itself alone.
"""

import asyncio
import gc
import inspect
import logging
import resource
import ssl
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from random import random

from aiohttp import web
from aiohttp.http import HttpProcessingError

from device_sim.gateway import Gateway
from device_sim.link import MOST_BYTES, Ask, Asked, Poll, Reply, Say, Status
from olearning.errors import USAGE, Trouble
from olearning.tokens import MOST_ID, Check
from streams.kafka import wall_clock
from streams.processor import Effect, Input, Membership, Tick

log = logging.getLogger(__name__)
MESSAGEPACK, BYTES = "application/msgpack", "application/octet-stream"
LONGEST_POLL = 60.0
"""Seconds that a question for messages may wait."""
SLOWEST = 30.0
"""Seconds that the body of a request may take to arrive, an answer to be taken, and a token to be checked."""
KEPT = 60.0
"""Seconds that a connection lasts on which nothing is asked: the head of a request has so long to arrive."""
BACKLOG = 4096
"""Connections that wait to be taken: after a restart all devices come at once."""
COLLECT = 10_000, 10, 5
"""How many objects more than went came, before the collector looks at the youngest; how often it does before it looks at older ones. A
connection that is closed leaves some 14 to it."""
SLICE = 100
"""So many of one thing's replies go out before others have their turn: what is said to all is said to thousands."""
SPREAD = 0.25
"""A question may be answered by this share of its wait sooner: what was asked at once, after something was said to all, else comes again
at once for ever."""
GATHER = 0.002
"""Seconds that a question waits for others: what goes to the log together takes less."""
MOST_OPEN = 32
"""Requests of one device that are open at the same time: each may hold a body or a block of a model."""
CODES = {
    Status.DONE: 200,
    Status.BAD: 400,
    Status.UNKNOWN: 404,
    Status.LATE: 409,
    Status.GONE: 410,
    Status.LARGE: 413,
    Status.BUSY: 429,
    Status.LATER: 503,
}
AGAIN = {"Retry-After": "1"}


@dataclass
class Hosted:
    """A gateway as the runtime hosts it, with the questions that wait for their turn. `ask` is for the event loop that hosts it."""

    gateway: Gateway
    membership: Membership | None = None
    _asked: deque[tuple[int, str, Asked]] = field(default_factory=deque)
    _waiting: dict[int, asyncio.Future[Reply]] = field(default_factory=dict)
    wake: Callable[[], None] = lambda: None
    """Has the gateway its turn soon; else questions wait for its next tick."""
    _last: int = 0
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: int = 0
    """Of the loop."""

    def __post_init__(self) -> None:
        self.name, self.tick = self.gateway.name, self.gateway.tick

    def start(self, now: int) -> Iterator[Effect]:
        yield from self.gateway.start(now)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        """One input; before a tick, all that was asked. It may run in a thread, so futures are set by their own loop: at once if this
        is it, since to wake it from outside takes a system call each time."""
        if isinstance(event, Tick):
            while self._asked:
                yield from self.gateway.ask(*self._asked.popleft(), now)
        yield from self.gateway.handle(event, now)
        if replies := self.gateway.take():
            if self._thread == threading.get_ident():
                self._hand_out(replies)
            elif self._loop:
                self._loop.call_soon_threadsafe(self._hand_out, replies)

    def _hand_out(self, replies: list[Reply]) -> None:
        for reply in replies[:SLICE]:
            if (future := self._waiting.pop(reply.number, None)) and not future.done():
                future.set_result(reply)
        if self._loop and (left := replies[SLICE:]):
            self._loop.call_soon(self._hand_out, left)

    async def ask(self, device: str, asked: Asked) -> Reply:
        """The gateway's reply to a device."""
        if self._loop is None:
            self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._last += 1
        number = self._last
        future = self._waiting[number] = self._loop.create_future()
        self._asked.append((number, device, asked))
        if len(self._asked) == 1:
            self._loop.call_later(GATHER, self.wake)
        try:
            return await future
        finally:
            self._waiting.pop(number, None)  # the device has gone


# ------------------------------------------------------------------ HTTP

BROKEN = (HttpProcessingError, web.RequestPayloadError, ConnectionError)
"""What a stranger's bytes, or a link that breaks, make of a request."""
http_log = logging.getLogger(f"{__name__}.http")


@http_log.addFilter
def _in_a_word(record: logging.LogRecord) -> bool:
    """Of a request that is none only of which kind it is, and that for who debugs: the error would quote it, with the token in it."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, BROKEN):
        return True
    record.msg, record.args, record.exc_info = "a request is broken: %s", (type(error).__name__,), None
    record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return http_log.isEnabledFor(logging.DEBUG)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def no(code: int, words: str) -> web.Response:
    """An answer that says what is wrong and what to do."""
    return web.Response(status=code, text=words + "\n", headers=AGAIN if code in (429, 503) else None)


class Api:
    """The gateway's HTTP face. `clock` in ms: that of the runtime which hosts it."""

    def __init__(self, hosted: Hosted, check: Check, clock: Callable[[], int]):
        self.hosted, self.check, self.clock = hosted, check, clock
        self._open: Counter[str] = Counter()
        """Requests by device."""

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MOST_BYTES, middlewares=[self._in_words])
        app.add_routes(
            [
                web.get("/v1/health", self.health),
                web.get("/v1/messages", partial(self._serve, answer=self.messages)),
                web.post("/v1/messages", partial(self._serve, answer=self.say)),
                web.get("/v1/models/{task}/{round}/{block}", partial(self._serve, answer=self.block)),
            ]
        )
        return app

    @web.middleware
    async def _in_words(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPRequestEntityTooLarge:
            return no(413, f"at most {MOST_BYTES} bytes; a delta goes block by block")
        except web.HTTPException as e:
            return no(e.status, f"{e.reason}: the protocol is in docs/gateway.md")
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("a request failed")
            return no(500, "the gateway failed at this; its log says how")

    async def _device(self, request: web.Request) -> str:
        """Who asks. Raises 401 or 503."""
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise web.HTTPUnauthorized(reason="send your token: Authorization Bearer TOKEN")
        try:
            device = self.check(token)
            if inspect.isawaitable(device):
                async with asyncio.timeout(SLOWEST):
                    device = await device
        except Exception:
            log.exception("the check of a token failed")
            raise web.HTTPServiceUnavailable(reason="the check of tokens fails, try again") from None
        if (
            not device or len(device) > MOST_ID or not device.isprintable()
        ):  # half a character is not, and JSON may say it
            raise web.HTTPUnauthorized(reason="this token is not known")
        return device

    async def _serve(
        self, request: web.Request, answer: Callable[[web.Request, str], Awaitable[web.Response]]
    ) -> web.Response:
        """Answer a device that is let in, and see that it takes the answer: one that does not is cut off."""
        device = await self._device(request)
        if self._open[device] >= MOST_OPEN:
            return no(429, f"{MOST_OPEN} requests are open: ask one after the other")
        self._open[device] += 1
        try:
            response = await answer(request, device)
            if request.transport is None:
                return response  # it has gone
            late = asyncio.get_running_loop().call_later(SLOWEST, request.transport.abort)
            try:
                await response.prepare(request)
                await response.write_eof()
            except ConnectionError:
                if request.transport:
                    request.transport.abort()
            finally:
                late.cancel()
            return response
        finally:
            self._open[device] -= 1
            if not self._open[device]:
                del self._open[device]

    async def health(self, request: web.Request) -> web.StreamResponse:
        if self.hosted.gateway.ready:
            return web.Response(text="ready\n")
        return no(503, "it reads what is announced")

    async def messages(self, request: web.Request, device: str) -> web.Response:
        try:
            wait = min(max(0.0, float(request.query.get("wait", "0"))), LONGEST_POLL) * (1 - SPREAD * random())
        except ValueError:
            return no(400, "wait: seconds, as in wait=25")
        after = request.query.get("after", "")[:200]
        return self._response(
            await self.hosted.ask(device, Poll(after, self.clock() + round(1000 * wait))), MESSAGEPACK
        )

    async def say(self, request: web.Request, device: str) -> web.Response:
        try:
            async with nullcontext() if request.content.is_eof() else asyncio.timeout(SLOWEST):
                body = await request.read()
        except TimeoutError:
            return no(408, f"the body took longer than {SLOWEST:g} s")
        except ConnectionError:
            return no(408, "the body broke off: send it again")
        except web.RequestPayloadError:
            return no(400, "the body is not packed as its headers say")
        return self._response(await self.hosted.ask(device, Say(body)), MESSAGEPACK)

    async def block(self, request: web.Request, device: str) -> web.Response:
        task, round_, block = (request.match_info[x] for x in ("task", "round", "block"))
        try:
            asked = Ask(task, int(round_), int(block))
        except ValueError:
            return no(400, "/v1/models/TASK/ROUND/BLOCK: round and block are numbers")
        return self._response(await self.hosted.ask(device, asked), BYTES)

    def _response(self, reply: Reply, kind: str) -> web.Response:
        code = CODES[reply.status]
        if code != 200:
            return no(code, reply.words)
        return web.Response(status=200 if len(reply.body) else 204, body=bytes(reply.body) or None, content_type=kind)


# ------------------------------------------------------------------ a server


class Server:
    """Listens while it is open, on all addresses if `host` is empty; `url` says where. `certificate`: (certificate, key) files, for HTTPS."""

    def __init__(self, api: Api, host: str, port: int, certificate: tuple[str, str] | None = None):
        self._runner = web.AppRunner(
            api.app(), access_log=None, logger=http_log, shutdown_timeout=1.0, keepalive_timeout=KEPT
        )
        self._host, self._port, self._tls = host, port, None
        if certificate:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(*certificate)
        self.url = ""

    async def __aenter__(self) -> "Server":
        """Raises `OSError` if it cannot listen there."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host or None, self._port, ssl_context=self._tls, backlog=BACKLOG)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if self._tls else 'http'}://{shown}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


def for_many() -> None:
    """Make this process one for thousands of connections: as many files as the system lets us, where many begin with 1,024, and a
    collector of circles that comes by seldom. 10,000 connections are a million objects: to look at them all each time that a few more
    requests were under way than before took half of a gateway's time."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.set_threshold(*COLLECT)


@asynccontextmanager
async def front(
    hosted: Hosted, check: Check, host: str, port: int, certificate: tuple[str, str] | None
) -> AsyncIterator[None]:
    """The HTTP face of a gateway that Kafka hosts. Raises `Trouble` if it cannot listen there."""
    for_many()
    try:
        server = await Server(Api(hosted, check, wall_clock), host, port, certificate).__aenter__()
    except (OSError, ssl.SSLError) as e:
        raise Trouble(f"cannot listen at {host}:{port}: {e.strerror or e}", USAGE) from None
    log.info("%s listens at %s", hosted.name, server.url)
    try:
        yield
    finally:
        await server.__aexit__()
