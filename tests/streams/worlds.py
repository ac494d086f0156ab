"""Two worlds that host processors: memory and Kafka. A test written against one runs in the other."""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from schemas.topics import Topic, topic
from streams.kafka import Kafka
from streams.memory import Host, Memory
from streams.processor import Assigned, CreateTopics, Effect, Input, Membership, Record, Stop

SESSION = 6000
"""Session timeout of groups in ms, in both worlds: whoever lives says so within it, also on a machine that has much else to do."""


@dataclass(eq=False)
class Probe:
    """A processor that records its inputs and sends what the test tells it to, at its next input."""

    name: str = "probe"
    membership: Membership | None = None
    tick: int = 20
    first: tuple[Effect, ...] = ()
    react: Callable[[Input], Iterable[Effect]] = lambda event: ()
    script: list[Effect] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    nows: list[int] = field(default_factory=list)

    def start(self, now: int) -> Iterable[Effect]:
        return self.first

    def handle(self, event: Input, now: int) -> Iterable[Effect]:
        self.inputs.append(event)
        self.nows.append(now)
        script, self.script = self.script, []
        return [*self.react(event), *script]

    def do(self, *effects: Effect) -> None:
        self.script = [*self.script, *effects]

    @property
    def records(self) -> list[Record]:
        return [x for x in self.inputs if isinstance(x, Record)]

    def offsets(self, partition: int = 0) -> list[int]:
        return [r.offset for r in self.records if r.partition == partition]

    def answer(self, tag: Any) -> Any:
        """The answer to that tag, or None so far."""
        return next((x for x in self.inputs if getattr(x, "tag", None) == tag), None)

    @property
    def seats(self) -> frozenset[int] | None:
        """The seats it was last given."""
        return next((x.seats for x in reversed(self.inputs) if isinstance(x, Assigned)), None)


class World(Protocol):
    namespace: str

    def host(self, processor: Probe) -> Any: ...
    def crash(self, handle: Any) -> None: ...
    def close(self, handle: Any) -> None: ...
    def stopped(self, handle: Any) -> Stop | None: ...
    def run_until(self, predicate: Callable[[], bool], seconds: float = 20) -> None: ...
    def end(self) -> None: ...


def named(world: World, what: str, zone: str = "z", task: str = "") -> Topic:
    return topic(world.namespace, zone, what, task)


def make_topics(world: World, *topics: tuple[Topic, int]) -> None:
    """Make topics, by the effect that does it."""
    maker = Probe(name="maker", first=(CreateTopics("made", topics),))
    handle = world.host(maker)
    world.run_until(lambda: maker.answer("made") is not None)
    assert maker.answer("made").error == ""
    world.close(handle)


class MemoryWorld:
    def __init__(self) -> None:
        self.namespace = "test"
        self.memory = Memory(seed=1, session_timeout=SESSION)

    def host(self, processor: Probe) -> Host:
        return self.memory.host(lambda life: processor)

    def crash(self, handle: Host) -> None:
        handle.crash()

    def close(self, handle: Host) -> None:
        handle.close()

    def stopped(self, handle: Host) -> Stop | None:
        return handle.stopped

    def run_until(self, predicate: Callable[[], bool], seconds: float = 20) -> None:
        assert self.memory.run(predicate, int(seconds * 1000)), "it did not come to pass"

    def end(self) -> None:
        pass


@dataclass(eq=False)
class Life:
    """A thread with an event loop of its own, so that it can die without a word."""

    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    hosted: list["Hosted"] = field(default_factory=list)


@dataclass(eq=False)
class Hosted:
    life: Life
    task: "asyncio.Task[Stop] | None" = None


class KafkaWorld:
    """Every processor gets an event loop in a thread of its own. A crash stops the loop dead: no coroutine gets to say
    goodbye, sockets stay as they are, and the broker notices when heartbeats fail to come."""

    def __init__(self, bootstrap: str, session: int = SESSION):
        self.namespace = f"t-{uuid.uuid4().hex[:10]}"
        self.bootstrap, self.session = bootstrap, session
        self._lives: list[Life] = []

    def host(self, processor: Probe) -> Hosted:
        return self.host_together(processor)[0]

    def host_together(self, *processors: Probe) -> list[Hosted]:
        """Host several in one runtime."""
        loop, ready = asyncio.new_event_loop(), threading.Event()
        life = Life(loop, threading.Thread(target=loop.run_forever, daemon=True))
        hosted = [Hosted(life) for _ in processors]

        async def live() -> None:
            async with Kafka(self.bootstrap, self.namespace, session_timeout_ms=self.session) as kafka:
                for h, p in zip(hosted, processors, strict=True):
                    h.task = asyncio.create_task(kafka.host(p))
                ready.set()
                await asyncio.wait([h.task for h in hosted if h.task])

        self._lives.append(life)
        life.hosted = hosted
        life.thread.start()
        done = asyncio.run_coroutine_threadsafe(live(), loop)
        while not ready.wait(0.05):
            if done.done():
                done.result()
        life.live = done  # type: ignore[attr-defined]
        return hosted

    def crash(self, handle: Hosted) -> None:
        handle.life.loop.call_soon_threadsafe(handle.life.loop.stop)
        handle.life.thread.join()

    def close(self, handle: Hosted) -> None:
        assert handle.task
        handle.life.loop.call_soon_threadsafe(handle.task.cancel)
        self.run_until(handle.task.done)

    def stopped(self, handle: Hosted) -> Stop | None:
        task = handle.task
        return task.result() if task and task.done() and not task.cancelled() else None

    def run_until(self, predicate: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not predicate():
            assert time.monotonic() < end, "it did not come to pass"
            time.sleep(0.005)

    def end(self) -> None:
        """Everybody cleans up; the crashed come to life again for it."""
        for life in self._lives:
            if not life.thread.is_alive():
                life.thread = threading.Thread(target=life.loop.run_forever, daemon=True)
                life.thread.start()
            for hosted in life.hosted:
                if hosted.task:
                    life.loop.call_soon_threadsafe(hosted.task.cancel)
        for life in self._lives:
            life.live.result(60)  # type: ignore[attr-defined]
            life.loop.call_soon_threadsafe(life.loop.stop)
            life.thread.join()
            life.loop.close()
