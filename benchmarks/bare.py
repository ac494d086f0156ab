"""The limit of a gateway: handlers on the same HTTP server that answer the same bytes, with no Kafka behind, no check and no state.

    python -m benchmarks.bare TASK

A registration is answered, and its admission is what the device's question waits for. It prints its address, and is ended from outside.
"""

import asyncio
import sys
from collections import defaultdict

import msgspec
from aiohttp import web

from benchmarks.echo import answer
from schemas.blocks import BLOCK

MODEL = bytes(4 * BLOCK)
LARGE = 4_096
"""A body above this is a delta's."""


def letters(messages: list[dict[str, object]]) -> bytes:
    return msgspec.msgpack.encode(
        {"cursor": "0123456789ab:1000", "now": 1_700_000_000_000, "zone": "z", "messages": messages}
    )


NOTHING = letters([])
ANNOUNCED = letters([{"topic": "announcements", "message": bytes(800)}])
ADMITTED = letters([{"topic": "admissions", "message": msgspec.Raw(answer("me"))}])


class Bare:
    def __init__(self) -> None:
        self.mail: dict[str, int] = defaultdict(int)
        self.waiting: dict[str, asyncio.Future[None]] = {}
        self.rounds = 0

    async def messages(self, request: web.Request) -> web.Response:
        device, rounds = request.headers["Authorization"], self.rounds
        wait = float(request.query["wait"])
        if not self.mail[device] and wait:
            future = self.waiting[device] = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(wait):
                    await future
            except TimeoutError:
                pass
            finally:
                del self.waiting[device]
        if rounds < self.rounds:
            return web.Response(body=ANNOUNCED, content_type="application/msgpack")
        if not self.mail[device]:
            return web.Response(body=NOTHING, content_type="application/msgpack")
        self.mail[device] -= 1
        return web.Response(body=ADMITTED, content_type="application/msgpack")

    async def say(self, request: web.Request) -> web.Response:
        if len(await request.read()) < LARGE:
            device = request.headers["Authorization"]
            self.mail[device] += 1
            if (future := self.waiting.get(device)) and not future.done():
                future.set_result(None)
        return web.Response(status=204)

    async def announce(self, request: web.Request) -> web.Response:
        self.rounds += 1
        for future in self.waiting.values():
            if not future.done():
                future.set_result(None)
        return web.Response(status=204)

    async def block(self, request: web.Request) -> web.Response:
        return web.Response(body=MODEL, content_type="application/octet-stream")


async def main(task: str) -> None:
    bare, app = Bare(), web.Application(client_max_size=2**20)
    app.add_routes(
        [
            web.get("/v1/messages", bare.messages),
            web.post("/v1/messages", bare.say),
            web.post("/announce", bare.announce),
            web.get(f"/v1/models/{task}/{{round}}/{{block}}", bare.block),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1_024).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
