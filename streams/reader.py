"""Reading partitions from offsets of one's own choosing, gap-free, for one processor.

What the processor has is in `_wanted`: the next offset of each partition. A record is handed over only if it is that
one, so neither a seek nor a pause nor a new assignment can let a stale record through. A log cut above the next
offset, or ending below it, means loss: that is never skipped, but said to the processor if it left a tag. Where a log only seems to lack an offset, `batches.py`
hands over an empty record.
"""

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence

from aiokafka import TopicPartition, errors

from schemas.topics import compacted
from streams.batches import Consumer, Unreadable
from streams.processor import Answer, Record
from streams.queries import RECONNECT, TROUBLE, Cluster, Refused, close, pause

log = logging.getLogger(__name__)

AHEAD = 4 * 2**20
"""Bytes read ahead, at most, in the client and once more here. Larger answers are slower to take apart: fresh memory for each."""


class Reader:
    """The followed partitions of one cluster. `wake` is called when there is something to take, `fail` with a reason, `tell`
    with the answer to a `follow` that had a tag. `again` counts the clients that had to be replaced."""

    def __init__(
        self,
        cluster: Cluster,
        client_id: str,
        wake: Callable[[], None],
        fail: Callable[[str], None],
        tell: Callable[[Answer], None],
        lane: int = 0,
        again: Counter[str] | None = None,
    ):
        self.lane, self._again = lane, Counter() if again is None else again
        self._cluster, self._client_id, self._wake, self._fail, self._tell = cluster, client_id, wake, fail, tell
        self._wanted: dict[TopicPartition, int] = {}
        self._tags: dict[TopicPartition, Hashable] = {}
        self._paused: set[TopicPartition] = set()
        self._batch: deque[Record | Unreadable] = deque()
        self._consumer: Consumer | None = None
        self._topics: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()

    # ------------------------------------------------------------------ what the processor wants

    def follow(self, topic: str, partition: int, offset: int, tag: Hashable = None) -> None:
        tp = TopicPartition(topic, partition)
        self._purge(tp)
        self._wanted[tp], self._tags[tp] = offset, tag
        self._aim(tp)

    def unfollow(self, topic: str, partition: int) -> None:
        tp = TopicPartition(topic, partition)
        self._purge(tp)
        self._wanted.pop(tp, None)
        self._paused.discard(tp)
        self._aim(tp)

    def pause(self, topic: str, partition: int) -> None:
        tp = TopicPartition(topic, partition)
        self._purge(tp)
        self._paused.add(tp)
        self._aim(tp)

    def resume(self, topic: str, partition: int) -> None:
        tp = TopicPartition(topic, partition)
        self._paused.discard(tp)
        self._aim(tp)

    def take(self, most: int) -> list[Record]:
        """The next records, as far as they are there, `most` at most."""
        run: list[Record] = []
        batch = self._batch
        topic, partition, tp, at = "", -1, None, 0
        while batch and len(run) < most:
            r = batch[0]
            if r.partition != partition or r.topic != topic:  # most come behind one of their own
                if tp is not None:
                    self._wanted[tp] = at
                topic, partition = r.topic, r.partition
                tp = TopicPartition(topic, partition)
                at = self._wanted[tp]
            if r.offset == at and type(r) is Record:
                at += 1
                run.append(r)
            elif r.offset >= at:
                wrong = self._wrong(r, at)
                if wrong and run:
                    break  # what comes before it is dealt with first
                if wrong:
                    self._fail(wrong)
                    return []
                assert isinstance(r, Record)
                at = r.offset + 1
                run.append(r)
            batch.popleft()
        if tp is not None:
            self._wanted[tp] = at
        if not batch:
            self._taken.set()
        return run

    def _wrong(self, r: Record | Unreadable, at: int) -> str:
        """Why this cannot be handed over as what comes at or after `at`; empty if it can."""
        if isinstance(r, Unreadable):
            return str(r)
        if r.offset > at and not compacted(r.topic):
            return f"{r.topic}-{r.partition}: wanted offset {at}, the log goes on at {r.offset}: records are lost"
        return ""

    @property
    def ready(self) -> int:
        """How many records are read and not taken."""
        return len(self._batch)

    def untake(self, run: Sequence[Record]) -> None:
        """Give back what was taken last and not handed over."""
        for r in reversed(run):
            tp = TopicPartition(r.topic, r.partition)
            if tp in self._wanted:  # else it is followed no longer: the log did not hold what came next
                self._wanted[tp] = r.offset
                self._batch.appendleft(r)

    def _purge(self, tp: TopicPartition) -> None:
        self._batch = deque(r for r in self._batch if (r.topic, r.partition) != tp)
        if not self._batch:
            self._taken.set()

    # ------------------------------------------------------------------ the client

    async def run(self) -> None:
        """Read until cancelled, with another client whenever one fails."""
        attempt = 0
        while not self._wanted:  # a client that reads nothing need not be there
            self._changed.clear()
            await self._changed.wait()
        while True:
            consumer = self._new()
            try:
                await consumer.start()
                self._consumer = consumer
                self._assign()
                attempt = 0
                await self._read(consumer)
            except Refused as e:
                self._fail(str(e))
                return
            except errors.TopicAuthorizationFailedError as e:
                self._fail(f"not allowed to read {e}")
                return
            except TROUBLE as e:
                self._again["reading"] += 1
                log.info("reading again after %r", e, extra=RECONNECT)
            finally:
                self._consumer = None
                await close(consumer)
            await asyncio.sleep(pause(attempt))
            attempt += 1

    async def _read(self, consumer: Consumer) -> None:
        while True:
            await self._discover()
            if not consumer.assignment():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2 if self._wanted else None):
                        await self._changed.wait()
                continue
            consumer.check()
            try:
                got = await consumer.getmany(timeout_ms=100, max_records=500)
            except errors.OffsetOutOfRangeError as e:
                await self._out_of_range(*e.args[0])
                continue
            # From here to the end of the loop nothing else runs, so no seek can come in between.
            for tp, records in got.items():
                if self._reads(tp):
                    self._batch.extend(records)
            if self._batch:
                self._taken.clear()
                self._wake()
                await self._taken.wait()

    async def _discover(self) -> None:
        """A topic that is not there yet is looked for until it is; aiokafka would ask without a pause."""
        new = {tp.topic for tp in self._wanted} - self._topics.keys()
        for topic in new:
            if n := await self._cluster.partitions(topic):
                self._topics[topic] = n
                self._assign()

    def _reads(self, tp: TopicPartition) -> bool:
        return tp in self._wanted and tp not in self._paused

    def _aim(self, tp: TopicPartition) -> None:
        """Make the client do what is wanted of that partition."""
        self._changed.set()
        if self._consumer is None:
            return
        if tp not in self._consumer.assignment():
            if tp in self._wanted:
                asyncio.get_running_loop().call_soon(self._assign)  # once for all that one input brought
        elif self._reads(tp):
            self._consumer.seek(tp, self._wanted[tp])
            self._consumer.resume(tp)
        else:
            self._consumer.pause(tp)

    def _assign(self) -> None:
        """Assign what is wanted and there. Each assignment forgets all positions, so each is followed by seeks."""
        if self._consumer is None:
            return
        ready = {tp for tp in self._wanted if tp.topic in self._topics}
        for tp in ready:
            if tp.partition >= self._topics[tp.topic]:
                self._fail(f"topic {tp.topic} has no partition {tp.partition}")
                return
        if not ready <= self._consumer.assignment():
            self._consumer.assign(list(ready))
            seen = {(r.topic, r.partition): r.offset + 1 for r in self._batch}
            for tp in ready:
                self._consumer.seek(tp, seen.get(tp, self._wanted[tp]))
                if tp in self._paused:
                    self._consumer.pause(tp)

    async def _out_of_range(self, *tps: TopicPartition) -> None:
        for tp in tps:
            if tp in self._wanted:
                begin, end = await self._cluster.span(*tp)
                at = self._wanted[tp] if self._reads(tp) else begin
                if not begin <= at <= end:
                    reason = f"{tp.topic}-{tp.partition}: wanted offset {at}, the log holds {begin} to {end}: records are lost"
                    if (tag := self._tags[tp]) is None:
                        self._fail(reason)
                    else:
                        self.unfollow(*tp)
                        self._tell(Answer(tag, (begin, end), reason))
        await asyncio.sleep(0.1)

    def _new(self) -> Consumer:
        return Consumer(
            bootstrap_servers=self._cluster.bootstrap,
            client_id=self._client_id,
            request_timeout_ms=10_000,
            fetch_max_bytes=AHEAD,
            fetch_max_wait_ms=100,  # a new assignment waits for a parked fetch to come back
            **self._cluster.security.settings(),
        )
