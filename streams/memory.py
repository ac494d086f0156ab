"""The log in memory, with a virtual clock: every role in one thread, every delay from one seed.

The clock jumps to the next event, so simulated days take seconds and the same seed gives the same run, record for record.
Faults are methods of a `Host` (`crash`, `freeze`, `thaw`, `restart`) and of the network (`Memory.network`), so that a test
composes them; what lands late, twice or not at all is what `streams/processor.py` allows.

Run in step with the real clock it carries a whole plane in one process (`olearning up --memory`), for as long as that lives.
"""

import heapq
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from schemas.partitioner import shard_of
from schemas.wire import Headers
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
    Membership,
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

Partition = tuple[str, int]
_GROUP: Partition = ("", 0)
PATIENCE = 30_000
"""ms that a question about a topic which is not there waits for it."""


@dataclass(slots=True)
class Stored:
    key: str | None
    value: bytes | None
    timestamp: int
    headers: Headers


_GONE = Stored(None, None, 0, ())
"""In the place of a record that was cut."""


@dataclass(eq=False)
class Host:
    """Where one processor lives: it may crash and start again with a new life."""

    memory: "Memory"
    make: Callable[[str], Processor]
    number: int
    lives: int = 0
    processor: Processor = field(init=False)
    stopped: Stop | None = None
    alive: bool = False
    frozen: bool = False
    handled: int = 0
    positions: dict[Partition, int] = field(default_factory=dict)
    tags: dict[Partition, Hashable] = field(default_factory=dict)
    paused: set[Partition] = field(default_factory=set)
    pumping: set[Partition] = field(default_factory=set)
    landing: dict[Partition, int] = field(default_factory=dict)
    deferred: list[Callable[[], None]] = field(default_factory=list)

    def restart(self) -> None:
        """Start with a new life."""
        assert not self.alive, "it lives"
        self.lives += 1
        self.processor = self.make(f"life-{self.number}-{self.lives}")
        self.alive, self.frozen, self.stopped = True, False, None
        for left in (self.positions, self.tags, self.paused, self.pumping, self.landing, self.deferred):
            left.clear()
        self.memory._started(self)

    def crash(self) -> None:
        """Die at once. Each append still under way lands or not, by the seed; the group notices at the session timeout."""
        if self.alive:
            self.alive = False
            self.memory._crashed(self)

    def freeze(self) -> None:
        """Stand still, as under SIGSTOP: what should happen to it happens at `thaw`. The group puts it out meanwhile."""
        self.frozen = True
        self.memory._lost(self)

    def thaw(self) -> None:
        """Go on, a zombie perhaps, with all that was under way."""
        self.frozen = False
        deferred, self.deferred = self.deferred, []
        for act in deferred:
            self.memory._at(0, act)
        self.memory._join(self)

    def close(self) -> None:
        """Leave in good order, now."""
        self.memory._stop(self, Stop("closed", ok=True))


class Memory:
    """Broker, network, group coordinator and clock, for all hosts together. Times in ms."""

    def __init__(
        self,
        seed: int = 0,
        start: int = 0,
        session_timeout: int = 1000,
        latency: tuple[int, int] = (1, 3),
        loss: float = 0.5,
        batch: int = 1,
    ):
        self.now, self.batch = start, batch
        """`batch`: so many records of a partition are handed over at one moment at most; more is faster, and explores less."""
        self.random = Random(seed)
        self.session_timeout, self.latency, self.loss = session_timeout, latency, loss
        self.topics: dict[str, list[list[Stored]]] = {}
        self._starts: dict[Partition, int] = {}
        """Where logs were cut."""
        self.hosts: list[Host] = []
        self.network: Callable[[Host, Send], list[int]] = lambda host, send: [self.delay()]
        """For each append the delays after which it lands: one for a healthy network, more for copies."""
        self.marks: dict[str, dict[Partition, int]] = {}
        """By group, what was marked: nobody reads it but tests."""
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._groups: dict[str, dict[tuple[Host, int], frozenset[int] | None]] = {}
        self._in_flight: dict[int, Host] = {}

    # ------------------------------------------------------------------ for tests and `up --memory`

    def delay(self) -> int:
        least, most = self.latency
        return least if least == most else self.random.randint(least, most)

    def create(self, topic: str, partitions: int) -> None:
        self.topics.setdefault(topic, [[] for _ in range(partitions)])

    def host(self, make: Callable[[str], Processor]) -> Host:
        """Host a processor; `make` builds it anew for each life."""
        host = Host(self, make, len(self.hosts))
        self.hosts.append(host)
        host.restart()
        return host

    def run(self, until: Callable[[], bool] | None = None, limit: int = 60_000) -> bool:
        """Let time go on until the condition holds (True) or `limit` ms have passed (False, or True with no condition)."""
        end = self.now + limit
        while not (until and until()):
            if not self._heap or self._heap[0][0] > end:
                self.now = end
                return until is None
            at, _, act = heapq.heappop(self._heap)
            if at > self.now:
                self.now = at
            act()
        return True

    def append(self, send: Send) -> tuple[int, int]:
        """Append a record now: (partition, offset)."""
        partitions = self.topics[send.topic]
        p = send.partition
        if p is None:
            p = self.random.randrange(len(partitions)) if send.key is None else shard_of(send.key, len(partitions))
        log = partitions[p]
        log.append(Stored(send.key, send.value, self.now, send.headers))
        self._pump_all((send.topic, p))
        return p, len(log) - 1

    def records(self, topic: str, partition: int = 0, first: int = 0) -> list[Record]:
        """All that a partition holds, from an offset on."""
        log, (start, end) = self.topics[topic][partition], self.span(topic, partition)
        stored = ((o, log[o]) for o in range(max(start, first), end))
        return [Record(topic, partition, o, s.key, s.value, s.timestamp, s.headers) for o, s in stored]

    def span(self, topic: str, partition: int = 0) -> tuple[int, int]:
        """The first offset that a partition holds, and its end."""
        return self._starts.get((topic, partition), 0), len(self.topics[topic][partition])

    def cut(self, topic: str, partition: int, offset: int) -> None:
        """Delete the records below an offset."""
        start, end = self.span(topic, partition)
        if start < offset <= end:
            self.topics[topic][partition][start:offset] = [_GONE] * (offset - start)
            self._starts[topic, partition] = offset
            self._pump_all((topic, partition))

    def lose(self, topic: str, partition: int, end: int) -> None:
        """Lose the records from an offset on, as a broker does that promised too much."""
        del self.topics[topic][partition][end:]
        self._starts[topic, partition] = min(end, self.span(topic, partition)[0])
        self._pump_all((topic, partition))

    # ------------------------------------------------------------------ time

    def _at(self, delay: int, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.now + delay, self._count, act))

    def _for(self, host: Host, delay: int, act: Callable[[], None], life: int | None = None) -> None:
        """Later, if the host still lives the same life (or that one); when it is frozen, at its thaw."""
        life = host.lives if life is None else life

        def then() -> None:
            if host.alive and host.lives == life:
                host.deferred.append(then) if host.frozen else act()

        self._at(delay, then)

    # ------------------------------------------------------------------ hosts

    def _started(self, host: Host) -> None:
        self._carry_out(host, host.processor.start(self.now))
        self._join(host)
        self._tick(host)

    def _tick(self, host: Host) -> None:
        def tick() -> None:
            self._give(host, Tick())
            self._tick(host)

        self._for(host, host.processor.tick, tick)

    def _give(self, host: Host, event: Input) -> None:
        if host.alive:
            host.handled += 1
            self._carry_out(host, host.processor.handle(event, self.now))

    def _crashed(self, host: Host) -> None:
        for number in [n for n, h in self._in_flight.items() if h is host]:
            if self.random.random() < self.loss:
                del self._in_flight[number]
        self._lost(host)

    def _stop(self, host: Host, stop: Stop) -> None:
        host.stopped, host.alive = stop, False
        self._leave(host, host.lives)

    def _carry_out(self, host: Host, effects: Any) -> None:
        for effect in effects:
            if not host.alive:
                return
            self._do(host, effect)

    def _do(self, host: Host, effect: Effect) -> None:
        match effect:
            case Send():
                self._send(host, effect)
            case Ends(tag, topic) | Starts(tag, topic) | Fetch(tag, topic, _) if topic not in self.topics:
                self._wait_for(host, effect, self.now + PATIENCE)
            case Ends(tag, topic):
                self._ask(host, tag, lambda: {p: len(log) for p, log in enumerate(self.topics[topic])})
            case Starts(tag, topic):
                self._ask(host, tag, lambda: {p: self.span(topic, p)[0] for p in range(len(self.topics[topic]))})
            case Fetch(tag, topic, places):
                self._ask(host, tag, lambda: dict(filter(None, (self._find(topic, p) for p in places))))
            case Follow(topic, partition, offset, tag):
                host.positions[topic, partition], host.tags[topic, partition] = offset, tag
                self._pump(host, (topic, partition))
            case Unfollow(topic, partition):
                host.positions.pop((topic, partition), None)
                host.paused.discard((topic, partition))
            case Pause(topic, partition):
                host.paused.add((topic, partition))
            case Resume(topic, partition):
                host.paused.discard((topic, partition))
                self._pump(host, (topic, partition))
            case Cut(topic, partition, offset):
                if topic in self.topics:
                    self.cut(topic, partition, offset)
            case Mark(group, offsets):
                self.marks.setdefault(group, {}).update(offsets)
            case CreateTopics(tag, topics):
                for new, partitions in topics:
                    self.create(new.name, partitions)
                for h in self.hosts:
                    for tp in list(h.positions):
                        self._pump(h, tp)
                wrong = [t.name for t, n in topics if len(self.topics[t.name]) != n]
                if wrong:
                    self._tell_error(host, tag, f"{', '.join(wrong)}: there already, with another number of partitions")
                else:
                    self._ask(host, tag, lambda: None)
            case Stop():
                self._stop(host, effect)

    # ------------------------------------------------------------------ reading and appending

    def _wait_for(self, host: Host, question: Ends | Starts | Fetch, end: int) -> None:
        """The topic may still come: it is asked again until then."""
        if question.topic in self.topics:
            self._do(host, question)
        elif self.now >= end:
            self._give(host, Answer(question.tag, error=f"topic {question.topic} does not exist"))
        else:
            self._for(host, 100, lambda: self._wait_for(host, question, end))

    def _pump_all(self, tp: Partition) -> None:
        for host in self.hosts:
            if tp in host.positions:
                self._pump(host, tp)

    def _pump(self, host: Host, tp: Partition) -> None:
        """See to it that the next record of a followed partition is handed over, one at a time."""
        log = self.topics.get(tp[0])
        ready = host.alive and tp in host.positions and tp not in host.paused and tp not in host.pumping
        if not ready or log is None:
            return
        at, (start, end) = host.positions[tp], self.span(*tp)
        if not start <= at <= end:
            self._refuse(host, tp, at, start, end)
        elif at < end:
            host.pumping.add(tp)
            self._for(host, self.delay() if at + 1 == end else 0, lambda: self._hand_over(host, tp))

    def _hand_over(self, host: Host, tp: Partition) -> None:
        for _ in range(self.batch):
            offset, (start, end) = host.positions.get(tp), self.span(*tp)
            if offset is None or tp in host.paused or not start <= offset < end or not host.alive:
                break
            s = self.topics[tp[0]][tp[1]][offset]
            host.positions[tp] = offset + 1
            self._give(host, Record(*tp, offset, s.key, s.value, s.timestamp, s.headers))
        host.pumping.discard(tp)
        self._pump(host, tp)

    def _refuse(self, host: Host, tp: Partition, at: int, start: int, end: int) -> None:
        """The log does not hold what is wanted of it."""
        del host.positions[tp]
        tag = host.tags.pop(tp)
        reason = f"{tp[0]}-{tp[1]}: wanted offset {at}, the log holds {start} to {end}: records are lost"
        if tag is None:
            self._for(host, 0, lambda: self._stop(host, Stop(reason)))
        else:
            self._for(host, self.delay(), lambda: self._give(host, Answer(tag, (start, end), reason)))

    def _send(self, host: Host, send: Send) -> None:
        if send.topic not in self.topics:
            reason = f"topic {send.topic} does not exist"
            if send.tag is None and not send.spare:
                self._stop(host, Stop(reason))
            elif send.tag is not None:
                self._tell_error(host, send.tag, reason)
            return
        lane = (send.topic, -1 if send.partition is None else send.partition)
        life = host.lives
        for copy, delay in enumerate(self.network(host, send)):
            at = self.now + delay
            if not copy:  # appends of one sender to one topic keep their order, copies of them need not
                at = host.landing[lane] = max(at, host.landing.get(lane, 0))
            self._count += 1
            number, answers = self._count, not copy
            self._in_flight[number] = host

            def land(number: int = number, answers: bool = answers) -> None:
                if self._in_flight.pop(number, None):
                    place = self.append(send)
                    if send.tag is not None and answers:
                        self._for(host, self.delay(), lambda: self._give(host, Answer(send.tag, place)), life)

            self._at(at - self.now, land)

    def _ask(self, host: Host, tag: Any, answer: Callable[[], Any]) -> None:
        value = answer()
        self._for(host, self.delay(), lambda: self._give(host, Answer(tag, value)))

    def _tell_error(self, host: Host, tag: Any, error: str) -> None:
        self._for(host, self.delay(), lambda: self._give(host, Answer(tag, error=error)))

    def _find(self, topic: str, place: Any) -> tuple[str, bytes] | None:
        log = self.topics[topic][place.partition] if place.partition < len(self.topics[topic]) else []
        hinted = log[place.offset : place.offset + 1]
        for s in [*hinted, *log]:
            if s.key == place.key and s.value is not None:
                return place.key, s.value
        return None

    # ------------------------------------------------------------------ groups

    def _join(self, host: Host) -> None:
        m = host.processor.membership
        if m and host.alive:
            members = self._groups.setdefault(m.group, {})
            if (host, host.lives) not in members:
                members[host, host.lives] = None
                self._rebalance(m)

    def _lost(self, host: Host) -> None:
        life = host.lives

        def expire() -> None:
            if host.frozen or not host.alive or host.lives != life:
                self._leave(host, life)

        self._at(self.session_timeout, expire)

    def _leave(self, host: Host, life: int) -> None:
        m = host.processor.membership
        if m and (host, life) in self._groups.get(m.group, {}):
            del self._groups[m.group][host, life]
            self._rebalance(m)

    def _rebalance(self, m: Membership) -> None:
        """Sticky: everyone keeps what it has up to its share; what is left over goes to who has least."""
        members = self._groups[m.group]
        free = set(range(len(self.topics[m.topic])))
        low, extra = divmod(len(free), len(members) or 1)
        kept: dict[tuple[Host, int], set[int]] = {}
        for i, member in enumerate(sorted(members, key=lambda x: -len(members[x] or ()))):
            kept[member] = set(sorted((members[member] or frozenset()) & free)[: low + (i < extra)])
            free -= kept[member]
        for seat in sorted(free) if kept else ():
            kept[min(kept, key=lambda x: (len(kept[x]), x[0].number))].add(seat)
        for member, seats in kept.items():
            if members[member] != seats:
                members[member] = frozenset(seats)
                self._tell(*member, frozenset(seats))

    def _tell(self, host: Host, life: int, seats: frozenset[int]) -> None:
        if host.lives == life:
            told = host.landing[_GROUP] = max(
                host.landing.get(_GROUP, 0), self.now + self.delay()
            )  # the last said holds
            self._for(host, told - self.now, lambda: self._give(host, Assigned(seats)))
