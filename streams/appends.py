"""Appending to Kafka, so that nothing is lost while the processor lives.

Appends to one topic go through one lane, in order: small ones that wait there together are handed over in one batch a partition, which
takes a fifth of the time. aiokafka retries what it can by itself; after anything else the
producer is replaced and all that it had not acknowledged is sent again. So a record may land twice, or after a later
one, as the contract allows.
"""

import asyncio
import heapq
import logging
import random
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer

from schemas.partitioner import shard_of
from streams.processor import Send
from streams.queries import FOR_GOOD, RECONNECT, TROUBLE, Cluster, Gone, Refused, pause
from streams.stranded import Stranded

log = logging.getLogger(__name__)

LARGEST = 2 * 2**20
"""Bytes of a request; the broker's own limit for a record is 1 MiB unless it was raised."""
BATCH = 2**20
"""Bytes of a batch: three blocks of a delta, within the broker's limit. One request carries a batch for each partition, and
the next one leaves when it is answered: with one block a batch, appending is a third slower."""
TOGETHER, SMALL = 1_000, 4 * 1024
"""So many records of at most so many bytes are handed over in one go: what lies ready, nothing is waited for."""
OVERHEAD = 300
"""Bytes of a record besides its key and value, more or less: headers."""
IDLE = 600.0
"""Seconds after which a lane in which nothing went is given up: a process lives through thousands of tasks, each with topics of its own."""
FEW = 4
"""Below this many, one by one is as fast."""
BUFFER = 32 * 2**20
"""Bytes that may wait to be acknowledged before reading stops."""


class Append(msgspec.Struct, eq=False):
    """A record on its way. `over` is called once: with the append, and (partition, offset), or None and why it cannot land.

    It is handed the append so that it need not hold it: in a circle of references the bytes would stay for long.
    """

    send: Send
    over: Callable[["Append", tuple[int, int] | None, str], None]
    number: int = 0
    done: bool = False
    queued: bool = False
    """It lies among those that go again: it is put there once, whoever finds that it must."""
    alone: bool = False
    """A batch with it was refused: it is sent by itself, so that it takes no other along."""

    def __lt__(self, other: "Append") -> bool:
        return self.number < other.number


@dataclass(eq=False)
class _Lane:
    fresh: deque[Append] = field(default_factory=deque)
    """What was not handed over yet, in order."""
    again: list[Append] = field(default_factory=list)
    """What was, and must go again: a heap, all of it from before `fresh`."""
    more: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None


class Appends:
    """One producer and its lanes."""

    def __init__(self, cluster: Cluster, client_id: str, clock: Callable[[], int], again: Counter[str] | None = None):
        self._again = Counter() if again is None else again
        self._cluster, self._client_id, self._clock = cluster, client_id, clock
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._lanes: dict[str, _Lane] = {}
        self._unacknowledged: dict[Append, AIOKafkaProducer] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._listeners: set[Callable[[], None]] = set()
        self._count = self._bytes = 0
        self._stopped = False

    @property
    def room(self) -> bool:
        return self._bytes < BUFFER

    def tell(self, listener: Callable[[], None]) -> None:
        """Call this when there is room again."""
        self._listeners.add(listener)

    def untell(self, listener: Callable[[], None]) -> None:
        self._listeners.discard(listener)

    def put(self, append: Append) -> None:
        """Send it, after those put before."""
        self._count += 1
        append.number = self._count
        self._bytes += append.send.size
        lane = self._lane(append.send.topic)
        lane.fresh.append(append)
        lane.more.set()

    def drop(self, append: Append) -> None:
        """Its processor is gone: it need not land any more."""
        self._finish(append)

    async def stop(self) -> None:
        self._stopped = True
        for lane in self._lanes.values():
            if lane.task:
                lane.task.cancel()
        await asyncio.gather(*(x.task for x in self._lanes.values() if x.task), return_exceptions=True)
        self._lanes.clear()
        if self._producer:
            self._discard(self._producer)
        await asyncio.gather(*self._closing)

    # ------------------------------------------------------------------ lanes

    def _lane(self, topic: str) -> _Lane:
        lane = self._lanes.get(topic)
        if lane is None:
            lane = self._lanes[topic] = _Lane()
            lane.task = asyncio.create_task(self._run(topic, lane), name=f"appends to {topic}")
        return lane

    def _push(self, append: Append) -> None:
        """It was taken from its lane and goes again."""
        if not append.queued and not self._stopped:
            lane = self._lane(append.send.topic)
            append.queued = True
            heapq.heappush(lane.again, append)
            lane.more.set()

    async def _run(self, topic: str, lane: _Lane) -> None:
        attempt = 0
        while True:
            while not lane.fresh and not lane.again:
                lane.more.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(IDLE):
                        await lane.more.wait()
                if not lane.more.is_set():
                    del self._lanes[topic]
                    return
            attempt = 0 if await self._go(topic, _next(lane)) else attempt + 1
            if attempt:
                await asyncio.sleep(pause(attempt - 1))

    async def _go(self, topic: str, run: list[Append]) -> bool:
        """Hand them over; whether there was no trouble. Where there was, what is not handed over goes again."""
        producer = None
        try:
            placed = self._placed(run, await self._cluster.known(topic))
            producer = await self._current()
            if len(run) < FEW:
                for p, appends in placed.items():
                    for append in appends:
                        await self._hand_over(producer, append, p)
            else:
                await self._hand_over_all(producer, topic, placed)
        except Gone as e:
            if spare := [a for a in run if a.send.spare and a.send.tag is None and not a.done]:
                log.warning("%d records are dropped: %s", len(spare), e)
                self._end_all(spare, "")
            self._end_all(run, str(e))
        except Refused as e:
            self._end_all(run, str(e))
        except FOR_GOOD as e:
            self._end_all(run, f"{topic}: {str(e) or type(e).__name__}")
        except TROUBLE as e:
            log.info("appending to %s again: %r", topic, e, extra=RECONNECT)
            self._cluster.forget(topic)  # it may be gone
            for append in run:
                if append not in self._unacknowledged and not append.done:
                    self._push(append)
            if producer:
                self._replace(producer)
            return False
        except Exception as e:
            log.exception("appending to %s", topic)
            self._end_all(run, f"{topic}: {e!r}")
        return True

    def _placed(self, run: list[Append], n: int) -> dict[int, list[Append]]:
        """By partition, of `n`, in order. What has none is over."""
        placed: dict[int, list[Append]] = {}
        for append in run:
            send = append.send
            p = send.partition
            if p is None:
                p = random.randrange(n) if send.key is None else shard_of(send.key, n)
            if append.done:
                continue
            if 0 <= p < n:
                if p in placed:
                    placed[p].append(append)
                else:
                    placed[p] = [append]
            else:
                self._end(append, None, f"topic {send.topic} has {n} partitions, no partition {p}")
        return placed

    async def _hand_over(self, producer: AIOKafkaProducer, append: Append, partition: int) -> None:
        future = await producer.send(
            append.send.topic, partition=partition, timestamp_ms=self._clock(), **_parts(append.send)
        )
        self._unacknowledged[append] = producer
        future.add_done_callback(lambda f: self._acknowledged(append, producer, f))

    async def _hand_over_all(self, producer: AIOKafkaProducer, topic: str, placed: dict[int, list[Append]]) -> None:
        """A batch for each partition. Raises what one of them raises, once all are handed over or not."""
        handed = (self._hand_over_batch(producer, topic, p, appends) for p, appends in placed.items())
        for error in await asyncio.gather(*handed, return_exceptions=True):
            if error:
                raise error

    async def _hand_over_batch(self, producer: AIOKafkaProducer, topic: str, p: int, appends: list[Append]) -> None:
        batch, now = producer.create_batch(), self._clock()
        add, of, headers = batch.append, None, []  # of the one before: what comes of one fact has the same
        for append in appends:
            send = append.send
            if send.headers is not of:
                of, headers = send.headers, list(send.headers)
            key = None if send.key is None else send.key.encode()
            if add(timestamp=now, key=key, value=send.value, headers=headers) is None:
                raise RuntimeError(f"{TOGETHER} records of {SMALL} bytes do not fit a batch of {BATCH}")
        batch.close()
        future = await producer.send_batch(batch, topic, partition=p)
        self._unacknowledged.update(dict.fromkeys(appends, producer))
        future.add_done_callback(lambda f: self._all_acknowledged(appends, producer, f))

    def _all_acknowledged(self, appends: list[Append], producer: AIOKafkaProducer, future: "asyncio.Future") -> None:
        """What became of a batch: its first record lies at the offset, the others behind it."""
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or (error and not isinstance(error, FOR_GOOD)):
            log.info("appending to %s again: %r", appends[0].send.topic, error, extra=RECONNECT)
            self._replace(producer)
        elif error or future.result().offset < 0:  # one of them is not wanted, or all are there and nobody knows where
            for append in appends:
                self._unacknowledged.pop(append, None)
                if not append.done:
                    append.alone = True
                    self._push(append)
        else:
            meta = future.result()
            partition, offset, had_room = meta.partition, meta.offset, self.room
            for append in appends:
                if not append.done:
                    self._forget(append)
                    append.over(append, (partition, offset), "")
                offset += 1
            self._tell_room(had_room)

    def _acknowledged(self, append: Append, producer: AIOKafkaProducer, future: "asyncio.Future") -> None:
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or (error and not isinstance(error, FOR_GOOD)):
            log.info("appending to %s again: %r", append.send.topic, error, extra=RECONNECT)
            self._replace(producer)
        elif error:
            self._end(append, None, f"{append.send.topic}: {str(error) or type(error).__name__}")
        elif (meta := future.result()).offset < 0:
            # The broker had it already and does not know where any more: an answer needs a true offset.
            self._unacknowledged.pop(append, None)
            self._push(append)
        else:
            self._end(append, (meta.partition, meta.offset), "")

    def _end_all(self, appends: list[Append], error: str) -> None:
        for append in appends:
            if append not in self._unacknowledged:
                self._end(append, None, error)

    def _end(self, append: Append, place: tuple[int, int] | None, error: str) -> None:
        if not append.done:
            self._finish(append)
            append.over(append, place, error)

    def _finish(self, append: Append) -> None:
        if not append.done:
            had_room = self.room
            self._forget(append)
            self._tell_room(had_room)

    def _forget(self, append: Append) -> None:
        append.done = True
        self._unacknowledged.pop(append, None)
        self._bytes -= append.send.size

    def _tell_room(self, had_room: bool) -> None:
        if self.room and not had_room:
            for listener in list(self._listeners):
                listener()

    # ------------------------------------------------------------------ producers

    async def _current(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._cluster.bootstrap,
                    client_id=self._client_id,
                    acks="all",
                    enable_idempotence=True,
                    max_request_size=LARGEST,
                    max_batch_size=BATCH,
                    request_timeout_ms=10_000,
                    **self._cluster.security.settings(),
                )
                try:
                    async with asyncio.timeout(10):
                        await producer.start()
                except BaseException:
                    self._discard(producer)
                    raise
                self._producer = producer
                self._watch(producer, Stranded(producer.client))
            return self._producer

    def _watch(self, producer: AIOKafkaProducer, stranded: Stranded) -> None:
        """An idempotent producer tries for as long as it lives: it is replaced once that is in vain."""
        if self._producer is producer:
            asyncio.get_running_loop().call_later(1, self._watch, producer, stranded)
            if stranded():
                self._replace(producer)

    def _replace(self, broken: AIOKafkaProducer) -> None:
        """What this producer has not acknowledged is sent again by another."""
        if self._producer is broken:
            self._again["appending"] += 1
            self._discard(broken)
        again = [a for a, p in self._unacknowledged.items() if p is broken]
        for topic in {a.send.topic for a in again}:
            self._cluster.forget(topic)  # it may be gone
        for append in again:
            del self._unacknowledged[append]
            self._push(append)

    def _discard(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
        task = asyncio.create_task(_kill(producer))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _next(lane: _Lane) -> list[Append]:
    """What is to go next: one, or the small ones that lie ready behind each other. They fit a batch."""
    run: list[Append] = []
    size = 0
    again, fresh = lane.again, lane.fresh
    while (again or fresh) and len(run) < TOGETHER:
        append = again[0] if again else fresh[0]
        length = append.send.size
        small = length <= SMALL and not append.alone
        size += length + len(append.send.key or "") + OVERHEAD
        if run and (not small or size > BATCH // 2):
            break
        if again:
            heapq.heappop(again).queued = False
        else:
            fresh.popleft()
        if not append.done:
            run.append(append)
        if not small:
            break
    return run


def _parts(send: Send) -> dict[str, Any]:
    return {"key": None if send.key is None else send.key.encode(), "value": send.value, "headers": list(send.headers)}


async def _kill(producer: AIOKafkaProducer) -> None:
    """Close without waiting for what is under way: aiokafka's `stop` waits for it, without end if the broker is away."""
    producer._closed = True
    sender = producer._sender.sender_task
    for _ in range(3):  # its cleaning up may wait, too
        if sender is None or sender.done():
            break
        sender.cancel()
        await asyncio.wait([sender], timeout=0.2)
    if sender and sender.done() and not sender.cancelled():
        sender.exception()
    try:
        async with asyncio.timeout(2):
            await producer.client.close()
    except TROUBLE as e:
        log.info("a producer did not close in good order: %r", e)
