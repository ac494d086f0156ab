"""The runtime on Kafka: carries out what processors ask for, and hands them what comes.

Several processors may be hosted in one event loop; they share producers and query clients, each has readers and a
membership of its own. What is bulk by the topic table travels on clients of its own, on another cluster if one is
named, so that a flood of tensors delays no decision; what devices and the plane write to each other has clients of its own, too, so
that a crowd of devices delays no ledger. When a broker goes away and comes back, all goes on by itself.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from schemas.topics import parse
from streams.appends import Append, Appends
from streams.membership import Member
from streams.processor import (
    Answer,
    Assigned,
    CreateTopics,
    Cut,
    Effect,
    Ends,
    Fetch,
    Follow,
    Input,
    Mark,
    Pause,
    Processor,
    Record,
    Resume,
    Send,
    Starts,
    Stop,
    Tick,
    Unfollow,
)
from streams.pulse import LANES, Pulse
from streams.queries import BrokerGone, Cluster, Refused
from streams.reader import Reader
from streams.security import Security, from_environment

__all__ = ["BrokerGone", "Kafka"]
log = logging.getLogger(__name__)
T = TypeVar("T")

LARGE = 512 * 1024
"""A record above this many bytes is worth a thread: heartbeats go on meanwhile. Adding a smaller one takes 0.1 to 0.4 ms, and a
thread that wants the interpreter's lock beside the client costs more than that."""
RUN = 32
"""Records that are handed over in one go, at most: then the others in this loop have their turn."""
AIMS = (Follow, Unfollow, Pause, Stop)
"""After one of these another record may come next than the one that was to."""
LINGER = 2.0
"""Seconds that the end of a processor may take."""


def wall_clock() -> int:
    """Now, in ms."""
    return time.time_ns() // 1_000_000


def is_bulk(topic: str) -> bool:
    try:
        return parse(topic).kind.bulk
    except (KeyError, ValueError):
        return False


CONTROL, MAIL, BULK = range(len(LANES))
LETTERS = ".dead-letters"


@lru_cache(maxsize=4096)
def lane(topic: str) -> int:
    """Which clients a topic goes by: MAIL is what devices and the plane write to each other, but for what is bulk."""
    if is_bulk(topic):
        return BULK
    try:
        return MAIL if parse(topic).kind.key == "device" else CONTROL
    except (KeyError, ValueError):
        return CONTROL


class Kafka:
    """The connection of a process to Kafka. `data_bootstrap` names another cluster for bulk topics, if there is one. `security`: how
    either is spoken to; None: as the environment says."""

    def __init__(
        self,
        bootstrap: str,
        client_id: str = "olearning",
        session_timeout_ms: int = 10_000,
        clock: Callable[[], int] = wall_clock,
        data_bootstrap: str | None = None,
        security: Security | None = None,
    ):
        self.client_id, self.session_timeout_ms, self.clock = client_id, session_timeout_ms, clock
        self._bootstraps, self._security = (bootstrap, data_bootstrap or bootstrap), security
        self.pulse = Pulse()
        self._clusters: tuple[Cluster, ...] = ()
        self._appends: tuple[Appends, ...] = ()
        self._hosts: list[_Host] = []

    async def start(self) -> None:
        """Raises `BrokerGone` if nobody answers, `BadConfig` if what the environment says of security cannot be used."""
        control, data = self._bootstraps
        again, security = self.pulse.again, self._security or from_environment()
        first = Cluster(control, self.client_id, again, security)
        self._clusters = (first, first if data == control else Cluster(data, f"{self.client_id}-data", again, security))
        try:
            for cluster in self._clusters:
                await cluster.start()
        except BaseException:
            await self.stop()
            raise
        first, last = self._clusters
        self._appends = tuple(
            Appends(c, f"{self.client_id}-{what}", self.clock, again)
            for c, what in ((first, "control"), (first, "mail"), (last, "bulk"))
        )

    async def stop(self) -> None:
        await asyncio.gather(*(a.stop() for a in self._appends), *(c.stop() for c in set(self._clusters)))

    async def __aenter__(self) -> "Kafka":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def topics(self) -> set[str]:
        """The names of all topics there are."""
        return set().union(*[await c.topics() for c in self._clusters])

    def cluster(self, topic: str) -> Cluster:
        """The cluster that holds a topic."""
        return self._clusters[is_bulk(topic)]

    def appends(self, topic: str) -> Appends:
        """The producer for a topic."""
        return self._appends[lane(topic)]

    async def host(self, processor: Processor) -> Stop:
        """Host a processor until it stops; cancelled, it cleans up quickly."""
        host = _Host(self, processor)
        self._hosts.append(host)
        try:
            return await host.run()
        finally:
            self._hosts.remove(host)

    def nudge(self) -> None:
        """Give who is hosted here a tick now: something waits for its turn that is no record."""
        for host in self._hosts:
            host._give(Tick())

    @property
    def waiting(self) -> int:
        """Inputs that are ready and not handed over yet."""
        return sum(len(h._inbox) + sum(r.ready for r in h._by_lane) for h in self._hosts)

    async def look(self, processor: Processor, at: Callable[[], T]) -> T:
        """What `at` says of a processor's state, between two of its inputs. Raises `KeyError` if it is not hosted now."""
        for host in self._hosts:
            if host.processor is processor:
                async with host.away:
                    return at()
        raise KeyError(processor.name)


class _Host:
    """One processor, its inbox and what runs for it."""

    def __init__(self, kafka: Kafka, processor: Processor):
        self.kafka, self.processor, self.pulse = kafka, processor, kafka.pulse
        self.stopped: Stop | None = None
        self.away = asyncio.Lock()
        """Held while its processor is at work in another thread."""
        self._inbox: deque[tuple[Input, bool]] = deque()
        self._awake = asyncio.Event()
        self._sent: set[Append] = set()
        self._over = self._landed
        self._asked: set[asyncio.Task[None]] = set()
        (control, data), again = kafka._clusters, self.pulse.again
        self._by_lane = tuple(
            Reader(
                c, f"{kafka.client_id}-{processor.name}-{LANES[n]}", self._awake.set, self._fail, self._give, n, again
            )
            for n, c in ((CONTROL, control), (MAIL, control), (BULK, data))
        )
        self._readers = list(self._by_lane)
        """The one whose turn it is first."""

    async def run(self) -> Stop:
        tasks = [asyncio.create_task(r.run(), name=f"reader of {self.processor.name}") for r in self._readers]
        if m := self.processor.membership:
            member = Member(
                self.kafka.cluster(m.topic),
                f"{self.kafka.client_id}-{self.processor.name}",
                m,
                self.kafka.session_timeout_ms,
                lambda seats: self._give(Assigned(seats)),
                self.pulse.again,
            )
            tasks.append(asyncio.create_task(member.run(), name=f"membership of {self.processor.name}"))
        for task in tasks:
            task.add_done_callback(self._ended)
        for appends in self.kafka._appends:
            appends.tell(self._awake.set)
        try:
            await self._loop()
        finally:
            await self._clean_up(tasks)
        assert self.stopped
        return self.stopped

    # ------------------------------------------------------------------ inputs, one at a time

    async def _loop(self) -> None:
        clock = asyncio.get_running_loop().time
        tick = self.processor.tick / 1000
        await self._do([None])
        due, breath = clock() + tick, clock()
        while self.stopped is None:
            now = clock()
            if now >= due:
                due = now + tick
                await self._do([Tick()])
            elif self._inbox:
                event, large = self._inbox.popleft()
                await self._do([event], large)
            elif from_reader := self._next():
                reader, run = from_reader
                sizes = [len(r.value or b"") for r in run]
                done = await self._do(run, max(sizes) > LARGE, reader)
                self.pulse.read[reader.lane] += done
                self.pulse.read_bytes[reader.lane] += sum(sizes[:done])
            else:
                self._awake.clear()
                with contextlib.suppress(TimeoutError):  # not wait_for: Python 3.11's may lose a cancellation
                    async with asyncio.timeout(due - now):
                        await self._awake.wait()
                breath = clock()
            if clock() - breath > 0.005:  # heartbeats and the others in this loop want to live, too
                await asyncio.sleep(0)
                breath = clock()

    def _next(self) -> tuple[Reader, list[Record]] | None:
        """The next records, and who has read them."""
        if all(a.room for a in self.kafka._appends):  # else what reading leads to would pile up
            for reader in self._readers:
                if run := reader.take(RUN):
                    self._readers.remove(reader)  # take turns
                    self._readers.append(reader)
                    return reader, run
        return None

    async def _do(self, run: Sequence[Input | None], large: bool = False, reader: Reader | None = None) -> int:
        """Some inputs (or the start, None), one after the other, and what the processor answers: how many. What it aims its
        reading at comes into effect before the next record."""
        now, p = self.kafka.clock(), self.processor
        effects: list[Effect] = []
        done = 0

        def call() -> None:
            nonlocal done
            for event in run:
                new = list(p.start(now) if event is None else p.handle(event, now))
                done += 1
                if new:  # of a crowd's records most are only noted
                    effects.extend(new)
                    if any(isinstance(e, AIMS) for e in new):
                        return

        began = time.perf_counter()
        try:
            if large:
                async with self.away:
                    await asyncio.to_thread(call)
            else:
                call()
        except Exception as e:
            log.exception("%s failed at %s", p.name, _summary(run[done]))
            self._stop(Stop(f"bug in {p.name}: {e!r} at {_summary(run[done])}"))
            return done
        self.pulse.handled(time.perf_counter() - began)
        if reader:
            reader.untake([r for r in run[done:] if isinstance(r, Record)])
        self._carry_out(effects)
        return done

    def _give(self, event: Input, large: bool = False) -> None:
        self._inbox.append((event, large))
        self._awake.set()

    def _stop(self, stop: Stop) -> None:
        self.stopped = self.stopped or stop
        self._awake.set()

    def _fail(self, reason: str) -> None:
        self._stop(Stop(reason))

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (e := task.exception()):
            log.error("%s ended", task.get_name(), exc_info=e)
            self._fail(f"{task.get_name()} ended: {e!r}")

    # ------------------------------------------------------------------ effects

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if self.stopped:
                return
            match effect:
                case Send():
                    self._send(effect)
                case Ends(tag, topic):
                    self._ask(tag, self.kafka.cluster(topic).ends(topic))
                case Starts(tag, topic):
                    self._ask(tag, self.kafka.cluster(topic).starts(topic))
                case Fetch(tag, topic, places):
                    self._ask(tag, self.kafka.cluster(topic).fetch(topic, places), large=True)
                case Cut(topic, partition, offset):
                    self._cut(topic, partition, offset)
                case Mark(group, offsets):
                    self._mark(group, offsets)
                case CreateTopics(tag, topics):
                    self._ask(tag, self._create(topics))
                case Follow(topic, partition, offset, tag):
                    self._reader(topic).follow(topic, partition, offset, tag)
                case Unfollow(topic, partition):
                    self._reader(topic).unfollow(topic, partition)
                case Pause(topic, partition):
                    self._reader(topic).pause(topic, partition)
                case Resume(topic, partition):
                    self._reader(topic).resume(topic, partition)
                case Stop():
                    self._stop(effect)

    def _send(self, send: Send) -> None:
        append = Append(send, self._over)
        self._sent.add(append)
        way, pulse = lane(send.topic), self.pulse
        pulse.sent[way] += 1
        pulse.sent_bytes[way] += send.size
        if way == CONTROL and send.topic.endswith(LETTERS):
            pulse.letters[_what(send)] += 1
        self.kafka._appends[way].put(append)

    def _landed(self, append: Append, place: tuple[int, int] | None, error: str) -> None:
        self._sent.discard(append)
        if append.send.tag is not None:
            self._give(Answer(append.send.tag, place, error))
        elif error:
            self._fail(f"cannot append: {error}")
        else:
            self._awake.set()

    def _ask(self, tag: Any, question: Awaitable[Any], large: bool = False) -> None:
        async def ask() -> None:
            try:
                answer = Answer(tag, await question)
            except Refused as e:
                answer = Answer(tag, error=str(e))
            self._give(answer, large)

        self._begin(ask(), "question")

    def _cut(self, topic: str, partition: int, offset: int) -> None:
        async def cut() -> None:
            try:
                await self.kafka.cluster(topic).cut(topic, partition, offset)
            except Refused as e:  # nothing is lost: the log stays longer than need be
                log.warning("%s-%d cannot be cut: %s", topic, partition, e)

        self._begin(cut(), "cut")

    def _mark(self, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
        by_cluster: dict[Cluster, dict[tuple[str, int], int]] = {}
        for (topic, partition), offset in offsets.items():
            by_cluster.setdefault(self.kafka.cluster(topic), {})[topic, partition] = offset
        for cluster, part in by_cluster.items():
            self._begin(cluster.mark(group, part), "mark")

    def _begin(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task = asyncio.create_task(work, name=f"{what} of {self.processor.name}")
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)
        task.add_done_callback(self._ended)

    async def _create(self, topics: Iterable[tuple[Any, int]]) -> None:
        for bulk in (False, True):
            await self.kafka._clusters[bulk].create([(t, n) for t, n in topics if t.kind.bulk is bulk])

    def _reader(self, topic: str) -> Reader:
        return self._by_lane[lane(topic)]

    # ------------------------------------------------------------------ the end

    async def _clean_up(self, tasks: "list[asyncio.Task[None]]") -> None:
        """Let what was sent land and leave the group, but not for longer than `LINGER`."""
        for task in (*tasks, *self._asked):
            task.cancel()
        end = asyncio.get_running_loop().time() + LINGER
        while self._sent and (left := end - asyncio.get_running_loop().time()) > 0:
            self._awake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._awake.wait()
            except TimeoutError:
                break
        for append in list(self._sent):
            self.kafka.appends(append.send.topic).drop(append)
        for appends in self.kafka._appends:
            appends.untell(self._awake.set)
        await asyncio.wait(tasks, timeout=LINGER)


def _what(letter: Send) -> str:
    """The kind of topic that the record of a dead letter was in: that is what its key begins with."""
    with contextlib.suppress(KeyError):
        return parse((letter.key or "").split("/")[0]).kind.what
    return "other"


def _summary(event: Input | None) -> str:
    match event:
        case None:
            return "its start"
        case Record():
            return f"record {event.topic}-{event.partition}@{event.offset}"  # not its key: that may be a device
        case Answer():
            return f"answer to {event.tag!r}" + (f": {event.error}" if event.error else "")
        case _:
            return repr(event)
