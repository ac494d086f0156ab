"""The gateway from end to end: real sockets, two phones, a plane in memory on the real clock. And what HTTP refuses, in words."""

import asyncio
import io
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from rich.console import Console

from device_sim import gateway as front
from device_sim import submodels
from device_sim.device import Device
from device_sim.fleet import Fleet, Manner
from device_sim.gateway import Gateway
from device_sim.link import MOST_BYTES, Poll, Reply, Status
from device_sim.pseudonym import pseudonym
from learning.modular.derivation import Derivation
from learning.modular.structure import blocks_of
from olearning import explain, gateway
from olearning.errors import Trouble
from olearning.gateway import Api, Hosted, Server
from olearning.phone import Phone
from olearning.planes import InMemory
from olearning.roles import Role
from olearning.telemetry.sources import samples_of, unready
from olearning.tokens import Signed, device_check, find_check, read_secret, salt
from processors.derivation import Deriver
from processors.submitter import Submitter
from schemas.messages import CheckIn, Registration
from schemas.sets import bitmap
from schemas.topics import GLOBAL, read, topic, zone_topics
from schemas.wire import encode
from streams.ledger import Globe, Ledger, Zone
from streams.memory import Host, Memory
from streams.models import look_up
from streams.processor import Tick
from tests import modular
from tests.plane import LAYOUT, NS, START, Arithmetic, Plane, spec
from tests.processors.test_auditor import audit

SECRET = b"a secret of 24 bytes, so."
TOKENS = Signed(SECRET)
ROUNDS = 4
TASK = spec(demand=2, minimum=2, epochs=1, rounds=ROUNDS)


class House:
    """A plane in memory, a gateway before it, and whatever a test does with them."""

    def __init__(self, modules: bool = False) -> None:
        self.modules = modules
        self.plane = InMemory(print, pause=0.2)
        self.hosted: Hosted
        self.host: Host
        self.server: Server | None = None
        self.lives = 0
        self.port = 0

    async def start(self) -> None:
        p = {"partitions": "4"}
        roles = [
            Role("global", "global", NS, options={"zones": "east", **p}),
            Role("zone", "zone-east", NS, "east", p),
            Role("aggregator", "agg-east", NS, "east", p | {"commit-interval": "100"}),
        ]
        if self.modules:
            roles.append(Role("modules", "modules-east", NS, "east", p))
        await self.plane.start(roles)
        for t in zone_topics(NS, "east"):
            self.plane.memory.create(t.name, t.partitions(4))

    async def open(self, check: Callable[[str], Any] = TOKENS) -> None:
        """Start the gateway, at the port that it had."""

        def make(life: str) -> Hosted:
            self.hosted = Hosted(Gateway(NS, "east", "gateway", life, salt(SECRET)))
            return self.hosted

        self.host = self.plane.memory.host(make)
        self.lives += 1
        self.server = Server(Api(self.hosted, check, self.plane.now), "127.0.0.1", self.port)
        await self.server.__aenter__()
        self.port = int(self.server.url.rpartition(":")[2])
        await until(lambda: self.hosted.gateway.ready)

    async def kill(self) -> None:
        """It dies: what it had in memory is gone, and its connections break."""
        self.host.crash()
        assert self.server
        await self.server.__aexit__()

    def said(self, what: str, task: str = "") -> list[Any]:
        """What lies in the log of a zone's topic."""
        t = topic(NS, "east", what, task)
        records = [r for p in range(t.partitions(4)) for r in self.plane.memory.records(t.name, p)]
        return [read(r.topic, r.value, r.headers) for r in records]

    def fold(self, zone: str) -> Any:
        ledger: Ledger = Ledger(Globe() if zone == "global" else Zone())
        for record in self.plane.memory.records(f"{NS}.{zone}.ledger"):
            ledger.feed(record)
        return ledger.state


@asynccontextmanager
async def house(modules: bool = False) -> AsyncIterator[House]:
    h = House(modules)
    await h.start()
    await h.open()
    try:
        yield h
    finally:
        assert h.server
        await h.server.__aexit__()
        await h.plane.stop()


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.02)


class Twice(Phone):
    """A phone that says everything twice."""

    async def _post(self, what: str, value: bytes) -> None:
        await super()._post(what, value)
        await super()._post(what, value)


class Noting(Phone):
    """A phone that notes which blocks of models it fetches."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.fetched: set[int] = set()

    def _where(self, name: str, key: str) -> Any:
        if found := super()._where(name, key):
            self.fetched.add(found[1])
        return found


Make = Callable[[str], Submitter]


async def trained(
    h: House,
    phones: list[Any],
    submitter: Make,
    when: Callable[[], object],
    meanwhile: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0.5),
) -> np.ndarray:
    """The model of a task that phones train; when it is time, the gateway is killed, and starts again."""
    at_work = [asyncio.create_task(phone.run()) for phone in phones]
    submitted = h.plane.memory.host(submitter)
    await until(lambda: submitted.stopped)
    assert submitted.stopped.ok, submitted.stopped  # type: ignore[union-attr]
    await until(when)
    await h.kill()
    await meanwhile()
    await h.open()
    await until(lambda: "toy" in h.fold("global").over)
    for task in at_work:
        assert not task.done(), task
        task.cancel()
    await asyncio.gather(*at_work, return_exceptions=True)
    assert h.lives == 2
    kept, name = h.fold("global").over["toy"].model, topic(NS, GLOBAL, "models").name
    return look_up(kept, partial(h.plane.memory.records, name))


def undisturbed(devices: list[Device], learner: Any, submitter: Make) -> np.ndarray:
    """The same devices in a fleet, in virtual time, with nothing in between."""
    plane = Plane(Memory(seed=3), zones=("east",), devices=0)
    plane.memory.host(lambda life: Deriver(NS, "east", "modules", Derivation))
    plane.memory.host(lambda life: Fleet(NS, "east", "fleet", life, devices, learner, plane.manner))
    plane.memory.host(submitter)
    assert plane.memory.run(lambda: plane.ended("toy"), 120_000)
    return plane.model("toy")


def submits(life: str) -> Submitter:
    return Submitter(NS, life, TASK, LAYOUT, START, 1)


@pytest.mark.program
def test_two_phones_train_through_a_gateway_that_is_killed_and_no_bit_differs() -> None:
    said: list[str] = []

    async def play() -> tuple[np.ndarray, House]:
        async with house() as h:
            assert h.server
            phones = [
                kind(
                    h.server.url, TOKENS.token(f"east-{n}"), "east", Device(f"east-{n}", n), Arithmetic(), said.append,
                    Manner(training=(ms, ms), reaction=50, tick=20, resend=1.0), NS,
                )
                for n, (kind, ms) in enumerate(((Phone, 700), (Twice, 50)))  # what comes twice comes while the round waits
            ]  # fmt: skip
            model = await trained(
                h,
                phones,
                submits,
                lambda: (z := h.fold("east")).tasks and z.tasks["toy"].round == 2 and z.tasks["toy"].rounds[2].devices,
            )
            shown = {(m.name, labels): n for m, labels, n in samples_of(h.hosted.gateway, h.plane.now())}
            assert shown["olearning_delta_blocks_sent", ("east",)] == h.hosted.gateway.outbox.sent > 0
            assert shown["olearning_receipts", ("east", "counted")] > 0
            assert shown["olearning_model_handed_bytes", ("east",)] > 0
            assert sum(n for (name, _), n in shown.items() if name == "olearning_devices") == 2
            assert unready(h.hosted.gateway) == ""
            return model, h

    model, h = asyncio.run(play())
    assert model.tobytes() == undisturbed([Device(f"east-{n}", n) for n in range(2)], Arithmetic(), submits).tobytes()
    counts = h.fold("east").over["toy"].tally.counts
    assert counts.counted == 2 * ROUNDS * len(LAYOUT.sizes)
    assert counts.duplicate > 0
    assert [text for text in said if not text.startswith("the gateway ")] == [], "but that it was away"
    everything = b"".join(
        (r.key or "").encode() + (r.value or b"")
        for name, logs in h.plane.memory.topics.items()
        for log in logs
        for r in log
    )
    assert b"east-0" not in everything
    assert b"east-1" not in everything


@pytest.mark.program
def test_phones_adapt_by_sub_models_through_a_gateway_that_is_killed_as_they_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each fetches and sends its own modules alone, and no bit differs from what a fleet makes of it. The answers come while the gateway
    is dead: they are asked for again."""
    for of, name, ms in ((submodels, "PATIENCE", 200), (front, "ASKS_EVERY", 100)):
        monkeypatch.setattr(of, name, ms)
    known, task, said = modular.Known.layout, modular.spec(2, rounds=2), []

    def devices() -> list[Device]:
        """A module of each stage, and most of them."""
        return [Device(f"d{n}", n, abilities={"bandwidth": b * modular.MBIT}) for n, b in enumerate((170, 300))]

    def submits(life: str) -> Submitter:
        return Submitter(NS, life, task, known, modular.START, 1, structure=modular.STRUCTURE)

    async def play() -> tuple[np.ndarray, House, list[Noting]]:
        async with house(modules=True) as h:
            assert h.server
            manner = Manner(training=(50, 50), reaction=50, tick=20)
            phones = [
                Noting(h.server.url, TOKENS.token(d.id), "east", d, modular.Learner(), said.append, manner, NS)
                for d in devices()
            ]
            cloud = h.plane.hosts["modules-east"]
            cloud.freeze()

            async def answers() -> None:
                cloud.thaw()
                await until(lambda: len({m.device for m in h.said("submodels")}) == 2)

            asked = lambda: len({m.device for m in h.said("profiles")}) == 2  # noqa: E731
            return await trained(h, phones, submits, asked, answers), h, phones

    model, h, phones = asyncio.run(play())
    assert [text for text in said if not text.startswith("the gateway ")] == [], "but that it was away"
    assert model.tobytes() == undisturbed(devices(), modular.Learner(), submits).tobytes()
    asked = [m.asked for m in h.said("profiles") if m.device == h.said("profiles")[-1].device]
    assert len(asked) < max(asked), "each time that it lost patience while the gateway was away is a question"
    choices = {m.device: m.choice for m in h.said("submodels")}
    told, _ = audit(h.plane.memory, "east", "toy", 1)
    assert told.ok
    out = io.StringIO()
    Console(file=out, width=200).print(explain.screen(told))
    for phone in phones:
        name = pseudonym(phone.device.id, "east", "default", salt(SECRET))
        choice = choices.pop(name)
        blocks = blocks_of(known, choice, selector=False)
        assert phone.fetched == set(blocks_of(known, choice)) < set(range(len(known.sizes)))
        assert {m.block for m in h.said("deltas", "toy") if m.device == name} == set(blocks)
        assert {m.blocks for m in h.said("registrations") if m.device == name} == {bitmap(blocks, len(known.sizes))}
        (slot,) = [x for x in explain.as_json(told)["slots"] if x["device"] == name]
        assert slot["modules"] == {str(i): list(layer[:-1]) for i, layer in enumerate(choice)}
    assert choices == {}
    assert re.search(r"owes 3 of the model: the shared part; stage 0 module \d; stage 1 module \d\)", out.getvalue())


# ------------------------------------------------------------------ what HTTP refuses


async def said(answer: Any) -> tuple[int, str]:
    async with answer as response:
        return response.status, (await response.read()).decode(errors="replace")


def test_http_refuses_in_words_and_a_slow_device_holds_up_nobody() -> None:
    async def play() -> None:
        async with house() as h:
            assert h.server
            good, other = ({"Authorization": f"Bearer {TOKENS.token(d)}"} for d in ("a", "b"))
            here = encode(CheckIn("me"))
            async with aiohttp.ClientSession(h.server.url) as http:

                async def get(path: str, **more: Any) -> tuple[int, str]:
                    return await said(http.get(path, **{"headers": good} | more))

                async def post(body: bytes, **more: Any) -> tuple[int, str]:
                    return await said(http.post("/v1/messages", data=body, **{"headers": good} | more))

                assert await get("/v1/health", headers={}) == (200, "ready\n")
                assert await get("/v1/messages", headers={}) == (401, "send your token: Authorization Bearer TOKEN: the protocol is in docs/gateway.md\n")  # fmt: skip
                stranger = {"Authorization": f"Bearer {Signed(b'another secret of it').token('a')}"}
                assert "token is not known" in (await post(here, headers=stranger))[1]
                assert await post(here) == (204, "")
                slow = await drip(h.port, good["Authorization"])
                assert (await post(b"garbage"))[0] == 400
                code, words = await post(b"x" * (MOST_BYTES + 1))
                assert (code, "block by block" in words) == (413, True)
                assert await post(encode(Registration("me", "moon", 1))) == (404, "no task moon is announced in zone east\n")  # fmt: skip
                assert (await get("/v1/models/toy/one/0"))[0] == 400
                assert (await get("/v1/models/toy/1/0"))[0] == 404
                assert (await get("/v1/messages?wait=soon"))[0] == 400
                assert (await get("/v2/messages"))[0] == 404
                assert (await said(http.delete("/v1/messages", headers=good)))[0] == 405
                began = time.monotonic()
                assert await post(here, headers=other) == (204, "")  # though one is still sending, and garbage came
                assert time.monotonic() - began < 5
                slow.close()
                await slow.wait_closed()

    asyncio.run(play())


async def drip(port: int, authorization: str) -> asyncio.StreamWriter:
    """A device that says that it will send much, and sends a byte."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nContent-Length: 100000\r\n\r\nx"
    writer.write(head.encode())
    await writer.drain()
    return writer


async def raw(port: int, text: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which this was said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode())
    await writer.drain()
    return reader, writer


def test_what_is_no_request_is_no_line_in_the_log_that_has_a_device_s_token(caplog: pytest.LogCaptureFixture) -> None:
    """aiohttp quotes what it cannot read, with the headers, and a link that breaks is no failure of ours."""
    token = TOKENS.token("imei-35693803")
    head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}"

    async def play() -> None:
        async with house() as h:
            for bad, code in (
                (f"{head}\x01\r\n\r\n", b" 400 "),
                (f"{head}{'x' * 9_000}\r\n\r\n", b" 400 "),
                (f"{head}\r\nContent-Encoding: deflate\r\nContent-Length: 5\r\n\r\nhello", b" 400 "),
            ):
                reader, writer = await raw(h.port, bad)
                assert code in await reader.readline()
                writer.close()
            _, writer = await raw(h.port, f"{head}\r\nContent-Length: 100\r\n\r\nx")
            await asyncio.sleep(0.1)
            writer.close()
            await asyncio.sleep(0.1)

    for level in (logging.INFO, logging.DEBUG):
        caplog.clear()
        with caplog.at_level(level):
            asyncio.run(play())
        assert "imei" not in caplog.text
        assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
        assert ("a request is broken: BadHttpMessage" in caplog.text) == (level == logging.DEBUG)


def test_a_device_that_takes_no_answer_is_cut_off_and_has_so_many_open_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Heavy:
        """Answers with more than the sockets between hold."""

        async def ask(self, device: str, asked: object) -> Reply:
            return Reply(0, Status.DONE, bytes(2**24))

    monkeypatch.setattr(gateway, "SLOWEST", 2.0)
    monkeypatch.setattr(gateway, "MOST_OPEN", 3)
    monkeypatch.setattr(gateway, "KEPT", 1.0)

    async def play() -> None:
        api = Api(Heavy(), TOKENS, lambda: 0)  # type: ignore[arg-type]
        async with Server(api, "127.0.0.1", 0) as server:
            port = int(server.url.rpartition(":")[2])

            async def ask(device: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
                return await raw(port, f"GET /v1/models/t/1/0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKENS.token(device)}\r\n\r\n")  # fmt: skip

            dumb, half = await raw(port, "GET /v1/health HTTP/1.1\r\nHost: x\r\n")
            deaf = [await ask("deaf") for _ in range(3)]
            await until(lambda: api._open["deaf"] == 3, 5)
            for device, code in (("deaf", b" 429 "), ("other", b" 200 ")):
                reader, writer = await ask(device)
                assert code in await reader.readline()
                writer.close()
            await until(lambda: not api._open, 10)
            assert await asyncio.wait_for(dumb.read(), 5) == b""
            half.close()
            for reader, writer in deaf:
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await reader.readexactly(2**24)
                writer.close()

    asyncio.run(play())


def test_a_check_of_one_s_own_and_one_that_fails() -> None:
    async def own(token: str) -> str | None:
        if token == "down":
            raise OSError("the accounts are away")
        return {"ann's": "ann", "odd": "\ud800"}.get(token)

    async def play() -> list[int]:
        async with house() as h:
            await h.kill()
            await h.open(own)
            assert h.server
            async with aiohttp.ClientSession(h.server.url) as http:
                asked = [
                    http.get("/v1/messages?wait=0", headers={"Authorization": f"Bearer {t}"})
                    for t in ("odd", "ann's", "no", "down")
                ]
                codes = [(await said(a))[0] for a in asked]
            phone = Phone(h.server.url, "no", "east", Device("x", 0), Arithmetic(), print)
            with pytest.raises(Trouble, match=r"does not let this device in: this token is not known"):
                await asyncio.wait_for(phone.run(), 30)
            phone = Phone(h.server.url, "ann's", "west", Device("x", 0), Arithmetic(), print)
            with pytest.raises(Trouble, match="is of zone east, not west"):
                await asyncio.wait_for(phone.run(), 30)
        heard: list[str] = []
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                Phone(h.server.url, "x", "east", Device("x", 0), Arithmetic(), heard.append).run(), 1
            )
        (once,) = heard  # and not again each time that it is asked
        assert f"the gateway at {h.server.url} does not answer: " in once
        return codes

    assert asyncio.run(play()) == [401, 200, 401, 503]


def test_questions_that_come_together_have_their_turn_together_and_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "SLICE", 1)

    async def play() -> None:
        hosted, woken = Hosted(Gateway(NS, "east", "gateway", "life", salt(SECRET))), []
        hosted.wake = lambda: woken.append(1)
        for handle in (
            lambda: list(hosted.handle(Tick(), 0)),
            lambda: asyncio.to_thread(list, hosted.handle(Tick(), 0)),
        ):
            woken.clear()
            asked = [asyncio.create_task(hosted.ask("a", Poll("", 0))) for _ in range(2)]
            await until(lambda: woken, 5)
            assert woken == [1]
            done: Any = handle()
            if asyncio.iscoroutine(done):  # as the runtime does with what is large
                await done
            assert [r.status for r in await asyncio.wait_for(asyncio.gather(*asked), 5)] == [Status.LATER] * 2

    asyncio.run(play())


# ------------------------------------------------------------------ tokens


def test_tokens_are_a_device_s_own() -> None:
    token = TOKENS.token("phone.1")
    assert TOKENS(token) == "phone.1"
    assert Signed(SECRET)(token) == "phone.1"
    last = "0" if token[-1] != "0" else "1"
    for bad in (token[:-1] + last, token.replace("phone.1", "phone.2"), "phone.1", "", ".", token + "é", "a b" + token):
        assert TOKENS(bad) is None
    assert Signed(SECRET + b"x")(token) is None
    with pytest.raises(ValueError, match="1 to 200 printable"):
        TOKENS.token("two words")
    assert salt(SECRET) != salt(SECRET + b"x")


def test_a_secret_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match=r"cannot read .*none: No such file.*head -c 32 /dev/urandom > .*none"):
        read_secret(tmp_path / "none")
    (tmp_path / "short").write_bytes(b"short")
    with pytest.raises(Trouble, match="has 5 bytes, and a secret at least 16"):
        read_secret(tmp_path / "short")
    with pytest.raises(Trouble, match="--check other: no such check is known; known: none"):
        find_check("other")
    device_check("other")(TOKENS)
    assert find_check("other") is TOKENS
    with pytest.raises(ValueError, match="already"):
        device_check("other")(TOKENS)
