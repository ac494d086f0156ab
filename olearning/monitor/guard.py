"""Who may look at the live page: by a password, if there is one.

A browser asks its user once (HTTP basic authentication) and has a cookie from then on, by which alone the page's live connection opens: browsers send
a password along with what any other page asks of us, and a cookie of ours (`SameSite=Strict`) they do not.
"""

import hmac
import ipaddress
import logging
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import scrypt, sha256
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from olearning.errors import USAGE, Trouble

LEAST = 8
"""Characters of a password."""
OPEN = frozenset({"/healthz"})
"""Paths that need no password: they say nothing of the plane."""
LIVE = "/_nicegui_ws/"
"""Where the page's live connection is, as a websocket or by polling."""
REFUSED = (
    "This page asks for a user's name and password: those of the file that `olearning monitor --password-file` names.\n"
)
log = logging.getLogger("olearning.monitor")


@dataclass(frozen=True)
class User:
    """Who may look. `name` and `value` of the cookie are made of the password: they hold for as long as that does, also when the monitor is
    started again, and two monitors on one machine do not take each other's."""

    login: bytes
    """USER:PASSWORD."""
    name: str
    value: str


def user(login: bytes) -> User:
    key = scrypt(login, salt=b"the live page of olearning", n=2**14, r=8, p=1, dklen=40)
    return User(login, f"olearning-{key[:8].hex()}", key[8:].hex())


def read_users(path: Path) -> list[User]:
    """Those of a password file: a line each, USER:PASSWORD. Raises `Trouble` for what cannot be."""
    make = f'make it: echo "ops:$(head -c 18 /dev/urandom | base64)" > {path}'
    try:
        lines = [line for x in path.read_bytes().splitlines() if (line := x.strip())]
    except OSError as e:
        raise Trouble(f"cannot read {path}: {e.strerror}; {make}", USAGE) from None
    if not lines:
        raise Trouble(f"{path} has no line USER:PASSWORD; {make}", USAGE)
    for n, line in enumerate(lines, 1):
        name, colon, password = line.partition(b":")
        if not name or not colon or len(password) < LEAST:
            raise Trouble(
                f"{path}, line {n}: write USER:PASSWORD, the password of {LEAST} characters at least; {make}", USAGE
            )
    return [user(line) for line in lines]


def may_listen(host: str, asks: bool, open_: bool) -> None:
    """Raises `Trouble` for a page that others than this machine could reach, without a password and without anyone having said that this is meant."""
    if asks or open_ or loopback(host):
        return
    raise Trouble(
        f"--host {host}: others than this machine could look, and no password is asked for. Name a file with one (--password-file FILE), listen "
        "at 127.0.0.1 behind a proxy that asks, or say --open if whoever reaches it may look",
        USAGE,
    )


def loopback(host: str) -> bool:
    """Whether only this machine reaches it. A name is taken for more, but for `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Stands before the page, for requests and websockets alike."""

    def __init__(self, app: ASGIApp, users: Iterable[User]):
        self.app, self.users = app, tuple(users)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope)(scope, receive, send)

    def _answer(self, scope: Scope) -> ASGIApp:
        """The page, or what is said in its place."""
        if scope["type"] not in ("http", "websocket") or scope["path"] in OPEN:
            return self.app
        asked, live = HTTPConnection(scope), scope["path"].startswith(LIVE)
        if self._by_cookie(asked):
            return self.app
        if scope["type"] == "websocket":
            return WebSocketClose(1008, "no password")
        if not live and (who := self._by_password(asked)):
            return self._greeting(who)
        again = {} if live else {"WWW-Authenticate": 'Basic realm="OLearning", charset="UTF-8"'}
        return PlainTextResponse(REFUSED, 401, again)

    def _by_cookie(self, asked: HTTPConnection) -> bool:
        fits = [_same(asked.cookies.get(u.name, "").encode(), u.value.encode()) for u in self.users]
        return True in fits

    def _by_password(self, asked: HTTPConnection) -> User | None:
        kind, _, said = asked.headers.get("authorization", "").partition(" ")
        if kind.lower() != "basic":
            return None
        try:
            given = b64decode(said)
        except ValueError:
            given = b""
        fits = [_same(given, u.login) for u in self.users]
        if True not in fits:
            log.warning("a wrong password for the page, from %s", asked.client.host if asked.client else "somewhere")
            return None
        return self.users[fits.index(True)]

    def _greeting(self, who: User) -> ASGIApp:
        """The page, with the cookie."""

        async def greeted(scope: Scope, receive: Receive, send: Send) -> None:
            secure = "; Secure" if scope["scheme"] == "https" else ""

            async def greet(message: Message) -> None:
                if message["type"] == "http.response.start":
                    kept = f"{who.name}={who.value}; Path=/; HttpOnly; SameSite=Strict{secure}"
                    MutableHeaders(scope=message).append("Set-Cookie", kept)
                await send(message)

            await self.app(scope, receive, greet)

        return greeted


def _same(a: bytes, b: bytes) -> bool:
    """In a time that says nothing of either, nor of their lengths."""
    return hmac.compare_digest(sha256(a).digest(), sha256(b).digest())
