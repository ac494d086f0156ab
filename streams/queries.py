"""Questions to one Kafka cluster: what topics there are, where their logs end, what lies at a place.

They go over clients that never park a fetch: with one parked, asking for an end takes half a second instead of a
millisecond. Whatever a broker's restart may mend is asked again until it is answered; the rest is `Refused`.
"""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, TypeVar

from aiokafka import TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.protocol.commit import OffsetCommitRequest

from schemas.blocks import BLOCK, Place
from schemas.topics import Topic
from streams.batches import Consumer, Unreadable
from streams.connecting import unreached, why_not
from streams.security import Security, from_environment

log = logging.getLogger(__name__)
RECONNECT = {"event": "reconnect"}
"""Of a log line: a client is replaced or a question put again, since the broker was away or said no."""
T = TypeVar("T")

PATIENCE = 30.0
"""Seconds that a topic may take to appear."""
MAKING = 180.0
"""The same where the broker said that it makes it: one that hardly gets a core needs a minute for the leaders of a plane's topics."""
RECORD = 4 * BLOCK + 1024
"""Bytes of a model's block as a record, about."""
AT_ONCE = 16
"""So many records at most are asked for at once."""
READERS = 4
"""Fetches that are under way at once; the others wait."""
TROUBLE = (errors.KafkaError, OSError)
"""What a broker that is away, or comes back, makes of a call."""
FOR_GOOD = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.InvalidTopicError,
    errors.InvalidTimestampError,
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.AuthenticationFailedError,
    errors.PolicyViolationError,
    errors.UnsupportedVersionError,
)
"""What asking again does not mend."""
NO_COORDINATOR = (
    errors.GroupCoordinatorNotAvailableError,
    errors.NotCoordinatorForGroupError,
    errors.GroupLoadInProgressError,
)
MARK_TRIES = 6


class BrokerGone(Exception):
    """No broker answers at the address that was given."""


class Refused(Exception):
    """It will not work, however often it is tried; the text says why."""


class Gone(Refused):
    """The topic is not there, and does not come."""


def pause(attempt: int) -> float:
    """Seconds before the next attempt."""
    return min(0.05 * 2**attempt, 1.0)


class Cluster:
    """One Kafka cluster, to be asked. `security`: how it is spoken to; None: as the environment says."""

    def __init__(
        self, bootstrap: str, client_id: str, again: Counter[str] | None = None, security: Security | None = None
    ):
        self._again = Counter() if again is None else again
        self.bootstrap, self.client_id = bootstrap, client_id
        self.security = security or from_environment()
        self._clients: dict[type, Any] = {}
        self._starting = asyncio.Lock()
        self._idle: list[Consumer] = []
        self._reading = asyncio.Semaphore(READERS)
        self._marking = asyncio.Lock()
        self._counts: dict[str, int] = {}
        self._missing: set[str] = set()
        """Topics that are waited for, of which the broker said last that they are not there."""

    async def start(self) -> None:
        """Raises `BrokerGone`."""
        try:
            async with asyncio.timeout(10):
                admin = await self._client(AIOKafkaAdminClient)
        except (*TROUBLE, ValueError) as e:
            await self._explain()
            why = await unreached(self.bootstrap) or str(e) or type(e).__name__
            raise BrokerGone(
                f"no Kafka broker answers at {self.bootstrap} ({why}): "
                "start one there (`olearning broker start`), or say where it is"
            ) from None
        if self.security.protocol == "PLAINTEXT":
            return
        try:  # so far it asked where the brokers are; now it asks one of those, whose name may not be in its certificate
            async with asyncio.timeout(10):
                await admin.describe_cluster()
        except TROUBLE:
            await self._explain()  # if there is nothing to say, they are away just now

    async def _explain(self) -> None:
        """Raises `BrokerGone` if it is known what is wrong."""
        if why := await why_not(self.bootstrap, self.security):
            raise BrokerGone(f"Kafka at {self.bootstrap} cannot be used: {why}")

    async def stop(self) -> None:
        clients = [*self._clients.values(), *self._idle]
        self._clients, self._idle = {}, []
        await asyncio.gather(*map(close, clients))

    # ------------------------------------------------------------------ what may be asked

    async def topics(self) -> set[str]:
        """The names of all topics."""

        async def ask() -> set[str]:
            return set(await (await self._client(AIOKafkaAdminClient)).list_topics())

        return await self._persist(ask)

    async def partitions(self, topic: str) -> int | None:
        """How many partitions a topic has; None while it is not there. Raises `Refused`."""
        if topic not in self._counts:

            async def ask() -> None:
                admin = await self._client(AIOKafkaAdminClient)
                (found,) = await admin.describe_topics([topic])
                error = errors.for_code(found["error_code"])
                led = all(p["leader"] >= 0 for p in found["partitions"])
                (self._missing.add if error is errors.UnknownTopicOrPartitionError else self._missing.discard)(topic)
                if error is errors.NoError and led:
                    self._counts[topic] = len(found["partitions"])
                elif error in FOR_GOOD:
                    raise error(topic)

            await self._persist(ask)
        return self._counts.get(topic)

    async def known(self, topic: str, patience: float = PATIENCE) -> int:
        """How many partitions a topic has; waits for one that is being made. Raises `Gone` where there is none, `Refused`."""
        end = asyncio.get_running_loop().time() + patience
        while (n := await self.partitions(topic)) is None:
            if asyncio.get_running_loop().time() > end:
                gone, text = topic in self._missing, f"{patience:g} s were waited for it"
                self._missing.discard(topic)
                raise (Gone if gone else Refused)(f"topic {topic} does not exist, or no broker leads it: {text}")
            await asyncio.sleep(0.1)
        return n

    def forget(self, topic: str) -> None:
        """Look anew whether a topic is there."""
        self._counts.pop(topic, None)

    async def ends(self, topic: str) -> dict[int, int]:
        """The offset that the next record of each partition will have."""
        tps = [TopicPartition(topic, p) for p in range(await self.known(topic))]

        async def ask() -> dict[int, int]:
            consumer = await self._client(Consumer)
            return {tp.partition: end for tp, end in (await consumer.end_offsets(tps)).items()}

        return await self._persist(ask)

    async def starts(self, topic: str) -> dict[int, int]:
        """The first offset that each partition holds."""
        tps = [TopicPartition(topic, p) for p in range(await self.known(topic))]

        async def ask() -> dict[int, int]:
            consumer = await self._client(Consumer)
            return {tp.partition: start for tp, start in (await consumer.beginning_offsets(tps)).items()}

        return await self._persist(ask)

    async def since(self, topic: str, at: int) -> dict[int, tuple[int, int]]:
        """By partition the first record that is no older than `at` (ms since 1970, by the broker's clock), and its end; that twice, if
        there is none."""
        tps = [TopicPartition(topic, p) for p in range(await self.known(topic))]

        async def ask() -> dict[int, tuple[int, int]]:
            consumer = await self._client(Consumer)
            ends = await consumer.end_offsets(tps)
            found = await consumer.offsets_for_times(dict.fromkeys(tps, at))
            return {tp.partition: (found[tp].offset if found.get(tp) else ends[tp], ends[tp]) for tp in tps}

        return await self._persist(ask)

    async def span(self, topic: str, partition: int) -> tuple[int, int]:
        """The first offset a partition holds, and its end."""
        tp = TopicPartition(topic, partition)

        async def ask() -> tuple[int, int]:
            consumer = await self._client(Consumer)
            return (await consumer.beginning_offsets([tp]))[tp], (await consumer.end_offsets([tp]))[tp]

        return await self._persist(ask)

    async def fetch(self, topic: str, places: Iterable[Place]) -> dict[str, bytes]:
        """The values at places, by key; what is not there is missing."""
        n = await self.known(topic)
        by_partition: dict[int, list[Place]] = defaultdict(list)
        for place in places:
            if place.partition < n:
                by_partition[place.partition].append(place)

        async def ask() -> dict[str, bytes]:
            found: dict[str, bytes] = {}
            async with self._reader() as consumer:
                for partition, there in by_partition.items():
                    await self._look(consumer, TopicPartition(topic, partition), there, found)
            return found

        return await self._persist(ask) if by_partition else {}

    async def cut(self, topic: str, partition: int, offset: int) -> None:
        """Delete a partition's records below an offset; past its end, none. Raises `Refused`."""
        await self.known(topic)
        tp = TopicPartition(topic, partition)

        async def ask() -> None:
            admin = await self._client(AIOKafkaAdminClient)
            try:
                await admin.delete_records({tp: RecordsToDelete(before_offset=offset)})
            except errors.OffsetOutOfRangeError:
                log.warning("%s-%d is not cut at %d: it does not go so far", topic, partition, offset)

        await self._persist(ask)

    async def mark(self, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
        """Commit offsets for a group that has no members, so that tools show its lag. Given up after some tries: a later mark says it
        again. One at a time, or an earlier one might land last."""
        topics: dict[str, list[tuple[int, int, str]]] = {}
        for (topic, partition), offset in sorted(offsets.items()):
            topics.setdefault(topic, []).append((partition, offset, ""))
        asked = OffsetCommitRequest(group, OffsetCommitRequest.DEFAULT_GENERATION_ID, "", -1, list(topics.items()))
        async with self._marking:
            for attempt in range(MARK_TRIES):
                try:
                    admin = await self._client(AIOKafkaAdminClient)
                    done = await admin._send_request_to_node(await admin.find_coordinator(group), asked)
                    failed = {errors.for_code(code) for _, parts in done.topics for _, code in parts} - {errors.NoError}
                    if failed.isdisjoint(NO_COORDINATOR):
                        break
                except TROUBLE as e:
                    failed = {type(e)}
                await asyncio.sleep(pause(attempt))  # Kafka makes the topic of groups when the first one is asked for
        if failed:
            log.info("group %s is not marked: %s", group, ", ".join(e.__name__ for e in failed))

    async def create(self, topics: Iterable[tuple[Topic, int]]) -> None:
        """Make the topics that are not there, and wait until they are. Raises `Refused`."""
        wanted = {t.name: (t, n) for t, n in topics}

        async def ask() -> None:
            admin = await self._client(AIOKafkaAdminClient)
            there = set(await admin.list_topics())
            left = {name: new for name, new in wanted.items() if name not in there}
            if not left:  # who may make none is not to be refused for what is there
                return
            live = len((await admin.describe_cluster())["brokers"])
            # Of three brokers one may be away just now: its replicas are made when it comes back. If there is none, fewer.
            for replicas in (3, live) if live == 2 else (min(3, live),):
                safe = {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"} if replicas == 3 else {}
                new = [NewTopic(name, n, replicas, topic_configs=t.config() | safe) for name, (t, n) in left.items()]
                for name, code, text in (await admin.create_topics(new)).topic_errors:  # it does not raise by itself
                    error = errors.for_code(code)
                    if error is errors.InvalidReplicationFactorError and replicas > live:
                        continue
                    if error not in (errors.NoError, errors.TopicAlreadyExistsError):
                        if error.retriable:
                            raise error(text)
                        if error is errors.TopicAuthorizationFailedError:
                            text = "this login may neither see it (Describe) nor make it (Create); docs/isolation.md says who needs what"
                        raise Refused(f"topic {name} cannot be made: {text or error.__name__}")
                    del left[name]

        if wanted:
            await self._persist(ask)
        for name, (_, n) in wanted.items():
            if (has := await self.known(name, MAKING)) != n:
                raise Refused(f"topic {name} exists with {has} partitions, {n} were asked for")

    async def remove(self, topic: str) -> None:
        """Delete a topic with all that is in it; one that is not there is no error. Raises `Refused`."""

        async def ask() -> None:
            admin = await self._client(AIOKafkaAdminClient)
            for _, code, *text in (await admin.delete_topics([topic])).topic_error_codes:
                error = errors.for_code(code)
                if error in (errors.NoError, errors.UnknownTopicOrPartitionError):
                    continue
                if error.retriable:
                    raise error(*text)
                raise Refused(f"topic {topic} cannot be deleted: {error.__name__}")

        await self._persist(ask)
        self.forget(topic)

    # ------------------------------------------------------------------ clients

    async def _persist(self, ask: Callable[[], Awaitable[T]]) -> T:
        for attempt in range(1_000_000):
            try:
                return await ask()
            except FOR_GOOD as e:
                raise Refused(str(e) or type(e).__name__) from e
            except TROUBLE as e:
                self._again["asking"] += 1
                log.info("asking %s again: %r", self.bootstrap, e, extra=RECONNECT)
                await self.stop()
                await asyncio.sleep(pause(attempt))
        raise AssertionError

    async def _client(self, kind: type) -> Any:
        async with self._starting:
            if kind not in self._clients:
                client = self._consumer() if kind is Consumer else self._admin()
                try:
                    await client.start()
                except BaseException:
                    await close(client)
                    raise
                self._clients[kind] = client
            return self._clients[kind]

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[Consumer]:
        """A consumer for one fetch, kept for the next if all went well."""
        async with self._reading:
            consumer = self._idle.pop() if self._idle else self._consumer()
            try:
                if consumer._fetcher is None:
                    await consumer.start()
                yield consumer
            except BaseException:
                await close(consumer)
                raise
            self._idle.append(consumer)

    def _admin(self) -> AIOKafkaAdminClient:
        return AIOKafkaAdminClient(
            bootstrap_servers=self.bootstrap,
            client_id=f"{self.client_id}-asks",
            request_timeout_ms=10_000,
            **self.security.settings(),
        )

    def _consumer(self) -> Consumer:
        return Consumer(
            bootstrap_servers=self.bootstrap,
            client_id=f"{self.client_id}-asks",
            request_timeout_ms=10_000,
            fetch_max_wait_ms=1,  # what is asked for is there
            retry_backoff_ms=20,  # the first question about a topic always takes a second attempt
            **self.security.settings(),
        )

    async def _look(self, consumer: Consumer, tp: TopicPartition, places: list[Place], found: dict[str, bytes]) -> None:
        """Read the stretches that the hints make up; then look for what was not there from the beginning on."""
        begin, end = await self.span(*tp)
        if begin == end:
            return
        consumer.assign([tp])
        consumer.pause(tp)
        wanted = {p.key for p in places}
        hints = sorted({p.offset for p in places if begin <= p.offset < end})
        cuts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(hints)) if b != a + 1), len(hints)]
        stretches = [(hints[i], hints[j - 1] + 1) for i, j in pairwise(cuts) if i < j]
        unreadable: list[Unreadable] = []
        for stretch in (*stretches, (begin, end)):
            if wanted - found.keys():
                unreadable += await _read(consumer, tp, *stretch, wanted, found)
        if unreadable and wanted - found.keys():
            raise Refused(str(unreadable[0]))


async def _read(
    consumer: Consumer, tp: TopicPartition, start: int, end: int, wanted: set[str], found: dict[str, bytes]
) -> list[Unreadable]:
    """Read a stretch, keeping the values whose key is wanted; done early when all are found. What cannot be read here
    is stepped over and named: what was not found may be in there."""
    unreadable = []
    consumer.seek(tp, start)
    consumer.resume(tp)
    while (at := await consumer.position(tp)) < end and wanted - found.keys():
        consumer.check()
        # A broker fills a fetch up with a part of the next batch: with 1 MiB, a quarter of what it sends is for nothing.
        consumer._fetcher._max_partition_fetch_bytes = RECORD * min(end - at, AT_ONCE)
        for r in (await consumer.getmany(tp, timeout_ms=1000, max_records=end - at)).get(tp, ()):
            if isinstance(r, Unreadable):
                unreadable.append(r)
                consumer.seek(tp, r.end)
            elif r.key in wanted and r.key not in found and r.value is not None:
                found[r.key] = r.value
    consumer.pause(tp)  # no further fetch
    return unreadable


async def close(client: Any) -> None:
    """Close a client of aiokafka's, in two seconds or little more, so that nothing of it lives on.

    Its own closing waits for brokers, and where one is away it may end halfway by `CancelledError`, which it would raise at whoever
    closes it; so it has a task of its own, and what it leaves behind is ended here.
    """
    if await _done(client.close() if hasattr(client, "close") else client.stop(), 2):
        return
    parts = [p for p in (getattr(client, "_coordinator", None), getattr(client, "_fetcher", None)) if p]
    left = [
        x for p in parts for x in (*vars(p).values(), *getattr(p, "_pending_tasks", ())) if isinstance(x, asyncio.Task)
    ]
    for task in left:
        task.cancel()
    await _done(client._client.close(), 0.5)


async def _done(closing: Coroutine[Any, Any, None], seconds: float) -> bool:
    """Whether it came to its end in so many seconds."""
    task = asyncio.create_task(closing)
    await asyncio.wait([task], timeout=seconds)
    if not task.done():
        task.cancel()
    elif not task.cancelled() and (e := task.exception()):
        log.info("a client did not close in good order: %r", e)
    return task.done() and not task.cancelled() and not task.exception()
