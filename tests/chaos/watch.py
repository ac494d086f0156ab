"""What goes on in a plane under test, read from its topics: the stage each task is in, who is at work, what was read again.

It folds the ledgers as everyone does, follows delta and partial topics beside them, and fetches every model at the end.
`look` is called after each input: who wants to hit a stage that lasts milliseconds does it from there.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.blocks import Manifest
from schemas.facts import LEADERSHIP, Claimed, Committed, Finalised, Merged, Opened, TaskAdmitted
from schemas.messages import SchedulerReport
from schemas.topics import GLOBAL, read, topic
from schemas.wire import Malformed, Message
from streams.ledger import GlobalTask, Globe, Holder, Ledger, Zone, ZoneTask, identity
from streams.models import assemble, fetch
from streams.processor import Answer, Effect, Follow, Input, Membership, Record, Requests, Stop

ADMITTING, ARRIVING, STORED, CLOSING = "admitting", "deltas arrive", "sums stored", "closed"
FINALISING, BETWEEN, EXECUTING, MERGING = "finalising", "between rounds", "epoch runs", "epoch merges"
TRAINING, IDLE = "devices train", "no round"
SPEAKER = -2
Seat = tuple[str, int]
"""A zone (or the globe), and its leadership or one of its shards; `SPEAKER`: being the scheduler that speaks."""
Vector = npt.NDArray[np.float32]


class Watch:
    """Stops when all tasks have ended and every model they made is here; at once when the books do not add up."""

    membership: Membership | None = None
    name, tick = "watch", 50

    def __init__(self, namespace: str, zones: tuple[str, ...], tasks: tuple[str, ...], partitions: int):
        self.namespace, self.zones, self.tasks, self.partitions = namespace, zones, tasks, partitions
        self.look: Callable[[], None] = lambda: None
        self.told: Callable[[str, Message | None, str, Record], None] = lambda *_: None
        self.ledgers: dict[str, Ledger] = {z: Ledger(Zone()) for z in zones} | {GLOBAL: Ledger(Globe())}
        self._scope = {topic(namespace, z, "ledger").name: z for z in self.ledgers}
        self._partials = {topic(namespace, z, "partials").name: z for z in zones}
        self._metrics = topic(namespace, GLOBAL, "metrics").name
        self.speaker = ""
        """The scheduler that spoke last."""
        self._deltas: dict[str, tuple[str, str]] = {}
        self.sizes: dict[tuple[str, str], list[list[int]]] = defaultdict(lambda: [[] for _ in range(partitions)])
        """By zone and task, for each shard the bytes of every delta record, by offset."""
        self.stored: dict[str, set[str]] = {z: set() for z in zones}
        """Places of sums that no commit names yet; they bear the life of who stored them."""
        self.accepted: list[tuple[str, Message]] = []
        self.voids = 0
        self.broken: list[str] = []
        self.moved = time.monotonic()
        """When the last fact was accepted."""
        self.requests = Requests()
        self.models: dict[tuple[str, str, int], Vector] = {}
        """Every zone's model of a round, and the globe's of an epoch, by task."""
        self.by_key: dict[str, Vector] = {}

    # ------------------------------------------------------------------ inputs

    def start(self, now: int) -> Iterator[Effect]:
        yield from (Follow(name, 0, 0) for name in self._scope)
        yield Follow(self._metrics, 0, 0)
        yield from (Follow(name, p, 0) for name in self._partials for p in range(self.partitions))

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Record(topic=name) if name in self._scope:
                yield from self._fact(self._scope[name], event)
            case Record(topic=name) if name in self._deltas:
                self.sizes[self._deltas[name]][event.partition].append(len(event.value or b""))
            case Record(topic=self._metrics):
                self._hear(event)
            case Record(topic=name, key=str(key)) if name in self._partials:
                self.stored[self._partials[name]].add(key.rsplit("/", 1)[0])
            case Answer():
                where, manifest = self.requests.close(event.tag)
                assert isinstance(manifest, Manifest)
                self.by_key[key_of(manifest)] = model = assemble(manifest, event.value)
                if isinstance(where, tuple):
                    self.models[where] = model
                if not self.requests.open:
                    yield Stop("it is over", ok=True)
        self.look()

    def _fact(self, scope: str, record: Record) -> Iterator[Effect]:
        fact, void = self.ledgers[scope].feed(record)
        if isinstance(fact, Committed):
            for place in filter(None, (fact.bitmap, *fact.sums)):
                self.stored[scope].discard(place.key.rsplit("/", 1)[0])
        if void or fact is None:
            self.voids += 1
        else:
            self.accepted.append((scope, fact))
            self.moved = time.monotonic()
        self.told(scope, fact, void, record)
        if scope != GLOBAL:
            for name, t in self.ledgers[scope].state.tasks.items():
                self.broken += [f"{scope} {name} {n} at {record.offset}" for n in t.rounds if not identity(t, n)]
            if self.broken:
                yield Stop(f"outcomes and offsets do not add up: {self.broken[0]}")
        elif isinstance(fact, TaskAdmitted) and not void:
            for zone in fact.zones:
                name = topic(self.namespace, zone, "deltas", fact.spec.task).name
                self._deltas[name] = zone, fact.spec.task
                yield from (Follow(name, p, 0) for p in range(self.partitions))
        if all(n in self.ledgers[GLOBAL].state.over for n in self.tasks) and not self.requests.last:
            yield from self._fetch()

    def _hear(self, record: Record) -> None:
        try:
            message = read(record.topic, record.value, record.headers)
        except Malformed:
            return
        if isinstance(message, SchedulerReport):
            self.speaker = message.source
            self.told(GLOBAL, message, "", record)

    def _fetch(self) -> Iterator[Effect]:
        wanted: dict[str, tuple[Any, Manifest]] = {}
        for scope, fact in self.accepted:
            match fact:
                case TaskAdmitted(manifest=m, spec=spec):
                    wanted[key_of(m)] = (scope, spec.task, 0), m
                case (
                    Finalised(manifest=Manifest() as m, task=task, round=n)
                    | Merged(manifest=Manifest() as m, task=task, epoch=n)
                ):
                    wanted[key_of(m)] = (scope, task, n), m
        for where, manifest in wanted.values():
            yield fetch(manifest, self.requests, where, manifest)

    # ------------------------------------------------------------------ how things stand

    def globe(self, task: str) -> GlobalTask | None:
        found: GlobalTask | None = self.ledgers[GLOBAL].state.tasks.get(task)
        return found

    def task(self, zone: str, task: str) -> ZoneTask | None:
        found: ZoneTask | None = self.ledgers[zone].state.tasks.get(task)
        return found

    def holder(self, seat: Seat) -> Holder:
        scope, n = seat
        state = self.ledgers[scope].state
        if n == LEADERSHIP:
            return state.leader  # type: ignore[no-any-return]
        return state.shards[n] if state.shards else Holder()

    def seats(self, name: str) -> dict[Seat, int]:
        """All seats that a role holds now, with their tokens."""
        out: dict[Seat, int] = {(GLOBAL, SPEAKER): 0} if name == self.speaker else {}
        for scope, ledger in self.ledgers.items():
            for n in (LEADERSHIP, *range(len(getattr(ledger.state, "shards", ())))):
                if (h := self.holder((scope, n))).token and h.holder == name:
                    out[scope, n] = h.token
        return out

    def stage(self, zone: str, task: str) -> str:
        t = self.task(zone, task)
        if t is None:
            return IDLE
        r = t.rounds[t.round]
        if t.state == "open":
            assert r.opened
            if len(r.devices) < r.opened.demand:
                return ADMITTING
            if self.waiting(zone, task):
                return STORED if self.keys(zone, task) else ARRIVING
            return TRAINING
        if t.state == "closed":
            return CLOSING if min(t.at) <= t.round else FINALISING
        return BETWEEN

    def epoch(self, task: str) -> str:
        g = self.globe(task)
        if g is None or g.state == "admitted":
            return IDLE
        here = [self.task(z, task) for z in g.zones]
        done = all(t and t.epoch == g.epoch and t.merged_rounds >= g.spec.epochs.rounds for t in here)
        return MERGING if g.state != "open" or done else EXECUTING

    def waiting(self, zone: str, task: str) -> list[int]:
        """Shards in whose log there is more than is committed."""
        t = self.task(zone, task)
        return [s for s, log in enumerate(self.sizes[zone, task]) if t and len(log) > t.next[s]]

    def keys(self, zone: str, task: str) -> set[str]:
        """The lives that have stored a sum of this task's present round which no commit names yet."""
        t = self.task(zone, task)
        lives = {h.life for h in self.ledgers[zone].state.shards}
        parts = [k.split("/") for k in self.stored[zone]]
        return {life for name, n, life, _ in parts if t and (name, n) == (task, str(t.round)) and life in lives}

    def ends(self, zone: str) -> dict[tuple[str, int], int]:
        """Where the delta logs of a zone end, as far as was heard, by task and shard."""
        return {(k, s): len(log) for (z, k), logs in self.sizes.items() if z == zone for s, log in enumerate(logs)}

    def replayed(self, seat: Seat, ends: dict[tuple[str, int], int]) -> int:
        """Bytes of a shard's delta logs between the fold's next offset and `ends`."""
        zone, s = seat
        if s < 0:
            return 0
        tasks = self.ledgers[zone].state.tasks.items()
        return sum(sum(self.sizes[zone, k][s][t.next[s] : ends.get((k, s), 0)]) for k, t in tasks)

    def rounds(self, task: str) -> int:
        """How many rounds all zones have finalised."""
        done: dict[str, int] = dict.fromkeys(self.zones, 0)
        for scope, fact in self.accepted:
            if isinstance(fact, Finalised) and fact.task == task:
                done[scope] += 1
        return min(done.values())

    def bases(self, task: str) -> Iterator[tuple[str, int, Vector, Vector]]:
        """Zone, round, the model it started from, and the one it made."""
        for scope, fact in self.accepted:
            if isinstance(fact, Opened) and fact.task == task and (scope, task, fact.round) in self.models:
                yield scope, fact.round, self.by_key[key_of(fact.base)], self.models[scope, task, fact.round]


def key_of(manifest: Manifest) -> str:
    """What a model is known by: keys of blocks are unique within their topic."""
    return f"{manifest.topic}/{manifest.blocks[0].key}"


def names(fact: Message | None) -> set[int]:
    """The tokens under which a fact was offered."""
    match fact:
        case Committed(stretches=stretches):
            return {x.token for x in stretches.values()}
        case Claimed(seats=seats):
            return set(seats.values())
    return {token} if (token := getattr(fact, "token", None)) else set()
