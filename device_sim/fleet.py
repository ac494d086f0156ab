"""A fleet: many simulated devices behind one edge.

The edge reads Kafka once for all of them, hands answers out by pseudonym, and fetches each model once. The devices decide:
whoever is free and hears of an open round registers, trains when admitted, and sends its weighted delta in blocks.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from device_sim.device import ASLEEP, IDLE, PATIENCE, REGISTERED, TRAINING, Device
from device_sim.pseudonym import pseudonym, seed_of
from learning.codecs import read_values, write_values
from schemas.blocks import CODECS, MOST_LOSS, DeltaBlock, codec, slices
from schemas.messages import Admission, Announcement, CheckIn, FleetReport, Objection, Receipt, Refusal, Registration
from schemas.topics import GLOBAL, read, topic
from schemas.wire import Malformed
from streams.letters import LONGEST_REASON, dead_letter
from streams.models import Lost, assemble, fetch
from streams.processor import Answer, Effect, Ends, Follow, Input, Membership, Record, Requests, Send, Stop, Tick, send

Vector = npt.NDArray[np.float32]
CACHE = 8
"""Model versions that an edge keeps."""


class Run(Protocol):
    """What a device's training gave: new minus base, its samples, and the loss summed over them."""

    @property
    def delta(self) -> Vector: ...
    @property
    def samples(self) -> int: ...
    @property
    def loss_sum(self) -> float: ...


class Learner(Protocol):
    """What the devices of a fleet can train."""

    def objection(self, a: Announcement) -> str:
        """Why they cannot train this task, or ""."""
        ...

    def run(self, a: Announcement, device: Device, base: Vector) -> Run:
        """One device's training for one round."""
        ...


@dataclass(frozen=True)
class Manner:
    """How the devices of a fleet behave. Times in ms."""

    seed: int = 0
    salt: bytes = b"olearning"
    reaction: int = 300
    """A device registers within so long of hearing."""
    training: tuple[int, int] = (300, 1_500)
    """How long a run takes on the slowest and the fastest phone."""
    resend: float = 0.0
    """The share of deltas that are sent twice, as a flaky network makes phones do."""
    report: int = 1_000


class Fleet:
    membership: Membership | None = None
    tick = 20

    def __init__(
        self,
        namespace: str,
        zone: str,
        name: str,
        life: str,
        devices: Sequence[Device],
        learner: Learner,
        manner: Manner = Manner(),
    ):
        self.namespace, self.zone, self.name = namespace, zone, name
        self.devices, self.learner, self.manner = list(devices), learner, manner
        self.topics = {
            w: topic(namespace, zone, w) for w in ("announcements", "registrations", "admissions", "checkins")
        }
        self.receipts = topic(namespace, zone, "receipts")
        self.metrics = topic(namespace, GLOBAL, "metrics")
        self.requests = Requests()
        self.rounds: dict[str, Announcement] = {}
        self.heard: dict[str, int] = {}
        self.objections: dict[str, str] = {}
        self.by_name: dict[str, Device] = {}
        self.tenants: set[str] = set()
        self.cache: OrderedDict[str, Vector] = OrderedDict()
        self.outcomes: dict[str, int] = {}
        self.blocks = self.bytes = self.reported = 0
        self.listening = False

    def start(self, now: int) -> Iterator[Effect]:
        yield Ends(self.requests.new(("from", "admissions")), self.topics["admissions"].name)
        yield Ends(self.requests.new(("from", "receipts")), self.receipts.name)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Record():
                yield from self._record(event, now)
            case Answer(error=error) if error:
                yield Stop(f"fleet {self.name}: {error}")
            case Answer(tag, value):
                yield from self._answer(self.requests.close(tag), value, now)
            case Tick() if self.listening:
                yield from self._tick(now)

    # ------------------------------------------------------------------ the edge

    def _record(self, record: Record, now: int) -> Iterator[Effect]:
        try:
            message = read(record.topic, record.value, record.headers)
        except Malformed as e:
            yield dead_letter(self.namespace, record, str(e), self.name)
            return
        match message:
            case Announcement():
                yield from self._announced(message, now)
            case Admission() if device := self._waits(message):
                device.slot, device.work = message.slot, self.rounds[message.task]
                fast, slow = self.manner.training
                device.become(TRAINING, now, now + fast + device.die(self.manner.seed, "speed", most=slow - fast))
                yield from self._want(device.work)
            case Refusal() if device := self._waits(message):
                device.become(IDLE, now, now + message.retry_ms)
            case Receipt() if message.device in self.by_name:
                self.outcomes[message.outcome] = self.outcomes.get(message.outcome, 0) + len(message.blocks)

    def _waits(self, m: Admission | Refusal) -> Device | None:
        device = self.by_name.get(m.device)
        if device and (device.state, device.task, device.round) == (REGISTERED, m.task, m.round):
            return device
        return None

    def _object(self, task: str, reason: str, now: int) -> Iterator[Send]:
        """What cannot be done for a task, if anything: said once, and it is left alone until its next announcement."""
        if reason and self.objections.get(task) != reason:
            yield send(self.metrics, Objection(self.name, now, task, reason[:LONGEST_REASON]), key=self.name)
        self.objections[task] = reason

    def _announced(self, a: Announcement, now: int) -> Iterator[Send]:
        last = self.rounds.get(a.task)
        if last and last.cause.ledger == a.cause.ledger and last.cause.offset >= a.cause.offset:
            return
        self.rounds[a.task] = a
        self.heard[a.task] = now
        strange = "" if a.codec in CODECS else f"codec {a.codec} is not known here: install the version that knows it"
        yield from self._object(a.task, strange or self.learner.objection(a), now)
        if a.tenant not in self.tenants:
            self.tenants.add(a.tenant)
            self.by_name |= {self._name(d, a.tenant): d for d in self.devices}
        for d in self.devices:  # what is over is over, and so is what another life of this fleet was in
            here = a.open and a.round == d.round
            counts = d.state == TRAINING and 0 <= a.round - d.round <= a.staleness and a.staleness > 0
            if d.state in (REGISTERED, TRAINING) and d.task == a.task and not here and not counts:
                d.drop(now)

    def _name(self, device: Device, tenant: str) -> str:
        return pseudonym(device.id, self.zone, tenant, self.manner.salt)

    def _want(self, a: Announcement) -> Iterator[Effect]:
        """Have a round's model in the cache, or on its way."""
        key = _version(a)
        if key not in self.cache and not self.requests.asked(("model", key, a.base)):
            yield fetch(a.base, self.requests, "model", key, a.base)

    def _answer(self, asked: tuple | None, value: dict, now: int) -> Iterator[Effect]:
        match asked:
            case ("from", str(what)):
                yield from (Follow(topic(self.namespace, self.zone, what).name, p, end) for p, end in value.items())
                if not self.requests.open:
                    self.listening = True
                    yield Follow(self.topics["announcements"].name, 0, 0)
            case ("model", str(key), base):
                try:
                    self.cache[key] = assemble(base, value)
                except Lost as e:  # that task cannot go on; the others can
                    for task in [k for k, a in self.rounds.items() if a.base == base]:
                        yield from self._object(task, str(e), now)
                while len(self.cache) > CACHE:
                    self.cache.popitem(last=False)

    # ------------------------------------------------------------------ the devices

    def _tick(self, now: int) -> Iterator[Effect]:
        trained = False
        for d in self.devices:
            if not d.free(now):
                if d.state != ASLEEP:
                    d.drop(now)
                    d.become(ASLEEP, now)
            elif d.state == ASLEEP:
                d.become(IDLE, now)
                name = pseudonym(d.id, self.zone, "", self.manner.salt)
                yield self._send("checkins", CheckIn(name), name)
            elif d.state == IDLE and now >= d.until:
                yield from self._register(d, now)
            elif d.state == REGISTERED and now - d.since >= PATIENCE:
                d.become(IDLE, now)
            elif d.state == TRAINING and now >= d.until and not trained:
                a = d.work or self.rounds[d.task]
                if self.objections[d.task]:
                    d.drop(now)
                elif (base := self.cache.get(_version(a))) is None:
                    yield from self._want(a)
                else:
                    trained = True  # one a tick: the edge must go on reading
                    yield from self._train(d, a, base, now)
        if now - self.reported >= self.manner.report:
            self.reported = now
            states = [d.state for d in self.devices]
            count = {s: states.count(s) for s in (ASLEEP, IDLE, REGISTERED, TRAINING)}
            yield send(
                self.metrics, FleetReport(self.name, self.zone, now, count, self.blocks, self.bytes), key=self.name
            )

    def _register(self, d: Device, now: int) -> Iterator[Effect]:
        for a in self.rounds.values():
            if a.open and not self.objections[a.task] and d.taken.get(a.task, 0) < a.round and now < a.deadline:
                d.task, d.round = a.task, a.round
                wait = d.die(self.manner.seed, a.task, a.round, most=self.manner.reaction)
                if now < max(d.since, self.heard[a.task]) + wait:
                    return
                d.become(REGISTERED, now)
                name = self._name(d, a.tenant)
                yield self._send("registrations", Registration(name, a.task, a.round), name)
                return

    def _train(self, d: Device, a: Announcement, base: Vector, now: int) -> Iterator[Effect]:
        try:
            run = self.learner.run(a, d, base)
        except Exception as e:  # a tenant's model or data: that task's fault, not this fleet's
            d.drop(now)
            yield from self._object(a.task, f"training failed: {type(e).__name__}: {e}", now)
            return
        d.drop(now)
        try:
            blocks = list(self._blocks(d, a, run))
        except ValueError:
            d.left.pop(a.task, None)
            return  # it diverged: nothing worth sending; its lease runs out
        twice = d.die(self.manner.seed, "resend", a.task, a.round, most=1000) < 1000 * self.manner.resend
        for block in blocks * (2 if twice else 1):
            sent = send(topic(self.namespace, self.zone, "deltas", a.task), block, block.device)
            self.blocks += 1
            self.bytes += len(sent.value)
            yield sent

    def _blocks(self, d: Device, a: Announcement, run: Run) -> Iterable[DeltaBlock]:
        how, weighted = codec(a.codec), run.delta.astype(np.float64) * run.samples
        dice = np.random.default_rng(seed_of(a.seed, d.id, a.task, a.round, "rounding"))
        if how.sparse:
            weighted += d.left.pop(a.task, 0.0)
            d.left[a.task] = weighted.astype(np.float32)
        loss = min(round(run.loss_sum * 1e6), run.samples * MOST_LOSS) if np.isfinite(run.loss_sum) else 0
        for i, piece in enumerate(slices(a.sizes)):
            data, exponent = write_values(weighted[piece], how, a.unit, a.largest, dice, a.keep)
            if how.sparse:
                sent = read_values(how, data, a.sizes[i])
                d.left[a.task][piece][sent.at] -= sent.q * 2.0 ** (a.unit + exponent)
            yield DeltaBlock(
                task=a.task,
                round=a.round,
                slot=d.slot,
                device=self._name(d, a.tenant),
                block=i,
                codec=a.codec,
                exponent=exponent,
                weight=run.samples,
                samples=run.samples,
                loss=loss,
                data=data,
            )

    def _send(self, what: str, message: Registration | CheckIn, key: str) -> Send:
        return send(self.topics[what], message, key)


def _version(a: Announcement) -> str:
    """What a cached model is known by: keys of blocks are unique within their topic."""
    return f"{a.base.topic}/{a.base.blocks[0].key}"
