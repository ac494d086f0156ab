"""Whether a client of aiokafka's has lost its brokers: all have gone elsewhere, by other names or at other addresses.

It asks only the brokers that it knows where the others are, and never again at the address that it was given; so it would
ask on without end, and say nothing. A new client begins at that address.
"""

import asyncio

from aiokafka.client import AIOKafkaClient

from streams.connecting import unreached

LOST = 30.0
"""Seconds without an answer from any broker after which they are taken to have moved: who restarts is sooner back, and a producer
that is kept sends nothing twice."""


class Stranded:
    """To be asked now and then: true once no broker that this client knows has answered for `LOST` seconds."""

    def __init__(self, client: AIOKafkaClient):
        self._client = client
        self._since: float | None = None

    def __call__(self) -> bool:
        metadata, now = self._client.cluster, asyncio.get_running_loop().time()
        if metadata._last_refresh_ms == metadata._last_successful_refresh_ms:  # the last time it asked it was answered
            self._since = None
            return False
        self._client.force_metadata_update()  # by itself it might ask in five minutes
        self._since = now if self._since is None else self._since
        return now - self._since > LOST

    async def by(self, bootstrap: str) -> bool:
        """The same, unless nobody listens there either: then they are away, and may come back to where they were. For who has something
        to lose by beginning anew."""
        return self() and not await unreached(bootstrap) and not await self._client.force_metadata_update()
