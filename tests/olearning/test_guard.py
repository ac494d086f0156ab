"""Who may look at the live page: nobody without the password, by request or by websocket; and no page is open to others unless that is said."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from olearning.cli import outcome
from olearning.errors import NO_BROKER, USAGE, Trouble
from olearning.monitor.guard import LIVE, Guard, may_listen, read_users, user
from olearning.monitor.serve import Server, listen

ANN, BOB = ("ann", "correct horse"), ("bob", "battery: staple")
USERS = [user(":".join(x).encode()) for x in (ANN, BOB)]


async def say(request: object) -> PlainTextResponse:
    return PlainTextResponse("the page")


async def live(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("live")
    await socket.close()


APP = Starlette(
    routes=[
        Route("/", say),
        Route("/healthz", say),
        Route(f"{LIVE}poll", say),
        WebSocketRoute(f"{LIVE}socket.io", live),
    ]
)


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    """Where the app listens behind the guard, and where without it."""
    socks = [listen("127.0.0.1", 0) for _ in range(2)]
    servers = [Server(uvicorn.Config(app, log_level="critical")) for app in (Guard(APP, USERS), APP)]
    threads = [threading.Thread(target=s.run, args=([sock],)) for s, sock in zip(servers, socks, strict=True)]
    for t in threads:
        t.start()
    yield [sock.getsockname()[1] for sock in socks]
    for s in servers:
        s.should_exit = True
    for t in threads:
        t.join(10)


@pytest.fixture
def c(ports: list[int]) -> Iterator[httpx.Client]:
    """A browser without a cookie yet."""
    with httpx.Client(base_url=f"http://127.0.0.1:{ports[0]}") as client:
        yield client


def hears(port: int, **headers: str) -> str:
    """What the live connection says first, or with which status it is refused."""
    try:
        with connect(f"ws://127.0.0.1:{port}{LIVE}socket.io", additional_headers=headers) as socket:
            return str(socket.recv())
    except InvalidStatus as e:
        return f"refused {e.response.status_code}"


def cookies(c: httpx.Client) -> str:
    return "; ".join(f"{k}={v}" for k, v in c.cookies.items())


def test_nobody_without_the_password_by_request_or_websocket(c, ports):
    answer = c.get("/")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert "the page" not in answer.text
    assert c.get("/", auth=("ann", "wrong")).status_code == 401
    assert c.get("/", auth=("bob", ANN[1])).status_code == 401, "each has a password of their own"
    assert c.get("/", headers={"Authorization": "Basic é!".encode()}).status_code == 401
    assert c.get("/", headers={"Cookie": f"{USERS[0].name}={USERS[1].value}"}).status_code == 401
    assert hears(ports[0]) == "refused 403"
    assert c.get(f"{LIVE}poll").status_code == 401
    assert hears(ports[1]) == "live", "it is the guard that refuses it"


@pytest.mark.parametrize("who", [ANN, BOB])
def test_with_the_password_once_and_by_the_cookie_from_then_on(c, ports, who):
    answer = c.get("/", auth=who)
    assert answer.text == "the page"
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(answer.headers["set-cookie"].split("; "))
    assert who[1] not in answer.headers["set-cookie"]
    assert c.get("/").text == "the page"
    assert hears(ports[0], Cookie=cookies(c)) == "live"
    assert c.get(f"{LIVE}poll").text == "the page"


def test_the_live_connection_does_not_open_by_what_a_browser_sends_for_others(c, ports):
    basic = c.get("/", auth=ANN).request.headers["authorization"]
    c.cookies.clear()
    assert c.get("/", headers={"Authorization": basic}).status_code == 200
    c.cookies.clear()
    assert hears(ports[0], Authorization=basic) == "refused 403"
    assert c.get(f"{LIVE}poll", headers={"Authorization": basic}).status_code == 401


def test_probes_need_no_password(c):
    assert c.get("/healthz").status_code == 200
    assert c.get("/healthz/").status_code == 401


def test_a_cookie_lasts_as_long_as_its_password_and_is_no_other_monitors():
    assert user(b"ann:correct horse") == USERS[0]
    assert user(b"ann:correct horses").name != USERS[0].name
    assert USERS[0].name != USERS[1].name


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "cannot read"), ("", "has no line USER:PASSWORD"), ("ann", "line 1: write USER:PASSWORD"), (":longenough", "line 1"),
     ("ann:correct horse\nbob:short\n", "line 2: write USER:PASSWORD, the password of 8 characters at least")],
)  # fmt: skip
def test_a_password_file_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
):
    file = tmp_path / "who"
    if text is not None:
        file.write_text(text)
    assert outcome(["monitor", "--password-file", str(file), "--bootstrap", "127.0.0.1:1"]) == USAGE
    assert said in capsys.readouterr().err


def test_users_are_read(tmp_path: Path):
    file = tmp_path / "who"
    file.write_text("ann:correct horse\n\nbob:battery: staple\n")
    assert read_users(file) == USERS


def test_no_page_is_open_to_others_unless_that_is_said(capsys: pytest.CaptureFixture[str]):
    for host in ("0.0.0.0", "::", "", "10.0.0.7", "monitor.example"):
        with pytest.raises(Trouble, match="no password is asked for"):
            may_listen(host, asks=False, open_=False)
        may_listen(host, asks=True, open_=False)
        may_listen(host, asks=False, open_=True)
    for host in ("127.0.0.1", "127.0.0.9", "::1", "localhost"):
        may_listen(host, asks=False, open_=False)
    assert outcome(["monitor", "--host", "0.0.0.0", "--bootstrap", "127.0.0.1:1"]) == USAGE
    assert "--password-file FILE" in capsys.readouterr().err
    assert outcome(["monitor", "--host", "0.0.0.0", "--port", "0", "--open", "--bootstrap", "127.0.0.1:1"]) == NO_BROKER
