"""A whole plane in memory whose devices the test plays by hand: what it can do to it, and what must hold after each step."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace

from processors import zone_leader
from processors.aggregator import Aggregator
from processors.globe import GlobalCoordinator
from processors.submitter import Submitter
from processors.zone import ZoneCoordinator
from schemas.blocks import MOST_LOSS, DeltaBlock
from schemas.facts import Abandoned
from schemas.messages import Registration
from schemas.partitioner import shard_of
from schemas.sets import bitmap
from schemas.sharing import SHARING, Quota, Sharing, Tenant
from schemas.task import Epochs, Limits, Rounds, Server, TaskSpec
from schemas.topics import GLOBAL, topic, zone_topics
from schemas.wire import encode
from streams.ledger import ZoneTask, snapshot
from streams.memory import Host
from streams.processor import HEADERS, Send, send
from tests.plane import LAYOUT, NS, PARTS, START
from tests.processors.books import HEAVIEST, SIZES, Books, Taped
from tests.processors.rig import blocks, changed

SESSION = 1_000


@dataclass(frozen=True)
class Shape:
    """A plane and its tasks. Times in ms, but those of `rounds` in s."""

    seed: int
    zones: int
    shards: int
    aggregators: int
    standbys: bool
    every: int
    """A checkpoint of a ledger after so many records."""
    commit: int
    hold: int
    """Bytes that a shard holds of deltas that are not whole."""
    rounds: Rounds
    epochs: Epochs
    server: Server
    latency: int
    loss: float
    """The share of a crashed process' appends under way that never land."""
    losses: bool
    """Whether logs lose what is still needed."""
    policy: str = ""
    """By which devices are shared, if somebody says; then the tenant has this quota, too."""
    quota: Quota = field(default_factory=Quota)


# ------------------------------------------------------------------ the world

GARBAGE: dict[str, Callable[[DeltaBlock], dict[str, Any]]] = {
    "slot of another": lambda b: {"slot": b.slot + 1},
    "slot of nobody": lambda b: {"slot": 999},
    "round to come": lambda b: {"round": b.round + 50},
    "too short": lambda b: {"data": b.data[4:]},
    "too large": lambda b: {"exponent": 40},
    "codec": lambda b: {"codec": "lead"},
    "task": lambda b: {"task": "another"},
    "block": lambda b: {"block": 9},
    "no weight": lambda b: {"weight": 0},
    "too heavy": lambda b: {"weight": HEAVIEST + 1},
    "absurd loss": lambda b: {"loss": b.samples * MOST_LOSS + 1},
    "key": lambda b: {},
    "shard": lambda b: {},
    "bytes": lambda b: {},
    "nothing": lambda b: {},
}
DEVICES = 5


class World:
    """The plane, its devices, and what may befall them."""

    def __init__(self, shape: Shape):
        self.shape = shape
        self.failed = False
        self.memory = Taped(seed=shape.seed, latency=(1, shape.latency), session_timeout=SESSION, loss=shape.loss)
        self.zones = ("east", "west")[: shape.zones]
        self.books = Books(self.memory, self.zones)
        self.hosts: dict[str, Host] = {}
        self.unsent: list[tuple[str, DeltaBlock]] = []
        self.sent: list[tuple[str, DeltaBlock]] = []
        self.given = 0
        self.compared: dict[int, int] = {}
        self.wounds: set[tuple[str, str, int]] = set()
        """Zone, task, shard: the log lost its end, and nobody gave that up yet."""
        self.copies, self.late = 0.0, 0
        self.tasks = 0
        self.hold = patch.object(zone_leader, "HOLD", shape.hold)
        self.hold.start()
        for scope in (GLOBAL, *self.zones):
            for t in zone_topics(NS, scope):
                self.memory.create(t.name, t.partitions(shape.shards))
        p, every = shape.shards, shape.every
        for name in ("global", "global-b")[: 1 + shape.standbys]:
            self.host(name, lambda life, n=name: GlobalCoordinator(NS, self.zones, p, n, life, every))
        for zone in self.zones:
            for name in (zone, f"{zone}-b")[: 1 + shape.standbys]:
                self.host(name, lambda life, z=zone, n=name: ZoneCoordinator(NS, z, p, n, life, every))
            for _ in range(shape.aggregators):
                self.join(zone)
        self.memory.network = self.network

    def host(self, name: str, make: Callable[[str], Any]) -> None:
        self.hosts[name] = self.memory.host(make)

    def join(self, zone: str) -> None:
        name, commit = f"{zone}-agg-{len(self.hosts)}", self.shape.commit
        self.host(name, lambda life: Aggregator(NS, zone, name, life, commit, 20_000))

    def network(self, host: Host, s: Send) -> list[int]:
        dice, delay = self.memory.random, self.memory.delay()
        if self.late and dice.random() < 0.3:
            delay += dice.randint(0, self.late)
        return [delay] + ([dice.randint(1, 4_000)] if dice.random() < self.copies else [])

    def run(self, ms: int, until: Callable[[], bool] | None = None) -> bool:
        try:
            return self.memory.run(until, ms)
        except BaseException:
            self.failed = True
            raise

    # ------------------------------------------------------------------ tasks and devices

    def submit(self) -> None:
        self.tasks += 1
        s = self.shape
        if s.policy and self.tasks == 1:
            wishes = {"default": Tenant("default", quota=s.quota), SHARING: Sharing(s.policy)}
            for key, wish in wishes.items():
                self.memory.append(send(topic(NS, GLOBAL, "tenants"), wish, key))
        spec = TaskSpec(
            f"t{self.tasks}",
            "m",
            "d",
            rounds=s.rounds,
            epochs=s.epochs,
            server=s.server,
            limits=Limits(heaviest=HEAVIEST),
        )
        self.memory.host(lambda life: Submitter(NS, life, spec, LAYOUT, START, patience=10**9))

    def open(self) -> list[tuple[str, str, int]]:
        """Zone, task, round."""
        found = []
        for z in self.zones:
            for task, t in self.books.zone(z).tasks.items():
                if t.state == "open":
                    found.append((z, task, t.round))
        return found

    def register(self, zone: str, task: str, n: int, device: int) -> None:
        d, mine = f"p-{device}", PARTS[(device + n) % len(PARTS)] if self.shape.rounds.partial else ()
        wish = Registration(d, task, n, blocks=bitmap(mine, len(SIZES)) if mine else b"")
        self.memory.append(send(topic(NS, zone, "registrations"), wish, d))

    def admitted(self) -> None:
        """Whoever was given a slot since has a delta to send; some also what they do not owe."""
        for zone, task, n, slot, device in self.books.slots[self.given :]:
            owed = self.books.owed[zone, task, n, slot]
            mine = [b for b in blocks(device, slot, n) if b.block in owed or (n + slot) % 3 == 0]
            self.unsent += [(zone, changed(b, task=task, weight=b.weight + b.block)) for b in mine]
        self.given = len(self.books.slots)

    def deliver(self, zone: str, b: DeltaBlock, **more: Any) -> bool:
        name = f"{NS}.{zone}.deltas.{b.task}"
        if (zone, b.task, shard_of(b.device, self.shape.shards)) in self.wounds:
            return False  # a log that lost its end takes nothing until somebody looked at it
        self.memory.append(Send(name, encode(b), more.get("key", b.device), more.get("partition"), None, HEADERS))
        return True

    def send(self, i: int) -> None:
        if self.unsent:
            x = self.unsent.pop(i % len(self.unsent))
            if self.deliver(*x):
                self.sent.append(x)
            else:
                self.unsent.append(x)

    def halves(self, seed: int) -> None:
        """Of every delta that is still whole here, one block."""
        dice, whole = Random(seed), Counter((z, b.task, b.round, b.slot) for z, b in self.unsent)
        for z, b in [x for x in self.unsent if dice.random() < 0.5]:
            if whole[z, b.task, b.round, b.slot] == len(SIZES):
                whole[z, b.task, b.round, b.slot] = 0
                self.send(self.unsent.index((z, b)))

    def garbage(self, kind: str, i: int) -> None:
        known = self.sent + self.unsent
        if not known:
            return
        zone, b = known[i % len(known)]
        name, s = f"{NS}.{zone}.deltas.{b.task}", shard_of(b.device, self.shape.shards)
        if {(zone, b.task, p) for p in range(self.shape.shards)} & self.wounds:
            return
        match kind:
            case "bytes" | "nothing":
                value = b"\xff\xfe" if kind == "bytes" else None
                self.memory.append(Send(name, value, b.device, s))
            case "key":
                self.deliver(zone, b, key="another", partition=s)
            case "shard":
                self.deliver(zone, b, partition=(s + 1) % self.shape.shards)
            case _:
                wrong = changed(b, **GARBAGE[kind](b))
                self.memory.append(Send(name, encode(wrong), b.device, s, None, HEADERS))

    def again(self, what: str, i: int, scope: str = "") -> None:
        """An append that was made once lands another time, however late."""
        names = sorted(n for n in self.memory.topics if n.split(".")[2] == what and scope in n)
        records = [r for n in names for p in range(len(self.memory.topics[n])) for r in self.memory.tape[n, p]]
        if records:
            r = records[-1 - i % len(records)]
            self.memory.append(Send(r.topic, r.value, r.key, r.partition, None, r.headers))

    # ------------------------------------------------------------------ processes

    def named(self, i: int) -> Host:
        return list(self.hosts.values())[i % len(self.hosts)]

    def process(self, h: Host, how: str) -> None:
        match how:
            case "crash":
                h.crash()
            case "freeze" if h.alive and not h.frozen:
                h.freeze()
            case "leave" if h.alive and not h.frozen:
                h.close()
            case "back" if h.alive and h.frozen:
                h.thaw()
            case "back" if not h.alive:
                h.restart()

    def leader(self, scope: str) -> Host | None:
        return self.hosts.get(self.books.folds[scope].state.leader.holder)

    # ------------------------------------------------------------------ logs

    def log(self, i: int) -> tuple[str, str, int, ZoneTask, int] | None:
        """One of the delta logs: zone, task, shard, what the fold says of the task, the first offset that is needed."""
        logs = [(z, task, s) for z in self.zones for task in self.books.zone(z).tasks for s in range(self.shape.shards)]
        if not logs:
            return None
        zone, task, s = logs[i % len(logs)]
        t = self.books.zone(zone).tasks[task]
        return zone, task, s, t, min([t.next[s], *(h.offset for h in t.held[s])])

    def cut(self, i: int, back: int) -> None:
        """Retention, as it should be."""
        if found := self.log(i):
            zone, task, s, _, needed = found
            self.memory.cut(f"{NS}.{zone}.deltas.{task}", s, max(0, needed - back))

    def overtake(self, i: int, more: int) -> None:
        """Retention takes what is still needed."""
        if found := self.log(i):
            zone, task, s, _, needed = found
            name = f"{NS}.{zone}.deltas.{task}"
            end = self.memory.span(name, s)[1]
            if (zone, task, s) not in self.wounds:
                self.memory.cut(name, s, min(end, needed + more))

    def lose(self, i: int, back: int) -> None:
        """A log loses its end, and what was committed is among that."""
        if found := self.log(i):
            zone, task, s, t, _ = found
            name = f"{NS}.{zone}.deltas.{task}"
            to = t.next[s] - back
            if self.memory.span(name, s)[0] <= to:
                self.memory.lose(name, s, to)
                self.wounds.add((zone, task, s))

    def losses(self) -> list[tuple[str, str, int]]:
        """Zone, task, and the `Lost` that it stands still for."""
        found = []
        for z in self.zones:
            found += [(z, task, t.loss.at) for task, t in self.books.zone(z).tasks.items() if t.loss]
        return found

    def abandon(self, zone: str, task: str, at: int) -> None:
        self.memory.append(send(topic(NS, zone, "ledger"), Abandoned(task, at, "ann")))

    # ------------------------------------------------------------------ what must hold

    def check(self) -> None:
        try:
            self._check()
        except BaseException:
            self.failed = True
            raise

    def _check(self) -> None:
        self.books.go_on()
        self.admitted()
        stopped = {h.processor.name: h.stopped.reason for h in self.memory.hosts if h.stopped and not h.stopped.ok}
        assert not stopped, stopped
        for h in self.memory.hosts:
            p: Any = h.processor
            for n, reading in enumerate(getattr(p, "readings", [p.reading])):
                state, scope = reading.state, reading.topic.split(".")[1]
                if self.compared.get(id(reading)) != state.position:
                    self.compared[id(reading)] = state.position
                    right = self.books.snapshots[scope][state.position]
                    assert snapshot(state) == right, f"{p.name} ({n}) folds {scope} otherwise at {state.position}"
        for zone, task, s in list(self.wounds):
            t = self.books.zone(zone).tasks.get(task)
            if t is None or (t.loss is None and t.next[s] <= self.memory.span(f"{NS}.{zone}.deltas.{task}", s)[1]):
                self.wounds.discard((zone, task, s))

    # ------------------------------------------------------------------ the end

    def end(self) -> None:
        """Everyone is back and time goes on: rounds come to their ends, blocks to their outcomes, losses are given up."""
        self.copies, self.late = 0.0, 0
        for h in self.memory.hosts:
            if h.frozen and h.alive:
                h.thaw()
            elif not h.alive and not isinstance(h.processor, Submitter):
                h.restart()
        self.run(2_000)  # whatever is under way lands
        self.check()
        for _ in range(8):
            self.come_to_rest()
            losses = self.losses()
            if not losses:
                return
            marks = {
                (z, task): sum(f.task == task for _, f in self.books.tasks[z, task].finals) for z, task, _ in losses
            }
            self.run(3_000)
            self.check()
            for z, task, at in losses:
                now = len(self.books.tasks[z, task].finals)
                assert now == marks[z, task], f"{task} goes on in {z} in spite of a loss"
                if (t := self.books.zone(z).tasks.get(task)) and t.loss:
                    self.abandon(z, task, at)
            self.run(50)
            self.check()
        raise AssertionError(f"losses without an end: {self.losses()}")

    def come_to_rest(self) -> None:
        ends, rounds = {}, {}
        for z in self.zones:
            for task, t in self.books.zone(z).tasks.items():
                name = f"{NS}.{z}.deltas.{task}"
                ends[z, task] = [self.memory.span(name, s)[1] for s in range(self.shape.shards)]
                rounds[z, task] = t.round

        def over() -> bool:
            if self.books.read < len(self.memory.journal):
                self.books.go_on()
            for (z, task), n in rounds.items():
                t = self.books.zone(z).tasks.get(task)
                if t is None or t.loss:
                    continue
                if t.round == n and t.state != "finalised":
                    return False
                if any(x < end for x, end in zip(t.next, ends[z, task], strict=True)):
                    return False
            return True

        rested = self.run(90_000, over)
        self.check()
        left = {x: replace(t, rounds={}) for x in rounds if (t := self.books.zone(x[0]).tasks.get(x[1]))}
        assert rested, f"it does not come to rest: {left}, logs end at {ends}"

    def close(self) -> None:
        self.hold.stop()


def shuffled(items: range, seed: int) -> list[int]:
    out = list(items)
    Random(seed).shuffle(out)
    return out
