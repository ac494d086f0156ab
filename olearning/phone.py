"""A device behind a gateway, in Python: the reference client of docs/gateway.md. It trains nothing by itself: a learner is given.

It is a runtime for one processor, `device_sim.alone.Alone`, whose effects it carries out over HTTP: what the device says is posted until
the gateway has answered, blocks of models are fetched when it asks for them, and what is new for it is polled for.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import aiohttp
import msgspec

from device_sim.alone import Alone
from device_sim.device import Device
from device_sim.fleet import Manner
from device_sim.runs import Learner
from olearning.errors import NO_BROKER, USAGE, Trouble
from schemas.blocks import ModelBlock
from schemas.messages import Announcement, Objection
from schemas.topics import parse, read, topic
from schemas.wire import Malformed, encode
from streams.processor import Answer, Effect, Ends, Fetch, Input, Record, Send, Stop, Tick

Say = Callable[[str], None]
POLL = 25.0
"""Seconds that a question for messages waits."""
PAUSE = (0.2, 10.0)
"""Seconds before a question is asked again: at first, and at most."""
SAID = ("checkins", "registrations", "profiles", "deltas")
AT_ONCE = 4
"""Messages that are posted, and blocks that are fetched, at the same time, at most."""
MANNER = Manner(tick=50)


class Letter(msgspec.Struct):
    """What is new for a device: the row of the topic table, and the message."""

    topic: str
    message: msgspec.Raw


class Letters(msgspec.Struct):
    cursor: str
    now: int
    zone: str
    messages: list[Letter]


class Later(aiohttp.ClientError):
    """The gateway answers: ask again."""


class Phone:
    """One device at one gateway. `say` is told what a person should know."""

    def __init__(
        self,
        url: str,
        token: str,
        zone: str,
        device: Device,
        learner: Learner,
        say: Say,
        manner: Manner = MANNER,
        namespace: str = "phone",
    ):
        self.url, self.token, self.zone, self.say, self.namespace = url, token, zone, say, namespace
        self.alone = Alone(namespace, zone, device.id, "phone", [device], learner, manner)
        self.device = device
        self.events: asyncio.Queue[Input] = asyncio.Queue()
        self.posted = 0
        """Messages that the gateway has answered."""
        self._ahead = 0
        """The gateway's clock minus ours, in ms."""
        self._away = False
        """The gateway does not answer."""
        self._seen = 0
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._saying: dict[tuple[str, str], asyncio.Task[None]] = {}
        """By what and task, what it says beside deltas; or has said."""

    def now(self) -> int:
        """ms, by the gateway's clock as far as it is known."""
        return time.time_ns() // 1_000_000 + self._ahead

    async def run(self) -> NoReturn:
        """Take part until cancelled. Raises `Trouble` if the gateway does not know the token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        limit = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=POLL + 35)
        try:
            async with (
                aiohttp.ClientSession(self.url, headers=headers, timeout=limit) as self.http,
                asyncio.TaskGroup() as self._group,
            ):
                self._group.create_task(self._poll())
                self._group.create_task(self._ticks())
                await self._live()
        except* Trouble as group:
            raise group.exceptions[0] from None
        raise AssertionError("it lives until it is cancelled")

    # ------------------------------------------------------------------ the runtime

    async def _live(self) -> NoReturn:
        """Hand the device its inputs, one after the other; in a thread, since it may train."""
        for effect in await asyncio.to_thread(lambda: list(self.alone.start(self.now()))):
            self._carry(effect)
        while True:
            event = await self.events.get()
            for effect in await asyncio.to_thread(self._handle, event):
                self._carry(effect)

    def _handle(self, event: Input) -> list[Effect]:
        return list(self.alone.handle(event, self.now()))

    async def _ticks(self) -> NoReturn:
        while True:
            await asyncio.sleep(self.alone.tick / 1000)
            if self.events.empty():
                self.events.put_nowait(Tick())

    def _carry(self, effect: object) -> None:
        match effect:
            case Send(topic=name, value=bytes(value)):
                what = parse(name).kind.what
                if what in SAID:
                    self._talk(what, name, value)
                elif what == "metrics":
                    with suppress(Malformed):
                        if isinstance(message := read(name, value), Objection):
                            self.say(f"{message.task}: {message.reason}")
            case Ends(tag):
                self.events.put_nowait(Answer(tag, {0: 0}))
            case Fetch(tag, name, places):
                here = {place.key: where for place in places if (where := self._where(name, place.key))}
                self._group.create_task(self._fetch(tag, here))
            case Stop(reason):
                raise Trouble(reason)

    def _talk(self, what: str, name: str, value: bytes) -> None:
        """Say something. What it says anew, of a task, takes the place of what it could not say yet: a gateway that was away hears one
        question, and not one for each time that the device lost patience."""
        said = self._group.create_task(self._post(what, value))
        if what != "deltas":
            key = what, getattr(read(name, value), "task", "")
            if before := self._saying.get(key):
                before.cancel()
            self._saying[key] = said

    # ------------------------------------------------------------------ HTTP

    async def _until(self, ask: Callable[[], Coroutine[Any, Any, bytes | None]]) -> bytes | None:
        """Ask until there is an answer: its body, or None where there will be none."""
        pause = PAUSE[0]
        while True:
            try:
                answer = await ask()
            except Later:
                pass
            except (aiohttp.ClientError, TimeoutError, OSError):
                if not self._away:
                    self.say(f"the gateway at {self.url} does not answer: does it run there? It is asked until it does")
                self._away = True
            else:
                if self._away:
                    self.say("the gateway answers again")
                self._away = False
                return answer
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE[1])

    async def _read(self, what: str, response: aiohttp.ClientResponse) -> bytes | None:
        """The body. Raises `Trouble` if it is not to be asked again, `Later` if it is; None: not now, not later."""
        body = await response.read()
        if response.status < 300:
            return body
        words = body.decode(errors="replace").strip()[:300]
        if response.status == 401:
            raise Trouble(f"the gateway at {self.url} does not let this device in: {words}", USAGE)
        if response.status in (408, 429) or response.status >= 500:
            raise Later(words)
        if response.status != 409:  # too late is nobody's fault
            self.say(f"{what}: {words}")
        return None

    async def _post(self, what: str, value: bytes) -> None:
        """Say something, again and again, until the gateway has answered."""

        async def ask() -> bytes | None:
            async with self.http.post("/v1/messages", data=value) as response:
                return await self._read(what, response)

        async with self._slots:
            await self._until(ask)
        self.posted += 1

    async def _poll(self) -> NoReturn:
        cursor = ""

        async def ask() -> bytes | None:
            wait = POLL if cursor else 0  # whose gateway this is, is to be known at once
            async with self.http.get("/v1/messages", params={"after": cursor, "wait": f"{wait:g}"}) as response:
                return await self._read("messages", response)

        while True:
            if (body := await self._until(ask)) is None:
                raise Trouble(f"{self.url} is no gateway of this protocol", NO_BROKER)
            letters = msgspec.msgpack.decode(body, type=Letters)
            if letters.zone != self.zone:
                raise Trouble(f"the gateway at {self.url} is of zone {letters.zone}, not {self.zone}", USAGE)
            cursor, self._ahead = letters.cursor, letters.now - time.time_ns() // 1_000_000
            for letter in letters.messages:
                self._seen += 1
                name = topic(self.namespace, self.zone, letter.topic).name
                self.events.put_nowait(Record(name, 0, self._seen, None, bytes(letter.message), letters.now))

    async def _fetch(self, tag: Hashable, here: Mapping[str, tuple[Announcement, int]]) -> None:
        """Blocks of models by their keys, as records of theirs have them. What no round names any more is missing."""
        found, slots = {}, asyncio.Semaphore(AT_ONCE)

        async def one(key: str, a: Announcement, i: int) -> None:
            async def ask() -> bytes | None:
                async with self.http.get(f"/v1/models/{a.task}/{a.round}/{i}") as response:
                    return await self._read("model", response)

            async with slots:
                data = await self._until(ask)
            if data is not None:
                found[key] = encode(ModelBlock(a.task, a.base.version, i, memoryview(data)))

        await asyncio.gather(*(one(key, a, i) for key, (a, i) in here.items()))
        self.events.put_nowait(Answer(tag, found))

    def _where(self, name: str, key: str) -> tuple[Announcement, int] | None:
        """The round that names a block, and its number there."""
        looking = (a for _, _, a in self.alone.looking.values())
        works = [*self.alone.rounds.values(), *looking, *(job.work for job in self.device.jobs.values())]
        for a in works:
            for i, place in enumerate(a.base.blocks if a.base.topic == name else ()):
                if place.key == key:
                    return a, i
        return None
