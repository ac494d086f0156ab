"""Many phones in one process, as load: each has a connection on which its question for messages waits, as behind a gateway.

    python -m benchmarks.phones URL TASK TOKENS_FILE

A line on standard input says what to do next, the answer is a line of JSON; it ends with the input:

    open                    connect, and ask for messages
    polls N                 ask N times for what is new, which is nothing; the last 32 tokens are of who does that
    register N RATE         N registrations, one phone after the other: as fast as they are taken (0), or so many a second
    deltas N, models N      N delta blocks, or blocks of the model, one after the other
    hear                    wait until each has heard of another round: when the last did, by the monotonic clock

What is said beside the questions that wait goes by a few more connections, as a proxy would have them. Requests are written and read by
hand, since a usual client would take more of a core than the server does.
"""

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from schemas.blocks import BLOCK, DeltaBlock
from schemas.messages import Registration
from schemas.wire import encode

WAYS = 32
"""Connections for what is not a question that waits: so much is under way at once."""
WAIT = 25
"""Seconds that a question waits, as a phone's does (`olearning/phone.py`)."""
TOGETHER = 200
"""Connections that are made at once."""
PATIENCE = 60.0
DELTA = DeltaBlock("t", 1, 0, "me", 0, "int32", 0, 1, 1, 0, memoryview(bytes(4 * BLOCK)))


class Letter(msgspec.Struct):
    topic: str


class Letters(msgspec.Struct):
    cursor: str
    messages: list[Letter]


_letters = msgspec.msgpack.Decoder(Letters)


class Connection(asyncio.Protocol):
    """A connection that asks one thing after the other."""

    def __init__(self) -> None:
        self._got, self._whole, self._body = bytearray(), 0, 0
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._way: asyncio.Transport | None = None

    def connection_made(self, way: asyncio.BaseTransport) -> None:
        assert isinstance(way, asyncio.Transport)
        self._way = way

    def connection_lost(self, error: Exception | None) -> None:
        self._way = None
        if self._answer and not self._answer.done():
            self._answer.set_exception(ConnectionError(f"the server closed the connection: {error}"))

    @property
    def there(self) -> bool:
        return self._way is not None

    def ask(self, request: bytes) -> Awaitable[tuple[int, bytes]]:
        """The status and the body."""
        assert self._answer is None, "it asks one thing after the other"
        self._answer = asyncio.get_running_loop().create_future()
        if self._way is None:
            self._answer.set_exception(ConnectionError("the server has closed the connection"))
        else:
            self._way.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._whole:
            end = self._got.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._got[:end]).lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            self._body, self._whole = end + 4, end + 4 + size
        if len(self._got) >= self._whole and self._answer:
            answer, body = self._answer, bytes(self._got[self._body : self._whole])
            status = int(self._got[9:12])
            del self._got[: self._whole]
            self._answer, self._whole = None, 0
            if not answer.done():
                answer.set_result((status, body))


class Phone:
    """One of them. `sent`: when it said what it has no answer to yet."""

    def __init__(self, token: str, heard: Callable[[float], None]):
        self.head = f"Host: x\r\nAuthorization: Bearer {token}\r\n"
        self.sent: deque[float] = deque()
        self.cursor, self.polls, self._heard = "", 0, heard
        self.news = 0.0
        """When it heard an announcement last."""

    def question(self, wait: int) -> bytes:
        return f"GET /v1/messages?after={self.cursor}&wait={wait} HTTP/1.1\r\n{self.head}\r\n".encode()

    def saying(self, body: bytes) -> bytes:
        return f"POST /v1/messages HTTP/1.1\r\n{self.head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def fetching(self, path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\n{self.head}\r\n".encode()

    async def listen(self, on: Connection) -> None:
        """Ask for what is new, for ever."""
        while True:
            body = good(await on.ask(self.question(WAIT if self.cursor else 0)))
            now, letters = time.monotonic(), _letters.decode(body)
            self.polls, self.cursor = self.polls + 1, letters.cursor
            for letter in letters.messages:
                if letter.topic == "announcements":
                    self.news = now
                elif self.sent:
                    self._heard(now - self.sent.popleft())


def good(answer: tuple[int, bytes]) -> bytes:
    status, body = answer
    if status not in (200, 204):
        raise RuntimeError(f"the server answered {status}: {body[:200]!r}")
    return body


class Crowd:
    def __init__(self, url: str, task: str, tokens: list[str]):
        where = urlsplit(url)
        self.host, self.port, self.task = str(where.hostname), where.port or 80, task
        self.waits: list[float] = []
        phones = [Phone(token, self.waits.append) for token in tokens]
        self.phones, self.asking = phones[:-WAYS], phones[-WAYS:]
        self.ways = [Connection() for _ in range(WAYS)]
        self.listening: list[asyncio.Task[None]] = []

    async def connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, self.host, self.port)
        return connection

    async def open(self) -> dict[str, float]:
        for at in range(0, len(self.phones), TOGETHER):
            some = self.phones[at : at + TOGETHER]
            connections = await asyncio.gather(*(self.connect() for _ in some))
            self.listening += [asyncio.create_task(p.listen(c)) for p, c in zip(some, connections, strict=True)]
            await self.until(lambda some=some: all(p.cursor for p in some))  # type: ignore[misc]
        return {}

    async def until(self, condition: Callable[[], bool]) -> None:
        last, heard = time.monotonic(), len(self.waits)
        while not condition():
            for task in (t for t in self.listening if t.done()):
                task.result()
            if len(self.waits) > heard:
                last, heard = time.monotonic(), len(self.waits)
            if time.monotonic() - last > PATIENCE:
                raise RuntimeError(f"nothing came for {PATIENCE:g} s, of {len(self.phones)} phones")
            await asyncio.sleep(0.002)

    async def ask(self, n: int, request: Callable[[int], bytes], rate: int = 0) -> int:
        """N requests, as fast as they are answered, or so many a second; the bytes of their bodies."""
        self.ways = [
            way if way.there else await self.connect() for way in self.ways
        ]  # a server keeps no idle one for long
        numbers, began, size = iter(range(n)), time.monotonic(), 0

        async def go(way: Connection) -> None:
            nonlocal size
            for i in numbers:
                if rate and (early := began + i / rate - time.monotonic()) > 0:
                    await asyncio.sleep(early)
                body = good(await way.ask(request(i)))
                size += len(body)

        await asyncio.gather(*(go(way) for way in self.ways))
        return size

    async def polls(self, n: int) -> dict[str, float]:
        """By phones of their own: a newer question takes the place of the one that waits."""
        for phone in self.asking:
            phone.cursor = _letters.decode(good(await (await self.connect()).ask(phone.question(0)))).cursor
        await self.ask(n, lambda i: self.asking[i % WAYS].question(0))
        return {}

    async def register(self, n: int, rate: int) -> dict[str, float]:
        self.waits.clear()
        body = encode(Registration("me", self.task, 1, {"cpu": 300.0, "ram": 6.0}))

        def request(i: int) -> bytes:
            phone = self.phones[i % len(self.phones)]
            phone.sent.append(time.monotonic())
            return phone.saying(body)

        await self.ask(n, request, rate)
        await self.until(lambda: len(self.waits) == n)
        waits = sorted(1000 * w for w in self.waits)
        return {"p50_ms": waits[n // 2], "p99_ms": waits[(99 * n - 1) // 100], "max_ms": waits[-1]}

    async def deltas(self, n: int) -> dict[str, float]:
        body = len(encode(DELTA))

        def request(i: int) -> bytes:
            block = msgspec.structs.replace(DELTA, task=self.task, slot=i)
            return self.phones[i % len(self.phones)].saying(encode(block))

        await self.ask(n, request)
        return {"bytes": n * body}

    async def hear(self) -> dict[str, float]:
        began = time.monotonic()
        await self.until(lambda: all(p.news > began for p in self.phones))
        return {"last": max(p.news for p in self.phones)}

    async def models(self, n: int) -> dict[str, float]:
        path = f"/v1/models/{self.task}/1/0"
        return {"bytes": await self.ask(n, lambda i: self.phones[i % len(self.phones)].fetching(path))}


async def main(url: str, task: str, file: str) -> None:
    crowd = Crowd(url, task, (await asyncio.to_thread(Path(file).read_text)).split())
    while line := await asyncio.to_thread(sys.stdin.readline):
        what, *numbers = line.split()
        began, cpu, polls = time.monotonic(), time.process_time(), sum(p.polls for p in crowd.phones)
        said = await getattr(crowd, what)(*map(int, numbers))
        took = {"seconds": time.monotonic() - began, "phones_cpu_s": time.process_time() - cpu}
        print(json.dumps(said | took | {"polls": sum(p.polls for p in crowd.phones) - polls}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
